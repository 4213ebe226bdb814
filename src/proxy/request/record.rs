//! The record of one request, from its head to the end of its response.
//!
//! The request, both bodies and a tunnel share one [`RequestRecord`]. When the last of them is dropped, it updates the
//! metrics and writes the access log, so a cancelled request is counted too.
//!
//! Its facts become known in steps. Each is one value that is set once: the destination and the decision, the
//! credential that was attached, and the response.

mod report;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, header};
use tokio::sync::Semaphore;

use super::permit::HeldPermit;
use super::transfer::Transfer;
use crate::config::AccessLog;
use crate::destination::Destination;
use crate::error::{Error, ErrorKind, Problem};
use crate::memory::HeadsFull;
use crate::policy::Decision;
use crate::proxy::connection::{ConnectionState, InProgress, TooManyAnswers};
use crate::proxy::credentials::CredentialProvider;
use crate::proxy::in_flight::InFlight;
use crate::proxy::ingress::Ingress;
use crate::telemetry::{GaugeGuard, TraceContext};

/// The record of one request and its response.
pub(crate) struct RequestRecord {
    ingress: Arc<Ingress>,
    started: Instant,
    method: Method,
    version: Version,
    user_agent: Option<HeaderValue>,
    trace: Option<TraceContext>,
    access_log: AccessLog,
    routing: OnceLock<Routing>,
    /// The rule that denies a tunnel, if it is not that of the decision.
    denied_by: OnceLock<Arc<str>>,
    attached: OnceLock<Attached>,
    response: OnceLock<ResponseFacts>,
    /// An error after the head of the response.
    interruption: OnceLock<Problem>,
    transfer: Transfer,
    permit: HeldPermit,
    progress: InProgress,
    in_flight: Arc<InFlight>,
    _gauge: GaugeGuard,
}

/// Where a request goes.
struct Routing {
    /// The value that is sent, after the upgrade to TLS.
    destination: Destination,
    /// `None` if the request ended before the decision.
    decision: Option<Arc<Decision>>,
}

/// What a request carries.
enum Attached {
    /// No token of ours, although the decision may grant one.
    Nothing,
    /// A token in this header.
    Token {
        header: HeaderName,
        /// Knows scopes and account of the token, the account perhaps only once the request has ended.
        provider: Arc<CredentialProvider>,
    },
}

/// How a request was answered: by the upstream, or by an own answer.
struct ResponseFacts {
    /// `None` if the connection or stream ended without a response.
    status: Option<StatusCode>,
    /// The error, if the response is an own answer.
    problem: Option<Problem>,
}

// === impl RequestRecord ===

impl RequestRecord {
    /// Starts the record of a request whose head was read now.
    pub(crate) fn begin<B>(
        ingress: &Arc<Ingress>,
        request: &Request<B>,
        connection: &Arc<ConnectionState>,
        in_flight: &Arc<InFlight>,
        access_log: AccessLog,
    ) -> Arc<Self> {
        in_flight.begin();
        let logged = access_log != AccessLog::Off;
        let mut progress = connection.begin();
        if request.version() == Version::HTTP_2 {
            // A field list may be many times larger than its encoded form (RFC 7541, 2.3.2).
            progress.count_head(length(request.headers()));
        }
        Arc::new(Self {
            started: Instant::now(),
            method: request.method().clone(),
            version: request.version(),
            user_agent: logged
                .then(|| request.headers().get(header::USER_AGENT).cloned())
                .flatten(),
            trace: logged
                .then(|| TraceContext::from_headers(request.headers()))
                .flatten(),
            access_log,
            routing: OnceLock::new(),
            denied_by: OnceLock::new(),
            attached: OnceLock::new(),
            response: OnceLock::new(),
            interruption: OnceLock::new(),
            transfer: Transfer::default(),
            permit: HeldPermit::default(),
            progress,
            in_flight: in_flight.clone(),
            _gauge: ingress.metrics.request_started(),
            ingress: ingress.clone(),
        })
    }

    /// Returns the time at which the head was read.
    pub(crate) const fn started(&self) -> Instant {
        self.started
    }

    /// Returns how the request came in.
    pub(crate) fn ingress(&self) -> &Arc<Ingress> {
        &self.ingress
    }

    /// Returns the connection that the request came on.
    pub(crate) fn connection(&self) -> &Arc<ConnectionState> {
        self.progress.connection()
    }

    /// Returns the trace of the request.
    pub(crate) fn trace(&self) -> Option<TraceContext> {
        self.trace
    }

