//! Layer 8, **Connect**: turns a `CONNECT` into a tunnel (RFC 9110, 9.3.6).
//!
//! With `--intercept`, the TLS of a tunnel is terminated here if a token may be granted for its host. Plaintext HTTP to
//! port 80 is served like absolute-form requests for `http://HOST`, because some clients send those through a tunnel.
//! All other tunnels are blind: no token can be added, and if one was due, the log says how to get it.

use std::sync::Arc;

use http::{Method, Response};
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::either::Either;
use tower::Layer;
use tower::layer::layer_fn;

use crate::destination::{Origin, Scheme};
use crate::diagnostics::NoTokenReason;
use crate::error::{Error, ErrorKind};
use crate::intercept::{SniffOptions, TunnelProtocol, sniff};
use crate::policy::{CredentialGrant, SkipReason};
use crate::proxy::credentials::CredentialProvider;
use crate::proxy::request::Decided;
use crate::proxy::request::body::{RequestBody, ResponseBody};
use crate::proxy::service::{MaybeBoxed, ProxyService};
use crate::proxy::tunnel::intercept::{Interception, OpenedTunnelSender};
use crate::proxy::tunnel::{Tunnels, join};
use crate::telemetry::{Metrics, RateLimiter, tunnel_without_token};
use crate::upstream::Upstream;

/// The layer that opens tunnels.
#[derive(Clone, Debug)]
pub(crate) struct Connect<S> {
    inner: S,
    opener: TunnelOpener,
}

/// Opens a tunnel: to the upstream, or to the server for the requests inside.
#[derive(Clone, Debug)]
pub(crate) struct TunnelOpener {
    pub(crate) upstream: Upstream<RequestBody>,
    pub(crate) tunnels: Tunnels,
    pub(crate) provider: Arc<CredentialProvider>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) hints: Arc<RateLimiter>,
    pub(crate) interception: Option<Interception>,
    pub(crate) opened: OpenedTunnelSender,
}

// === impl Connect ===

impl<S> Connect<S> {
    pub(crate) fn layer(opener: TunnelOpener) -> impl Layer<S, Service = Self> + Clone {
        layer_fn(move |inner| Self {
            inner,
            opener: opener.clone(),
        })
    }
}

impl<S: ProxyService<Decided>> Service<Decided> for Connect<S> {
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = MaybeBoxed<S::Future>;

    fn call(&self, decided: Decided) -> Self::Future {
        if decided.request.method() != Method::CONNECT {
            return MaybeBoxed::inner(self.inner.call(decided));
        }
        // Tokens are for the requests inside, which have records of their own.
        if decided.slot.is_some() {
            decided.record.set_unauthenticated();
        }
        let opener = self.opener.clone();
        let origin = &decided.destination.origin;
        let interception = opener.interception(&over_tls(origin));
        if origin.scheme == Scheme::Http {
            if let Some(reason) = opener.denies_all(&decided) {
                return MaybeBoxed::rejected(Error::new(ErrorKind::Denied, reason));
            }
        } else if let Err(reason) = interception {
            return MaybeBoxed::boxed(opener.tunnel(decided, reason));
        }
        let response = opener.open(decided, interception);
        MaybeBoxed::boxed(async move { Ok(response) })
    }
}

// === impl TunnelOpener ===

impl TunnelOpener {
    /// Returns what terminates the TLS of a tunnel to this origin, or the reason why it stays blind.
    fn interception(&self, origin: &Origin) -> Result<Interception, NoTokenReason> {
        let interception = self
            .interception
            .as_ref()
            .ok_or(NoTokenReason::InterceptOff)?;
        let policy = self.provider.policy();
        let covered = interception.interceptor.covers(&origin.host)
            && policy.may_grant(origin, &self.provider.universe());
        covered
            .then(|| interception.clone())
            .ok_or(NoTokenReason::NotCovered)
    }

