//! The entry of docs/errors.md for each error. `type` of problem+json (RFC 9457, 3.1.1) and `help` of the log are its
//! URL. The URL has no version, because it must stay stable.

use crate::error::{ErrorKind, Problem, TokenFault};

macro_rules! entry {
    ($id:literal) => {
        concat!(
            "https://github.com/sidentity/sidentity/blob/main/docs/errors.md#",
            $id
        )
    };
}

pub(super) use entry;

// === impl ErrorKind ===

impl ErrorKind {
    /// Returns the URL of the entry for this kind.
    pub const fn page(self) -> &'static str {
        match self {
            Self::BadRequest => entry!("ambiguous-request"),
            Self::CertificateInvalid => entry!("certificate-invalid"),
            Self::ConnectionRefused => entry!("connection-refused"),
            Self::ConnectionTerminated => entry!("connection-terminated"),
            Self::ConnectionTimeout => entry!("connection-timeout"),
            Self::CrossSite => entry!("cross-site"),
            Self::Denied => entry!("denied"),
            Self::DnsFailed => entry!("dns-failed"),
            Self::DnsTimeout => entry!("dns-timeout"),
            Self::HeadTooLarge => entry!("head-too-large"),
            Self::HttpProtocol => entry!("http-protocol"),
            Self::Internal => entry!("internal"),
            Self::LimitReached => entry!("limit-reached"),
            Self::LoopDetected => entry!("loop-detected"),
            Self::Malformed => entry!("malformed-request"),
            Self::Misdirected => entry!("misdirected"),
            Self::NoRoute => entry!("no-route"),
            Self::NotAbsolute => entry!("no-absolute-url"),
            Self::ProxyAuthRequired => entry!("proxy-auth-required"),
            Self::ProxyRefused => entry!("upstream-proxy-refused"),
            Self::ResponseTimeout => entry!("response-timeout"),
            Self::TargetTooLong => entry!("target-too-long"),
            Self::TlsProtocol => entry!("tls-protocol"),
            Self::TlsToPlaintext => entry!("tls-to-plaintext"),
            Self::TokenRefused => entry!("token-refused"),
            Self::TokenUnavailable => entry!("token-unavailable"),
            Self::Unroutable => entry!("unroutable"),
        }
    }
}

// === impl TokenFault ===

impl TokenFault {
    /// Returns the URL of the entry for this cause.
    pub const fn page(self) -> &'static str {
        match self {
            Self::Aborted => entry!("token-aborted"),
            Self::Disabled => entry!("token-disabled"),
            Self::Failing => entry!("token-source-failing"),
            Self::Forbidden => entry!("token-forbidden"),
            Self::InvalidScope => entry!("token-invalid-scope"),
            Self::Limited => entry!("token-limited"),
            Self::Malformed => entry!("token-malformed"),
            Self::NoAccount => entry!("token-no-account"),
            Self::NoSubjectToken => entry!("token-no-subject-token"),
            Self::NotDelegated => entry!("token-not-delegated"),
            Self::NotImpersonated => entry!("token-not-impersonated"),
            Self::NothingFound => entry!("token-no-credentials"),
            Self::ProxyRefused => entry!("token-proxy-refused"),
            Self::Refused => entry!("token-request-refused"),
            Self::TimedOut => entry!("token-timeout"),
            Self::Unreachable => entry!("token-unreachable"),
            Self::Unsupported => entry!("token-unsupported"),
            Self::WrongServer => entry!("token-wrong-server"),
        }
    }
}

// === impl Problem ===

impl Problem {
    /// Returns the URL of the most specific entry: that of the cause of a missing token, otherwise that of the kind.
    pub(crate) const fn page(&self) -> &'static str {
        match self.fault() {
            Some((fault, _)) => fault.page(),
            None => self.kind().page(),
        }
    }
}
