//! The admin listener and its paths.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use serde::Serialize;
use tokio::net::TcpStream;

use super::lifecycle::Lifecycle;
use super::page::PAGE;
use super::probes::{self, Answer};
use crate::config::Config;
use crate::destination::{Host, Origin, Scheme};
use crate::policy::{Ways, explain};
use crate::proxy::{Decider, Entrance, is_cross_site, is_ours};
use crate::server::{Listener, Socket};
use crate::telemetry::{Metrics, TEXT_FORMAT};

/// A client that sends nothing for this long is disconnected: this port may be open to a network.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

const PATHS: &str =
    "sidentity\n\n/startup\n/liveness\n/readiness\n/metrics\n/status\n/explain?url=URL\n";

/// What the admin port shows.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Policy and tokens.
    pub decider: Arc<Decider>,
    /// Where the process stands.
    pub lifecycle: Arc<Lifecycle>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The routes whose tokens readiness waits for.
    pub routes: Arc<[Arc<Entrance>]>,
    /// `--allowed-host`.
    pub allowed_hosts: Arc<[Host]>,
    /// The ways in, for explanations.
    pub ways: Arc<Ways>,
    /// What the status page shows of it: addresses are those that are listened on.
    pub config: Arc<Config>,
    /// Whether `POST /quitquitquit` is taken.
    pub quitquitquit: bool,
}

impl Admin {
    /// Accepts for as long as the process lives: probes and the last scrape come while draining too. Each request is
    /// shown what is current then.
    pub async fn serve(current: Arc<ArcSwap<Self>>, listener: Listener) {
        let Socket::Tcp(socket) = &listener.socket else {
            return;
        };
        loop {
            match socket.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(Self::connection(current.clone(), stream));
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin port cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn connection(current: Arc<ArcSwap<Self>>, stream: TcpStream) {
        let Ok(local) = stream.local_addr() else {
            return;
        };
        let service = service_fn(move |request: Request<Incoming>| {
            let admin = current.load_full();
            async move { Ok::<_, Infallible>(admin.answer(&request, local).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT);
        builder.http2().timer(TokioTimer::new());
        if let Err(error) = builder
            .serve_connection(TokioIo::new(stream), service)
            .await
        {
            tracing::debug!(error, "admin connection ended");
        }
    }

    async fn answer(
        &self,
        request: &Request<Incoming>,
        local: SocketAddr,
    ) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let known = self.is_known(request, local);
        let probe = match path {
            "/startup" => Some(probes::startup(self)),
            "/liveness" => Some(probes::liveness(self).await),
            "/readiness" => Some(probes::readiness(self).await),
            _ => None,
        };
        if let Some((status, reasons)) = probe {
            // A prober may call by any name; who calls by a strange one learns the status alone.
            return text((status, if known { reasons } else { String::new() }));
        }
        if !known {
            return text((
                StatusCode::MISDIRECTED_REQUEST,
                "this port does not answer for that name: allow it with --allowed-host\n".into(),
            ));
        }
        if is_cross_site(request.headers(), &self.allowed_hosts) {
            return text((
                StatusCode::FORBIDDEN,
                "a page of another site may not call here\n".into(),
            ));
        }
        match (path, request.method()) {
            ("/metrics", &Method::GET | &Method::HEAD) => {
                typed(StatusCode::OK, TEXT_FORMAT, self.metrics.render())
            }
            ("/status", &Method::GET | &Method::HEAD) => json(&self.status()),
            ("/explain", &Method::GET) => self.explain(request.uri().query().unwrap_or("")),
            ("/quitquitquit", &Method::POST) if self.quitquitquit => {
                self.lifecycle.quit();
                text((StatusCode::OK, "draining\n".into()))
            }
            ("/", &Method::GET | &Method::HEAD) => PAGE.guard(typed(
                StatusCode::OK,
                "text/html; charset=utf-8",
                PAGE.html.clone(),
            )),
            ("/" | "/metrics" | "/status" | "/explain", _) => method_not_allowed("GET"),
            ("/quitquitquit", _) if self.quitquitquit => method_not_allowed("POST"),
            ("/quitquitquit", _) => {
                text((StatusCode::NOT_FOUND, "only with --quitquitquit\n".into()))
            }
            _ => text((StatusCode::NOT_FOUND, PATHS.into())),
        }
    }

    /// `Host` is one of ours, against DNS rebinding. HTTP/1.0 probers may leave it out.
    fn is_known(&self, request: &Request<Incoming>, local: SocketAddr) -> bool {
        let named = request
            .uri()
            .authority()
            .map(|authority| authority.as_str().as_bytes())
            .or_else(|| {
                request
                    .headers()
                    .get(header::HOST)
                    .map(HeaderValue::as_bytes)
            });
        let Some(named) = named else { return true };
        std::str::from_utf8(named)
            .ok()
            .and_then(|named| Origin::from_authority(Scheme::Http, named).ok())
            .is_some_and(|origin| is_ours(&origin.host, &local.ip().into(), &self.allowed_hosts))
    }

    fn explain(&self, query: &str) -> Response<Full<Bytes>> {
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
                    self.decider.policy(),
                    &self.decider.universe(),
                    &self.decider.instance().home_if_known(),
                    &self.ways,
                )
                .map_err(|error| error.to_string())
            });
        match explained {
            Ok(explanation) => json(&explanation),
            Err(problem) => text((StatusCode::BAD_REQUEST, format!("{problem}\n"))),
        }
    }
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_string(value) {
        Ok(json) => typed(StatusCode::OK, "application/json", format!("{json}\n")),
        Err(error) => text((StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))),
    }
}

fn text((status, body): Answer) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn method_not_allowed(allowed: &'static str) -> Response<Full<Bytes>> {
    let mut response = text((
        StatusCode::METHOD_NOT_ALLOWED,
        format!("only {allowed} here\n"),
    ));
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

fn typed(status: StatusCode, media_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
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
