//! Layer 9, **Connect**: a `CONNECT` becomes a tunnel (RFC 9110, 9.3.6). Where a token may be due and `--intercept` is on, its TLS
//! is opened. HTTP in cleartext to port 80 is served like requests for `http://HOST`, for that is what some clients send in
//! their place. Every other tunnel is blind: what is inside is the app's and the upstream's alone, so no token can be put
//! into it; where one was due, the log says how to get one.

use std::sync::Arc;

use http::{Method, Response};
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::either::Either;
use tower::Layer;

use crate::destination::{Origin, Scheme};
use crate::error::{Error, ErrorKind};
use crate::intercept::{Expected, Opening, sniff};
use crate::policy::{Grant, SkipReason};
use crate::proxy::credentials::Decider;
use crate::proxy::request::Decided;
use crate::proxy::request::body::{Body, RequestBody};
use crate::proxy::service::{MaybeBoxed, ProxyService};
use crate::proxy::tunnel::intercept::{Interception, OpenedTunnelSender};
use crate::proxy::tunnel::{Tunnels, join};
use crate::telemetry::{Blind, Metrics, Seldom, tunnel_without_token};
use crate::upstream::Upstream;

/// Makes [`Connect`].
#[derive(Clone, Debug)]
pub(crate) struct ConnectLayer {
    pub(crate) upstream: Upstream<RequestBody>,
    pub(crate) tunnels: Tunnels,
    pub(crate) decider: Arc<Decider>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) hints: Arc<Seldom>,
    pub(crate) interception: Option<Interception>,
    pub(crate) opened: OpenedTunnelSender,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Connect<S> {
    inner: S,
    layer: ConnectLayer,
}

impl<S> Layer<S> for ConnectLayer {
    type Service = Connect<S>;

    fn layer(&self, inner: S) -> Connect<S> {
        Connect {
            inner,
            layer: self.clone(),
        }
    }
}

impl<S: ProxyService<Decided>> Service<Decided> for Connect<S> {
    type Response = Response<Body>;
    type Error = Error;
    type Future = MaybeBoxed<S::Future>;

    fn call(&self, decided: Decided) -> Self::Future {
        if decided.call.request.method() != Method::CONNECT {
            return MaybeBoxed::inner(self.inner.call(decided));
        }
        // A token is for the requests inside, and each of those counts for itself.
        if decided.slot.is_some() {
            decided.call.record.set_unauthenticated();
        }
        let layer = self.layer.clone();
        let origin = &decided.call.destination.origin;
        let opens = layer.opens(&over_tls(origin));
        if origin.scheme == Scheme::Http {
            if let Some(reason) = layer.denies_all(&decided) {
                return MaybeBoxed::rejected(Error::new(ErrorKind::Denied, reason));
            }
        } else if let Err(blind) = opens {
            return MaybeBoxed::boxed(layer.tunnel(decided, blind));
        }
        let response = layer.open(decided, opens);
        MaybeBoxed::boxed(async move { Ok(response) })
    }
}

// === impl ConnectLayer ===

impl ConnectLayer {
    /// Who opens a tunnel to this origin; else, why it stays blind.
    fn opens(&self, origin: &Origin) -> Result<Interception, Blind> {
        let interception = self.interception.as_ref().ok_or(Blind::NotAsked)?;
        let policy = self.decider.policy();
        let covered = interception.interceptor.covers(&origin.host)
            && policy.may_grant(origin, &self.decider.universe());
        covered
            .then(|| interception.clone())
            .ok_or(Blind::NotCovered)
    }

