//! Gets keys for the role of a Kubernetes service account (IRSA on EKS) with `AssumeRoleWithWebIdentity` of the
//! regional AWS STS.

use bytes::Bytes;
use http::{Request, StatusCode, header};

use super::super::budget::{Budget, no_token};
use super::super::{file, format};
use super::keys::{self, AwsCredentials};
use super::sigv4::encode;
use crate::credentials::{AwsWebIdentity, TokenFormat, path_name};
use crate::token::fetch_error::FetchError;
use crate::token::retry::AttemptError;
use crate::token::source::message::words;
use crate::token::source::request_secrets::RequestSecrets;

/// The field of the form that contains the token.
const TOKEN_FIELD: &str = "WebIdentityToken";

pub(super) async fn keys(
    identity: &AwsWebIdentity,
    region: &str,
    budget: &Budget<'_>,
) -> Result<AwsCredentials, FetchError> {
    let token = token(identity).await?;
    let form = form(identity, &token);
    let url = format!("https://sts.{region}.{}/", domain(region));
    let attempt = || async {
        let request = Request::post(&url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/xml")
            .body(Bytes::from(form.clone()))
            .map_err(|error| AttemptError::malformed(error.to_string()))?;
        let secrets = RequestSecrets::of(&request, &[(TOKEN_FIELD, &token)]);
        let (head, body) = budget.client.send(request).await?.into_parts();
        if head.status != StatusCode::OK {
            let message = keys::sts_error(&body).map(|message| secrets.removed_from(&message));
            let message = message.and_then(|message| words(message.as_bytes()));
            let message = message.map(|message| format!("{message:?}"));
            return Err(AttemptError::answered(head.status, &head.headers, message));
        }
        AwsCredentials::from_sts(&body).map_err(|error| AttemptError::malformed(error.to_string()))
    };
    let what = format!("the AWS credentials of the role {}", identity.role);
    budget.fetch(&what, &url, attempt, "").await
}

/// Reads the token of the service account. Its file is rotated, so each request reads it again.
async fn token(identity: &AwsWebIdentity) -> Result<String, FetchError> {
    let path = &identity.token_file;
    let name = format!("AWS_WEB_IDENTITY_TOKEN_FILE ({})", path_name(path));
    let content = file::read(path)
        .await
        .map_err(|error| no_token("AWS", &format!("{name}: {error}")))?;
    format::read(&TokenFormat::Text, &content)
        .map_err(|error| no_token("AWS", &format!("{name}: {error}")))
}

/// Returns the form of the request.
fn form(identity: &AwsWebIdentity, token: &str) -> String {
    let fields = [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", "2011-06-15"),
        ("RoleArn", &identity.role),
        ("RoleSessionName", &identity.session_name),
        (TOKEN_FIELD, token),
    ];
    let fields: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{name}={}", encode(value)))
        .collect();
    fields.join("&")
}

/// Returns the domain of the region's partition.
fn domain(region: &str) -> &'static str {
    if region.starts_with("cn-") {
        "amazonaws.com.cn"
    } else if region.starts_with("eusc-") {
        "amazonaws.eu"
    } else {
        "amazonaws.com"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_is_in_the_domain_of_the_regions_partition() {
        for (region, expected) in [
            ("us-east-1", "amazonaws.com"),
            ("us-gov-west-1", "amazonaws.com"),
            ("cn-north-1", "amazonaws.com.cn"),
            ("eusc-de-east-1", "amazonaws.eu"),
        ] {
            assert_eq!(domain(region), expected, "{region}");
        }
    }
}
