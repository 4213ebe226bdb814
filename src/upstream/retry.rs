//! Sends requests, and retries them.
//!
//! A request is retried in three cases, with at most [`TRIES`] attempts in all:
//!
//! - hyper returned it without sending any part;
//! - the upstream reports that it processed none of it (RFC 9113, 8.7), and its body was copied;
//! - once, if it is idempotent, has no body (RFC 9110, 9.2.2), and its connection closed before any part of a response.
//!   Over HTTP/1.1, this applies only to a reused connection.
//!
//! This module retries no other request. After a 401, `RetryUnauthorized` sends the copy of a request with a new token.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request};
use http_body::Body as _;
use hyper::client::conn::TrySendError;
use tokio::time::timeout;
use tokio_util::either::Either;

use super::ResponseAndCopy;
use super::body::UpstreamBody;
use super::cancellable_body::{CancellableBody, SendableBody};
use super::expect::Expectation;
use super::failure::{Failure, UpstreamPeer, is_broken, is_closed, is_malformed, is_unprocessed};
use super::pool::{ConnectionGuard, Lease, LeasedConnection, Pool, Pools, h1, h2};
use super::resend::{Payload, SentBody, SentRequest};
use super::target::Target;
use super::via_proxy;
use crate::dns::Priority;
use crate::error::Error;
use crate::header_lookup;

/// The maximum number of attempts.
const TRIES: usize = 3;

/// The time that hyper has to drop the body of a reset stream.
const COPY_TIMEOUT: Duration = Duration::from_secs(1);

/// A failed attempt.
struct Failed<B> {
    failure: Failure,
    /// The request, if it may be sent again.
    retry: Option<RetryRequest<B>>,
}

/// A request that may be sent again.
struct RetryRequest<B> {
    request: Request<Payload<B>>,
    /// Whether the retry must not use a pooled connection.
    needs_new_connection: bool,
    /// Whether the upstream may have processed the request. This reason permits no third attempt.
    possibly_processed: bool,
}

// === impl Failed ===

impl<B: SendableBody> Failed<B> {
    fn new(
        peer: &UpstreamPeer,
        error: TrySendError<Request<CancellableBody<B>>>,
        kept: Option<B>,
        spare: Option<RetryRequest<B>>,
    ) -> Self {
        let mut failure = Failure::exchange(peer, error.error());
        let unprocessed = is_unprocessed(error.error());
        let retry = retry_unsent(error, kept).or(spare);
        failure.refused = unprocessed && retry.is_none();
        Self { failure, retry }
    }
}

// === impl RetryRequest ===

impl<B> RetryRequest<B> {
    const fn new(request: Request<Payload<B>>, needs_new_connection: bool) -> Self {
        Self {
            request,
            needs_new_connection,
            possibly_processed: false,
        }
    }
}

/// Sends a request on a pooled connection, or a new one. With `keep_copy`, it also returns a copy of the request.
pub(super) fn send<B: SendableBody>(
    pools: Arc<Pools<B>>,
    target: Target,
    priority: Priority,
    keep_copy: bool,
    request: Request<B>,
) -> impl Future<Output = Result<ResponseAndCopy<B>, Error>> {
    let mut request = request.map(Payload::Original);
    async move {
        let pool = pools.pool(&target)?;
        pool.raise(priority, &pools);
        let mut needs_new_connection = false;
        let mut possibly_processed = false;
        let mut attempts_left = TRIES;
        loop {
            attempts_left -= 1;
            let lease = pool.checkout(&pools, needs_new_connection).await?;
            match exchange(&pool, lease, keep_copy, request).await {
                Ok(mut answered) => {
                    via_proxy::check(&pool.address, &mut answered.0)?;
                    return Ok(answered);
                }
                Err(Failed {
                    retry: Some(retry), ..
                }) if attempts_left > 0 && !(possibly_processed && retry.possibly_processed) => {
                    request = retry.request;
                    needs_new_connection = retry.needs_new_connection || attempts_left == 1;
                    possibly_processed |= retry.possibly_processed;
                }
                Err(Failed { failure, .. }) => return Err(failure.into()),
            }
        }
    }
}

/// Sends a request over a connection. hyper owns the request when this returns, so that the returned future stays
/// small.
fn exchange<B: SendableBody>(
    pool: &Pool<B>,
    lease: Lease<B>,
    keep_copy: bool,
    request: Request<Payload<B>>,
) -> impl Future<Output = Result<ResponseAndCopy<B>, Failed<B>>> + use<B> {
    let Lease {
        connection,
        mut guard,
        ..
    } = lease;
    let mut cancel = None;
    let mut request = request.map(|body| {
        let (body, held) = CancellableBody::new(body, &pool.memory);
        cancel = held;
        body
    });
    guard.watch(cancel);
    match connection {
        LeasedConnection::Http1 { connection, reused } => {
            let idempotent = is_idempotent(request.method());
            let retry = reused && idempotent && request.body().is_end_stream();
            let sent = (keep_copy || retry).then(|| Box::new(SentRequest::of(&mut request)));
            pool.address.rewrite_for_http1(&mut request);
            Either::Left(over_http1(connection, retry, guard, sent, request))
        }
        LeasedConnection::Http2(connection) => {
            let sent = Box::new(SentRequest::of(&mut request));
            pool.address.rewrite_for_http2(&mut request);
            Either::Right(over_http2(connection, guard, sent, request))
        }
    }
}