    /// Why no request for this origin is carried, whatever its path.
    fn denies_all<'a>(&self, decided: &'a Decided) -> Option<&'a str> {
        let Grant::Deny(reason) = &decided.decision.grant else {
            return None;
        };
        let policy = self.decider.policy();
        let origin = &decided.call.destination.origin;
        let varies = policy.depends_on_path(origin, &self.decider.universe())
            || policy.service(&decided.call.destination).is_some();
        (!varies).then_some(reason)
    }

    /// The requests inside may be due a token.
    fn may_be_due(&self, decided: &Decided) -> bool {
        let policy = self.decider.policy();
        let destination = &decided.call.destination;
        policy.may_grant(&destination.origin, &self.decider.universe())
            || policy.service(destination).is_some()
    }

    /// A rule denies a path of this origin.
    fn denies_some(&self, origin: &Origin) -> bool {
        self.decider.policy().may_deny(origin)
    }

    /// The tunnel is dug first: 200 says that it leads somewhere.
    async fn tunnel(self, decided: Decided, blind: Blind) -> Result<Response<Body>, Error> {
        let upstream = self.connect(&decided, blind).await?;
        let mut call = decided.call;
        let downstream = hyper::upgrade::on(&mut call.request);
        self.tunnels
            .spawn(call.record, downstream, async move { Some(upstream) });
        Ok(Response::new(Body::empty()))
    }

    /// 200 comes first, for it depends on what the app says then; the upstream is dialled by the first request inside,
    /// which can be told why where that fails.
    fn open(self, mut decided: Decided, opens: Result<Interception, Blind>) -> Response<Body> {
        let expected = Expected {
            http: decided.call.destination.origin.scheme == Scheme::Http,
            rules: self.may_be_due(&decided) || self.denies_some(&decided.call.destination.origin),
        };
        let app = hyper::upgrade::on(&mut decided.call.request);
        let tunnels = self.tunnels.clone();
        tunnels.track(async move {
            let Ok(app) = app.await else { return };
            let origin = decided.call.destination.origin.clone();
            let (opening, app) = match sniff(TokioIo::new(app), expected).await {
                Ok(sniffed) => sniffed,
                Err(error) => {
                    tracing::debug!(%origin, %error, "a tunnel ended before its first byte");
                    return;
                }
            };
            let blind = match (opening, opens) {
                (Opening::Http, _) => {
                    let record = decided.call.record;
                    return self.opened.send(record, origin, Either::Right(app)).await;
                }
                (Opening::Tls, Ok(interception)) => {
                    let (record, origin) = (decided.call.record, over_tls(&origin));
                    return interception.open(record, origin, app, &self.hints).await;
                }
                (Opening::Tls, Err(blind)) => blind,
                (Opening::Silence, _) => Blind::Silent,
                (Opening::Other, _) if expected.http => Blind::NotHttp,
                (Opening::Other, _) => Blind::NotTls,
            };
            let dug = if expected.http && opening != Opening::Tls && self.denies_some(&origin) {
                // A lenient server may read other bytes as a request for such a path.
                let why =
                    "a rule denies a path of this host, and what is inside the tunnel is not HTTP";
                Err(Error::new(ErrorKind::Denied, why))
            } else {
                self.connect(&decided, blind).await
            };
            match dug {
                Ok(upstream) => join(&decided.call.record, app, upstream).await,
                Err(error) => {
                    decided.call.record.failed(&error);
                    self.metrics.proxy_error(error.kind());
                    tracing::debug!(%origin, error = ?error, "a tunnel ends where it began");
                }
            }
        });
        Response::new(Body::empty())
    }

    /// The upstream's end of a blind tunnel.
    async fn connect(&self, decided: &Decided, blind: Blind) -> Result<TcpStream, Error> {
        if let Grant::Deny(reason) = &decided.decision.grant {
            return Err(Error::new(ErrorKind::Denied, &**reason));
        }
        let origin = &decided.call.destination.origin;
        if decided.slot.is_some() || self.may_be_due(decided) {
            self.metrics.skipped(SkipReason::Tunnel);
            tunnel_without_token(&self.hints, origin, blind);
            self.metrics.recent().tunnel_without_token(origin, blind);
        }
        let priority = decided.call.record.dns_priority();
        self.upstream.tunnel(origin, priority).await
    }
}

/// The same host and port, spoken to over TLS.
fn over_tls(origin: &Origin) -> Origin {
    Origin {
        scheme: Scheme::Https,
        ..origin.clone()
    }
}
