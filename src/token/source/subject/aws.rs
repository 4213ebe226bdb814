//! A subject token of AWS: a signed `GetCallerIdentity` request. Google's Security Token Service sends it to AWS to
//! learn who signed it. The sidecar does not send it to AWS.

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::budget::{Budget, no_token};
use crate::credentials::{AwsKeySource, AwsSource};
use crate::token::fetch_error::FetchError;

mod container;
mod instance;
mod keys;
mod sigv4;
mod web_identity;
mod xml;

use keys::AwsCredentials;
#[cfg(any(fuzzing, test))]
pub(super) use keys::fuzz_aws_answers;
use sigv4::{Scope, Unsigned};

/// The minimum time between AWS's publication of new keys and the expiry of the old ones.
const RENEWED: Duration = Duration::from_secs(5 * 60);

/// The cached keys and the region.
#[derive(Debug, Default)]
pub(super) struct AwsCache {
    keys: Option<AwsCredentials>,
    region: Option<String>,
}

// === impl AwsCache ===

impl AwsCache {
    /// Signs a new request, with the cached keys or with new ones.
    pub(super) async fn token(
        &mut self,
        source: &AwsSource,
        audience: &str,
        budget: &Budget<'_>,
    ) -> Result<String, FetchError> {
        let region = self.region(source, budget).await?;
        let keys = self.keys(source, &region, budget).await?;
        signed(source, audience, &region, &keys, SystemTime::now())
            .ok_or_else(|| no_token("AWS", &"regional_cred_verification_url is not a URL"))
    }

    /// Drops the keys after they were refused.
    pub(super) fn forget(&mut self) {
        self.keys = None;
    }

    async fn region(
        &mut self,
        source: &AwsSource,
        budget: &Budget<'_>,
    ) -> Result<String, FetchError> {
        if let Some(region) = source.region.as_ref().or(self.region.as_ref()) {
            return Ok(region.clone());
        }
        let region = instance::region(source, budget).await?;
        self.region = Some(region.clone());
        Ok(region)
    }

    async fn keys(
        &mut self,
        source: &AwsSource,
        region: &str,
        budget: &Budget<'_>,
    ) -> Result<AwsCredentials, FetchError> {
        let horizon = SystemTime::now() + RENEWED;
        let is_good =
            |keys: &&AwsCredentials| keys.expires.is_some_and(|expires| expires > horizon);
        if let Some(keys) = self.keys.as_ref().filter(is_good) {
            return Ok(keys.clone());
        }
        let keys = match &source.keys {
            AwsKeySource::Container(container) => container::keys(container, budget).await?,
            AwsKeySource::Environment(keys) => AwsCredentials {
                access_key_id: keys.access_key_id.to_string(),
                secret_access_key: keys.secret_access_key.to_string(),
                session_token: keys.session_token.as_deref().map(str::to_owned),
                expires: None,
            },
            AwsKeySource::Instance(url) => instance::keys(source, url, budget).await?,
            AwsKeySource::WebIdentity(identity) => {
                web_identity::keys(identity, region, budget).await?
            }
        };
        let now = SystemTime::now();
        if keys.expires.is_some_and(|expires| expires <= now) {
            let why = "the keys have expired by this machine's clock: is it correct?";
            return Err(no_token("AWS", &why));
        }
        self.keys = Some(keys.clone());
        Ok(keys)
    }
}

/// Returns the signed request as percent-encoded JSON. Returns `None` if the file's URL is invalid.
fn signed(
    source: &AwsSource,
    audience: &str,
    region: &str,
    keys: &AwsCredentials,
    now: SystemTime,
) -> Option<String> {
    let url = source.verification_url.replace("{region}", region);
    let rest = url.strip_prefix("https://")?;
    let (before_query, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (host, path) = before_query.split_at(before_query.find('/').unwrap_or(before_query.len()));
    let label = host.split('.').next()?;
    let time = sigv4::timestamp(now);
    let mut headers = vec![("host", host), ("x-amz-date", &time)];
    if let Some(token) = &keys.session_token {
        headers.push(("x-amz-security-token", token));
    }
    headers.push(("x-goog-cloud-target-resource", audience));
    let request = Unsigned {
        method: "POST",
        path,
        query,
        headers: &headers,
    };
    let scope = Scope {
        region,
        service: label.strip_suffix("-fips").unwrap_or(label),
        time: &time,
    };
    let authorization = sigv4::authorization(&request, &scope, keys);
    let headers: Vec<_> = [("Authorization", &*authorization)]
        .into_iter()
        .chain(headers)
        .map(|(key, value)| json!({ "key": key, "value": value }))
        .collect();
    let request = json!({ "url": url, "method": "POST", "headers": headers });
    Some(sigv4::encode(&request.to_string()))
}

#[cfg(test)]
mod tests;
