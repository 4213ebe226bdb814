//! Serves one connection of any listener, from its first to its last byte.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;

use super::client_stream::ClientStream;
use super::connection_limits::{HttpLimits, IdleTimeout, ServerLimits};
use super::error_response_filter::{ErrorResponseFilter, FilteredConnection};
use super::evictable::{EvictableEntry, EvictableSet};
use super::io::{ClientIo, ClientProtocol};
use super::parse_error::{Received, rejected_http2};
use super::rejected::{Watched, WatchedIo};
use super::streams::StreamExecutor;
use super::watchdog::{DeadlineAction, Watchdog};
use crate::error::{BoxError, Error, ErrorKind};
use crate::proxy::ConnectionState;

/// The maximum number of HTTP/2 frames for streams that were reset, in the life of a connection. After an early
/// response the rest of an upload still arrives. A client that only sends such frames must not keep the connection busy
/// without a bound.
const LATE_FRAMES: usize = 64 * 1024;

/// The minimum length of an HTTP/1.1 field in bytes.
const FIELD: usize = 3;

/// Answers the requests of one connection.
pub(crate) trait HttpService:
    Service<
        Request<Incoming>,
        Response = Response<Self::Body>,
        Error: Into<BoxError>,
        Future: Send + 'static,
    > + Send
    + 'static
{
    /// The type of response bodies.
    type Body: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;
}

impl<S, B> HttpService for S
where
    S: Service<
            Request<Incoming>,
            Response = Response<B>,
            Error: Into<BoxError>,
            Future: Send + 'static,
        > + Send
        + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Body = B;
}

/// Holds a connection to its limits.
#[derive(Debug)]
pub(super) struct ConnectionLimits {
    pub(super) state: Arc<ConnectionState>,
    pub(super) server: Arc<ServerLimits>,
    pub(super) http: HttpLimits,
    pub(super) entry: EvictableEntry,
    /// The set that the connection joins with its first admitted request.
    pub(super) served: Option<Arc<EvictableSet>>,
    pub(super) closing: CancellationToken,
}

/// The result of a wait on a connection.
enum Ended<T> {
    Done(T),
    Deadline(DeadlineAction),
}

/// A hyper connection of either protocol.
trait HttpConnection: Future<Output = hyper::Result<()>> {
    fn graceful_shutdown(self: Pin<&mut Self>);
}

/// Serves one connection until it ends, its client misses a deadline, or the server closes. `service` makes the service
/// of the connection. `protocol` is the negotiated protocol, if any. `malformed` receives the error of a request that
/// could not be parsed.
pub(super) async fn serve<S, F>(
    stream: S,
    protocol: Option<ClientProtocol>,
    service: F,
    mut limits: ConnectionLimits,
    malformed: impl Fn(Version, &Error),
) where
    S: ClientStream,
    F: Future<Output: HttpService>,
{
    let mut watchdog = Watchdog::new(limits.state.clone(), &limits.server);
    let Ended::Done(service) = limits.wait(&mut watchdog, pin!(service)).await else {
        return;
    };
    let mut io = ClientIo::new(stream, limits.state.clone());
    let (protocol, is_preface) = match protocol {
        Some(ClientProtocol::Http2) => (ClientProtocol::Http2, true),
        negotiated => match limits.wait(&mut watchdog, pin!(io.protocol())).await {
            Ended::Done(Ok(Some(detected))) => (
                negotiated.unwrap_or(detected),
                detected == ClientProtocol::Http2,
            ),
            Ended::Done(Ok(None) | Err(_)) | Ended::Deadline(_) => return,
        },
    };
    io.set_protocol(protocol);
    let http = &limits.http;
    match protocol {
        ClientProtocol::Http1 => {
            let state = limits.state.clone();
            let many = http.headers * FIELD;
            let (filter, remains) = ErrorResponseFilter::new(io);
            let io = TokioIo::new(filter);
            watchdog.set_protocol(protocol, http.idle_http1.map(IdleTimeout::new));
            let connection = http1_builder(http).serve_connection(io, service);
            let connection = remains.of(connection.with_upgrades());
            // A separate statement, because `remains` is complete only after the connection is dropped.
            let ended = limits.drive(&mut watchdog, pin!(connection)).await;
            state.end();
            // Only the close of the connection ends such a response, so a plain close would make it look complete.
            if matches!(&ended, Err(Some(error)) if error.is_user()) && state.is_http10() {
                remains.with_stream(|io| io.stream().reset_at_end());
            }
            let failed = match ended {
                Ok(()) if limits.state.is_truncated() => {
                    // Ends early if another connection needs the place or the server closes.
                    limits.wait(&mut watchdog, pin!(remains.linger())).await;
                    return;
                }
                Ok(()) => None,
                Err(failed) => failed,
            };
            let received = |io: &ClientIo<S>| Received {
                small: io.head_length() < many,
                tls: io.begins_as_tls(),
            };
            let rejected = failed.and_then(|error| remains.rejected(&error, received));
            if let Some(error) = &rejected {
                malformed(Version::HTTP_11, error);
            }
            // hyper does not answer these two.
            let is_unanswered = is_preface
                || rejected
                    .as_ref()
                    .is_some_and(|error| error.kind() == ErrorKind::LimitReached);
            remains
                .end(
                    rejected.as_ref(),
                    is_unanswered && !state.is_write_blocked(),
                )
                .await;
        }
        ClientProtocol::Http2 => {
            let (io, streams) = WatchedIo::new(io, limits.state.clone());
            let io = TokioIo::new(io);
            watchdog.set_protocol(protocol, Some(limits.server.idle.clone()));
            let connection = http2_builder(http, &limits.server).serve_connection(io, service);
            let limit = http.header_list as usize;
            let connection = streams
                .clone()
                .of(connection, |error| malformed(Version::HTTP_2, &error));
            let ended = limits.drive(&mut watchdog, pin!(connection)).await;
            // For the contents of its tunnels, which may not read.
            limits.state.client_gone();
            if let Err(Some(error)) = ended
                && let Some(error) = rejected_http2(&error, streams.largest_block() > limit)
            {
                malformed(Version::HTTP_2, &error);
            }
        }
    }
}

