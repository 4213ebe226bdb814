//! Placeholders: values that an app sends if its client library requires a static key.
//!
//! A placeholder does not count as a credential. It is removed if the request gets a token, so that the token is the
//! only credential.

use std::borrow::Cow;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::AUTHORIZATION;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

/// Basic credentials, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The headers that may carry a placeholder.
const CARRIERS: [HeaderName; 4] = [
    AUTHORIZATION,
    HeaderName::from_static("x-goog-api-key"),
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
];

/// The values that do not count as credentials: `sidentity`, and those of `--placeholder`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placeholders(Box<[Box<str>]>);

/// Where a request contains placeholders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FoundPlaceholders {
    headers: bool,
    query: bool,
}

// === impl Placeholders ===

impl Placeholders {
    /// The placeholder that needs no option.
    pub(crate) const WORD: &str = "sidentity";

    /// Creates the set of [`WORD`](Self::WORD) and these values.
    pub(crate) fn new(values: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        Self(values.into_iter().map(|v| v.as_ref().into()).collect())
    }

    /// Parses a value of `--placeholder`.
    ///
    /// # Errors
    ///
    /// The value is empty or not visible ASCII, so no header could carry it as a key.
    pub(crate) fn parse(text: &str) -> Result<String, &'static str> {
        let is_valid = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_valid
            .then(|| text.to_owned())
            .ok_or("must be one or more visible ASCII characters, without spaces")
    }

    /// Finds placeholders. It does not allocate for a request without a credential.
    pub fn find(&self, headers: &HeaderMap, query: Option<&str>) -> FoundPlaceholders {
        FoundPlaceholders {
            headers: headers
                .iter()
                .any(|(name, value)| self.is_in_header(name, value)),
            query: query.is_some_and(|query| query.split('&').any(|pair| self.is_in_pair(pair))),
        }
    }

    /// Removes the placeholders of these headers. Other values of the same headers stay, in their order.
    pub fn remove_from_headers(&self, headers: &mut HeaderMap) {
        for name in CARRIERS {
            let values = headers.get_all(&name);
            if !values.iter().any(|value| self.is_in_header(&name, value)) {
                continue;
            }
            let kept: Vec<_> = values
                .iter()
                .filter(|value| !self.is_in_header(&name, value))
                .cloned()
                .collect();
            headers.remove(&name);
            for value in kept {
                headers.append(name.clone(), value);
            }
        }
    }

    /// Returns the target without `key=` parameters that hold a placeholder. The rest is unchanged.
    pub fn remove_from_query(&self, target: &PathAndQuery) -> PathAndQuery {
        let pairs = target.query().into_iter().flat_map(|q| q.split('&'));
        let mut text = target.path().to_owned();
        let mut separator = '?';
        for pair in pairs.filter(|pair| !self.is_in_pair(pair)) {
            text.push(separator);
            text.push_str(pair);
            separator = '&';
        }
        // A part of a valid target is valid.
        PathAndQuery::try_from(text).unwrap_or_else(|_| target.clone())
    }

    fn is_in_header(&self, name: &HeaderName, value: &HeaderValue) -> bool {
        match name.as_str() {
            "authorization" => self.is_in_credentials(value.as_bytes().trim_ascii()),
            "x-goog-api-key" | "x-api-key" | "api-key" => self.has(value.as_bytes().trim_ascii()),
            _ => false,
        }
    }

    /// Matches `Bearer PLACEHOLDER`, and `Basic` with a placeholder as the password (RFC 7617, 2).
    fn is_in_credentials(&self, credentials: &[u8]) -> bool {
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
        let Some(end) = credentials.iter().position(is_space) else {
            return false;
        };
        let (scheme, rest) = credentials.split_at(end);
        let rest = rest.trim_ascii_start();
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return self.has(rest);
        }
        scheme.eq_ignore_ascii_case(b"basic")
            && BASE64.decode(rest).is_ok_and(|pair| {
                let colon = pair.iter().position(|byte| *byte == b':');
                colon
                    .and_then(|colon| pair.get(colon + 1..))
                    .is_some_and(|password| self.has(password))
            })
    }

    fn is_in_pair(&self, pair: &str) -> bool {
        pair.split_once('=').is_some_and(|(name, value)| {
            percent_decode_str(name).eq(b"key".iter().copied())
                && self.has(&Cow::from(percent_decode_str(value)))
        })
    }

    /// Returns whether the value is a placeholder. The comparison takes constant time.
    fn has(&self, value: &[u8]) -> bool {
        let values = self.0.iter().map(|known| &**known).chain([Self::WORD]);
        let same = |known: &&str| verify_slices_are_equal(known.as_bytes(), value).is_ok();
        values.filter(same).count() > 0
    }
}

// === impl FoundPlaceholders ===

impl FoundPlaceholders {
    /// Returns whether there is a placeholder.
    pub const fn any(self) -> bool {
        self.headers || self.query
    }

    /// Returns whether the query has a placeholder.
    pub(crate) const fn in_query(self) -> bool {
        self.query
    }
}

#[cfg(test)]
mod tests;
