//! Requests to the metadata server: their paths, and their names in messages.

use std::fmt::Write as _;

use http::StatusCode;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::policy::{Principal, TokenKey, TokenKind};
use crate::token::fact::Fact;
use crate::token::source::message::{self, printable};

/// All characters except the unreserved ones (RFC 3986, 2.3).
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// Like `COMPONENT`, with `@`: an account is an e-mail address.
const ACCOUNT: &AsciiSet = &COMPONENT.remove(b'@');

/// The name of the instance's account.
const DEFAULT_ACCOUNT: &str = "default";

/// One request to the metadata server.
#[derive(Clone, Debug)]
pub(super) struct MetadataRequest {
    /// Path and query.
    pub(super) target: String,
    /// The requested thing, such as `an ID token for https://example`.
    what: String,
    account: Option<String>,
}

// === impl MetadataRequest ===

impl MetadataRequest {
    /// Returns the request for a token.
    pub(super) fn token(key: &TokenKey) -> Self {
        let mut target = account_path(&key.principal);
        match &key.kind {
            TokenKind::Access { scopes } => {
                target.push_str("/token");
                if !scopes.is_empty() {
                    let list = utf8_percent_encode(&scopes.join(","), COMPONENT).to_string();
                    target.push_str("?scopes=");
                    target.push_str(&list);
                }
            }
            // The server signs no JWTs for an account, so this kind is never requested here.
            TokenKind::Id { audience } | TokenKind::Jwt { audience } => {
                let encoded = utf8_percent_encode(audience, COMPONENT);
                // Writing to a String cannot fail.
                let _ = write!(target, "/identity?audience={encoded}&format=full");
            }
        }
        Self {
            target,
            what: message::token(&key.kind),
            account: Some(account(&key.principal).to_owned()),
        }
    }

    /// Returns the request for a fact.
    pub(super) fn fact(fact: Fact<'_>) -> Self {
        let path = match fact {
            Fact::Email(principal) => {
                return Self {
                    target: account_path(principal) + "/email",
                    what: fact.what().to_owned(),
                    account: Some(account(principal).to_owned()),
                };
            }
            Fact::Scopes(principal) => {
                return Self {
                    target: account_path(principal) + "/scopes",
                    what: fact.what().to_owned(),
                    account: Some(account(principal).to_owned()),
                };
            }
            Fact::ProjectId => "project/project-id",
            Fact::ProjectNumber => "project/numeric-project-id",
            Fact::Region => "instance/region",
            Fact::Universe => "universe/universe-domain",
        };
        Self::path(path, fact.what())
    }

    /// Returns the request for the zone.
    pub(super) fn zone() -> Self {
        Self::path("instance/zone", "the zone")
    }

    /// Returns a request that concerns no account. `path` is relative to `/computeMetadata/v1/`.
    fn path(path: &str, what: &str) -> Self {
        Self {
            target: format!("/computeMetadata/v1/{path}"),
            what: what.to_owned(),
            account: None,
        }
    }

    /// Returns the request as a clause of a message.
    pub(super) fn clause(&self) -> String {
        match &self.account {
            Some(account) => format!("{} (account {})", self.what, printable(account)),
            None => self.what.clone(),
        }
    }

    /// Returns advice for a response of this status.
    pub(super) fn hint(&self, status: StatusCode) -> Option<String> {
        let account = self.account.as_deref()?;
        match status {
            StatusCode::NOT_FOUND if account == DEFAULT_ACCOUNT => Some(
                "is a service account attached? On GKE with Workload Identity: does the Kubernetes service account \
                 have the annotation iam.gke.io/gcp-service-account?"
                    .to_owned(),
            ),
            StatusCode::NOT_FOUND => Some(format!(
                "is the account {} attached here, and is its name correct?",
                printable(account)
            )),
            StatusCode::FORBIDDEN => Some(
                "may this workload use the account? On GKE with Workload Identity: does the Kubernetes service \
                 account have the annotation iam.gke.io/gcp-service-account, and the role \
                 roles/iam.workloadIdentityUser?"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// Returns the server's name of the account.
fn account(principal: &Principal) -> &str {
    principal.account().unwrap_or(DEFAULT_ACCOUNT)
}

fn account_path(principal: &Principal) -> String {
    let account = utf8_percent_encode(account(principal), ACCOUNT);
    format!("/computeMetadata/v1/instance/service-accounts/{account}")
}

#[cfg(test)]
mod tests;
