//! The admin listener and its paths.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use serde::Serialize;

use super::host::named;
use super::lifecycle::Lifecycle;
use super::page::PAGE;
use super::probes::{self, ProbeResponse};
use crate::config::Config;
use crate::destination::{Host, Origin, Scheme};
use crate::error::{Error, ErrorKind};
use crate::explain::{EntryPoints, explain};
use crate::policy::Principal;
use crate::proxy::{
    ClientConnection, CredentialProvider, InProgress, Ingress, TooManyAnswers, is_cross_site,
    is_from_host, is_ours, leave_head, next_of,
};
use crate::server::{ConnectionAddrs, ConnectionClass, ConnectionHandler};
use crate::telemetry::{LogThrottle, Metrics, TEXT_FORMAT};

const PATHS: &str =
    "sidentity\n\n/startup\n/liveness\n/readiness\n/metrics\n/status\n/explain?url=URL\n";

/// The state that the admin port shows.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    /// Policy and tokens.
    pub(crate) provider: Arc<CredentialProvider>,
    /// The state of the process.
    pub(crate) lifecycle: Arc<Lifecycle>,
    /// The counters.
    pub(crate) metrics: Arc<Metrics>,
    /// The routes whose tokens readiness waits for.
    pub(crate) routes: Arc<[Arc<Ingress>]>,
    /// `--allowed-host`.
    pub(crate) allowed_hosts: Arc<[Host]>,
    /// The addresses at which calls enter, for explanations.
    pub(crate) entry_points: Arc<EntryPoints>,
    /// The configuration for the status page, with the actual addresses.
    pub(crate) config: Arc<Config>,
    /// Whether `POST /quitquitquit` is permitted.
    pub(crate) quitquitquit: bool,
}

/// The admin port as a service. Each request uses the current generation.
#[derive(Clone, Debug)]
pub(crate) struct AdminPort {
    current: Arc<ArcSwap<Admin>>,
    /// Limits log lines about rejected requests.
    rejections: Arc<LogThrottle>,
}

/// The service of one connection.
#[derive(Debug)]
pub(crate) struct AdminService {
    port: AdminPort,
    connection: ClientConnection,
}

/// The text of a response. With it, the request ends.
#[derive(Debug)]
pub(crate) struct AdminBody {
    text: Bytes,
    _request: InProgress,
}

// === impl AdminPort ===

impl AdminPort {
    /// Creates the admin port. It shows the value of `current` at each request.
    pub(crate) fn new(current: Arc<ArcSwap<Admin>>) -> Self {
        Self {
            current,
            rejections: Arc::default(),
        }
    }

    /// Counts and logs a rejected request, and returns the response.
    fn rejected(&self, metrics: &Metrics, error: &Error) -> Response<Bytes> {
        let row = error.kind().row();
        metrics.proxy_error(error.kind());
        if let Some(suppressed) = self.rejections.due() {
            tracing::info!(
                listener = "admin",
                status = row.status.as_u16(),
                error = row.proxy_status,
                detail = error.detail(),
                suppressed,
                "the admin port refused a request"
            );
        }
        text((row.status, format!("{error}\n")))
    }
}

impl ConnectionHandler for AdminPort {
    type Service = AdminService;

    fn class(&self) -> ConnectionClass {
        ConnectionClass::Admin
    }

    async fn service(
        &self,
        connection: ClientConnection,
        _: Option<ConnectionAddrs>,
    ) -> AdminService {
        AdminService {
            port: self.clone(),
            connection,
        }
    }

    fn malformed(&self, _: Option<ConnectionAddrs>, _: Version, error: &Error) {
        let kind = error.kind();
        let admin = self.current.load();
        admin.metrics.proxy_error(kind);
        if !admin.metrics.logs_malformed() {
            return;
        }
        tracing::info!(
            listener = "admin",
            error = kind.row().proxy_status,
            detail = error.detail(),
            "a request could not be parsed"
        );
    }
}

// === impl AdminService ===

impl Service<Request<Incoming>> for AdminService {
    type Response = Response<AdminBody>;
    type Error = TooManyAnswers;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, TooManyAnswers>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let in_progress = self.connection.state.begin();
        if request.body().is_end_stream() {
            in_progress.request_completed();
        }
        let port = self.port.clone();
        let local = self.connection.local;
        Box::pin(async move {
            let admin = port.current.load_full();
            let response = admin
                .answer(&request, local)
                .await
                .unwrap_or_else(|error| port.rejected(&admin.metrics, &error));
            let (mut head, mut text) = response.into_parts();
            if *request.method() == Method::HEAD {
                leave_head(&mut head.headers, &mut text);
            }
            in_progress.answer(false)?;
            let body = AdminBody {
                text,
                _request: in_progress,
            };
            Ok(Response::from_parts(head, body))
        })
    }
}

