//! A second token source, for tests: an access token in a file, for one account. It shows that a source needs only its
//! own file.
#![cfg(test)]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::metadata::MetadataClient;
use super::{FetchFuture, TokenSource, TokenSources};
use crate::config::MetadataServer;
use crate::destination::Host;
use crate::error::{SourceKind, TokenFault};
use crate::policy::{Principal, TokenKey, TokenKind};
use crate::telemetry::Metrics;
use crate::token::clock::Now;
use crate::token::fact::Fact;
use crate::token::facts::Facts;
use crate::token::fetch_error::FetchError;
use crate::token::priority::FetchPriority;
use crate::token::value::Token;
use crate::token::{SlotState, TokenCache};

const LIFETIME: Duration = Duration::from_secs(3600);
const EMAIL: &str = "file@p.iam.gserviceaccount.com";

/// Reads the token of one account from a file.
#[derive(Debug)]
struct TokenFile {
    principal: Principal,
    path: PathBuf,
    name: String,
}

// === impl TokenFile ===

impl TokenFile {
    fn new(email: &str, path: PathBuf) -> Self {
        Self {
            principal: Principal::Account(email.into()),
            name: format!("the token file {}", path.display()),
            path,
        }
    }

    fn read(&self) -> Result<Token, FetchError> {
        let text = fs::read_to_string(&self.path).map_err(|error| {
            FetchError::new(
                TokenFault::Unreachable,
                &format!("cannot read {}: {error}", self.name),
            )
        })?;
        let now = Now::now();
        Token::new(text.trim(), now.after(LIFETIME), now).ok_or_else(|| {
            FetchError::new(
                TokenFault::Malformed,
                &format!("{} contains no token", self.name),
            )
        })
    }
}

impl TokenSource for TokenFile {
    fn describe(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> SourceKind {
        SourceKind::ServiceAccount
    }

    fn serves(&self, principal: &Principal) -> bool {
        *principal == self.principal
    }

    fn fetch<'a>(&'a self, _: &'a TokenKey, _: &'a FetchPriority) -> FetchFuture<'a, Token> {
        Box::pin(async { self.read() })
    }

    fn time_limit(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn fact<'a>(&'a self, fact: Fact<'a>) -> FetchFuture<'a, Option<String>> {
        let known = match fact {
            Fact::Email(_) => Some(EMAIL),
            Fact::ProjectId => Some("file-project"),
            Fact::Region => Some("nowhere"),
            Fact::ProjectNumber | Fact::Scopes(_) | Fact::Universe => None,
        };
        Box::pin(async move { Ok(known.map(str::to_owned)) })
    }
}

fn key(principal: Principal) -> TokenKey {
    TokenKey {
        kind: TokenKind::Access { scopes: [].into() },
        principal,
    }
}

fn account() -> Principal {
    Principal::Account(EMAIL.into())
}

/// Returns a file source, followed by a disabled metadata server.
fn sources(path: PathBuf) -> TokenSources {
    let server = MetadataServer {
        host: Host::parse("127.0.0.1").unwrap(),
        port: 1,
        disabled: true,
    };
    let metadata = MetadataClient::new(&server, Duration::from_secs(1));
    TokenSources::from_sources([
        Arc::new(TokenFile::new(EMAIL, path)) as _,
        Arc::new(metadata) as _,
    ])
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    file
}

#[tokio::test]
async fn a_token_comes_from_the_source_of_its_principal_and_is_cached() {
    let file = file("T1\n");
    let cache = TokenCache::new(sources(file.path().to_owned()), Arc::new(Metrics::new()));
    let slot = cache.slot(&key(account()));
    assert_eq!(slot.token().await.unwrap().reveal(), "T1");
    fs::write(file.path(), "T2").unwrap();
    assert_eq!(slot.token().await.unwrap().reveal(), "T1");
    assert_eq!(slot.status().state, SlotState::Fresh);
}

#[tokio::test]
async fn another_principal_gets_no_token_from_the_file() {
    let file = file("T1");
    let cache = TokenCache::new(sources(file.path().to_owned()), Arc::new(Metrics::new()));
    let error = cache.slot(&key(Principal::Attached)).token().await;
    let error = error.unwrap_err();
    assert!(error.detail().contains("NO_GCE_CHECK"), "{error:?}");
}

#[tokio::test]
async fn a_principal_without_a_source_gets_no_token() {
    let file = file("T1");
    let only: Arc<dyn TokenSource> = Arc::new(TokenFile::new(EMAIL, file.path().to_owned()));
    let sources = TokenSources::from_sources([only]);
    let cache = TokenCache::new(sources, Arc::new(Metrics::new()));
    for (principal, named) in [
        (Principal::Attached, "the base credential"),
        (Principal::Account("b@x".into()), "the account b@x"),
    ] {
        let error = cache.slot(&key(principal)).token().await.unwrap_err();
        assert_eq!(
            error.detail(),
            format!("token: no source issues the tokens of {named}")
        );
    }
}

#[tokio::test]
async fn an_error_names_the_source() {
    let missing = PathBuf::from("/nonexistent/token");
    let cache = TokenCache::new(sources(missing), Arc::new(Metrics::new()));
    let error = cache.slot(&key(account())).token().await.unwrap_err();
    let expected = "token: cannot read the token file /nonexistent/token: ";
    assert!(error.detail().starts_with(expected), "{error:?}");
}

#[tokio::test]
async fn facts_come_from_the_first_source_that_knows_them() {
    let facts = Facts::new(sources("/nonexistent/token".into()), None);
    assert_eq!(&*facts.project_id().await.unwrap(), "file-project");
    assert_eq!(&*facts.email(&account()).await.unwrap(), EMAIL);
    // The file source does not know the fact, so the metadata server is asked.
    let error = facts.project_number().await.unwrap_err();
    assert!(error.detail().contains("NO_GCE_CHECK"), "{error:?}");
    // The response of another source is checked like the metadata server's, and the error names the source.
    let error = facts.region().await.unwrap_err();
    assert_eq!(
        error.detail(),
        "token: the region: the token file /nonexistent/token returned an invalid value"
    );
}
