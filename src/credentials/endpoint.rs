//! Validates the URLs of token, STS and IAM endpoints in credential files. Another host would receive the key's
//! signature, a refresh token or a subject token.

use std::fmt;
use std::net::IpAddr;

use super::json_fields::{ExpectedValue, is_visible};
use crate::destination::{Destination, Host, Scheme};

/// The services that receive the secrets of credential files, as labels or parts of labels of their hosts.
const SERVICES: [&str; 3] = ["iamcredentials", "oauth2", "sts"];

/// The labels below which a bucket's name is a label, such as `sts.storage.googleapis.com`.
const BUCKETS: [&str; 2] = ["commondatastorage", "storage"];

/// A URL that may receive secrets: `https` on a host of the universe's token services, or trusted by
/// `--trust-credential-url`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndpointUrl(Destination);

/// A prefix of URLs that the user trusts (`--trust-credential-url`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedUrl(Destination);

// === impl EndpointUrl ===

impl EndpointUrl {
    /// Validates a URL of a credential file of this universe.
    pub(super) fn parse(
        text: &str,
        universe: &str,
        trusted: &[TrustedUrl],
    ) -> Result<Self, ExpectedValue> {
        let url = plain(text).ok_or(ExpectedValue::Url)?;
        let is_google = url.origin.scheme == Scheme::Https && is_token_service(&url, universe);
        if is_google || trusted.iter().any(|prefix| prefix.covers(&url)) {
            Ok(Self(url))
        } else {
            Err(ExpectedValue::UrlUnder(universe.to_owned()))
        }
    }

    /// Returns the URL of an endpoint that Google defines, such as `https://iamcredentials.googleapis.com/v1/…`.
    /// Returns `None` if the parts do not form a URL.
    pub(crate) fn of_google(service: &str, universe: &str, path: &str) -> Option<Self> {
        plain(&format!("https://{service}.{universe}{path}")).map(Self)
    }

    /// Returns the destination of the URL.
    pub(crate) fn destination(&self) -> &Destination {
        &self.0
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl TrustedUrl ===

impl TrustedUrl {
    /// Parses `http[s]://HOST[:PORT][/PATH]`.
    ///
    /// # Errors
    ///
    /// Fails if the text is not such a URL. The message says what is expected.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        plain(text)
            .filter(|url| url.query().is_none())
            .map(Self)
            .ok_or(
                "must be a URL without user, query, fragment or dot segments, like https://sts.example.com/",
            )
    }

    /// Returns whether the URL begins with this prefix: the same scheme, host and port, and a path that continues after
    /// a whole segment.
    pub(super) fn covers(&self, url: &Destination) -> bool {
        let rest = url.path().strip_prefix(self.0.path());
        url.origin == self.0.origin
            && rest.is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('/') || self.0.path().ends_with('/')
            })
    }

    /// Returns whether requests to it leave this machine and its link unencrypted.
    pub(crate) fn is_cleartext(&self) -> bool {
        let origin = &self.0.origin;
        let is_near = match &origin.host {
            Host::Ip(IpAddr::V4(ip)) => ip.is_link_local(),
            Host::Ip(IpAddr::V6(ip)) => ip.is_unicast_link_local(),
            Host::Name(_) => false,
        };
        origin.scheme == Scheme::Http && !origin.host.is_loopback() && !is_near
    }
}

impl fmt::Display for TrustedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Returns whether a URL under the universe's domain belongs to OAuth, STS or IAM Credentials. Other APIs, such as the
/// upload of Cloud Storage, would store the secret for somebody else.
///
/// Google's patterns are `sts.googleapis.com`, `sts.REGION.googleapis.com`, `REGION.sts.googleapis.com`,
/// `REGION-sts.googleapis.com`, `sts-NAME.p.googleapis.com` and `sts.REGION.rep.googleapis.com`.
fn is_token_service(url: &Destination, universe: &str) -> bool {
    let host = &url.origin.host;
    let below = host
        .name()
        .filter(|_| host.is_under(universe))
        .and_then(|name| name.strip_suffix(universe)?.strip_suffix('.'));
    let Some(below) = below else {
        return false;
    };
    if below == "www" {
        // The other paths of this host are those of many APIs.
        return url.path().starts_with("/oauth2/");
    }
    let of_bucket = below.split('.').any(|label| BUCKETS.contains(&label));
    !of_bucket && below.split(['.', '-']).any(|part| SERVICES.contains(&part))
}

