//! Which header carries the token, from what the app sent; and how it gets there.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use super::audience::is_client_id;
use super::decision::{Credential, CredentialGrant, Decision, SkipReason, TokenKind};
use super::rule::{Existing, HeaderMode};

/// Cloud Run's own header: it wins over `Authorization`, which then reaches the service untouched.
pub const X_SERVERLESS_AUTHORIZATION: HeaderName =
    HeaderName::from_static("x-serverless-authorization");

const X_GOOG_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");

/// What Google puts in place of the signature of a token that it has consumed.
const REDACTED: &[u8] = b".SIGNATURE_REMOVED_BY_GOOGLE";

/// Whether and where a request carries the token that its destination is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// In this header: see [`inject`].
    Inject(HeaderName),
    /// Nowhere: the request goes as it is.
    Skip(SkipReason),
}

/// Where the token of `decision` goes, from the headers and the query that the app sent.
///
/// `None` where the decision grants no token. Pure: nothing is changed; a dead or empty value counts as not sent. The
/// app's `Proxy-Authorization` is for the sidecar and no part of this: it must be gone before [`inject`].
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
        && let Some(reason) = stand_in(headers, query)
    {
        return Some(Placement::Skip(reason));
    }
    let in_query = credential_in(query);
    let keep = decision.existing == Existing::Keep;
    let app_sent = match in_query {
        None => keep && sent(headers, &AUTHORIZATION),
        // The URL is sent as it came, so an access token cannot replace this one and would be a second (RFC 6750, 2).
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
        // Beside the app's own, Cloud Run would not look at ours; IAP, which takes client ids, never reads this header.
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

/// Puts the token into the header that [`select_header`] chose, and makes sure that no other can be taken for it.
///
/// All values of that header are replaced, and for a host under `run.app` no other
/// `X-Serverless-Authorization` remains beside an ID token, since it would win over ours. `value` is marked sensitive.
pub fn inject(
    decision: &Decision,
    headers: &mut HeaderMap,
    header: HeaderName,
    mut value: HeaderValue,
) {
    if decision.cloud_run && header != X_SERVERLESS_AUTHORIZATION {
        headers.remove(X_SERVERLESS_AUTHORIZATION);
    }
    value.set_sensitive(true);
    headers.insert(header, value);
}

/// Removes `Authorization` and `X-Serverless-Authorization` values that end in `.SIGNATURE_REMOVED_BY_GOOGLE`: the
/// remains of a token that Google consumed on the way to the app, and that no receiver accepts.
pub fn strip_redacted(headers: &mut HeaderMap) {
    for name in [AUTHORIZATION, X_SERVERLESS_AUTHORIZATION] {
        if !headers.get_all(&name).iter().any(is_redacted) {
            continue;
        }
        let live: Vec<_> = headers
            .get_all(&name)
            .iter()
            .filter(|value| !is_redacted(value))
            .cloned()
            .collect();
        headers.remove(&name);
        for value in live {
            headers.append(name.clone(), value);
        }
    }
}

/// The app's own credential in the query of any destination: an OAuth token (RFC 6750, 2.3) or an AWS signature, version 2.
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

/// Names, decoded, and values, as written.
fn parameters(query: &str) -> impl Iterator<Item = (Cow<'_, [u8]>, &str)> {
    query.split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode_str(name).into(), value)
    })
}

/// What in a request to a Google API stands in for a token; one beside it would be refused, or change whose call it is.
fn stand_in(headers: &HeaderMap, query: &str) -> Option<SkipReason> {
    if headers
        .get_all(X_GOOG_API_KEY)
        .iter()
        .any(|key| !key.is_empty())
    {
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
    headers
        .get_all(name)
        .iter()
        .any(|value| !value.as_bytes().trim_ascii().is_empty() && !is_redacted(value))
}

fn is_redacted(value: &HeaderValue) -> bool {
    value.as_bytes().trim_ascii_end().ends_with(REDACTED)
}

#[cfg(test)]
mod tests;
