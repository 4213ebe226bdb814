//! Parses the URL that a user asks about. Users often omit the scheme.

use super::ExplainError;
use super::how::EntryPoints;
use crate::destination::{Destination, InvalidDestination};
use crate::policy::Policy;

/// A URL whose scheme may be an assumption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestedUrl {
    /// The URL that the app calls.
    pub(crate) destination: Destination,
    /// The assumption as a text.
    pub(crate) note: Option<String>,
}

// === impl RequestedUrl ===

impl RequestedUrl {
    /// Parses a URL. Without a scheme, it is `http` on loopback and for service names, which apps call in cleartext,
    /// and otherwise `https`. `ws` and `wss` mean the HTTP requests that open a WebSocket (RFC 6455, 4.1).
    ///
    /// # Errors
    ///
    /// Fails if the text is not a URL.
    pub(crate) fn parse(
        url: &str,
        policy: &Policy,
        entry_points: &EntryPoints,
    ) -> Result<Self, ExplainError> {
        let url = url.trim();
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme, rest)) if !scheme.contains('/') => (scheme.to_ascii_lowercase(), rest),
            _ => return Self::without_scheme(url, policy, entry_points),
        };
        let web = match &*scheme {
            "ws" => "http",
            "wss" => "https",
            _ => {
                return Ok(Self {
                    destination: Destination::parse(url)?,
                    note: None,
                });
            }
        };
        Ok(Self {
            destination: Destination::parse(&format!("{web}://{rest}"))?,
            note: Some(format!(
                "{scheme}:// is {web}:// to the sidecar: a WebSocket begins as an HTTP request"
            )),
        })
    }

    fn without_scheme(
        url: &str,
        policy: &Policy,
        entry_points: &EntryPoints,
    ) -> Result<Self, ExplainError> {
        let rest = url.strip_prefix("//").unwrap_or(url);
        let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        // "mailto:jane@example.com" has a scheme that is not HTTP. In "user:password@host", only the user is shown.
        if authority.is_empty() || authority.contains('@') {
            let shown: String = url
                .split([':', '@'])
                .next()
                .unwrap_or(url)
                .chars()
                .take(80)
                .collect();
            return Err(
                InvalidDestination::Url(format!("{shown:?}: write https://HOST/PATH")).into(),
            );
        }
        let cleartext = Destination::parse(&format!("http://{rest}"))?;
        let is_cleartext = cleartext.origin.host.is_loopback()
            || entry_points.is_entry(&cleartext)
            || policy.service(&cleartext).is_some();
        let (scheme, destination) = if is_cleartext {
            ("http", cleartext)
        } else {
            ("https", Destination::parse(&format!("https://{rest}"))?)
        };
        Ok(Self {
            destination,
            note: Some(format!("the URL has no scheme: {scheme}:// is assumed")),
        })
    }
}