/// Parses a URL without user information and fragment, and with a path that every server interprets alike.
fn plain(text: &str) -> Option<Destination> {
    if !is_visible(text) || text.contains(['#', '\\']) {
        return None;
    }
    let url = Destination::parse(text).ok()?;
    let lower = url.path().to_ascii_lowercase();
    let ambiguous = ["%2e", "%2f", "%5c", "//"]
        .iter()
        .any(|part| lower.contains(part));
    let dots = lower.split('/').any(|part| matches!(part, "." | ".."));
    (!url.userinfo && !ambiguous && !dots).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str, universe: &str, trusted: &[&str]) -> Result<String, ExpectedValue> {
        let trusted: Vec<_> = trusted
            .iter()
            .map(|prefix| TrustedUrl::parse(prefix).unwrap())
            .collect();
        EndpointUrl::parse(url, universe, &trusted).map(|url| url.to_string())
    }

    #[test]
    fn an_endpoint_is_https_on_a_token_service_under_the_universes_domain() {
        for (url, universe) in [
            ("https://oauth2.googleapis.com/token", "googleapis.com"),
            ("https://OAuth2.GoogleAPIs.com./token", "googleapis.com"),
            (
                "https://sts.us-east1.rep.googleapis.com/v1/token?x=y",
                "googleapis.com",
            ),
            ("https://iamcredentials.s3nsapis.fr/v1", "s3nsapis.fr"),
            ("https://sts.us-east1.googleapis.com/", "googleapis.com"),
            ("https://us-east1.sts.googleapis.com/", "googleapis.com"),
            ("https://us-east1-sts.googleapis.com/", "googleapis.com"),
            ("https://sts-shop.p.googleapis.com/", "googleapis.com"),
            ("https://sts.mtls.googleapis.com/", "googleapis.com"),
            (
                "https://iamcredentials.us-east1.rep.googleapis.com/v1",
                "googleapis.com",
            ),
            (
                "https://us-east1-iamcredentials.googleapis.com/v1",
                "googleapis.com",
            ),
            (
                "https://www.googleapis.com/oauth2/v4/token",
                "googleapis.com",
            ),
        ] {
            assert!(parsed(url, universe, &[]).is_ok(), "{url}");
        }
        for url in [
            "https://oauth2.s3nsapis.fr/token",
            "https://googleapis.com/token",
            "https://googleapis.com.evil.example/token",
            "https://evilgoogleapis.com/token",
            "https://evil.example/oauth2.googleapis.com/token",
            "https://127.0.0.1/token",
            "http://oauth2.googleapis.com/token",
            "https://storage.googleapis.com/upload/storage/v1/b/evil/o",
            "https://sts.storage.googleapis.com/",
            "https://evil-sts.commondatastorage.googleapis.com/",
            "https://www.googleapis.com/upload/storage/v1/b/evil/o",
            "https://www.googleapis.com/oauth2",
            "https://www-sts2.googleapis.com/oauth2/token",
            "https://logging.googleapis.com/oauth2/sts",
            "https://mysts.googleapis.com/",
        ] {
            let expected = ExpectedValue::UrlUnder("googleapis.com".to_owned());
            assert_eq!(parsed(url, "googleapis.com", &[]), Err(expected), "{url}");
        }
        for url in [
            "",
            "oauth2.googleapis.com/token",
            "ftp://oauth2.googleapis.com/token",
            "https://user:secret@oauth2.googleapis.com/token",
            "https://oauth2.googleapis.com@evil.example/token",
            "https://oauth2.googleapis.com/token#x",
            "https://oauth2.googleapis.com/a/../token",
            "https://oauth2.googleapis.com/a/%2E%2e/token",
            "https://oauth2.googleapis.com\\@evil.example/token",
            "https://oauth2.googleapis.com/ token",
        ] {
            assert_eq!(
                parsed(url, "googleapis.com", &[]),
                Err(ExpectedValue::Url),
                "{url}"
            );
        }
    }

    #[test]
    fn a_trusted_prefix_covers_whole_segments_of_its_own_host() {
        for (prefix, covered, not_covered) in [
            (
                "https://sts.example",
                &[
                    "https://sts.example/v1/token",
                    "https://STS.example:443/?a=b",
                ] as &[&str],
                &[
                    "https://sts.example.evil/v1/token",
                    "https://sts.example:8443/v1/token",
                    "http://sts.example/v1/token",
                    "https://a.sts.example/v1/token",
                    "https://sts.example@evil.example/",
                ] as &[&str],
            ),
            (
                "http://127.0.0.1:8981/token",
                &[
                    "http://127.0.0.1:8981/token",
                    "http://127.0.0.1:8981/token/x",
                    "http://127.0.0.1:8981/token?x",
                ],
                &[
                    "http://127.0.0.1:8981/tokens",
                    "http://127.0.0.1:8981/",
                    "http://127.0.0.1:8982/token",
                    "https://127.0.0.1:8981/token",
                    "http://127.0.0.1:8981/token/../x",
                ],
            ),
            (
                "https://sts.example/v1/",
                &["https://sts.example/v1/token", "https://sts.example/v1/"],
                &["https://sts.example/v1", "https://sts.example/v10/token"],
            ),
        ] {
            for url in covered {
                assert!(parsed(url, "googleapis.com", &[prefix]).is_ok(), "{url}");
            }
            for url in not_covered {
                assert!(parsed(url, "googleapis.com", &[prefix]).is_err(), "{url}");
            }
        }
    }

    #[test]
    fn a_prefix_that_could_be_read_in_two_ways_is_refused() {
        for text in [
            "",
            "sts.example",
            "https://",
            "https://user@sts.example/",
            "https://sts.example/?a=b",
            "https://sts.example/#a",
            "https://sts.example/a/../b",
            "https://*.example/",
        ] {
            assert!(TrustedUrl::parse(text).is_err(), "{text}");
        }
    }
}
