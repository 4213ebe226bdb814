//! The label `code` of a request.

use std::fmt;

use http::StatusCode;

/// The result of a request: `sidentity_requests_total{code}`.
///
/// It is the status itself from 100 to 599, so that the number is the same as in every other log. The set is closed for
/// any response of an upstream.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(u16);

// === impl Code ===

impl Code {
    /// The caller cancelled the request.
    pub const CANCELLED: Self = Self(0);
    /// Not a status of HTTP.
    pub(crate) const OTHER: Self = Self(1);

    /// Returns the status, if there is one.
    pub(crate) fn status(self) -> Option<u16> {
        (self.0 >= 100).then_some(self.0)
    }
}

impl From<StatusCode> for Code {
    fn from(status: StatusCode) -> Self {
        match status.as_u16() {
            status @ 100..=599 => Self(status),
            _ => Self::OTHER,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::CANCELLED => f.pad("cancelled"),
            Self::OTHER => f.pad("other"),
            Self(status) => fmt::Display::fmt(&status, f),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({self})")
    }
}
