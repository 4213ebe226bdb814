//! Serves HTTP on one connection. The stream and the service are trait objects, so that hyper's server is compiled once
//! for every server of this module and of the demo.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// A stream of bytes, with or without TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The future of a response.
pub(crate) type ResponseFuture = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

/// Responds to each request.
pub(crate) type RespondFn = Box<dyn Fn(Request<Incoming>) -> ResponseFuture + Send>;

/// The versions of HTTP that a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HttpVersions {
    /// HTTP/1.0 and 1.1.
    Http1,
    /// HTTP/1 and HTTP/2. The first bytes of a connection decide.
    Http1And2,
}

/// How long a client may take for its first head, with the TLS handshake before it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Returns when a connection that was accepted now must have sent its first head.
pub(crate) fn head_deadline() -> Instant {
    Instant::now() + HEAD_TIMEOUT
}

/// Serves a connection until the client closes it. A connection that has no complete head at `head_by` is closed.
/// Later, idle connections have no timeout, because it would race with a request on a library's pooled connection.
pub(crate) async fn serve_http(
    stream: Box<dyn Stream>,
    versions: HttpVersions,
    head_by: Instant,
    respond: RespondFn,
) {
    let has_head = Arc::new(Notify::new());
    let heard = Arc::clone(&has_head);
    let service = service_fn(move |request| {
        heard.notify_one();
        let response = respond(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    if versions == HttpVersions::Http1 {
        builder = builder.http1_only();
    }
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = has_head.notified() => connection.await,
        () = sleep_until(head_by) => return,
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a client closed its connection early");
    }
}
