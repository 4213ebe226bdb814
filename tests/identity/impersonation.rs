//! Tokens of accounts that the metadata server's account impersonates.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};

use crate::client::{CLOUD_PLATFORM, account_token};
use crate::support::app::{json, proxied, text};
use crate::support::google::{Endpoint, Endpoints, Fault, Google, Role};
use crate::support::metadata::{Answer, Gate, Kind, Metadata};
use crate::support::sidecar::Sidecar;
use crate::{STORAGE, authorized_user, service_account};

mod errors;
mod files;

const API: &str = "http://storage.googleapis.com/b";

const SERVICE: &str = "http://billing.a.run.app/";

/// A metadata server whose tokens the emulated Google accepts, and the emulated Google.
pub(crate) struct Setup {
    pub(crate) google: Google,
    pub(crate) metadata: Metadata,
}

impl Setup {
    pub(crate) async fn new() -> Self {
        let (google, metadata) = (Google::start().await, Metadata::start().await);
        let token = account_token(&google);
        metadata.script(Kind::Access, [Answer::access(&token, 3600)]);
        metadata.script(Kind::Email, [Answer::ok(google.directory().main())]);
        Self { google, metadata }
    }

    pub(crate) async fn sidecar(&self, args: &[&str]) -> Sidecar {
        self.sidecar_with(args, &[]).await
    }

    pub(crate) async fn sidecar_with(&self, args: &[&str], env: &[(&str, &str)]) -> Sidecar {
        let flags = self.google.flags_for_all();
        let flags = flags.iter().map(String::as_str);
        let all: Vec<&str> = flags.chain(args.iter().copied()).collect();
        Sidecar::start_with(&self.metadata, &all, env).await
    }

    /// Starts a sidecar with a credential file.
    pub(crate) async fn sidecar_of(&self, file: &Value, args: &[&str]) -> Sidecar {
        let path = self.google.file("credentials.json", file);
        let path = path.display().to_string();
        self.sidecar(&[&["--credentials", &*path], args].concat())
            .await
    }

    pub(crate) fn address(&self, name: &str) -> String {
        self.google.directory().address(name)
    }

    fn delegates(&self, names: &[&str]) -> Value {
        let names = names
            .iter()
            .map(|name| format!("projects/-/serviceAccounts/{}", self.address(name)));
        names.collect()
    }
}

/// Calls through a sidecar that impersonates `target` for all destinations.
async fn call_as_target(setup: &Setup, url: &str) -> Response<Bytes> {
    let target = setup.address("target");
    let sidecar = setup
        .sidecar(&["--impersonate-service-account", &target])
        .await;
    proxied(sidecar.proxy(), url, &[]).await
}

