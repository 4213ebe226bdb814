//! The rules of the token cache, for every token source.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use serde_json::Value;
use sidentity::config::{Config, Env, OptionKey, RawConfig, load};
use sidentity::error::ErrorKind;
use sidentity::policy::{Principal, TokenKey, TokenKind};
use sidentity::telemetry::Metrics;
use sidentity::token::{Facts, Logins, Slot, SlotState, TokenCache, TokenSources};

use super::federation::{file_sourced, without_account};
use super::support::google::{Endpoint, Endpoints, Fault, Google};
use super::support::metadata::{Answer, Gate, Kind, Metadata};
use super::{authorized_user, service_account};

const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";
const AUDIENCE: &str = "https://a.run.app";

/// A token of one kind, whose source a test can make fail.
struct Case {
    name: &'static str,
    is_access: bool,
    issuer: Issuer,
    slot: Arc<Slot>,
    /// Kept alive, because sources refer to these weakly.
    _owned: (TokenCache, Facts),
}

/// The issuer of the tokens of a case.
enum Issuer {
    Google(Google, Endpoint),
    Metadata(Metadata, Kind),
}

/// A source whose tokens come from an endpoint of Google.
type Row = (
    &'static str,
    Endpoint,
    fn(&Google) -> Value,
    fn(&Value) -> TokenKey,
);

/// Every source whose tokens come from an endpoint of Google.
const ROWS: [Row; 10] = [
    (
        "external_account, access token",
        Endpoint::StsExchange,
        |google| without_account(file_sourced(google).0),
        |_| access(CLOUD_PLATFORM),
    ),
    (
        "external_account with an account, access token",
        Endpoint::GenerateAccessToken,
        |google| file_sourced(google).0,
        |_| access(CLOUD_PLATFORM),
    ),
    (
        "external_account with an account, ID token",
        Endpoint::GenerateIdToken,
        |google| file_sourced(google).0,
        |_| id(AUDIENCE),
    ),
    (
        "external_account_authorized_user, access token",
        Endpoint::StsRefresh,
        |google| google.external_account_authorized_user(&Endpoints::default()),
        |_| access(CLOUD_PLATFORM),
    ),
    (
        "service_account, access token",
        Endpoint::Token,
        service_account,
        |_| access("openid"),
    ),
    (
        "service_account, ID token",
        Endpoint::Token,
        service_account,
        |_| id(AUDIENCE),
    ),
    (
        "authorized_user, access token",
        Endpoint::Token,
        authorized_user,
        |_| access(CLOUD_PLATFORM),
    ),
    (
        "authorized_user, ID token",
        Endpoint::Token,
        authorized_user,
        |file| id(file["client_id"].as_str().unwrap()),
    ),
    (
        "impersonated_service_account, access token",
        Endpoint::GenerateAccessToken,
        impersonated,
        |_| access(CLOUD_PLATFORM),
    ),
    (
        "impersonated_service_account, ID token",
        Endpoint::GenerateIdToken,
        impersonated,
        |_| id(AUDIENCE),
    ),
];

async fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, endpoint, file, key) in ROWS {
        let google = Google::start().await;
        let file = file(&google);
        let key = key(&file);
        let config = config(&google, &file);
        let issuer = Issuer::Google(google, endpoint);
        cases.push(Case::new(name, issuer, &config, &key));
    }
    for (name, kind, key) in [
        (
            "metadata, access token",
            Kind::Access,
            access(CLOUD_PLATFORM),
        ),
        ("metadata, ID token", Kind::Identity, id(AUDIENCE)),
    ] {
        let metadata = Metadata::start().await;
        let variable = ("GCE_METADATA_HOST", metadata.address().to_string());
        let config = load(&RawConfig::default(), &Env::from_iter([variable])).unwrap();
        let issuer = Issuer::Metadata(metadata, kind);
        issuer.heal();
        cases.push(Case::new(name, issuer, &config, &key));
    }
    cases
}

fn access(scope: &str) -> TokenKey {
    of_base(TokenKind::Access {
        scopes: [scope.into()].into(),
    })
}

fn id(audience: &str) -> TokenKey {
    of_base(TokenKind::Id {
        audience: audience.into(),
    })
}

fn of_base(kind: TokenKind) -> TokenKey {
    TokenKey {
        kind,
        principal: Principal::Attached,
    }
}

