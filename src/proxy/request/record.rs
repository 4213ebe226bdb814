//! The life of one request: begun when its head was read, ended when the last who holds it lets go.
//!
//! Body, tunnel and future each hold the [`RequestRecord`]; whichever goes last writes the record. So a caller who leaves is
//! counted too, and nothing has to remember to.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, header};
use tokio::sync::Semaphore;

use crate::config::AccessLog;
use crate::destination::Destination;
use crate::dns::Priority;
use crate::error::{Error, ErrorKind, TokenFault};
use crate::memory::HeadsFull;
use crate::policy::{Credential, Decision, Grant};
use crate::proxy::connection::{ConnectionState, InProgress, TooManyAnswers};
use crate::proxy::in_flight::InFlight;
use crate::proxy::ingress::Ingress;
use crate::telemetry::{
    self, AccessRecord, Code, Ending, Failed, Gauged, TraceContext, access_log,
};
use crate::token::Facts;

/// One request and its answer.
pub struct RequestRecord {
    ingress: Arc<Ingress>,
    started: Instant,
    method: Method,
    version: Version,
    user_agent: Option<HeaderValue>,
    trace: Option<TraceContext>,
    destination: OnceLock<Destination>,
    decision: OnceLock<Arc<Decision>>,
    bare: AtomicBool,
    carried: OnceLock<Carried>,
    status: OnceLock<StatusCode>,
    error: OnceLock<Failure>,
    received: AtomicU64,
    sent: AtomicU64,
    whole: AtomicBool,
    left: AtomicBool,
    /// Where its permit goes back to.
    permits: OnceLock<Arc<Semaphore>>,
    has_permit: AtomicBool,
    progress: InProgress,
    access_log: AccessLog,
    in_flight: Arc<InFlight>,
    _in_flight: Gauged,
}

/// How a token was sent, for the access log.
struct Carried {
    header: HeaderName,
    /// Knows the account's name, perhaps only when the request has ended.
    instance: Facts,
}

/// An error of our own.
struct Failure {
    kind: ErrorKind,
    fault: Option<TokenFault>,
    detail: String,
}

// === impl Failure ===

impl Failure {
    /// What to do about it.
    fn advice(&self) -> &'static str {
        match self.fault {
            Some(fault) => fault.advice(),
            None => self.kind.advice(),
        }
    }
}

// === impl RequestRecord ===

