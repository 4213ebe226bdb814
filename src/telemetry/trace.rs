//! The trace of a request, so that its log line appears beside those of the app.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::header_lookup;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const X_CLOUD_TRACE_CONTEXT: HeaderName = HeaderName::from_static("x-cloud-trace-context");

/// A trace, the caller's span in it, and whether it is recorded. It is only logged: the headers are forwarded
/// unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace: u128,
    span: Option<u64>,
    sampled: bool,
}

// === impl TraceContext ===

impl TraceContext {
    /// Parses `traceparent` (W3C Trace Context, 3.2), otherwise `X-Cloud-Trace-Context`. An invalid header is ignored.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        only(headers, &TRACEPARENT)
            .and_then(traceparent)
            .or_else(|| only(headers, &X_CLOUD_TRACE_CONTEXT).and_then(x_cloud_trace_context))
    }

    /// Returns the trace's id, 32 lower-case hexadecimal digits.
    pub fn trace_id(&self) -> impl fmt::Display + fmt::Debug + use<> {
        Hex(self.trace, 32)
    }

    /// Returns the caller's span, 16 lower-case hexadecimal digits. `X-Cloud-Trace-Context` may have none.
    pub fn span_id(&self) -> Option<impl fmt::Display + fmt::Debug + use<>> {
        self.span.map(|span| Hex(u128::from(span), 16))
    }

    /// Returns whether the caller records this trace.
    pub(crate) const fn sampled(&self) -> bool {
        self.sampled
    }
}

/// A number, and its number of digits.
#[derive(Debug)]
struct Hex(u128, usize);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0width$x}", self.0, width = self.1)
    }
}

/// Returns the only value of a header. Of several values, none is known to be the right one.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = header_lookup::values(headers, name);
    let value = values.next()?;
    values
        .next()
        .is_none()
        .then(|| HeaderValue::as_bytes(value))
}

/// Parses `VERSION-TRACE-PARENT-FLAGS`. A later version may append fields after another hyphen (3.2.4).
fn traceparent(value: &[u8]) -> Option<TraceContext> {
    let mut parts = value.splitn(5, |byte| *byte == b'-');
    let version = lower_hex(parts.next()?, 2)?;
    let trace = lower_hex(parts.next()?, 32)?;
    let span = u64::try_from(lower_hex(parts.next()?, 16)?).ok()?;
    let flags = lower_hex(parts.next()?, 2)?;
    let known = match version {
        0 => parts.next().is_none(),
        0xff => false,
        _ => true,
    };
    (known && trace != 0 && span != 0).then_some(TraceContext {
        trace,
        span: Some(span),
        sampled: flags & 1 == 1,
    })
}

/// Parses `TRACE[/SPAN][;o=OPTIONS]`: the trace in hexadecimal, the span in decimal.
fn x_cloud_trace_context(value: &[u8]) -> Option<TraceContext> {
    let value = str::from_utf8(value).ok()?;
    let (ids, options) = match value.split_once(';') {
        Some((ids, options)) => (ids, Some(options)),
        None => (value, None),
    };
    let (trace, span) = match ids.split_once('/') {
        Some((trace, span)) => (trace, Some(span)),
        None => (ids, None),
    };
    let trace = lower_hex(trace.to_ascii_lowercase().as_bytes(), 32)?;
    let span = match span {
        Some(span) => decimal(span)?,
        None => 0,
    };
    let options = match options {
        Some(options) => decimal(options.strip_prefix("o=")?)?,
        None => 0,
    };
    (trace != 0).then_some(TraceContext {
        trace,
        span: (span != 0).then_some(span),
        sampled: options & 1 == 1,
    })
}

fn decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Parses exactly `count` digits.
fn lower_hex(digits: &[u8], count: usize) -> Option<u128> {
    if digits.len() != count {
        return None;
    }
    digits.iter().try_fold(0_u128, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests;