// === impl AdminBody ===

impl Body for AdminBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(next_of(&mut self.text).map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.text.len() as u64)
    }
}

// === impl Admin ===

impl Admin {
    async fn answer(
        &self,
        request: &Request<Incoming>,
        local: Option<SocketAddr>,
    ) -> Result<Response<Bytes>, Error> {
        let path = request.uri().path();
        let host = match local {
            Some(_) => named(request)?,
            None => None,
        };
        let known = self.is_known(host, local);
        let probe = match path {
            "/startup" => Some(probes::startup(self)),
            "/liveness" => Some(probes::liveness(self).await),
            "/readiness" => Some(probes::readiness(self).await),
            _ => None,
        };
        if let Some((status, reasons)) = probe {
            // A prober may use any name. Under an unknown one it gets only the status.
            return Ok(text((status, if known { reasons } else { String::new() })));
        }
        if !known {
            return Err(Error::new(
                ErrorKind::Misdirected,
                "this port does not answer for that name: allow it with --allowed-host",
            ));
        }
        let headers = request.headers();
        if is_cross_site(headers, &self.allowed_hosts) && !is_from_host(headers, host) {
            return Err(Error::new(
                ErrorKind::CrossSite,
                "a page of another site may not call here",
            ));
        }
        Ok(match (path, request.method()) {
            ("/metrics", &Method::GET | &Method::HEAD) => {
                typed(StatusCode::OK, TEXT_FORMAT, self.metrics.render())
            }
            ("/status", &Method::GET | &Method::HEAD) => json(&self.status()),
            ("/explain", &Method::GET | &Method::HEAD) => {
                self.explain(request.uri().query().unwrap_or(""))
            }
            ("/quitquitquit", &Method::POST) if self.quitquitquit => {
                self.lifecycle.quit();
                text((StatusCode::OK, "draining\n".into()))
            }
            ("/", &Method::GET | &Method::HEAD) => PAGE.with_security_headers(typed(
                StatusCode::OK,
                "text/html; charset=utf-8",
                PAGE.html.clone(),
            )),
            ("/" | "/metrics" | "/status" | "/explain", _) => method_not_allowed("GET, HEAD"),
            ("/quitquitquit", _) if self.quitquitquit => method_not_allowed("POST"),
            ("/quitquitquit", _) => {
                text((StatusCode::NOT_FOUND, "only with --quitquitquit\n".into()))
            }
            _ => text((StatusCode::NOT_FOUND, PATHS.into())),
        })
    }

    /// Returns whether `Host` is a known name, or an address. A page cannot use an address for DNS rebinding, and
    /// scrapers call by the address of a pod or a machine. HTTP/1.0 probers may omit `Host`.
    fn is_known(&self, host: Option<&str>, local: Option<SocketAddr>) -> bool {
        let (Some(host), Some(local)) = (host, local) else {
            return true;
        };
        Origin::from_authority(Scheme::Http, host).is_ok_and(|origin| {
            matches!(origin.host, Host::Ip(_))
                || is_ours(&origin.host, &local.ip().into(), &self.allowed_hosts)
        })
    }

    fn explain(&self, query: &str) -> Response<Bytes> {
        let url = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("url="))
            .map(|value| value.replace('+', " "))
            .map(|value| {
                percent_encoding::percent_decode_str(&value)
                    .decode_utf8_lossy()
                    .into_owned()
            });
        let explained = url
            .ok_or_else(|| "write /explain?url=https://…".to_owned())
            .and_then(|url| {
                explain(
                    &url,
                    self.provider.policy(),
                    &self.provider.universe(),
                    &self.provider.facts().location_if_known(),
                    &self.entry_points,
                )
                .map_err(|error| error.to_string())
            });
        match explained {
            Ok(mut explanation) => {
                let facts = self.provider.facts();
                if let Some(email) = facts.email_if_known(&Principal::Attached) {
                    let project = facts.project_id_if_known();
                    explanation.name_account(&email, project.as_deref());
                }
                json(&explanation)
            }
            Err(problem) => text((StatusCode::BAD_REQUEST, format!("{problem}\n"))),
        }
    }
}

fn json(value: &impl Serialize) -> Response<Bytes> {
    match serde_json::to_string(value) {
        Ok(json) => typed(StatusCode::OK, "application/json", format!("{json}\n")),
        Err(error) => text((StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))),
    }
}

fn text((status, body): ProbeResponse) -> Response<Bytes> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn method_not_allowed(allowed: &'static str) -> Response<Bytes> {
    let mut response = text((
        StatusCode::METHOD_NOT_ALLOWED,
        format!("only {allowed} here\n"),
    ));
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

fn typed(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}