impl RequestRecord {
    /// A request begins.
    pub fn begin<B>(
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
            // A field list may be many times larger than the bytes that it came in (RFC 7541, 2.3.2).
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
            destination: OnceLock::new(),
            decision: OnceLock::new(),
            bare: AtomicBool::new(false),
            carried: OnceLock::new(),
            status: OnceLock::new(),
            error: OnceLock::new(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            whole: AtomicBool::new(false),
            left: AtomicBool::new(false),
            permits: OnceLock::new(),
            has_permit: AtomicBool::new(false),
            progress,
            access_log,
            in_flight: in_flight.clone(),
            _in_flight: ingress.metrics.request_started(),
            ingress: ingress.clone(),
        })
    }

    /// When its head was read.
    pub(crate) const fn started(&self) -> Instant {
        self.started
    }

    /// The way it came in.
    pub fn ingress(&self) -> &Arc<Ingress> {
        &self.ingress
    }

    /// The trace that it belongs to.
    pub(crate) fn trace(&self) -> Option<TraceContext> {
        self.trace
    }

    /// Where it goes, once that is sure.
    pub(crate) fn goes_to(&self, destination: &Destination) {
        let _ = self.destination.set(destination.clone());
    }

    /// What the policy said.
    pub(crate) fn decided(&self, decision: &Arc<Decision>) {
        let _ = self.decision.set(decision.clone());
    }

    /// How urgently the name of its destination is looked up. Names that anybody may invent must not hold up routes and
    /// what gets a token.
    pub(crate) fn dns_priority(&self) -> Priority {
        let granted = self
            .decision
            .get()
            .is_some_and(|decision| matches!(decision.grant, Grant::Token(_)));
        if granted || self.ingress.route().is_some() {
            Priority::High
        } else {
            Priority::Normal
        }
    }

    /// Whatever the policy said, this request carries no token of ours.
    pub(crate) fn set_unauthenticated(&self) {
        self.bare.store(true, Ordering::Relaxed);
    }

    /// It carries a token of ours in this header.
    pub(crate) fn carries(&self, header: &HeaderName, instance: &Facts) {
        if self.is_logged_in_full() {
            let _ = self.carried.set(Carried {
                header: header.clone(),
                instance: instance.clone(),
            });
        }
    }

    /// Whether the access log names account, audience or scopes, and header.
    pub(crate) fn is_logged_in_full(&self) -> bool {
        self.access_log == AccessLog::All
    }

    /// Where it goes, where that is sure.
    pub(crate) fn destination(&self) -> Option<&Destination> {
        self.destination.get()
    }

    /// What the policy said, once it has.
    pub(crate) fn decision(&self) -> Option<&Decision> {
        self.decision.get().map(|decision| &**decision)
    }

    /// Whether the access log may tell of it.
    pub(crate) fn has_access_log(&self) -> bool {
        self.access_log != AccessLog::Off
    }

    /// What it carried; none before the decision.
    fn credential(&self) -> Option<Credential> {
        let decided = self.decision.get()?.credential();
        let bare = self.bare.load(Ordering::Relaxed);
        Some(if bare { Credential::None } else { decided })
    }

    /// The answer's status; the first one counts.
    pub(crate) fn answered(&self, status: StatusCode) {
        let _ = self.status.set(status);
    }

    /// An error of our own is the answer.
    pub(crate) fn failed(&self, error: &Error) {
        let _ = self.error.set(Failure {
            kind: error.kind(),
            fault: error.fault(),
            detail: error.detail().to_owned(),
        });
    }

    /// The app speaks HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.version == Version::HTTP_2
    }

    /// The answer has no content.
    pub(crate) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// The upstream broke its answer off: who sees that has not cancelled.
    pub(crate) fn broken_off(&self) {
        let _ = self.error.set(Failure {
            kind: ErrorKind::ConnectionTerminated,
            fault: None,
            detail: "the upstream broke off its answer".to_owned(),
        });
        self.complete();
    }

    /// Holds a permit of the limit until the request ends, or its answer turns out to be our own.
    pub(crate) fn keep_permit(&self, permits: &Arc<Semaphore>) {
        if self.permits.set(permits.clone()).is_ok() {
            self.has_permit.store(true, Ordering::Relaxed);
        }
    }

    fn release_permit(&self) {
        if self.has_permit.swap(false, Ordering::Relaxed)
            && let Some(permits) = self.permits.get()
        {
            permits.add_permits(1);
        }
    }

    /// Its connection had no place under the limit, and ends with it.
    pub(crate) fn is_connection_refused(&self) -> bool {
        self.progress.connection().is_refused()
    }

    /// The rest of the request's body will not be read.
    pub(crate) fn truncated(&self) {
        self.progress.connection().truncate();
    }

    /// Why its field list must be refused, if it must.
    pub(crate) fn head_refused(&self) -> Option<HeadsFull> {
        self.progress.head_refused()
    }

    /// All that is left is an answer of our own, which holds no permit and is given up if it is not read.
    ///
    /// # Errors
    ///
    /// Too many answers are unread.
    pub(crate) fn answer_ourselves(&self, kind: ErrorKind) -> Result<(), TooManyAnswers> {
        self.release_permit();
        self.progress.answer(kind == ErrorKind::ProxyAuthRequired)
    }

    /// All of the request has come.
    pub(crate) fn is_whole(&self) {
        self.progress.is_whole();
    }

    /// Content of the request's body has passed.
    pub(crate) fn content(&self, bytes: &[u8]) {
        self.progress.content(bytes);
        self.received(bytes.len() as u64);
    }

    /// Bytes of the request's body have passed.
    pub(crate) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of the answer's body have passed.
    pub(crate) fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The answer has passed to its end: who leaves now has not cancelled.
    pub(crate) fn complete(&self) {
        self.whole.store(true, Ordering::Relaxed);
    }

    /// The app went away within its own body: whatever the answer is, nobody hears it.
    pub(crate) fn abandoned(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    fn outcome(&self) -> Option<StatusCode> {
        let heard = self.whole.load(Ordering::Relaxed) && !self.left.load(Ordering::Relaxed);
        self.status.get().copied().filter(|_| heard)
    }

    fn ending(&self, credential: Credential, code: Code) -> Ending {
        let carried_token = matches!(credential, Credential::Access | Credential::Id);
        match (self.error.get().map(|error| error.kind), code.status()) {
            // The challenge that a client waits for before it sends its credentials.
            (Some(ErrorKind::ProxyAuthRequired), _) => Ending::Answered,
            (Some(_), _) => Ending::Failed,
            (None, _) if code == Code::CANCELLED => Ending::Cancelled,
            (None, Some(401 | 403)) if carried_token => Ending::Rejected,
            (None, Some(500..)) => Ending::UpstreamError,
            (None, _) => Ending::Answered,
        }
    }

    fn is_logged(&self) -> bool {
        let refused = self.error.get().map(|error| error.kind);
        refused.is_none_or(|kind| self.ingress.logs_refusal(self.access_log, kind))
    }

    /// A tunnel lasts as long as somebody likes: that is no latency.
    fn latency(&self, took: Duration) -> Option<Duration> {
        let tunnel = self.method == Method::CONNECT
            || self.status.get() == Some(&StatusCode::SWITCHING_PROTOCOLS);
        (!tunnel).then_some(took)
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        // First, so that whoever reads the metrics finds the place free.
        self.release_permit();
        let ended = Instant::now();
        let took = ended.saturating_duration_since(self.started);
        let decision = self.decision.get();
        let credential = self.credential().unwrap_or(Credential::None);
        let code = self.outcome().map_or(Code::CANCELLED, Code::from);
        self.ingress
            .metrics
            .request_finished(credential, code, took);
        let ending = self.ending(credential, code);
        let latency = self.latency(took);
        self.ingress.metrics.ended(ended, ending, latency);
        if let (Ending::UpstreamError, Some(status), Some(destination)) =
            (ending, self.outcome(), self.destination.get())
        {
            let recent = self.ingress.metrics.recent();
            recent.upstream_error(&destination.origin, status, &self.ingress.name);
        }
        if let Some(error) = self.error.get() {
            self.ingress.metrics.recent().failed(&Failed {
                kind: error.kind,
                fault: error.fault,
                detail: &error.detail,
                origin: self
                    .destination
                    .get()
                    .map(|destination| &destination.origin),
                listener: &self.ingress.name,
            });
        }
        if self.access_log != AccessLog::Off && self.is_logged() {
            let key = decision.and_then(|decision| match &decision.grant {
                Grant::Token(key) => Some(key),
                Grant::None(_) | Grant::Deny(_) => None,
            });
            let carried = self.carried.get().zip(key);
            let email =
                carried.and_then(|(carried, key)| carried.instance.email_if_known(&key.principal));
            access_log(
                self.access_log,
                &AccessRecord {
                    method: Some(&self.method),
                    destination: self.destination.get(),
                    code,
                    request_bytes: self.received.load(Ordering::Relaxed),
                    response_bytes: self.sent.load(Ordering::Relaxed),
                    latency: took,
                    protocol: self.version,
                    user_agent: self.user_agent.as_ref(),
                    listener: &self.ingress.name,
                    credential: self.credential(),
                    rule: decision.map(|decision| &*decision.rule),
                    token: carried.map(|(carried, key)| telemetry::Carried {
                        key,
                        account: email.as_deref().or_else(|| key.principal.account()),
                        header: &carried.header,
                    }),
                    error: self.error.get().map(|error| (error.kind, &*error.detail)),
                    advice: self.error.get().map(Failure::advice),
                    trace: self.trace,
                },
            );
        }
        self.in_flight.end();
    }
}

impl fmt::Debug for RequestRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestRecord")
            .field("ingress", &self.ingress.name)
            .field("method", &self.method)
            .field("status", &self.status)
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
