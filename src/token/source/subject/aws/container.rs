//! Gets keys from the container credentials endpoint, for an ECS or Fargate task or a pod with EKS Pod Identity.

use bytes::Bytes;
use http::{HeaderValue, Request, header};

use super::super::budget::{Budget, no_token};
use super::super::file;
use super::keys::AwsCredentials;
use crate::credentials::{AwsContainer, ContainerToken};
use crate::token::fetch_error::FetchError;
use crate::token::retry::AttemptError;

pub(super) async fn keys(
    container: &AwsContainer,
    budget: &Budget<'_>,
) -> Result<AwsCredentials, FetchError> {
    let authorization = authorization(container).await?;
    let url = &container.url;
    let attempt = || async {
        let mut request = Request::get(url.as_str());
        if let Some(value) = &authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request
            .body(Bytes::new())
            .map_err(|error| AttemptError::malformed(error.to_string()))?;
        let body = budget.client(url).request(request).await?;
        AwsCredentials::from_json(&body).map_err(|error| AttemptError::malformed(error.to_string()))
    };
    budget.fetch("the AWS credentials", url, attempt, "").await
}

/// Returns the value of `Authorization`. Its file is rotated, so each request reads it again.
async fn authorization(container: &AwsContainer) -> Result<Option<HeaderValue>, FetchError> {
    let (name, text) = match &container.token {
        None => return Ok(None),
        Some(ContainerToken::Text(text)) => (
            "AWS_CONTAINER_AUTHORIZATION_TOKEN".to_owned(),
            text.to_string(),
        ),
        Some(ContainerToken::File(path)) => {
            let name = format!(
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE ({})",
                path.display()
            );
            let content = file::read(path)
                .await
                .map_err(|error| no_token("AWS", &format!("{name}: {error}")))?;
            let text = String::from_utf8_lossy(&content).trim().to_owned();
            (name, text)
        }
    };
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| no_token("AWS", &format!("{name} is not a valid header value")))?;
    value.set_sensitive(true);
    Ok(Some(value))
}
