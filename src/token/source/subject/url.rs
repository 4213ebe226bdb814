//! Fetches a subject token from a URL, such as the identity endpoint of another cloud.

use bytes::Bytes;
use http::Request;

use super::budget::Budget;
use super::format;
use crate::credentials::UrlSource;
use crate::token::fetch_error::FetchError;
use crate::token::retry::AttemptError;

pub(super) async fn token(source: &UrlSource, budget: &Budget<'_>) -> Result<String, FetchError> {
    let url = &source.url;
    budget
        .fetch(
            "the subject token",
            url,
            || async {
                let request = Request::get(url.as_str());
                let request = source
                    .headers
                    .iter()
                    .fold(request, |request, (name, value)| {
                        request.header(name, value)
                    })
                    .body(Bytes::new())
                    .map_err(|error| AttemptError::malformed(error.to_string()))?;
                let body = budget.client(url).request(request).await?;
                format::read(&source.format, &body).map_err(|error| {
                    AttemptError::malformed(format!("the response is not a subject token: {error}"))
                })
            },
            "",
        )
        .await
}
