//! Layer 13, **Upgrade**: joins the two connections after `101 Switching Protocols` (RFC 9110, 7.8). The tunnel holds
//! the request's record, so it is counted, timed and drained.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::service::Service;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tower::Layer;
use tower::layer::layer_fn;

use crate::error::{Error, ErrorKind};
use crate::proxy::headers::hop_by_hop::items;
use crate::proxy::request::Outbound;
use crate::proxy::request::body::ResponseBody;
use crate::proxy::request::record::RequestRecord;
use crate::proxy::service::{LayerResult, ProxyService};
use crate::proxy::tunnel::Tunnels;

/// The layer that joins two upgraded connections.
#[derive(Clone, Debug)]
pub(crate) struct Upgrade<S> {
    inner: S,
    tunnels: Tunnels,
}

/// A request for an upgrade.
#[derive(Debug)]
struct Requested {
    app: OnUpgrade,
    record: Arc<RequestRecord>,
    /// The `Upgrade` header fields.
    protocols: Vec<HeaderValue>,
}

pin_project! {
    /// The future of [`Upgrade`].
    #[derive(Debug)]
    pub(crate) struct UpgradeFuture<F> {
        #[pin]
        inner: F,
        app: Option<Requested>,
        tunnels: Tunnels,
    }
}

// === impl Upgrade ===

impl<S> Upgrade<S> {
    pub(crate) fn layer(tunnels: Tunnels) -> impl Layer<S, Service = Self> + Clone {
        layer_fn(move |inner| Self {
            inner,
            tunnels: tunnels.clone(),
        })
    }
}

impl<S: ProxyService<Outbound>> Service<Outbound> for Upgrade<S> {
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = UpgradeFuture<S::Future>;

    fn call(&self, mut outbound: Outbound) -> Self::Future {
        let app = outbound.wants_upgrade.then(|| Requested {
            app: hyper::upgrade::on(&mut outbound.request),
            record: outbound.record.clone(),
            protocols: upgrades(outbound.request.headers()).cloned().collect(),
        });
        UpgradeFuture {
            inner: self.inner.call(outbound),
            app,
            tunnels: self.tunnels.clone(),
        }
    }
}

// === impl Requested ===

impl Requested {
    /// Returns a protocol of a 101 response that the request did not offer (RFC 9110, 7.8).
    fn unwanted(&self, response: &HeaderMap) -> Option<String> {
        let is_offered = |protocol: &[u8]| {
            let mut offers = self.protocols.iter().flat_map(items);
            offers.any(|offer| offer.eq_ignore_ascii_case(protocol))
        };
        let unwanted = upgrades(response)
            .flat_map(items)
            .find(|protocol| !protocol.is_empty() && !is_offered(protocol))?;
        Some(String::from_utf8_lossy(unwanted).into_owned())
    }
}

fn upgrades(headers: &HeaderMap) -> impl Iterator<Item = &HeaderValue> {
    headers.get_all(header::UPGRADE).into_iter()
}

// === impl UpgradeFuture ===

impl<F> Future for UpgradeFuture<F>
where
    F: Future<Output = LayerResult>,
{
    type Output = LayerResult;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LayerResult> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(requested) = this.app.take() else {
                return Poll::Ready(Err(Error::new(
                    ErrorKind::HttpProtocol,
                    "the upstream switched protocols without a request to do so",
                )));
            };
            if let Some(protocol) = requested.unwanted(response.headers()) {
                return Poll::Ready(Err(Error::new(
                    ErrorKind::HttpProtocol,
                    format!(
                        "the upstream switched to {protocol:?}, which the request did not offer"
                    ),
                )));
            }
            let Requested { app, record, .. } = requested;
            let upstream = hyper::upgrade::on(&mut response);
            this.tunnels.spawn(
                record,
                app,
                async move { upstream.await.ok().map(TokioIo::new) },
            );
            *response.body_mut() = ResponseBody::empty();
        }
        Poll::Ready(Ok(response))
    }
}
