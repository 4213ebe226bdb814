//! Layer 2, **Rescue**: turns errors into responses, counts and records them. No other layer does.
//!
//! If the upstream has not processed a request, and it cannot be sent again, its HTTP/2 stream is reset with
//! REFUSED_STREAM instead (RFC 9113, 8.7).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderValue, Response, header};
use hyper::service::Service;
use pin_project_lite::pin_project;
use tower::Layer;
use tower::layer::layer_fn;

use crate::error::Error;
use crate::proxy::error_response::{grpc, head_only, problem};
use crate::proxy::headers::grpc::is_grpc;
use crate::proxy::request::Inbound;
use crate::proxy::request::body::ResponseBody;
use crate::proxy::request::record::RequestRecord;
use crate::proxy::service::{LayerResult, ProxyService};
use crate::telemetry::Metrics;

/// The layer that turns errors into responses.
#[derive(Clone, Debug)]
pub(crate) struct Rescue<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

pin_project! {
    /// The future of [`Rescue`].
    #[derive(Debug)]
    pub(crate) struct RescueFuture<F> {
        #[pin]
        inner: F,
        record: Arc<RequestRecord>,
        metrics: Arc<Metrics>,
        grpc: bool,
    }
}

// === impl Rescue ===

impl<S> Rescue<S> {
    pub(crate) fn layer(metrics: Arc<Metrics>) -> impl Layer<S, Service = Self> + Clone {
        layer_fn(move |inner| Self {
            inner,
            metrics: metrics.clone(),
        })
    }

    pub(crate) const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}

impl<S: ProxyService<Inbound>> Service<Inbound> for Rescue<S> {
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = RescueFuture<S::Future>;

    fn call(&self, inbound: Inbound) -> Self::Future {
        RescueFuture {
            record: inbound.record.clone(),
            metrics: self.metrics.clone(),
            grpc: is_grpc(inbound.request.headers()),
            inner: self.inner.call(inbound),
        }
    }
}

impl<F> Future for RescueFuture<F>
where
    F: Future<Output = LayerResult>,
{
    type Output = LayerResult;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LayerResult> {
        let this = self.project();
        Poll::Ready(match ready!(this.inner.poll(cx)) {
            Ok(response) => Ok(response),
            Err(error) => {
                this.metrics.proxy_error(error.kind());
                tracing::debug!(error = ?error, "request failed");
                rescue(this.record, *this.grpc, error)
            }
        })
    }
}

/// Returns the response for an error. Returns an error to reset the stream or, over HTTP/1, to close the connection.
fn rescue(record: &RequestRecord, is_grpc: bool, error: Error) -> LayerResult {
    if error.is_unprocessed() && record.is_http2() {
        // hyper resets the stream with REFUSED_STREAM, and the app may send the request again.
        record.set_failed(&error, Some(error.kind().row().status));
        record.transfer().complete();
        return Err(error);
    }
    if record.answer_ourselves(error.kind()).is_err() {
        record.set_failed(&error, None);
        return Err(error.caused_by(h2::Error::from(h2::Reason::ENHANCE_YOUR_CALM)));
    }
    let mut response = if is_grpc {
        grpc(&error)
    } else {
        problem(&error)
    };
    record.set_failed(&error, Some(response.status()));
    if record.is_head() {
        response = head_only(response);
    }
    if record.is_connection_refused() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    Ok(response)
}