/// Sends over HTTP/1.1. `retry` permits a retry if the connection closes before any part of a response.
fn over_http1<B: SendableBody>(
    connection: Arc<h1::Http1Connection<B>>,
    retry: bool,
    mut guard: ConnectionGuard,
    mut sent: Option<Box<SentRequest<B>>>,
    mut request: Request<CancellableBody<B>>,
) -> impl Future<Output = Result<ResponseAndCopy<B>, Failed<B>>> {
    frame(&mut request);
    let expectation = Expectation::of(&mut request);
    let response = connection.send(request);
    async move {
        let (response, kept) = match expectation {
            None => (response.await, None),
            // Boxed, because few requests have an expectation.
            Some(expectation) => Box::pin(expectation.send_body_when_asked(response)).await,
        };
        match response {
            Ok(response) => {
                if let Some(body) = kept {
                    guard.mark_not_reusable();
                    if let Some(sent) = &mut sent {
                        sent.body = SentBody::Unsent(body);
                    }
                }
                Ok((UpstreamBody::new(response, guard), sent))
            }
            Err(error) => {
                let no_response_bytes =
                    is_closed(error.error()) && !connection.received.has_received();
                let retry = sent
                    .filter(|_| retry && no_response_bytes)
                    .map(|sent| RetryRequest::new(sent.with(Payload::default()), true));
                Err(Failed::new(&connection.peer, error, kept, retry))
            }
        }
    }
}

fn over_http2<B: SendableBody>(
    connection: Arc<h2::Http2Connection<B>>,
    guard: ConnectionGuard,
    sent: Box<SentRequest<B>>,
    request: Request<CancellableBody<B>>,
) -> impl Future<Output = Result<ResponseAndCopy<B>, Failed<B>>> {
    let idempotent = is_idempotent(request.method());
    let response = connection.send(request);
    async move {
        match response.await {
            Ok(response) => Ok((UpstreamBody::new(response, guard), Some(sent))),
            Err(error) => {
                // Before the guard is dropped, because a waiting request must not get a stream of a connection that is
                // going away.
                connection.failed(error.error());
                let no_interim_received = !connection.received.interim();
                // Boxed, because few requests fail.
                let retry = Box::pin(retry_http2(
                    *sent,
                    error.error(),
                    idempotent && no_interim_received,
                ))
                .await;
                let flooded = is_malformed(error.error()) && connection.received.is_flooded();
                let mut failed = Failed::new(&connection.peer, error, None, retry);
                if flooded {
                    failed.failure = Failure::flood(&connection.peer);
                }
                Err(failed)
            }
        }
    }
}

/// Returns a request over HTTP/2 that may be sent again after this error.
async fn retry_http2<B: SendableBody>(
    sent: SentRequest<B>,
    error: &hyper::Error,
    idempotent: bool,
) -> Option<RetryRequest<B>> {
    let unprocessed = is_unprocessed(error);
    let possibly_processed = !unprocessed && idempotent && is_broken(error);
    let request = if unprocessed {
        let (head, body) = sent.split();
        let body = match body {
            SentBody::Empty => Payload::default(),
            // hyper drops the body as soon as it learns of the reset.
            SentBody::Copied(copy) => {
                Payload::Copied(Box::new(timeout(COPY_TIMEOUT, copy).await.ok()?.ok()?))
            }
            SentBody::Unavailable | SentBody::Unsent(_) => return None,
        };
        head.map(|()| body)
    } else if possibly_processed && sent.is_bare() {
        sent.with(Payload::default())
    } else {
        return None;
    };
    Some(RetryRequest {
        request,
        needs_new_connection: false,
        possibly_processed,
    })
}

/// Returns a request that hyper returned without sending any part. Its body may be in `kept`.
fn retry_unsent<B: SendableBody>(
    mut error: TrySendError<Request<CancellableBody<B>>>,
    kept: Option<B>,
) -> Option<RetryRequest<B>> {
    let (head, body) = error.take_message()?.into_parts();
    let body = kept.map(Payload::Original).or_else(|| body.into_inner())?;
    Some(RetryRequest::new(Request::from_parts(head, body), false))
}

/// Declares a body of unknown length, which hyper would drop with some methods, and an empty body if the method expects
/// one (RFC 9110, 8.6). Without it, some servers answer 411.
fn frame<B: SendableBody>(request: &mut Request<CancellableBody<B>>) {
    let body = request.body();
    if body.is_end_stream() {
        if matches!(
            *request.method(),
            Method::POST | Method::PUT | Method::PATCH
        ) {
            let none = HeaderValue::from_static("0");
            request.headers_mut().entry(CONTENT_LENGTH).or_insert(none);
        }
    } else if header_lookup::has(request.headers(), &TRAILER)
        || body.size_hint().exact().is_none() && !request.headers().contains_key(CONTENT_LENGTH)
    {
        // hyper removes a length next to it. HTTP/2 permits trailers together with a length, HTTP/1.1 only after
        // chunks.
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(TRANSFER_ENCODING, chunked);
    }
}

/// Returns whether the method is idempotent (RFC 9110, 9.2.2).
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}
