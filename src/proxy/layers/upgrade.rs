//! Layer 13, **Upgrade**: after `101 Switching Protocols` the two connections are joined (RFC 9110, 7.8). The tunnel holds its
//! record, so that it is counted, timed and waited for.

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

use crate::error::{Error, ErrorKind};
use crate::proxy::request::Call;
use crate::proxy::request::body::Body;
use crate::proxy::request::record::RequestRecord;
use crate::proxy::service::{Outcome, ProxyService};
use crate::proxy::tunnel::Tunnels;

/// Makes [`Upgrade`].
#[derive(Clone, Debug)]
pub(crate) struct UpgradeLayer {
    pub(crate) tunnels: Tunnels,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Upgrade<S> {
    inner: S,
    tunnels: Tunnels,
}

pin_project! {
    /// The answer on its way back.
    #[derive(Debug)]
    pub struct UpgradeFuture<F> {
        #[pin]
        inner: F,
        asked: Option<(OnUpgrade, Arc<RequestRecord>)>,
        tunnels: Tunnels,
    }
}

impl<S> Layer<S> for UpgradeLayer {
    type Service = Upgrade<S>;

    fn layer(&self, inner: S) -> Upgrade<S> {
        Upgrade {
            inner,
            tunnels: self.tunnels.clone(),
        }
    }
}

impl<S: ProxyService<Call>> Service<Call> for Upgrade<S> {
    type Response = Response<Body>;
    type Error = Error;
    type Future = UpgradeFuture<S::Future>;

    fn call(&self, mut call: Call) -> Self::Future {
        let asked = call
            .upgrade
            .then(|| (hyper::upgrade::on(&mut call.request), call.record.clone()));
        UpgradeFuture {
            inner: self.inner.call(call),
            asked,
            tunnels: self.tunnels.clone(),
        }
    }
}

impl<F> Future for UpgradeFuture<F>
where
    F: Future<Output = Outcome>,
{
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some((app, record)) = this.asked.take() else {
                return Poll::Ready(Err(Error::new(
                    ErrorKind::HttpProtocol,
                    "the upstream switched protocols unasked",
                )));
            };
            let upstream = hyper::upgrade::on(&mut response);
            this.tunnels.spawn(
                record,
                app,
                async move { upstream.await.ok().map(TokioIo::new) },
            );
            *response.body_mut() = Body::empty();
        }
        Poll::Ready(Ok(response))
    }
}
