//! Sending, and what may be sent again.
//!
//! Again goes a request of which the upstream has taken nothing, and, once, an idempotent one without a body whose
//! reused connection closed before it said a word (RFC 9110, 9.2.2). Nothing else ever does.

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response};
use http_body::Body as _;
use hyper::client::conn::TrySendError;
use tokio_util::either::Either;

use super::body::Body;
use super::expect::Expectation;
use super::failure::{Failure, Place, is_closed, is_unprocessed};
use super::outgoing::{Outgoing, RequestBody};
use super::pool::{Hold, Lease, Pool, Pools, Way, h1, h2};
use super::target::Target;
use crate::dns::Priority;
use crate::error::Error;

/// How often a request is sent at the most.
const TRIES: usize = 3;

/// A try that failed.
struct Failed<B> {
    failure: Failure,
    /// The request, where it may be sent again.
    again: Option<Again<B>>,
}

struct Again<B> {
    request: Request<B>,
    /// On a connection that has carried nothing else.
    fresh: bool,
}

// === impl Failed ===

impl<B: RequestBody> Failed<B> {
    fn new(
        place: &Place,
        error: TrySendError<Request<Outgoing<B>>>,
        kept: Option<B>,
        spare: Option<Again<B>>,
    ) -> Self {
        Self {
            failure: Failure::exchange(place, error.error()),
            again: untaken(error, kept).or(spare),
        }
    }
}

// === impl Again ===

impl<B> Again<B> {
    const fn new(request: Request<B>, fresh: bool) -> Self {
        Self { request, fresh }
    }
}

/// Sends a request on a pooled connection, or a new one.
#[expect(
    clippy::manual_async_fn,
    reason = "its future would have room for the request twice: as an argument, and as a variable"
)]
pub(super) fn send<B: RequestBody>(
    pools: Arc<Pools<B>>,
    target: Target,
    priority: Priority,
    mut request: Request<B>,
) -> impl Future<Output = Result<Response<Body>, Error>> {
    async move {
        let pool = pools.pool(&target)?;
        pool.raise(priority, &pools);
        let mut fresh = false;
        let mut left = TRIES;
        loop {
            left -= 1;
            let lease = pool.checkout(&pools, fresh).await?;
            match exchange(&pool, lease, request).await {
                Ok(response) => return Ok(response),
                Err(Failed {
                    again: Some(again), ..
                }) if left > 0 => {
                    request = again.request;
                    fresh = again.fresh || left == 1;
                }
                Err(Failed { failure, .. }) => return Err(failure.into()),
            }
        }
    }
}

/// Sends a request over a connection. What is sent is in hand of hyper when this returns: the future that waits for the
/// answer does not carry it along.
fn exchange<B: RequestBody>(
    pool: &Pool<B>,
    lease: Lease<B>,
    request: Request<B>,
) -> impl Future<Output = Result<Response<Body>, Failed<B>>> + use<B> {
    let Lease { way, mut hold, .. } = lease;
    let mut interest = None;
    let mut request = request.map(|body| {
        let (body, held) = Outgoing::new(body, &pool.memory);
        interest = held;
        body
    });
    hold.watch(interest);
    match way {
        Way::Http1 { connection, reused } => {
            pool.address.http1(&mut request);
            Either::Left(over_http1(connection, reused, hold, request))
        }
        Way::Http2(connection) => {
            pool.address.http2(&mut request);
            Either::Right(over_http2(connection, hold, request))
        }
    }
}

fn over_http1<B: RequestBody>(
    connection: Arc<h1::Connection<B>>,
    reused: bool,
    mut hold: Hold,
    mut request: Request<Outgoing<B>>,
) -> impl Future<Output = Result<Response<Body>, Failed<B>>> {
    frame(&mut request);
    let bare = request.body().is_end_stream();
    let spare = (reused && bare && is_idempotent(request.method()))
        .then(|| Again::new(copy(&request), true));
    let expectation = Expectation::of(&mut request);
    let sent = connection.send(request);
    async move {
        let (sent, kept) = match expectation {
            None => (sent.await, None),
            // Boxed: few expect anything, and the others need not carry it.
            Some(expectation) => Box::pin(expectation.until(sent)).await,
        };
        match sent {
            Ok(response) => {
                if kept.is_some() {
                    hold.spoil();
                }
                Ok(Body::new(response, hold))
            }
            Err(error) => {
                let silent = is_closed(error.error()) && !connection.heard.anything();
                let spare = spare.filter(|_| silent);
                Err(Failed::new(&connection.place, error, kept, spare))
            }
        }
    }
}

fn over_http2<B: RequestBody>(
    connection: Arc<h2::Connection<B>>,
    hold: Hold,
    request: Request<Outgoing<B>>,
) -> impl Future<Output = Result<Response<Body>, Failed<B>>> {
    let bare = request.body().is_end_stream();
    let spare = bare.then(|| Again::new(copy(&request), false));
    let sent = connection.send(request);
    async move {
        match sent.await {
            Ok(response) => Ok(Body::new(response, hold)),
            Err(error) => {
                // Before the hold ends: who waits for a stream must not get one of a connection that is going away.
                connection.failed(error.error());
                let spare = spare.filter(|_| is_unprocessed(error.error()));
                Err(Failed::new(&connection.place, error, None, spare))
            }
        }
    }
}

/// The request that hyper hands back, because it has not begun with it; its body may be `kept` by us.
fn untaken<B: RequestBody>(
    mut error: TrySendError<Request<Outgoing<B>>>,
    kept: Option<B>,
) -> Option<Again<B>> {
    let (head, body) = error.take_message()?.into_parts();
    let body = kept.or_else(|| body.into_inner())?;
    Some(Again::new(Request::from_parts(head, body), false))
}

/// Announces a body of unknown length, which hyper would drop with some methods, and an empty body where the method expects
/// one (RFC 9110, 8.6): some servers answer 411 otherwise.
fn frame<B: RequestBody>(request: &mut Request<Outgoing<B>>) {
    let body = request.body();
    if body.is_end_stream() {
        if matches!(
            *request.method(),
            Method::POST | Method::PUT | Method::PATCH
        ) {
            let none = HeaderValue::from_static("0");
            request.headers_mut().entry(CONTENT_LENGTH).or_insert(none);
        }
    } else if request.headers().contains_key(TRAILER)
        || body.size_hint().exact().is_none() && !request.headers().contains_key(CONTENT_LENGTH)
    {
        // hyper removes a length beside it: over HTTP/2 there may be trailers with one, over HTTP/1.1 only after chunks.
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(TRANSFER_ENCODING, chunked);
    }
}

/// RFC 9110, 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// A request without a body, once more.
fn copy<B: RequestBody>(request: &Request<Outgoing<B>>) -> Request<B> {
    let mut copy = Request::new(B::default());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    // Among them the spelling of header names.
    *copy.extensions_mut() = request.extensions().clone();
    copy
}
