//! `Expect: 100-continue` (RFC 9110, 10.1.1): holds the body until the upstream asks for it.
//!
//! hyper sends 100 to the app when the body is first polled. The body is not polled while it is held, so the app gets
//! 100 only after the upstream has sent 100, or after [`CONTINUE_TIMEOUT`]. This applies to HTTP/1.1 only, because
//! hyper does not report a 100 over HTTP/2.

use std::sync::Arc;
use std::time::Duration;

use http::header::EXPECT;
use http::{HeaderMap, Request, StatusCode};
use hyper::ext::on_informational;
use tokio::sync::{Notify, oneshot};

use super::cancellable_body::{CancellableBody, SendableBody};
use crate::header_lookup;

/// The longest wait for a 100. Some servers never send one, and a client should not wait indefinitely (RFC 9110,
/// 10.1.1).
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

/// A request's body that is held until the upstream asks for it.
pub(super) struct Expectation<B> {
    body: B,
    /// Returns the body to the request, which then sends it.
    sender: oneshot::Sender<B>,
    /// Notified when the upstream has sent 100.
    asked: Arc<Notify>,
}

// === impl Expectation ===

impl<B: SendableBody> Expectation<B> {
    /// Takes the body out of a request with `Expect: 100-continue`. Returns `None` for other requests and empty bodies.
    pub(super) fn of(request: &mut Request<CancellableBody<B>>) -> Option<Self> {
        if !expects_continue(request.headers()) {
            return None;
        }
        let (body, sender) = request.body_mut().hold()?;
        let asked = Arc::new(Notify::new());
        let notified = Arc::clone(&asked);
        on_informational(request, move |response| {
            if response.status() == StatusCode::CONTINUE {
                notified.notify_one();
            }
        });
        Some(Self {
            body,
            sender,
            asked,
        })
    }

    /// Waits for the response. Releases the body when the upstream asks for it, or after [`CONTINUE_TIMEOUT`]. Returns
    /// the body if the response comes first.
    pub(super) async fn send_body_when_asked<R>(
        self,
        response: impl Future<Output = R>,
    ) -> (R, Option<B>) {
        let mut response = std::pin::pin!(response);
        tokio::select! {
            biased;
            response = &mut response => return (response, Some(self.body)),
            () = self.asked.notified() => {}
            () = tokio::time::sleep(CONTINUE_TIMEOUT) => {}
        }
        // Fails only if hyper has dropped the request. The response is then an error.
        let _ = self.sender.send(self.body);
        (response.await, None)
    }
}

/// Returns whether the body follows only after a 100.
pub(crate) fn expects_continue(headers: &HeaderMap) -> bool {
    header_lookup::values(headers, &EXPECT)
        .any(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