    /// Returns the reason, if requests for this origin are denied whatever their path.
    fn denies_all<'a>(&self, decided: &'a Decided) -> Option<&'a str> {
        let CredentialGrant::Deny(reason) = &decided.decision.grant else {
            return None;
        };
        let policy = self.provider.policy();
        let origin = &decided.destination.origin;
        let varies = policy.depends_on_path(origin, &self.provider.universe())
            || policy.service(&decided.destination).is_some();
        (!varies).then_some(reason)
    }

    /// Returns whether a token may be granted for requests inside.
    fn may_grant(&self, decided: &Decided) -> bool {
        let policy = self.provider.policy();
        let destination = &decided.destination;
        policy.may_grant(&destination.origin, &self.provider.universe())
            || policy.service(destination).is_some()
    }

    /// Returns whether a rule denies a path of this origin.
    fn denies_some(&self, origin: &Origin) -> bool {
        self.provider.policy().denying_rule(origin).is_some()
    }

    /// Opens a blind tunnel. The upstream is dialled before the answer 200.
    async fn tunnel(
        self,
        mut decided: Decided,
        reason: NoTokenReason,
    ) -> Result<Response<ResponseBody>, Error> {
        let upstream = self.connect(&decided, reason).await?;
        let app = hyper::upgrade::on(&mut decided.request);
        self.tunnels
            .spawn(decided.record, app, async move { Some(upstream) });
        Ok(Response::new(ResponseBody::empty()))
    }

    /// Answers 200, and then decides by the app's first bytes. An upstream of requests inside is dialled by the first
    /// of them, whose answer can say why that failed.
    fn open(
        self,
        mut decided: Decided,
        interception: Result<Interception, NoTokenReason>,
    ) -> Response<ResponseBody> {
        let options = SniffOptions {
            http: decided.destination.origin.scheme == Scheme::Http,
            rules: self.may_grant(&decided) || self.denies_some(&decided.destination.origin),
        };
        let app = hyper::upgrade::on(&mut decided.request);
        let tunnels = self.tunnels.clone();
        tunnels.track(async move {
            let Ok(app) = app.await else { return };
            let origin = decided.destination.origin.clone();
            let (protocol, app) = match sniff(TokioIo::new(app), options).await {
                Ok(sniffed) => sniffed,
                Err(error) => {
                    tracing::debug!(%origin, %error, "a tunnel ended before its first byte");
                    return;
                }
            };
            let reason = match (protocol, interception) {
                (TunnelProtocol::Http, _) => {
                    let record = decided.record;
                    return self.opened.send(record, origin, Either::Right(app)).await;
                }
                (TunnelProtocol::Tls, Ok(interception)) => {
                    let (record, origin) = (decided.record, over_tls(&origin));
                    return interception.open(record, origin, app, &self.hints).await;
                }
                (TunnelProtocol::Tls, Err(reason)) => reason,
                (TunnelProtocol::Incomplete, _) => {
                    tracing::debug!(%origin, "a tunnel ended before a complete request line or ClientHello");
                    return;
                }
                (TunnelProtocol::Silence, _) => NoTokenReason::NothingSent,
                (TunnelProtocol::Other, _) if options.http => NoTokenReason::NotHttp,
                (TunnelProtocol::Other, _) => NoTokenReason::NotTls,
            };
            match self.connect(&decided, reason).await {
                Ok(upstream) => join(decided.record.transfer(), app, upstream).await,
                Err(error) => {
                    decided.record.set_interrupted(&error);
                    tracing::debug!(%origin, error = ?error, "a tunnel could not be opened");
                }
            }
        });
        Response::new(ResponseBody::empty())
    }

    /// Connects a blind tunnel to the upstream, unless a rule denies the host or a path of it, which the tunnel would
    /// hide.
    async fn connect(&self, decided: &Decided, reason: NoTokenReason) -> Result<TcpStream, Error> {
        if let CredentialGrant::Deny(reason) = &decided.decision.grant {
            return Err(Error::new(ErrorKind::Denied, &**reason));
        }
        let origin = &decided.destination.origin;
        if let Some(rule) = self.provider.policy().denying_rule(origin) {
            decided.record.set_denied_by(rule);
            return Err(Error::new(
                ErrorKind::Denied,
                format!(
                    "{rule} denies paths of this host, and this tunnel hides the path of each request: add a --route for \
                     the host"
                ),
            ));
        }
        if decided.slot.is_some() || self.may_grant(decided) {
            self.metrics.skipped(SkipReason::Tunnel);
            tunnel_without_token(&self.hints, origin, reason);
            self.metrics.recent().tunnel_without_token(origin, reason);
        }
        self.upstream.tunnel(origin, decided.dns_priority()).await
    }
}

/// Returns the origin of the same host and port, with the scheme `https`.
fn over_tls(origin: &Origin) -> Origin {
    Origin {
        scheme: Scheme::Https,
        ..origin.clone()
    }
}
