//! Validates the URLs of subject tokens and of their inputs. They are not under Google's domain, so each kind has its
//! own rule.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::credentials::TrustedUrl;
use crate::credentials::json_fields::is_visible;
use crate::destination::{Destination, Host, Scheme};

/// The addresses of the instance metadata service of AWS.
const INSTANCE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];
/// The addresses of the container credentials endpoints of ECS and EKS Pod Identity.
const CONTAINER: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
];

/// A URL that satisfies the rule of its kind. It has no user information and no fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceUrl {
    text: Box<str>,
    is_local: bool,
}

/// The rules for URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UrlRule {
    /// The endpoint of ECS, EKS Pod Identity or a program on loopback, as AWS SDKs accept it.
    AwsContainer,
    /// The instance metadata service of EC2.
    AwsInstance,
    /// The endpoint of a subject token.
    SubjectToken,
}

// === impl SourceUrl ===

impl SourceUrl {
    /// Parses a URL and applies the rule. A trusted URL is exempt from the rule.
    ///
    /// # Errors
    ///
    /// Fails with the expected value.
    pub(super) fn parse(
        text: &str,
        rule: UrlRule,
        trusted: &[TrustedUrl],
    ) -> Result<Self, &'static str> {
        if !is_visible(text) {
            return Err("a URL of visible ASCII characters");
        }
        let destination = Destination::parse(text).map_err(|_| "a URL")?;
        if destination.userinfo || text.contains('#') {
            return Err("a URL without user-info and fragment");
        }
        let is_trusted = trusted.iter().any(|prefix| prefix.covers(&destination));
        if !rule.accepts(&destination) && !is_trusted {
            return Err(rule.expected());
        }
        Ok(Self {
            text: destination.to_string().into(),
            is_local: is_local(&destination.origin.host),
        })
    }

    /// Returns the URL of the request.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether the server is on this machine or its link, which no proxy can reach.
    pub(crate) fn is_local(&self) -> bool {
        self.is_local
    }
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The query may contain a secret.
        f.write_str(self.text.split('?').next().unwrap_or_default())
    }
}

// === impl UrlRule ===

impl UrlRule {
    fn accepts(self, destination: &Destination) -> bool {
        let origin = &destination.origin;
        let is_one_of =
            |addresses: &[IpAddr]| matches!(&origin.host, Host::Ip(ip) if addresses.contains(ip));
        match self {
            Self::AwsContainer => {
                origin.scheme == Scheme::Https || is_loopback(&origin.host) || is_one_of(&CONTAINER)
            }
            Self::AwsInstance => origin.scheme == Scheme::Http && is_one_of(&INSTANCE),
            Self::SubjectToken => origin.scheme == Scheme::Https || is_local(&origin.host),
        }
    }

    const fn expected(self) -> &'static str {
        match self {
            Self::AwsContainer => {
                "a URL with https, or http on loopback, 169.254.170.2, 169.254.170.23 or [fd00:ec2::23]"
            }
            Self::AwsInstance => {
                "a URL of the AWS metadata service, at http://169.254.169.254 or http://[fd00:ec2::254],"
            }
            Self::SubjectToken => {
                "a URL with https, or with http at a loopback or link-local address,"
            }
        }
    }
}

fn is_loopback(host: &Host) -> bool {
    match host {
        Host::Ip(ip) => ip.is_loopback(),
        // RFC 6761, 6.3.
        Host::Name(name) => &**name == "localhost" || name.ends_with(".localhost"),
    }
}

fn is_local(host: &Host) -> bool {
    is_loopback(host)
        || match host {
            Host::Ip(ip @ IpAddr::V4(v4)) => v4.is_link_local() || CONTAINER.contains(ip),
            Host::Ip(ip @ IpAddr::V6(v6)) => {
                v6.is_unicast_link_local() || INSTANCE.contains(ip) || CONTAINER.contains(ip)
            }
            Host::Name(_) => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(rule: UrlRule, url: &str) -> bool {
        SourceUrl::parse(url, rule, &[]).is_ok()
    }

    #[test]
    fn a_subject_token_url_is_https_or_local() {
        for url in [
            "https://token.actions.example/?audience=x",
            "http://127.0.0.1:8080/token",
            "http://localhost/token",
            "http://[::1]/",
            "http://169.254.169.254/metadata/identity/oauth2/token?resource=x",
            "http://[fe80::1]/",
        ] {
            assert!(accepted(UrlRule::SubjectToken, url), "{url}");
        }
        for url in [
            "http://token.actions.example/",
            "http://10.0.0.1/",
            "http://127.0.0.1.evil.example/",
            "http://localhost.evil.example/",
            "http://metadata/",
            "https://user:password@token.example/",
            "https://token.example/#fragment",
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
            "/token",
            "",
        ] {
            assert!(!accepted(UrlRule::SubjectToken, url), "{url}");
        }
    }

    #[test]
    fn aws_urls_are_those_of_its_metadata_services() {
        for url in [
            "http://169.254.169.254/latest/api/token",
            "http://[fd00:ec2::254]/latest/api/token",
        ] {
            assert!(accepted(UrlRule::AwsInstance, url), "{url}");
        }
        for url in [
            "https://169.254.169.254/",
            "http://169.254.169.253/",
            "http://127.0.0.1/",
            "http://[fd00:ec2::23]/",
            "http://[fd00:ec2::255]/",
            "http://169.254.169.254.evil.example/",
            "http://169.254.169.254@evil.example/",
            "https://evil.example/",
        ] {
            assert!(!accepted(UrlRule::AwsInstance, url), "{url}");
        }
        for url in [
            "http://169.254.170.2/v2/credentials/x",
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::23]/v1/credentials",
            "http://127.0.0.1:1338/x",
            "http://localhost:1338/x",
            "https://credentials.example/",
        ] {
            assert!(accepted(UrlRule::AwsContainer, url), "{url}");
        }
        for url in [
            "http://169.254.169.254/",
            "http://10.0.0.1/",
            "http://credentials.example/",
        ] {
            assert!(!accepted(UrlRule::AwsContainer, url), "{url}");
        }
    }

    #[test]
    fn a_trusted_url_needs_no_rule_and_a_message_shows_no_query() {
        let url = "http://imds.test:1338/latest/api/token?secret=x";
        let trusted = TrustedUrl::parse("http://imds.test:1338/latest").unwrap();
        let parsed = SourceUrl::parse(url, UrlRule::AwsInstance, &[trusted]).unwrap();
        assert_eq!(parsed.as_str(), url);
        assert_eq!(parsed.to_string(), "http://imds.test:1338/latest/api/token");
        assert!(!parsed.is_local());
    }
}
