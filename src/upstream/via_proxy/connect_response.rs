//! Parses the response to `CONNECT`, from an untrusted peer.

use std::fmt;
use std::time::Duration;

use crate::upstream::retry_after;

/// The largest size of all heads, including interim ones.
const HEAD_BYTES: usize = 16 * 1024;

/// The largest number of header fields in one head.
const FIELDS: usize = 100;

/// The largest number of interim responses.
const INTERIM: usize = 32;

/// The beginning of every status line.
const HTTP: &[u8] = b"HTTP/1.";

/// Reads heads until the final one.
#[derive(Debug, Default)]
pub(super) struct ConnectResponseReader {
    head: Vec<u8>,
    /// The number of bytes of heads so far.
    total: usize,
    interim: usize,
}

/// The final response's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConnectResponse {
    pub(super) status: u16,
    pub(super) reason: String,
    /// Header names in lower case, and values.
    fields: Vec<(String, String)>,
}

/// Why the bytes are not a valid response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Invalid {
    Interim,
    Large,
    NotHttp,
    Switched,
}

// === impl ConnectResponseReader ===

impl ConnectResponseReader {
    /// Parses the next bytes. Returns how many belong to heads, and the final head once it is complete.
    pub(super) fn read(
        &mut self,
        bytes: &[u8],
    ) -> Result<(usize, Option<ConnectResponse>), Invalid> {
        for (at, byte) in bytes.iter().enumerate() {
            // Empty lines may come before a status line (RFC 9112, 2.2).
            if !(self.head.is_empty() && matches!(byte, b'\r' | b'\n')) {
                self.head.push(*byte);
            }
            self.total += 1;
            if self.total > HEAD_BYTES {
                return Err(Invalid::Large);
            }
            if self.head.len() <= HTTP.len() && !HTTP.starts_with(&self.head) {
                return Err(Invalid::NotHttp);
            }
            if *byte == b'\n' && (self.head.ends_with(b"\n\r\n") || self.head.ends_with(b"\n\n")) {
                let response = ConnectResponse::parse(&std::mem::take(&mut self.head))?;
                match response.status {
                    101 => return Err(Invalid::Switched),
                    100..=199 => self.interim += 1,
                    _ => return Ok((at + 1, Some(response))),
                }
                if self.interim > INTERIM {
                    return Err(Invalid::Interim);
                }
            }
        }
        Ok((bytes.len(), None))
    }
}

// === impl ConnectResponse ===

impl ConnectResponse {
    fn parse(head: &[u8]) -> Result<Self, Invalid> {
        let head = String::from_utf8_lossy(head);
        let mut lines = head.lines();
        let line = lines.next().unwrap_or_default();
        let (version, rest) = line.split_once(' ').ok_or(Invalid::NotHttp)?;
        let minor = version.strip_prefix("HTTP/1.").unwrap_or_default();
        if minor.len() != 1 || !minor.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Invalid::NotHttp);
        }
        let (status, reason) = rest.split_once(' ').unwrap_or((rest, ""));
        let digits = status.len() == 3 && status.bytes().all(|b| b.is_ascii_digit());
        let status = status
            .parse()
            .ok()
            .filter(|status| digits && *status >= 100);
        let fields: Vec<_> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        if fields.len() > FIELDS {
            return Err(Invalid::Large);
        }
        Ok(Self {
            status: status.ok_or(Invalid::NotHttp)?,
            reason: reason.trim().to_owned(),
            fields,
        })
    }

    /// Returns whether the tunnel is open.
    pub(super) const fn is_success(&self) -> bool {
        matches!(self.status, 200..=299)
    }

    /// Returns the length of a plain-text body, or `None` for another body, or one without a length.
    pub(super) fn text_length(&self) -> Option<usize> {
        let is_text = self
            .all("content-type")
            .all(|kind| kind.starts_with("text/plain"));
        if !is_text || self.all("transfer-encoding").next().is_some() {
            return None;
        }
        let length = self.all("content-length").next()?.parse().ok()?;
        (length > 0).then_some(length)
    }

    /// Returns the names of the offered authentication schemes, in lower case.
    pub(super) fn schemes(&self) -> Vec<String> {
        let challenges = self.all("proxy-authenticate");
        challenges
            .filter_map(|challenge| super::scheme(challenge.as_bytes()))
            .take(super::SCHEMES)
            .collect()
    }

    /// Returns the time after which the proxy permits another attempt.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.all("retry-after").find_map(retry_after)
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let fields = self.fields.iter().filter(move |(field, _)| field == name);
        fields.map(|(_, value)| value.as_str())
    }
}

// === impl Invalid ===

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interim => write!(f, "has more than {INTERIM} interim responses (1xx)"),
            Self::Large => write!(
                f,
                "has a head of more than {} KiB or {FIELDS} fields",
                HEAD_BYTES / 1024
            ),
            Self::NotHttp => f.write_str("is not HTTP/1.1: is this an HTTP proxy?"),
            Self::Switched => f.write_str("switches protocols without a request to do so"),
        }
    }
}

/// Returns the final head of `bytes`, read in pieces of `size`, and the bytes after it. `None` if the head is
/// incomplete.
#[cfg(any(fuzzing, test))]
pub(super) fn read_in_pieces(
    bytes: &[u8],
    size: usize,
) -> Result<Option<(ConnectResponse, &[u8])>, Invalid> {
    let mut reader = ConnectResponseReader::default();
    let mut rest = bytes;
    for piece in bytes.chunks(size.max(1)) {
        let (taken, response) = reader.read(piece)?;
        rest = rest.get(taken..).unwrap_or_default();
        if let Some(response) = response {
            return Ok(Some((response, rest)));
        }
        assert_eq!(
            taken,
            piece.len(),
            "all belongs to a head that is not whole"
        );
    }
    Ok(None)
}
