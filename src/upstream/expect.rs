//! `Expect: 100-continue` (RFC 9110, 10.1.1): the body stays here until the upstream asks for it.
//!
//! Nobody polls it meanwhile, so the app is told to go on when the upstream says so, and never where it says something
//! else instead. Over HTTP/1.1 only: of HTTP/2's 100, hyper does not tell.

use std::sync::Arc;
use std::time::Duration;

use http::header::EXPECT;
use http::{HeaderMap, Request, StatusCode};
use hyper::ext::on_informational;
use tokio::sync::{Notify, oneshot};

use super::cancellable_body::{CancellableBody, RequestBody};

/// How long an upstream may think about it: old ones never ask, and a client must not wait for ever.
const PATIENCE: Duration = Duration::from_secs(1);

/// A request's body that waits to be asked for.
pub(super) struct Expectation<B> {
    body: B,
    /// Leads into the request.
    way: oneshot::Sender<B>,
    asked: Arc<Notify>,
}

// === impl Expectation ===

impl<B: RequestBody> Expectation<B> {
    /// Takes the body out of a request that expects to be told to go on.
    pub(super) fn of(request: &mut Request<CancellableBody<B>>) -> Option<Self> {
        if !expects(request.headers()) {
            return None;
        }
        let (body, way) = request.body_mut().hold()?;
        let asked = Arc::new(Notify::new());
        let heard = Arc::clone(&asked);
        on_informational(request, move |response| {
            if response.status() == StatusCode::CONTINUE {
                heard.notify_one();
            }
        });
        Some(Self { body, way, asked })
    }

    /// Waits for the response, and lets the body go when it is asked for, or nothing was said for a while. It comes back
    /// where the response came first: the upstream does not want it.
    pub(super) async fn until<R>(self, response: impl Future<Output = R>) -> (R, Option<B>) {
        let mut response = std::pin::pin!(response);
        tokio::select! {
            biased;
            response = &mut response => return (response, Some(self.body)),
            () = self.asked.notified() => {}
            () = tokio::time::sleep(PATIENCE) => {}
        }
        // Where nobody takes it, the response is an error.
        let _ = self.way.send(self.body);
        (response.await, None)
    }
}

fn expects(headers: &HeaderMap) -> bool {
    headers
        .get_all(EXPECT)
        .iter()
        .any(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