/// Returns the detail of the sidecar's own error.
#[track_caller]
fn detail(response: &Response<Bytes>, status: u16) -> String {
    assert_eq!(response.status(), status, "{}", text(response));
    json(response)["detail"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_id_token_has_the_email_of_the_impersonated_account() {
    let setup = Setup::new().await;
    let answer = json(&call_as_target(&setup, SERVICE).await);
    assert_eq!(answer["id_token"]["email"], setup.address("target"));
    assert_eq!(answer["id_token"]["aud"], "https://billing.a.run.app");
    let asked = setup.google.only(Endpoint::GenerateIdToken);
    let target = setup.address("target");
    assert_eq!(
        asked.path,
        format!("/v1/projects/-/serviceAccounts/{target}:generateIdToken")
    );
    assert_eq!(asked.host, "iamcredentials.googleapis.com");
    assert_eq!(asked.header("content-type"), Some("application/json"));
    assert_eq!(
        asked.json(),
        json!({"audience": "https://billing.a.run.app", "delegates": [], "includeEmail": true})
    );
}

#[tokio::test]
async fn an_access_token_request_has_scopes_lifetime_and_delegates() {
    let setup = Setup::new().await;
    let (delegate, target) = (setup.address("delegate"), setup.address("target"));
    let rule = format!(
        "storage.googleapis.com=access,scope=s2,scope=s1,delegate={delegate},impersonate={target}"
    );
    let sidecar = setup.sidecar(&["--rule", &rule]).await;
    let answer = json(&proxied(sidecar.proxy(), API, &[]).await);
    assert_eq!(answer["member"], format!("serviceAccount:{target}"));
    assert_eq!(answer["scopes"], json!(["s1", "s2"]));
    let asked = setup.google.only(Endpoint::GenerateAccessToken).json();
    assert_eq!(
        asked,
        json!({"delegates": setup.delegates(&["delegate"]), "lifetime": "3600s", "scope": ["s1", "s2"]})
    );
}

#[tokio::test]
async fn delegates_are_named_from_the_base_to_the_target() {
    let setup = Setup::new().await;
    let google = &setup.google;
    let (first, second, target) = (
        setup.address("delegate"),
        setup.address("second"),
        setup.address("last"),
    );
    google.grant(
        &format!("serviceAccount:{first}"),
        &second,
        Role::TokenCreator,
    );
    google.grant(
        &format!("serviceAccount:{second}"),
        &target,
        Role::TokenCreator,
    );
    let chain = format!("{first},{second},{target}");
    let sidecar = setup
        .sidecar(&["--impersonate-service-account", &chain])
        .await;
    let answer = json(&proxied(sidecar.proxy(), API, &[]).await);
    assert_eq!(answer["member"], format!("serviceAccount:{target}"));
    // A rule without scopes requests `cloud-platform`.
    assert_eq!(answer["scopes"], json!([CLOUD_PLATFORM]));
    let asked = google.only(Endpoint::GenerateAccessToken).json();
    assert_eq!(asked["delegates"], setup.delegates(&["delegate", "second"]));
}

#[tokio::test]
async fn a_rule_names_another_account_than_the_global_option() {
    let setup = Setup::new().await;
    let (delegate, target) = (setup.address("delegate"), setup.address("target"));
    let rule = format!("storage.googleapis.com=access,impersonate={delegate}");
    let sidecar = setup
        .sidecar(&["--impersonate-service-account", &target, "--rule", &rule])
        .await;
    for (url, account) in [(API, &delegate), ("http://pubsub.googleapis.com/", &target)] {
        let answer = json(&proxied(sidecar.proxy(), url, &[]).await);
        assert_eq!(
            answer["member"],
            format!("serviceAccount:{account}"),
            "{url}"
        );
    }
}

#[tokio::test]
async fn an_account_of_the_metadata_server_is_the_base() {
    let setup = Setup::new().await;
    let target = setup.address("target");
    let rule = format!("storage.googleapis.com=access,account=x@p.example,impersonate={target}");
    let sidecar = setup.sidecar(&["--rule", &rule]).await;
    let answer = json(&proxied(sidecar.proxy(), API, &[]).await);
    assert_eq!(answer["member"], format!("serviceAccount:{target}"));
    let asked = setup.metadata.requests(Kind::Access);
    assert!(asked[0].path.contains("/x@p.example/token"), "{asked:?}");
    let query = asked[0].query.as_deref().unwrap();
    assert!(query.contains("cloud-platform"), "{query}");
}

#[tokio::test]
async fn many_calls_share_one_base_token_and_one_token_for_each_purpose() {
    let setup = Setup::new().await;
    let gate = Gate::new();
    setup
        .google
        .always(Endpoint::GenerateAccessToken, Fault::none().behind(&gate));
    let target = setup.address("target");
    let sidecar = setup
        .sidecar(&["--impersonate-service-account", &target])
        .await;
    let proxy = sidecar.proxy();
    let calls: Vec<_> = (0..20)
        .map(|_| tokio::spawn(async move { proxied(proxy, API, &[]).await.status() }))
        .collect();
    setup.google.arrived(Endpoint::GenerateAccessToken, 1).await;
    gate.open();
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert_eq!(proxied(proxy, SERVICE, &[]).await.status(), 200);
    assert_eq!(setup.google.count(Endpoint::GenerateAccessToken), 1);
    assert_eq!(setup.google.count(Endpoint::GenerateIdToken), 1);
    assert_eq!(setup.metadata.count(Kind::Access), 1);
}

#[tokio::test]
async fn a_clock_that_differs_by_ten_minutes_does_not_matter() {
    for skew in [600, -600] {
        let setup = Setup::new().await;
        setup
            .metadata
            .script(Kind::Access, [Answer::access("T", 3600)]);
        setup.google.skew(skew);
        // The server would refuse the token by its own clock, so the response is scripted.
        let expires = setup.google.now() + Duration::from_secs(3600);
        let expires = humantime::format_rfc3339(expires).to_string();
        let answer = json!({"accessToken": "impersonated", "expireTime": expires}).to_string();
        setup
            .google
            .always(Endpoint::GenerateAccessToken, Fault::status(200, answer));
        call_as_target(&setup, API).await;
        let sent = setup.google.requests(Endpoint::Api);
        assert_eq!(sent[0].bearer(), Some("impersonated"), "{skew}");
    }
}

#[tokio::test]
async fn the_chain_is_named_by_explain_status_and_log() {
    let setup = Setup::new().await;
    let (delegate, target) = (setup.address("delegate"), setup.address("target"));
    let chain = format!("{delegate},{target}");
    let sidecar = setup
        .sidecar(&["--impersonate-service-account", &chain])
        .await;
    proxied(sidecar.proxy(), API, &[]).await;
    let main = setup.google.directory().main().to_owned();
    let via = format!("impersonated by the base credential through {delegate}");
    let get = |path| crate::support::app::get(sidecar.admin(), path);
    let explained = get("/explain?url=https://storage.googleapis.com/").await;
    assert!(
        text(&explained).contains(&format!("{target}, {via}")),
        "{}",
        text(&explained)
    );
    let status = json(&get("/status").await);
    assert_eq!(status["impersonates"], chain);
    let tokens = status["tokens"].as_array().unwrap();
    let token = tokens.iter().find(|token| token["account"] == *target);
    assert_eq!(token.unwrap()["via"], via);
    let line = sidecar
        .logged(|line| line["source"] == "impersonation")
        .await;
    let named = format!("impersonated by {main} through {delegate}");
    assert!(line["message"].as_str().unwrap().contains(&named), "{line}");
}

/// Like in gcloud, the calling account may precede the accounts that it impersonates.
#[tokio::test]
async fn a_chain_that_begins_with_the_callers_own_account_needs_no_role_on_itself() {
    let setup = Setup::new().await;
    let main = setup.google.directory().main().to_owned();
    let (delegate, target) = (setup.address("delegate"), setup.address("target"));
    let key = service_account(&setup.google);
    let file = setup
        .google
        .impersonated(&Endpoints::default(), &key, &[&main, &delegate]);
    let global = format!("--impersonate-service-account={main},{delegate},{target}");
    let rule = format!(
        "--rule=storage.googleapis.com=access,delegate={main},delegate={main},delegate={delegate},impersonate={target}"
    );
    let at_metadata = [
        setup.sidecar(&[&global]).await,
        setup.sidecar(&[&rule]).await,
    ];
    let of_files = [
        setup.sidecar_of(&key, &[&global]).await,
        setup.sidecar_of(&file, &[]).await,
    ];
    for sidecar in at_metadata.iter().chain(&of_files) {
        let response = proxied(sidecar.proxy(), API, &[]).await;
        assert_eq!(response.status(), 200, "{}", text(&response));
    }
    let asked = setup.google.requests(Endpoint::GenerateAccessToken);
    assert_eq!(asked.len(), 4);
    for asked in asked {
        assert_eq!(asked.json()["delegates"], setup.delegates(&["delegate"]));
    }
    let explain = ["explain", "--json", &global, STORAGE];
    let ran = crate::run_with(&setup.google, &key, &explain).await;
    for part in [
        format!("{main} needs roles/iam.serviceAccountTokenCreator on {delegate}"),
        format!("impersonated by {main} through {delegate}"),
    ] {
        assert!(ran.out.contains(&part), "{part}: {ran:?}");
    }
    assert!(
        !ran.out.contains(&format!("TokenCreator on {main}")),
        "{ran:?}"
    );
}
