//! Selects the header that carries the token, and writes it.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use super::audience::is_client_id;
use super::decision::{Credential, CredentialGrant, Decision, SkipReason, TokenKind};
use super::rule::{Existing, HeaderMode};
use crate::header_lookup;

/// Cloud Run's own header. It takes precedence over `Authorization`, which then reaches the service unchanged.
pub(super) const X_SERVERLESS_AUTHORIZATION: HeaderName =
    HeaderName::from_static("x-serverless-authorization");

const X_GOOG_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");

/// Google replaces the signature of a token that it consumed with this text.
const REDACTED: &[u8] = b".SIGNATURE_REMOVED_BY_GOOGLE";

/// Whether and in which header a request carries the token of its destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// [`inject`] writes the token to this header.
    Inject(HeaderName),
    /// The request is sent without the token.
    Skip(SkipReason),
}

/// Selects the header for the token of `decision`, from the headers and the query that the app sent.
///
/// Returns `None` if the decision grants no token. Empty and redacted values count as absent. The app's
/// `Proxy-Authorization` is for the sidecar; the caller must remove it before [`inject`].
pub fn select_header(
    decision: &Decision,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Option<Placement> {
    let CredentialGrant::Token(key) = &decision.grant else {
        return None;
    };
    let query = query.unwrap_or("");
    if decision.google_api
        && let Some(reason) = other_google_credential(headers, query)
    {
        return Some(Placement::Skip(reason));
    }
    let in_query = credential_in(query);
    let keep = decision.existing == Existing::Keep;
    let app_sent = match in_query {
        None => keep && sent(headers, &AUTHORIZATION),
        // The URL is sent unchanged, so an access token in a header would be a second one (RFC 6750, 2).
        Some(_) => keep || key.credential() == Credential::Access,
    };
    let header = match (decision.header, &key.kind) {
        (HeaderMode::XServerlessAuthorization, _) => X_SERVERLESS_AUTHORIZATION,
        (HeaderMode::ProxyAuthorization, _) => PROXY_AUTHORIZATION,
        (HeaderMode::Authorization, _) | (HeaderMode::Auto, TokenKind::Access { .. })
            if app_sent =>
        {
            return Some(Placement::Skip(in_query.unwrap_or(SkipReason::Existing)));
        }
        // IAP reads Authorization and Proxy-Authorization.
        (HeaderMode::Auto, TokenKind::Jwt { .. }) if app_sent => PROXY_AUTHORIZATION,
        (HeaderMode::Auto, TokenKind::Id { audience }) if app_sent => {
            if is_client_id(audience) && !decision.of_user {
                PROXY_AUTHORIZATION
            } else {
                X_SERVERLESS_AUTHORIZATION
            }
        }
        // Cloud Run prefers the app's own value in this header over our `Authorization`. IAP, whose audiences are
        // client ids, does not read the header.
        (HeaderMode::Auto, TokenKind::Id { audience })
            if decision.cloud_run
                && decision.existing == Existing::Keep
                && (!is_client_id(audience) || decision.of_user)
                && sent(headers, &X_SERVERLESS_AUTHORIZATION) =>
        {
            X_SERVERLESS_AUTHORIZATION
        }
        (HeaderMode::Authorization | HeaderMode::Auto, _) => AUTHORIZATION,
    };
    Some(Placement::Inject(header))
}

/// Writes the token to the header that [`select_header`] returned, and removes values that could take precedence.
///
/// All values of that header are replaced. For a host under `run.app`, `X-Serverless-Authorization` is removed, because
/// it takes precedence over `Authorization`. `value` is marked sensitive.
pub fn inject(
    decision: &Decision,
    headers: &mut HeaderMap,
    header: HeaderName,
    mut value: HeaderValue,
) {
    if header != X_SERVERLESS_AUTHORIZATION {
        strip_serverless(decision, headers);
    }
    value.set_sensitive(true);
    headers.insert(header, value);
}

/// Removes `X-Serverless-Authorization` for a host under `run.app` that gets an ID token, also if this request is sent
/// without it: Cloud Run would prefer the app's value to `Authorization`.
pub(crate) fn strip_serverless(decision: &Decision, headers: &mut HeaderMap) {
    if decision.cloud_run {
        headers.remove(X_SERVERLESS_AUTHORIZATION);
    }
}

/// Removes `Authorization` and `X-Serverless-Authorization` values that end in `.SIGNATURE_REMOVED_BY_GOOGLE`. Google
/// redacted these tokens on the way to the app, and no receiver accepts them.
pub fn strip_redacted(headers: &mut HeaderMap) {
    for name in [AUTHORIZATION, X_SERVERLESS_AUTHORIZATION] {
        if !header_lookup::values(headers, &name).any(is_redacted) {
            continue;
        }
        let kept: Vec<_> = headers
            .get_all(&name)
            .iter()
            .filter(|value| !is_redacted(value))
            .cloned()
            .collect();
        headers.remove(&name);
        for value in kept {
            headers.append(name.clone(), value);
        }
    }
}

/// Returns whether the query has a credential of the app: an OAuth token (RFC 6750, 2.3) or an AWS signature of version
/// 2.
fn credential_in(query: &str) -> Option<SkipReason> {
    let (mut key_id, mut signature) = (false, false);
    for (name, value) in parameters(query) {
        if value.is_empty() {
            continue;
        }
        if matches!(&*name, b"access_token" | b"oauth_token") {
            return Some(SkipReason::Existing);
        }
        key_id |= name.eq_ignore_ascii_case(b"AWSAccessKeyId");
        signature |= name.eq_ignore_ascii_case(b"Signature");
        if key_id && signature {
            return Some(SkipReason::SignedUrl);
        }
    }
    None
}

/// Returns the query's decoded names and its values as written.
fn parameters(query: &str) -> impl Iterator<Item = (Cow<'_, [u8]>, &str)> {
    query.split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode_str(name).into(), value)
    })
}

/// Returns what a request to a Google API has instead of a token. A token beside it would be rejected, or change the
/// caller.
fn other_google_credential(headers: &HeaderMap, query: &str) -> Option<SkipReason> {
    if header_lookup::values(headers, &X_GOOG_API_KEY).any(|key| !key.is_empty()) {
        return Some(SkipReason::ApiKey);
    }
    let (mut access_id, mut signature) = (false, false);
    for (name, value) in parameters(query) {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if *name == *b"key" && !value.is_empty() {
            return Some(SkipReason::ApiKey);
        }
        if *name == *b"bearer_token" && !value.is_empty() {
            return Some(SkipReason::Existing);
        }
        if *name == *b"upload_id" {
            return Some(SkipReason::UploadSession);
        }
        access_id |= is("GoogleAccessId");
        signature |= is("Signature");
        if is("X-Goog-Signature") || is("X-Amz-Signature") || (access_id && signature) {
            return Some(SkipReason::SignedUrl);
        }
    }
    None
}

fn sent(headers: &HeaderMap, name: &HeaderName) -> bool {
    header_lookup::values(headers, name)
        .any(|value| !value.as_bytes().trim_ascii().is_empty() && !is_redacted(value))
}

fn is_redacted(value: &HeaderValue) -> bool {
    value.as_bytes().trim_ascii_end().ends_with(REDACTED)
}

#[cfg(test)]
mod tests;
