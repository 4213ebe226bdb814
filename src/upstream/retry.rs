//! Sending, and what may be sent again.
//!
//! A request is sent again if the upstream says that it has processed nothing of it (RFC 9113, 8.7), with a body as far as
//! there is a copy; and once, if it is idempotent and has no body (RFC 9110, 9.2.2), where its connection broke before
//! any part of an answer: over HTTP/1.1 only one that was reused. Nothing else is ever sent twice.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response};
use http_body::Body as _;
use hyper::client::conn::TrySendError;
use tokio::time::timeout;
use tokio_util::either::Either;

use super::body::Body;
use super::expect::Expectation;
use super::failure::{Failure, Place, is_broken, is_closed, is_malformed, is_unprocessed};
use super::outgoing::{Outgoing, RequestBody};
use super::pool::{Hold, Lease, Pool, Pools, Way, h1, h2};
use super::resend::{Copy, Payload};
use super::target::Target;
use crate::dns::Priority;
use crate::error::Error;

/// How often a request is sent at the most.
const TRIES: usize = 3;

/// How long hyper may take to drop the body of a stream that was reset.
const PATIENCE: Duration = Duration::from_secs(1);

/// A try that failed.
struct Failed<B> {
    failure: Failure,
    /// The request, where it may be sent again.
    again: Option<Again<B>>,
}

struct Again<B> {
    request: Request<Payload<B>>,
    /// On a connection that has carried nothing else.
    fresh: bool,
    /// The upstream may have processed the request: it is sent no third time for that.
    lost: bool,
}

/// A request over HTTP/2, in case that it must be sent again.
struct Spare<B> {
    head: Request<()>,
    /// `None` where it has no body.
    body: Option<Copy<B>>,
}

// === impl Failed ===

impl<B: RequestBody> Failed<B> {
    fn new(
        place: &Place,
        error: TrySendError<Request<Outgoing<B>>>,
        kept: Option<B>,
        spare: Option<Again<B>>,
    ) -> Self {
        let mut failure = Failure::exchange(place, error.error());
        let unprocessed = is_unprocessed(error.error());
        let again = untaken(error, kept).or(spare);
        failure.refused = unprocessed && again.is_none();
        Self { failure, again }
    }
}

// === impl Again ===

impl<B> Again<B> {
    const fn new(request: Request<Payload<B>>, fresh: bool) -> Self {
        Self {
            request,
            fresh,
            lost: false,
        }
    }
}

/// Sends a request on a pooled connection, or a new one.
pub(super) fn send<B: RequestBody>(
    pools: Arc<Pools<B>>,
    target: Target,
    priority: Priority,
    request: Request<B>,
) -> impl Future<Output = Result<Response<Body>, Error>> {
    let mut request = request.map(Payload::First);
    async move {
        let pool = pools.pool(&target)?;
        pool.raise(priority, &pools);
        let mut fresh = false;
        let mut lost = false;
        let mut left = TRIES;
        loop {
            left -= 1;
            let lease = pool.checkout(&pools, fresh).await?;
            match exchange(&pool, lease, request).await {
                Ok(response) => return Ok(response),
                Err(Failed {
                    again: Some(again), ..
                }) if left > 0 && !(lost && again.lost) => {
                    request = again.request;
                    fresh = again.fresh || left == 1;
                    lost |= again.lost;
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
    request: Request<Payload<B>>,
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
        .then(|| Again::new(head(&request).map(|()| Payload::default()), true));
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
    mut request: Request<Outgoing<B>>,
) -> impl Future<Output = Result<Response<Body>, Failed<B>>> {
    let idempotent = is_idempotent(request.method());
    let spare = Spare::of(&mut request);
    let sent = connection.send(request);
    async move {
        match sent.await {
            Ok(response) => Ok(Body::new(response, hold)),
            Err(error) => {
                // Before the hold ends: who waits for a stream must not get one of a connection that is going away.
                connection.failed(error.error());
                // Boxed: few fail, and the others need not carry it.
                let unheard = !connection.heard.interim();
                let spare = match spare {
                    Some(spare) => {
                        Box::pin(spare.after(error.error(), idempotent && unheard)).await
                    }
                    None => None,
                };
                let flooded = is_malformed(error.error()) && connection.heard.is_flooded();
                let mut failed = Failed::new(&connection.place, error, None, spare);
                if flooded {
                    failed.failure = Failure::flood(&connection.place);
                }
                Err(failed)
            }
        }
    }
}

// === impl Spare ===

impl<B: RequestBody> Spare<B> {
    fn of(request: &mut Request<Outgoing<B>>) -> Option<Self> {
        let body = if request.body().is_end_stream() {
            None
        } else {
            Some(request.body_mut().copy()?)
        };
        let head = head(request);
        Some(Self { head, body })
    }

    /// The request again, if it may be sent again after this error.
    async fn after(self, error: &hyper::Error, idempotent: bool) -> Option<Again<B>> {
        let unprocessed = is_unprocessed(error);
        let lost = !unprocessed && idempotent && is_broken(error);
        let body = match self.body {
            None if unprocessed || lost => Payload::default(),
            // hyper drops the body as soon as it learns of the reset.
            Some(copy) if unprocessed => match timeout(PATIENCE, copy).await {
                Ok(Ok(passed)) => Payload::Again(Box::new(passed)),
                _ => return None,
            },
            _ => return None,
        };
        Some(Again {
            request: self.head.map(|()| body),
            fresh: false,
            lost,
        })
    }
}

/// The request that hyper hands back, because it has not begun with it; its body may be `kept` by us.
fn untaken<B: RequestBody>(
    mut error: TrySendError<Request<Outgoing<B>>>,
    kept: Option<B>,
) -> Option<Again<B>> {
    let (head, body) = error.take_message()?.into_parts();
    let body = kept.map(Payload::First).or_else(|| body.into_inner())?;
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

/// A request's head, once more.
fn head<B>(request: &Request<Outgoing<B>>) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.headers_mut() = request.headers().clone();
    // Among them the spelling of header names.
    *head.extensions_mut() = request.extensions().clone();
    head
}
