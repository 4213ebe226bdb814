//! Layer 13, **Upgrade**: joins the two connections after `101 Switching Protocols` (RFC 9110, 7.8). The tunnel holds the
//! request's record, so it is counted, timed and drained.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Response, StatusCode};
use hyper::service::Service;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tower::Layer;
use tower::layer::layer_fn;

use crate::error::{Error, ErrorKind};
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

pin_project! {
    /// The future of [`Upgrade`].
    #[derive(Debug)]
    pub(crate) struct UpgradeFuture<F> {
        #[pin]
        inner: F,
        app: Option<(OnUpgrade, Arc<RequestRecord>)>,
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
        let app = outbound.wants_upgrade.then(|| {
            let upgrade = hyper::upgrade::on(&mut outbound.request);
            (upgrade, outbound.record.clone())
        });
        UpgradeFuture {
            inner: self.inner.call(outbound),
            app,
            tunnels: self.tunnels.clone(),
        }
    }
}

impl<F> Future for UpgradeFuture<F>
where
    F: Future<Output = LayerResult>,
{
    type Output = LayerResult;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LayerResult> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some((app, record)) = this.app.take() else {
                return Poll::Ready(Err(Error::new(
                    ErrorKind::HttpProtocol,
                    "the upstream switched protocols without a request to do so",
                )));
            };
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