fn impersonated(google: &Google) -> Value {
    google.impersonated(&Endpoints::default(), &service_account(google), &[])
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

// === impl Issuer ===

impl Issuer {
    /// Delays the next response until the gate is opened.
    fn hold(&self, gate: &Gate) {
        match self {
            Self::Google(google, endpoint) => {
                google.script(*endpoint, [Fault::none().behind(gate)]);
            }
            Self::Metadata(metadata, kind) => metadata.script(*kind, [valid(*kind).behind(gate)]),
        }
    }

    /// Refuses all requests from now on.
    fn refuse(&self) {
        match self {
            Self::Google(google, endpoint) => {
                google.always(*endpoint, Fault::oauth("invalid_grant", "No."));
            }
            Self::Metadata(metadata, kind) => metadata.script(*kind, [Answer::status(400, "No.")]),
        }
    }

    /// Issues tokens from now on.
    fn heal(&self) {
        match self {
            Self::Google(google, _) => google.heal(),
            Self::Metadata(metadata, kind) => metadata.script(*kind, [valid(*kind)]),
        }
    }

    /// Makes the next response an access token that is valid for this number of seconds.
    fn shorten(&self, seconds: u64) {
        let expires = SystemTime::now() + Duration::from_secs(seconds);
        let expires = humantime::format_rfc3339(expires).to_string();
        match self {
            Self::Google(google, endpoint) => google.script(
                *endpoint,
                [Fault::edit(move |json| {
                    if json.get("expireTime").is_some() {
                        json["expireTime"] = expires.clone().into();
                    } else {
                        json["expires_in"] = seconds.into();
                    }
                })],
            ),
            Self::Metadata(metadata, kind) => {
                metadata.script(*kind, [Answer::access("short", seconds), valid(*kind)]);
            }
        }
    }

    fn fetches(&self) -> usize {
        match self {
            Self::Google(google, endpoint) => google.count(*endpoint),
            Self::Metadata(metadata, kind) => metadata.count(*kind),
        }
    }

    async fn arrived(&self, count: usize) {
        match self {
            Self::Google(google, endpoint) => google.arrived(*endpoint, count).await,
            Self::Metadata(metadata, kind) => metadata.arrived(*kind, count).await,
        }
    }
}

/// Returns a different token each time, like the endpoints.
fn valid(kind: Kind) -> Answer {
    let issued = std::sync::atomic::AtomicU64::new(0);
    Answer::with(move |asked| {
        let nth = issued.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        match kind {
            Kind::Access => Answer::access(&format!("token-{nth}"), 3_600),
            _ => {
                let audience = asked.parameter("audience").unwrap();
                let expires = super::support::metadata::in_seconds(3_600) + nth;
                Answer::ok(super::support::metadata::jwt(&audience, expires))
            }
        }
    })
}

// === impl Case ===

impl Case {
    fn new(name: &'static str, issuer: Issuer, config: &Config, key: &TokenKey) -> Self {
        let metrics = Arc::new(Metrics::new());
        let sources = TokenSources::of_config::<Full<Bytes>>(config, &metrics, &Logins::default());
        let sources = sources.unwrap();
        let facts = Facts::new(sources.clone(), config.universe.clone());
        let cache = TokenCache::new(sources, metrics);
        Self {
            name,
            is_access: matches!(key.kind, TokenKind::Access { .. }),
            issuer,
            slot: cache.slot(key),
            _owned: (cache, facts),
        }
    }

    fn fetches(&self) -> usize {
        self.issuer.fetches()
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
        case.issuer.hold(&gate);
        let waiting: Vec<_> = (0..50)
            .map(|_| {
                let slot = Arc::clone(&case.slot);
                tokio::spawn(async move { slot.token().await.map(|_| ()) })
            })
            .collect();
        case.issuer.arrived(1).await;
        gate.open();
        for request in waiting {
            request.await.unwrap().unwrap();
        }
        assert_eq!(case.fetches(), 1, "{}", case.name);
    }
}

#[tokio::test]
async fn an_error_is_shared_and_cached_for_the_next_request() {
    for case in cases().await {
        case.issuer.refuse();
        let error = case.slot.token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TokenRefused, "{}", case.name);
        assert!(error.detail().starts_with("token: "), "{error}");
        let again = case.slot.token().await.unwrap_err();
        assert_eq!(again.detail(), error.detail(), "{}", case.name);
        assert_eq!(case.fetches(), 1, "{}", case.name);
        // The error is not permanent.
        case.issuer.heal();
        tokio::time::sleep(again.wait().unwrap() + Duration::from_millis(50)).await;
        case.token().await;
    }
}

#[tokio::test]
async fn a_rejected_token_is_replaced_once() {
    for case in cases().await {
        let first = case.slot.token().await.unwrap();
        case.slot.fetch_replacement(&first).await;
        assert_eq!(case.fetches(), 2, "{}", case.name);
        let second = case.slot.token().await.unwrap();
        // A token is replaced at most once a minute.
        case.slot.fetch_replacement(&second).await;
        assert_eq!(case.fetches(), 2, "{}", case.name);
    }
}

#[tokio::test]
async fn a_stale_access_token_is_used_while_it_is_refreshed() {
    for case in cases().await {
        if !case.is_access {
            continue;
        }
        case.issuer.shorten(100);
        let first = case.token().await;
        assert_eq!(case.token().await, first, "{}", case.name);
        case.issuer.arrived(2).await;
    }
}

#[tokio::test]
async fn an_unused_token_is_not_fetched() {
    for case in cases().await {
        case.issuer.shorten(1);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(case.fetches(), 0, "{}", case.name);
    }
}
