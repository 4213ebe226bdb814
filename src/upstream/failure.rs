//! Converts the errors of the layers below to an [`ErrorKind`] and a message.
//!
//! The message names the destination's origin and the address dialled. It never contains a header, a path, or bytes
//! that the upstream chose, because an upstream may echo what it received.

mod certificate;
mod signal;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use self::certificate::certificate;
use self::signal::grpc_status;
use super::cancellable_body::Broken;
use super::interim;
use crate::config::UpstreamProxy;
use crate::destination::Origin;
use crate::error::{Error, ErrorKind};

pub(super) use self::signal::{
    is_broken, is_closed, is_going_away, is_malformed, is_too_many_pings, is_unprocessed,
};

/// Too many open files in the process, and in the system (Linux).
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// A failure. Several requests may share it.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    pub(super) detail: String,
    /// HTTP/2: the error code of the upstream's reset of the stream.
    reset: Option<h2::Reason>,
    /// The upstream has not processed the request, but it cannot be sent again.
    pub(super) refused: bool,
    /// The connection failed before TLS.
    pub(super) before_tls: bool,
    /// A retry may succeed, although its kind is not retried.
    transient: bool,
    /// The peer's `Retry-After`.
    retry_after: Option<Duration>,
}

/// The peer of a connection: the destination, the upstream proxy, and the address of the socket.
#[derive(Clone, Debug)]
pub(super) struct UpstreamPeer {
    pub(super) origin: Origin,
    /// The upstream proxy.
    pub(super) proxy: Option<Arc<UpstreamProxy>>,
    pub(super) address: Option<SocketAddr>,
}

/// The error below hyper's, found among its sources.
enum Cause<'a> {
    /// The request's own body.
    Request,
    Http2(&'a h2::Error),
    Tls(&'a rustls::Error),
    Io(&'a io::Error),
    None,
}

// === impl Failure ===

impl Failure {
    pub(super) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            reset: None,
            refused: false,
            before_tls: false,
            transient: false,
            retry_after: None,
        }
    }

    /// Marks a failure before TLS.
    #[must_use]
    pub(super) fn before_tls(self) -> Self {
        Self {
            before_tls: true,
            ..self
        }
    }

    /// Marks a failure that a retry may resolve.
    #[must_use]
    pub(super) fn transient(self) -> Self {
        Self {
            transient: true,
            ..self
        }
    }

    /// The same, with the time after which the peer permits another attempt.
    #[must_use]
    pub(super) fn retry_after(self, wait: Option<Duration>) -> Self {
        Self {
            retry_after: wait,
            ..self
        }
    }

    /// Returns the failure of a TCP connection.
    pub(super) fn connect(peer: &UpstreamPeer, error: &io::Error) -> Self {
        use io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::ConnectionRefused => ErrorKind::ConnectionRefused,
            Io::TimedOut => ErrorKind::ConnectionTimeout,
            Io::ConnectionReset | Io::ConnectionAborted => ErrorKind::ConnectionTerminated,
            _ if matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) => ErrorKind::LimitReached,
            // EHOSTUNREACH, ENETUNREACH, ENETDOWN, EADDRNOTAVAIL, EINVAL, EACCES: the address cannot be reached.
            _ => ErrorKind::Unroutable,
        };
        Self::new(kind, format!("{peer}: {error}"))
    }

    /// Returns the failure of a TLS handshake.
    pub(super) fn tls(peer: &UpstreamPeer, error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(error) => Self::of_tls(peer, error),
            None => Self::new(
                ErrorKind::TlsProtocol,
                format!("{peer}: the connection was closed during the TLS handshake ({error})"),
            )
            .transient(),
        }
    }

    /// Returns the failure of a step that timed out. `what` names the step.
    pub(super) fn timed_out(peer: &UpstreamPeer, what: &str, after: Duration) -> Self {
        Self::new(
            ErrorKind::ConnectionTimeout,
            format!("{peer}: no {what} within {after:?}"),
        )
    }

    /// Returns the failure of an established connection, or of a request on it.
    pub(super) fn exchange(peer: &UpstreamPeer, error: &hyper::Error) -> Self {
        if error.is_parse() {
            return Self::new(
                ErrorKind::HttpProtocol,
                format!("{peer}: the response is not valid HTTP ({error})"),
            );
        }
        match cause(error) {
            Cause::Request => Self::request(peer),
            // hyper itself resets a stream whose request it cannot finish.
            Cause::Http2(error)
                if error.is_reset() && !error.is_remote() && !error.is_library() =>
            {
                Self::request(peer)
            }
            Cause::Http2(error) if error.get_io().is_some_and(interim::is_flood) => {
                Self::flood(peer)
            }
            Cause::Http2(error) => Self::of_http2(peer, error),
            Cause::Tls(error) => Self::of_tls(peer, error),
            Cause::Io(error) if interim::is_flood(error) => Self::flood(peer),
            Cause::Io(error) => Self::new(
                ErrorKind::ConnectionTerminated,
                format!(
                    "{peer}: the connection was closed before the response ({})",
                    error.kind()
                ),
            ),
            Cause::None if error.is_timeout() => Self::new(
                ErrorKind::ConnectionTerminated,
                format!("{peer}: the upstream no longer answers HTTP/2 PINGs"),
            ),
            Cause::None => Self::new(
                ErrorKind::ConnectionTerminated,
                format!("{peer}: the connection was closed before the response"),
            ),
        }
    }

    pub(super) fn flood(peer: &UpstreamPeer) -> Self {
        Self::new(
            ErrorKind::HttpProtocol,
            format!(
                "{peer}: the upstream sent more than {} interim responses (1xx) to one request, or too large ones",
                interim::MAX_INTERIM
            ),
        )
    }

    fn request(peer: &UpstreamPeer) -> Self {
        Self::new(
            ErrorKind::BadRequest,
            format!("{peer}: the request's body ended before it was complete"),
        )
    }

    fn of_tls(peer: &UpstreamPeer, error: &rustls::Error) -> Self {
        let (kind, text) = match error {
            rustls::Error::InvalidCertificate(error) => {
                (ErrorKind::CertificateInvalid, certificate(error))
            }
            rustls::Error::NoCertificatesPresented => (
                ErrorKind::CertificateInvalid,
                "the upstream presented no certificate".to_owned(),
            ),
            error => (ErrorKind::TlsProtocol, format!("TLS: {error}")),
        };
        Self::new(kind, format!("{peer}: {text}"))
    }

    fn of_http2(peer: &UpstreamPeer, error: &h2::Error) -> Self {
        let reason = error.reason();
        if interim::is_lost(error) {
            return Self::new(
                ErrorKind::ConnectionTerminated,
                format!("{peer}: the connection was closed after an interim response (1xx)"),
            );
        }
        let (kind, text) = match reason {
            _ if error.is_library() => (
                ErrorKind::HttpProtocol,
                "the upstream's bytes are not valid HTTP/2",
            ),
            Some(h2::Reason::HTTP_1_1_REQUIRED) => (
                ErrorKind::HttpProtocol,
                "the upstream requires HTTP/1.1 for this request",
            ),
            Some(h2::Reason::PROTOCOL_ERROR | h2::Reason::COMPRESSION_ERROR) => (
                ErrorKind::HttpProtocol,
                "the upstream rejected the request as invalid HTTP/2",
            ),
            _ if error.is_go_away() => (
                ErrorKind::ConnectionTerminated,
                "the upstream closes the connection",
            ),
            _ if error.is_reset() => (
                ErrorKind::ConnectionTerminated,
                "the upstream reset the stream",
            ),
            _ => (
                ErrorKind::ConnectionTerminated,
                "the connection was closed before the response",
            ),
        };
        let by_peer = error.is_reset() && error.is_remote();
        let code = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
        Self {
            reset: reason.filter(|_| by_peer),
            ..Self::new(kind, format!("{peer}: {text}{code}"))
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let mut error = Self::new(failure.kind, failure.detail);
        if let Some(code) = failure.reset {
            error = error.grpc_status(grpc_status(code));
        }
        if failure.transient {
            error = error.transient();
        }
        if let Some(wait) = failure.retry_after {
            error = error.retry_after(wait);
        }
        if failure.refused {
            // The reason with which hyper resets the app's own stream.
            error = error.unprocessed(h2::Error::from(h2::Reason::REFUSED_STREAM));
        }
        error
    }
}

