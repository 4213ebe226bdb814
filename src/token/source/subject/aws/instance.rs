//! Gets keys and region from the metadata service of an EC2 instance (IMDS). It uses a session token of version 2 if
//! the file has its URL.

use bytes::Bytes;
use http::{Method, Request};

use super::super::budget::Budget;
use super::keys::AwsCredentials;
use crate::credentials::{AwsSource, SourceUrl};
use crate::token::fetch_error::FetchError;
use crate::token::retry::AttemptError;

const TOKEN: &str = "x-aws-ec2-metadata-token";
const TOKEN_LIFETIME: &str = "x-aws-ec2-metadata-token-ttl-seconds";
/// The lifetime of the session token in seconds: enough for the requests of one subject token.
const LIFETIME: &str = "300";

const HOP_LIMIT: &str = "does the instance's metadata hop limit let a container reach the service? A container needs 2 \
     (aws ec2 modify-instance-metadata-options --http-put-response-hop-limit 2)";

/// Sends requests to the service.
struct InstanceMetadataClient<'a> {
    budget: &'a Budget<'a>,
    token: Option<String>,
}

/// Returns the region: the zone without its letter.
pub(super) async fn region(source: &AwsSource, budget: &Budget<'_>) -> Result<String, FetchError> {
    let Some(url) = &source.region_url else {
        return Err(super::no_token(
            "AWS",
            &"the region is unknown: set AWS_REGION",
        ));
    };
    let service = InstanceMetadataClient::new(source, budget).await?;
    service
        .get("the AWS region", url, "", |zone| {
            region_of(&zone).ok_or("the response is not an availability zone")
        })
        .await
}

/// Returns the keys of the instance's role.
pub(super) async fn keys(
    source: &AwsSource,
    url: &SourceUrl,
    budget: &Budget<'_>,
) -> Result<AwsCredentials, FetchError> {
    let service = InstanceMetadataClient::new(source, budget).await?;
    let role = service
        .get("the AWS role", url, "", |role| {
            is_role(&role)
                .then_some(role)
                .ok_or("the response is not the name of a role")
        })
        .await?;
    service
        .get("the AWS credentials", url, &role, |body| {
            AwsCredentials::from_json(body.as_bytes())
        })
        .await
}

// === impl InstanceMetadataClient ===

impl<'a> InstanceMetadataClient<'a> {
    async fn new(source: &AwsSource, budget: &'a Budget<'a>) -> Result<Self, FetchError> {
        let mut service = InstanceMetadataClient {
            budget,
            token: None,
        };
        if let Some(url) = &source.session_token_url {
            let token = service.send(
                "the token of the AWS metadata service",
                Method::PUT,
                (url, url.as_str()),
                (TOKEN_LIFETIME, LIFETIME),
                |token| {
                    let is_visible =
                        !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
                    is_visible
                        .then_some(token)
                        .ok_or("the response is not a token")
                },
            );
            service.token = Some(token.await?);
        }
        Ok(service)
    }

    /// Gets the text of the URL, or of a path below it.
    async fn get<T: Send, E: std::fmt::Display>(
        &self,
        what: &str,
        url: &SourceUrl,
        below: &str,
        read: fn(String) -> Result<T, E>,
    ) -> Result<T, FetchError> {
        let target = match below {
            "" => url.as_str().to_owned(),
            below => format!("{}/{below}", url.as_str().trim_end_matches('/')),
        };
        // Version 1 ignores the header.
        let token = self.token.as_deref();
        let header = token.map_or(("accept", "*/*"), |token| (TOKEN, token));
        self.send(what, Method::GET, (url, &target), header, read)
            .await
    }

    async fn send<T: Send, E: std::fmt::Display>(
        &self,
        what: &str,
        method: Method,
        (base, url): (&SourceUrl, &str),
        (name, value): (&str, &str),
        read: fn(String) -> Result<T, E>,
    ) -> Result<T, FetchError> {
        let client = self.budget.client(base);
        let attempt = || async {
            let request = Request::builder()
                .method(method.clone())
                .uri(url)
                .header(name, value)
                .body(Bytes::new())
                .map_err(|error| AttemptError::malformed(error.to_string()))?;
            let body = client.request(request).await?;
            let text = str::from_utf8(body.trim_ascii())
                .map_err(|_| AttemptError::malformed("the response is not text".to_owned()))?;
            read(text.to_owned()).map_err(|error| AttemptError::malformed(error.to_string()))
        };
        self.budget.fetch(what, &url, attempt, HOP_LIMIT).await
    }
}

/// Returns the region of an availability zone, of a local zone such as `us-west-2-lax-1a`, or of a region.
fn region_of(zone: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if zone.len() > 64 || !zone.bytes().all(is_plain) {
        return None;
    }
    let number = zone.find(|c: char| c.is_ascii_digit())?;
    let digits = zone.get(number..)?.bytes().take_while(u8::is_ascii_digit);
    let region = zone.get(..number + digits.count())?;
    region
        .get(..number)?
        .strip_suffix('-')?
        .contains('-')
        .then(|| region.to_owned())
}

/// Returns whether the text is a role name of IAM: letters, digits and `+=,.@_-`.
fn is_role(role: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte);
    (1..=64).contains(&role.len()) && role.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_the_zone_without_its_letter() {
        for (zone, region) in [
            ("us-east-2b", Some("us-east-2")),
            ("us-gov-west-1a", Some("us-gov-west-1")),
            ("us-west-2-lax-1a", Some("us-west-2")),
            ("ap-southeast-12c", Some("ap-southeast-12")),
            ("eu-central-1", Some("eu-central-1")),
            ("", None),
            ("east", None),
            ("-1a", None),
            ("us-1a", None),
            ("us-east-2b.evil.example", None),
            ("<html>us-east-2b", None),
        ] {
            assert_eq!(region_of(zone).as_deref(), region, "{zone}");
        }
    }

    #[test]
    fn a_role_with_a_slash_is_rejected() {
        assert!(is_role("app-role_1+x=y,z@w.v"));
        for role in ["", "a/b", "..%2f", "a\nb", "a b", "<html>"] {
            assert!(!is_role(role), "{role}");
        }
    }
}
