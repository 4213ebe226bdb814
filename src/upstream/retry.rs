//! Sending, and what may be sent again.
//!
//! Again goes a request of which the upstream has taken nothing, and, once, an idempotent one without a body whose
//! reused connection closed before it said a word (RFC 9110, 9.2.2). Nothing else ever does.

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response};
use http_body::Body as _;
use hyper::client::conn::TrySendError;

use super::body::Body;
use super::expect::Expectation;
use super::failure::{Failure, is_closed, is_unprocessed};
use super::outgoing::{Outgoing, RequestBody};
use super::pool::{Lease, Pool, Pools, Way};

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

// === impl Again ===

impl<B> Again<B> {
    const fn new(request: Request<B>, fresh: bool) -> Self {
        Self { request, fresh }
    }
}

/// Sends a request on a pooled connection, or a new one.
pub(super) async fn send<B: RequestBody>(
    pools: &Arc<Pools<B>>,
    pool: &Arc<Pool<B>>,
    mut request: Request<B>,
) -> Result<Response<Body>, Failure> {
    let mut fresh = false;
    let mut left = TRIES;
    loop {
        left -= 1;
        let lease = pool.checkout(pools, fresh).await?;
        match exchange(pool, lease, request).await {
            Ok(response) => return Ok(response),
            Err(Failed {
                again: Some(again), ..
            }) if left > 0 => {
                request = again.request;
                fresh = again.fresh || left == 1;
            }
            Err(Failed { failure, .. }) => return Err(failure),
        }
    }
}

async fn exchange<B: RequestBody>(
    pool: &Pool<B>,
    lease: Lease<B>,
    request: Request<B>,
) -> Result<Response<Body>, Failed<B>> {
    let Lease { way, mut hold, .. } = lease;
    let bare = request.body().is_end_stream();
    let mut interest = None;
    let mut request = request.map(|body| {
        let (body, held) = Outgoing::new(body);
        interest = held;
        body
    });
    hold.watch(interest);
    let mut kept = None;
    let (error, spare, place) = match &way {
        Way::Http1 { connection, reused } => {
            pool.address.http1(&mut request);
            frame(&mut request);
            let spare = (*reused && bare && is_idempotent(request.method()))
                .then(|| Again::new(copy(&request), true));
            let expectation = Expectation::of(&mut request);
            let sent = connection.send(request);
            let sent = match expectation {
                None => sent.await,
                Some(expectation) => {
                    let (sent, body) = expectation.until(sent).await;
                    kept = body;
                    sent
                }
            };
            match sent {
                Ok(response) => {
                    if kept.is_some() {
                        hold.spoil();
                    }
                    return Ok(Body::new(response, hold));
                }
                Err(error) => {
                    let silent = is_closed(error.error()) && !connection.heard.anything();
                    (error, spare.filter(|_| silent), &connection.place)
                }
            }
        }
        Way::Http2(connection) => {
            pool.address.http2(&mut request);
            let spare = bare.then(|| Again::new(copy(&request), false));
            match connection.send(request).await {
                Ok(response) => return Ok(Body::new(response, hold)),
                Err(error) => {
                    let unprocessed = is_unprocessed(error.error());
                    (error, spare.filter(|_| unprocessed), &connection.place)
                }
            }
        }
    };
    let failure = Failure::exchange(place, error.error());
    let again = untaken(error, kept).or(spare);
    Err(Failed { failure, again })
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

/// Says that a body of unknown length follows: with some methods hyper takes one that is not announced for none.
fn frame<B: RequestBody>(request: &mut Request<Outgoing<B>>) {
    let body = request.body();
    if !body.is_end_stream()
        && body.size_hint().exact().is_none()
        && !request.headers().contains_key(CONTENT_LENGTH)
    {
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