// === impl UpstreamPeer ===

impl fmt::Display for UpstreamPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.origin.fmt(f)?;
        if let Some(proxy) = &self.proxy {
            write!(f, " through the proxy {}", proxy.egress)?;
        }
        match self.address {
            Some(address) => write!(f, " at {address}"),
            None => Ok(()),
        }
    }
}

/// Converts a body's error to an I/O error. hyper's error stays its source, with the reason of HTTP/2.
pub(super) fn of_body(error: hyper::Error) -> io::Error {
    use io::ErrorKind as Io;
    let kind = match cause(&error) {
        _ if error.is_timeout() => Io::TimedOut,
        // The code was set here, so it is not passed on.
        Cause::Http2(error) if interim::is_lost(error) => {
            return Io::ConnectionAborted.into();
        }
        Cause::Http2(error) if error.is_library() => Io::InvalidData,
        Cause::Http2(error) if error.is_io() => Io::ConnectionAborted,
        Cause::Http2(_) => Io::ConnectionReset,
        Cause::Tls(_) => Io::InvalidData,
        Cause::Io(error) => error.kind(),
        Cause::Request | Cause::None => Io::UnexpectedEof,
    };
    io::Error::new(kind, error)
}

/// Returns the error of a response whose body failed with an error of [`of_body`].
pub(crate) fn of_interrupted(error: &(dyn StdError + 'static)) -> Error {
    let io = error.downcast_ref::<io::Error>();
    let hyper = io.and_then(|error| error.get_ref()?.downcast_ref::<hyper::Error>());
    let (kind, detail) = match (io.map(io::Error::kind), hyper.map(cause)) {
        (_, Some(Cause::Tls(_))) => (
            ErrorKind::TlsProtocol,
            "TLS with the upstream failed during its response",
        ),
        (Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput), _) => (
            ErrorKind::HttpProtocol,
            "the body of the upstream's response is not valid HTTP",
        ),
        _ => (
            ErrorKind::ConnectionTerminated,
            "the upstream closed the connection during its response",
        ),
    };
    Error::new(kind, detail)
}

fn cause(error: &hyper::Error) -> Cause<'_> {
    let mut next = error.source();
    while let Some(error) = next {
        if error.is::<Broken>() {
            return Cause::Request;
        }
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return Cause::Http2(error);
        }
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Cause::Tls(error);
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            // `source` of an I/O error skips the wrapped error.
            return match error.get_ref().and_then(|inner| inner.downcast_ref()) {
                Some(tls) => Cause::Tls(tls),
                None => Cause::Io(error),
            };
        }
        next = error.source();
    }
    Cause::None
}

#[cfg(test)]
#[path = "failure/tests.rs"]
mod tests;
