//! What is asked of the metadata server: the path for it, and the words for people.

use std::fmt::Write as _;

use http::StatusCode;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::policy::{Principal, TokenKey, TokenKind};
use crate::token::facts::Fact;

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

/// The most that a message shows of an audience or a server's words.
const SHOWN: usize = 200;

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
        let what = match &key.kind {
            TokenKind::Access { scopes } => {
                target.push_str("/token");
                if scopes.is_empty() {
                    "an access token".to_owned()
                } else {
                    let list = utf8_percent_encode(&scopes.join(","), COMPONENT).to_string();
                    target.push_str("?scopes=");
                    target.push_str(&list);
                    format!("an access token for {}", printable(&scopes.join(" ")))
                }
            }
            TokenKind::Id { audience } => {
                let encoded = utf8_percent_encode(audience, COMPONENT);
                // Writing to a String cannot fail.
                let _ = write!(target, "/identity?audience={encoded}&format=full");
                format!("an ID token for {}", printable(audience))
            }
        };
        Self {
            target,
            what,
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

/// The words of an error's body, for a message: short, printable, and nothing that could be a token.
pub(super) fn words(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let text = title(&text).unwrap_or(&text);
    if ["access_token", "id_token"]
        .iter()
        .any(|name| text.contains(name))
    {
        return None;
    }
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .map(|word| if is_secretive(word) { "[…]" } else { word })
        .collect();
    let words = printable(&words.join(" "));
    (!words.is_empty()).then_some(words)
}

/// Of a page, what a browser's tab would show.
fn title(page: &str) -> Option<&str> {
    let (_, rest) = page.split_once("<title>")?;
    Some(rest.split_once("</title>")?.0)
}

/// No word of a sentence is that long; tokens begin like this.
fn is_secretive(word: &str) -> bool {
    word.len() > 64 || word.contains("ya29.") || word.contains("eyJ")
}

/// The first characters of a text, without those that could disturb a terminal or a log.
fn printable(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(SHOWN)
        .collect()
}

#[cfg(test)]
mod tests;
