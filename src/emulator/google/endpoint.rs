//! Finds the endpoint of a request.

use std::net::IpAddr;

/// An endpoint of the emulated Google or AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// Any other request to a host that is not an endpoint: a service that is called with a token.
    Api,
    /// `AssumeRoleWithWebIdentity` of AWS STS.
    AwsAssumeRole,
    /// Container credentials of ECS, and of EKS Pod Identity.
    AwsContainer,
    /// IMDSv2 below `/latest/meta-data/`.
    AwsMetadata,
    /// The session token of IMDSv2.
    AwsSession,
    /// `generateAccessToken` of IAM Credentials.
    GenerateAccessToken,
    /// `generateIdToken` of IAM Credentials.
    GenerateIdToken,
    /// `signJwt` of IAM Credentials.
    SignJwt,
    /// The token exchange of STS.
    StsExchange,
    /// The refresh of a workforce user at STS.
    StsRefresh,
    /// A URL that returns subject tokens.
    SubjectToken,
    /// The token endpoint of OAuth 2.
    Token,
}

/// The meaning of a request's host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Site {
    /// An address or local name, which serves all paths.
    Local,
    Aws,
    Iam,
    OAuth,
    Sts,
    Other,
}

// === impl Endpoint ===

impl Endpoint {
    /// Returns the endpoint of a host (with or without port) and path. Returns `None` if the host is an endpoint's and
    /// does not serve the path.
    pub fn of(host: &str, path: &str) -> Option<Self> {
        let site = Site::of(host);
        let named = Self::by_path(path).filter(|endpoint| endpoint.is_at(site));
        match (named, site) {
            (Some(endpoint), _) => Some(endpoint),
            (None, Site::Other) => Some(Self::Api),
            (None, _) => None,
        }
    }

    /// Returns the endpoint of a path on a server that has all endpoints.
    pub(crate) fn of_local(path: &str) -> Option<Self> {
        Self::by_path(path)
    }

    fn by_path(path: &str) -> Option<Self> {
        Some(match path {
            "/token" => Self::Token,
            "/v1/token" => Self::StsExchange,
            "/v1/oauthtoken" => Self::StsRefresh,
            "/actions/id-token" => Self::SubjectToken,
            "/latest/api/token" => Self::AwsSession,
            "/" => Self::AwsAssumeRole,
            // EKS Pod Identity.
            "/v1/credentials" => Self::AwsContainer,
            _ if path.starts_with("/latest/meta-data/") => Self::AwsMetadata,
            _ if path.starts_with("/v2/credentials/") => Self::AwsContainer,
            _ => {
                let account = path.strip_prefix("/v1/projects/-/serviceAccounts/")?;
                match account.rsplit_once(':')?.1 {
                    "generateAccessToken" => Self::GenerateAccessToken,
                    "generateIdToken" => Self::GenerateIdToken,
                    "signJwt" => Self::SignJwt,
                    _ => return None,
                }
            }
        })
    }

    fn is_at(self, site: Site) -> bool {
        match self {
            Self::Api => site == Site::Other,
            Self::AwsAssumeRole => matches!(site, Site::Aws | Site::Local),
            Self::AwsContainer | Self::AwsMetadata | Self::AwsSession | Self::SubjectToken => {
                site == Site::Local
            }
            Self::GenerateAccessToken | Self::GenerateIdToken | Self::SignJwt => {
                matches!(site, Site::Iam | Site::Local)
            }
            Self::StsExchange | Self::StsRefresh => matches!(site, Site::Sts | Site::Local),
            Self::Token => matches!(site, Site::OAuth | Site::Local),
        }
    }
}

// === impl Site ===

impl Site {
    fn of(host: &str) -> Self {
        let name = host
            .rsplit_once(':')
            .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
            .map_or(host, |(name, _)| name);
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        if bare.parse::<IpAddr>().is_ok()
            || matches!(name, "" | "localhost" | "metadata.google.internal")
        {
            return Self::Local;
        }
        let (first, domain) = name.split_once('.').unwrap_or((name, ""));
        match first {
            // Other universes have no such endpoint.
            "oauth2" if domain == "googleapis.com" => Self::OAuth,
            "sts" if domain.ends_with("amazonaws.com") => Self::Aws,
            "sts" => Self::Sts,
            "iamcredentials" => Self::Iam,
            _ => Self::Other,
        }
    }
}