fn http1_builder(http: &HttpLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // The watchdog enforces the deadline, because hyper's timer also closes kept-alive connections.
        .header_read_timeout(None)
        .max_headers(http.headers)
        .preserve_header_case(true);
    if let Some(bytes) = http.buffer {
        builder.max_buf_size(bytes);
    }
    builder
}

fn http2_builder(http: &HttpLimits, limits: &ServerLimits) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(StreamExecutor {
        answer: limits.answer,
    });
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(http.header_list)
        .initial_stream_window_size(http.stream_window)
        .initial_connection_window_size(http.connection_window)
        .max_concurrent_streams(http.streams)
        .max_pending_accept_reset_streams(http.resets)
        .max_local_error_reset_streams(LATE_FRAMES);
    builder
}

// === impl ConnectionLimits ===

impl ConnectionLimits {
    /// Returns `Err(None)` if the connection must be closed at once.
    async fn drive<C: HttpConnection>(
        &mut self,
        watchdog: &mut Watchdog,
        mut connection: Pin<&mut C>,
    ) -> Result<(), Option<hyper::Error>> {
        loop {
            match self.wait(watchdog, connection.as_mut()).await {
                Ended::Done(Ok(())) => return Ok(()),
                Ended::Deadline(DeadlineAction::Close) => return Err(None),
                Ended::Done(Err(error)) => {
                    // A client that disconnects is not an error of the sidecar. The record counts its requests.
                    tracing::debug!(%error, "connection ended");
                    return Err(Some(error));
                }
                Ended::Deadline(DeadlineAction::ShutDown) => {
                    connection.as_mut().graceful_shutdown();
                    watchdog.shutting_down();
                    // The connection is notified only once.
                    self.closing = CancellationToken::new();
                }
            }
        }
    }

    /// Waits for a future, a deadline, the end of the server, or an eviction of this connection.
    async fn wait<F: Future>(
        &mut self,
        watchdog: &mut Watchdog,
        mut future: Pin<&mut F>,
    ) -> Ended<F::Output> {
        let state = self.state.clone();
        let mut closing = pin!(self.closing.cancelled());
        let mut evicted = pin!(state.evicted());
        // The waker of the task does not change.
        let mut registered = false;
        poll_fn(|cx| {
            if let Poll::Ready(done) = future.as_mut().poll(cx) {
                return Poll::Ready(Ended::Done(done));
            }
            if state.is_admitted()
                && let Some(served) = self.served.take()
            {
                self.entry = served.take(&state);
            }
            if !registered || state.is_evicted() {
                registered = true;
                if evicted.as_mut().poll(cx).is_ready() {
                    // A request may have begun since the eviction.
                    let late = self.served.is_none() && state.is_busy();
                    let verdict = if late {
                        DeadlineAction::ShutDown
                    } else {
                        DeadlineAction::Close
                    };
                    return Poll::Ready(Ended::Deadline(verdict));
                }
            }
            if closing.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ended::Deadline(DeadlineAction::ShutDown));
            }
            watchdog.poll(cx).map(Ended::Deadline)
        })
        .await
    }
}

// === impl HttpConnection ===

impl<I, S> HttpConnection for http1::UpgradeableConnection<I, S>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    S: HttpService,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        Self::graceful_shutdown(self);
    }
}

impl<I, S> HttpConnection for http2::Connection<I, S, StreamExecutor>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: HttpService,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        Self::graceful_shutdown(self);
    }
}

impl<C: HttpConnection, I> HttpConnection for FilteredConnection<C, I> {
    fn graceful_shutdown(self: Pin<&mut Self>) {
        self.connection().graceful_shutdown();
    }
}

impl<C: HttpConnection, F: Fn(Error)> HttpConnection for Watched<C, F> {
    fn graceful_shutdown(self: Pin<&mut Self>) {
        self.connection().graceful_shutdown();
    }
}
