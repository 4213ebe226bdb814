//! Layer 1, **Record**: holds the request's record until the body of the response ends or is dropped.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use hyper::service::Service;
use pin_project_lite::pin_project;
use tower::Layer;
use tower::layer::layer_fn;

use crate::error::{BoxError, Error};
use crate::proxy::request::Inbound;
use crate::proxy::request::body::ResponseBody;
use crate::proxy::request::record::RequestRecord;
use crate::proxy::service::LayerResult;
use crate::upstream::of_interrupted;

/// The layer that records a request until its end.
#[derive(Clone, Debug)]
pub(crate) struct Record<S> {
    inner: S,
}

pin_project! {
    /// The future of [`Record`].
    #[derive(Debug)]
    pub(crate) struct RecordFuture<F> {
        #[pin]
        inner: F,
        record: Option<Arc<RequestRecord>>,
        // The app sends its body after 100, or not at all.
        expects_continue: bool,
    }
}

/// The body of an answer. Its bytes and its end are added to the request's record.
#[derive(Debug)]
pub(crate) struct Recorded {
    body: ResponseBody,
    record: Arc<RequestRecord>,
    /// The head is the whole response (RFC 9110, 6.4.1).
    no_content: bool,
    failed: Option<BoxError>,
}

// === impl Record ===

impl<S> Record<S> {
    pub(crate) fn layer() -> impl Layer<S, Service = Self> + Clone {
        layer_fn(|inner| Self { inner })
    }

    pub(crate) const fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S> Service<Inbound> for Record<S>
where
    S: Service<Inbound, Response = Response<ResponseBody>, Error = Error>,
{
    type Response = Response<Recorded>;
    type Error = Error;
    type Future = RecordFuture<S::Future>;

    fn call(&self, inbound: Inbound) -> Self::Future {
        RecordFuture {
            record: Some(inbound.record.clone()),
            expects_continue: inbound.expects_continue(),
            inner: self.inner.call(inbound),
        }
    }
}

impl<F> Future for RecordFuture<F>
where
    F: Future<Output = LayerResult>,
{
    type Output = Result<Response<Recorded>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        let Some(record) = this.record.take() else {
            return Poll::Pending;
        };
        let status = response.status();
        record.set_answered(status);
        if *this.expects_continue
            && record.transfer().bytes_received() == 0
            && status != StatusCode::SWITCHING_PROTOCOLS
        {
            // hyper closes the connection, because it cannot know whether the body follows (RFC 9110, 10.1.1).
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        let no_content =
            record.is_head() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        Poll::Ready(Ok(response.map(|body| Recorded {
            body,
            record,
            no_content,
            failed: None,
        })))
    }
}

// === impl Recorded ===

impl http_body::Body for Recorded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                self.record.transfer().sent(length as u64);
                // hyper does not poll again after trailers.
                if frame.is_trailers() {
                    self.record.transfer().complete();
                }
            }
            None => self.record.transfer().complete(),
            Some(Err(error)) => {
                self.record.set_interrupted(&of_interrupted(&**error));
                // The app received the error: it has not cancelled.
                self.record.transfer().complete();
            }
        }
        match frame {
            Some(Err(error)) => {
                // On an error hyper closes an HTTP/1.1 connection and drops its write buffer, which may hold the
                // response head. It flushes on Pending. Without a head, the app may send the request again.
                self.failed = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        // hyper does not poll again after a body of known length has returned all of it, and never polls an empty one.
        // Over HTTP/2 the end of the stream may be known only now, or later.
        let left = http_body::Body::size_hint(&self.body).exact();
        if self.no_content || http_body::Body::is_end_stream(&self.body) || left == Some(0) {
            self.record.transfer().complete();
        }
    }
}