    /// Returns whether the app speaks HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.version == Version::HTTP_2
    }

    /// Returns whether it is a HEAD request, whose response has no content.
    pub(crate) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// Returns whether there is an access log.
    pub(crate) fn has_access_log(&self) -> bool {
        self.access_log != AccessLog::Off
    }

    /// Returns whether the access log names the token's account, audience or scopes, and header.
    pub(crate) fn logs_every_field(&self) -> bool {
        self.access_log == AccessLog::All
    }

    /// Records the destination and the decision.
    pub(crate) fn set_decided(&self, destination: &Destination, decision: &Arc<Decision>) {
        self.set_routing(destination, Some(decision));
    }

    /// Records the destination of a request that ends before the decision.
    pub(crate) fn set_undecided(&self, destination: &Destination) {
        self.set_routing(destination, None);
    }

    fn set_routing(&self, destination: &Destination, decision: Option<&Arc<Decision>>) {
        let _ = self.routing.set(Routing {
            destination: destination.clone(),
            decision: decision.cloned(),
        });
    }

    /// Returns the destination, once it is recorded.
    pub(crate) fn destination(&self) -> Option<&Destination> {
        self.routing.get().map(|routing| &routing.destination)
    }

    /// Returns the decision, once it is recorded.
    pub(crate) fn decision(&self) -> Option<&Decision> {
        self.routing.get()?.decision.as_deref()
    }

    /// Records the rule that denies a tunnel because of the paths that it hides.
    pub(crate) fn set_denied_by(&self, rule: &Arc<str>) {
        let _ = self.denied_by.set(rule.clone());
    }

    /// Records that the request carries no token of ours, although the decision may grant one.
    pub(crate) fn set_unauthenticated(&self) {
        let _ = self.attached.set(Attached::Nothing);
    }

    /// Records that the request carries a token in this header.
    pub(crate) fn set_token(&self, header: &HeaderName, provider: &Arc<CredentialProvider>) {
        if self.logs_every_field() {
            let _ = self.attached.set(Attached::Token {
                header: header.clone(),
                provider: provider.clone(),
            });
        }
    }

    /// Records the status of the response, unless [`RequestRecord::set_failed`] has.
    pub(crate) fn set_answered(&self, status: StatusCode) {
        let _ = self.response.set(ResponseFacts {
            status: Some(status),
            problem: None,
        });
    }

    /// Records the error that ended the request, and the status of the proxy's own answer if there is one.
    pub(crate) fn set_failed(&self, error: &Error, status: Option<StatusCode>) {
        let _ = self.response.set(ResponseFacts {
            status,
            problem: Some(error.problem().clone()),
        });
    }

    /// Records and counts an error that occurred after the head of the response was sent.
    pub(crate) fn set_interrupted(&self, error: &Error) {
        if self.interruption.set(error.problem().clone()).is_ok() {
            self.ingress.metrics.interrupted(error.kind());
        }
    }

    /// Returns the bytes of both bodies.
    pub(crate) const fn transfer(&self) -> &Transfer {
        &self.transfer
    }

    /// Counts content of the request's body.
    pub(crate) fn request_content(&self, bytes: &[u8]) {
        self.progress.content(bytes);
        self.transfer.received(bytes.len() as u64);
    }

    /// Records that the request was read to its end.
    pub(crate) fn request_complete(&self) {
        self.progress.request_completed();
    }

    /// Records that the rest of the request's body will not be read.
    pub(crate) fn request_truncated(&self) {
        self.progress.connection().truncate();
    }

    /// Returns the reason that the field list must be refused, if any.
    pub(crate) fn head_refused(&self) -> Option<HeadsFull> {
        self.progress.head_refused()
    }

    /// Returns whether the connection is over the limit of connections. It is closed after this request.
    pub(crate) fn is_connection_refused(&self) -> bool {
        self.progress.connection().is_refused()
    }

    /// Holds a permit of `permits` until the request ends or the proxy answers it itself.
    pub(crate) fn hold_permit(&self, permits: &Arc<Semaphore>) {
        self.permit.hold(permits);
    }

    /// Turns the request into an answer of the proxy's own. Such an answer holds no permit, and the server drops it if
    /// the client does not read it.
    ///
    /// # Errors
    ///
    /// Too many such answers are unread.
    pub(crate) fn answer_ourselves(&self, kind: ErrorKind) -> Result<(), TooManyAnswers> {
        self.permit.release();
        self.progress.answer(kind == ErrorKind::ProxyAuthRequired)
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        // First, so that a reader of the metrics finds the permit released.
        self.permit.release();
        self.report();
        self.in_flight.end();
    }
}

impl fmt::Debug for RequestRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestRecord")
            .field("ingress", &self.ingress.name)
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

/// The bytes of a head's fields.
fn length(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum()
}
