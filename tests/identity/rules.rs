//! The rules of the token cache, for every kind of token that an endpoint issues.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use serde_json::Value;
use sidentity::config::{Config, Env, OptionKey, RawConfig, load};
use sidentity::error::ErrorKind;
use sidentity::policy::{Principal, TokenKey, TokenKind};
use sidentity::telemetry::Metrics;
use sidentity::token::{Slot, SlotState, TokenCache, TokenSources};

use super::federation::{file_sourced, without_account};
use super::support::google::{Endpoint, Endpoints, Fault, Google};
use super::support::metadata::Gate;
use super::{authorized_user, service_account};

/// A token of one kind, and how a test makes its source misbehave.
struct Case {
    name: &'static str,
    endpoint: Endpoint,
    google: Google,
    slot: Arc<Slot>,
}

/// Every source whose tokens come from a token endpoint. Another source is another row.
async fn cases() -> Vec<Case> {
    type Row = (
        &'static str,
        Endpoint,
        fn(&Google) -> Value,
        fn(&Value) -> TokenKind,
    );
    let token = Endpoint::Token;
    let rows: [Row; 6] = [
        (
            "external_account",
            Endpoint::StsExchange,
            |google| without_account(file_sourced(google).0),
            |_| access("https://www.googleapis.com/auth/cloud-platform"),
        ),
        (
            "external_account_authorized_user",
            Endpoint::StsRefresh,
            |google| google.external_account_authorized_user(&Endpoints::default()),
            |_| access("https://www.googleapis.com/auth/cloud-platform"),
        ),
        (
            "service_account, access token",
            token,
            service_account,
            |_| access("openid"),
        ),
        ("service_account, ID token", token, service_account, |_| {
            id("https://a.run.app")
        }),
        (
            "authorized_user, access token",
            token,
            authorized_user,
            |_| access("https://www.googleapis.com/auth/cloud-platform"),
        ),
        (
            "authorized_user, ID token",
            token,
            authorized_user,
            |file| id(file["client_id"].as_str().unwrap()),
        ),
    ];
    let mut cases = Vec::new();
    for (name, endpoint, file, kind) in rows {
        let google = Google::start().await;
        let file = file(&google);
        let metrics = Arc::new(Metrics::new());
        let sources =
            TokenSources::of_config::<Full<Bytes>>(&config(&google, &file), &metrics).unwrap();
        let key = TokenKey {
            kind: kind(&file),
            principal: Principal::Attached,
        };
        let slot = TokenCache::new(sources, metrics).slot(&key);
        cases.push(Case {
            name,
            endpoint,
            google,
            slot,
        });
    }
    cases
}

fn access(scope: &str) -> TokenKind {
    TokenKind::Access {
        scopes: [scope.into()].into(),
    }
}

fn id(audience: &str) -> TokenKind {
    TokenKind::Id {
        audience: audience.into(),
    }
}

fn config(google: &Google, file: &Value) -> Config {
    let path = google.file("rules.json", file).display().to_string();
    let mut raw = RawConfig::default();
    raw.set_flag(OptionKey::Credentials, [path]);
    let connect = format!("*:443:127.0.0.1:{}", google.tls_address().port());
    raw.set_flag(OptionKey::ConnectTo, [connect]);
    raw.set_flag(OptionKey::UpstreamCa, [google.ca().display().to_string()]);
    load(&raw, &Env::default()).unwrap()
}

impl Case {
    fn fetches(&self) -> usize {
        self.google.count(self.endpoint)
    }

    async fn token(&self) -> String {
        let token = self.slot.token().await;
        let token = token.unwrap_or_else(|error| panic!("{}: {error}", self.name));
        token.reveal().to_owned()
    }
}

#[tokio::test]
async fn a_token_is_fetched_once_and_then_used() {
    for case in cases().await {
        assert_eq!(case.fetches(), 0, "{}", case.name);
        let token = case.token().await;
        assert_eq!(case.token().await, token, "{}", case.name);
        assert_eq!(case.fetches(), 1, "{}", case.name);
        assert_eq!(case.slot.status().state, SlotState::Fresh, "{}", case.name);
    }
}

#[tokio::test]
async fn many_first_requests_share_one_fetch() {
    for case in cases().await {
        let gate = Gate::new();
        case.google
            .script(case.endpoint, [Fault::none().behind(&gate)]);
        let waiting: Vec<_> = (0..50)
            .map(|_| {
                let slot = Arc::clone(&case.slot);
                tokio::spawn(async move { slot.token().await.map(|_| ()) })
            })
            .collect();
        case.google.arrived(case.endpoint, 1).await;
        gate.open();
        for request in waiting {
            request.await.unwrap().unwrap();
        }
        assert_eq!(case.fetches(), 1, "{}", case.name);
    }
}

#[tokio::test]
async fn an_error_is_shared_and_the_next_request_fails_without_a_fetch() {
    for case in cases().await {
        case.google
            .always(case.endpoint, Fault::oauth("invalid_grant", "No."));
        let error = case.slot.token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TokenRefused, "{}", case.name);
        assert!(error.detail().starts_with("token: "), "{error}");
        let again = case.slot.token().await.unwrap_err();
        assert_eq!(again.detail(), error.detail(), "{}", case.name);
        assert_eq!(case.fetches(), 1, "{}", case.name);
        // No state is final.
        case.google.heal();
        tokio::time::sleep(again.wait().unwrap() + Duration::from_millis(50)).await;
        case.token().await;
    }
}

#[tokio::test]
async fn a_token_that_an_upstream_rejected_is_replaced_once() {
    for case in cases().await {
        let first = case.slot.token().await.unwrap();
        case.slot.replace(&first).await;
        assert_eq!(case.fetches(), 2, "{}", case.name);
        let second = case.slot.token().await.unwrap();
        // At most once a minute.
        case.slot.replace(&second).await;
        assert_eq!(case.fetches(), 2, "{}", case.name);
    }
}

#[tokio::test]
async fn a_stale_access_token_is_used_at_once_and_refreshed_behind_that() {
    for case in cases().await {
        if !case.name.ends_with("access token") {
            continue;
        }
        case.google.script(
            case.endpoint,
            [Fault::edit(|json| json["expires_in"] = 100.into())],
        );
        let first = case.token().await;
        assert_eq!(case.token().await, first, "{}", case.name);
        case.google.arrived(case.endpoint, 2).await;
    }
}

#[tokio::test]
async fn nothing_is_fetched_that_no_request_asks_for() {
    for case in cases().await {
        case.google.script(
            case.endpoint,
            [Fault::edit(|json| json["expires_in"] = 1.into())],
        );
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(case.fetches(), 0, "{}", case.name);
    }
}
