//! What is asked of the metadata server: the path for it, and the words for people.

use std::fmt::Write as _;

use http::StatusCode;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::policy::{Principal, TokenKey, TokenKind};
use crate::token::fact::Fact;
use crate::token::source::message::{self, printable};

/// All but the unreserved characters (RFC 3986, 2.3).
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// An account is an e-mail address, and stands in the path as one.
const ACCOUNT: &AsciiSet = &COMPONENT.remove(b'@');

/// The name of the account that is attached.
const DEFAULT_ACCOUNT: &str = "default";

/// One request to the metadata server.
#[derive(Clone, Debug)]
pub(super) struct MetadataRequest {
    /// Path and query.
    pub(super) target: String,
    /// The thing asked for: `an ID token for https://example`.
    what: String,
    account: Option<String>,
}

// === impl MetadataRequest ===

impl MetadataRequest {
    /// Asks for a token.
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
            // The server signs no JWT for an account, so it is never asked for one.
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

    /// Asks for a fact.
    pub(super) fn fact(fact: Fact<'_>) -> Self {
        let path = match fact {
            Fact::Email(principal) => {
                return Self {
                    target: account_path(principal) + "/email",
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

    /// Asks for the zone.
    pub(super) fn zone() -> Self {
        Self::path("instance/zone", "the zone")
    }

    /// Asks for what belongs to no account; `path` is relative to `/computeMetadata/v1/`.
    fn path(path: &str, what: &str) -> Self {
        Self {
            target: format!("/computeMetadata/v1/{path}"),
            what: what.to_owned(),
            account: None,
        }
    }

    /// The request as a clause of a message.
    pub(super) fn clause(&self) -> String {
        match &self.account {
            Some(account) => format!("{} (account {})", self.what, printable(account)),
            None => self.what.clone(),
        }
    }

    /// What a person may do about an answer of this status.
    pub(super) fn hint(&self, status: StatusCode) -> Option<String> {
        let account = self.account.as_deref()?;
        match status {
            StatusCode::NOT_FOUND if account == DEFAULT_ACCOUNT => Some(
                "is a service account attached? On GKE with Workload Identity: does the Kubernetes service account \
                 have the annotation iam.gke.io/gcp-service-account?"
                    .to_owned(),
            ),
            StatusCode::NOT_FOUND => Some(format!(
                "is the account {} attached here, and spelled so?",
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

/// The account as the server calls it.
fn account(principal: &Principal) -> &str {
    principal.account().unwrap_or(DEFAULT_ACCOUNT)
}

fn account_path(principal: &Principal) -> String {
    let account = utf8_percent_encode(account(principal), ACCOUNT);
    format!("/computeMetadata/v1/instance/service-accounts/{account}")
}

#[cfg(test)]
mod tests;
