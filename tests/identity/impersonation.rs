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
use crate::{authorized_user, service_account};

const API: &str = "http://storage.googleapis.com/b";
const SERVICE: &str = "http://billing.a.run.app/";

/// A sidecar whose metadata server gives tokens that the fake Google accepts.
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

    /// The same with a credential file.
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

/// A call through the sidecar that impersonates `target` for everything.
async fn call_as_target(setup: &Setup, url: &str) -> Response<Bytes> {
    let target = setup.address("target");
    let sidecar = setup
        .sidecar(&["--impersonate-service-account", &target])
        .await;
    proxied(sidecar.proxy(), url, &[]).await
}

/// The detail of an error of our own.
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
    // Without a scope of the rule, the one of all of Google Cloud.
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
async fn a_403_names_the_role_the_account_and_who_lacks_it() {
    let setup = Setup::new().await;
    let isolated = setup.address("isolated");
    let sidecar = setup
        .sidecar(&["--impersonate-service-account", &isolated])
        .await;
    let response = proxied(sidecar.proxy(), API, &[]).await;
    let detail = detail(&response, 502);
    let main = setup.google.directory().main().to_owned();
    for part in [
        "iamcredentials.googleapis.com".to_owned(),
        "iam.serviceAccounts.getAccessToken".to_owned(),
        format!("grant roles/iam.serviceAccountTokenCreator on {isolated} to {main}"),
    ] {
        assert!(detail.contains(&part), "{part} in {detail}");
    }
    assert_eq!(setup.google.count(Endpoint::Api), 0);
    assert_eq!(setup.google.count(Endpoint::GenerateAccessToken), 1);
}

#[tokio::test]
async fn a_403_in_a_chain_names_the_next_hop() {
    let setup = Setup::new().await;
    let [isolated, delegate, target] =
        ["isolated", "delegate", "target"].map(|name| setup.address(name));
    let role = "roles/iam.serviceAccountTokenCreator";
    for (chain, expected) in [
        (
            format!("{isolated},{target}"),
            format!(
                "grant {role} on {isolated} to {}",
                setup.google.directory().main()
            ),
        ),
        (
            format!("{delegate},{isolated}"),
            format!("grant {role} on {isolated} to {delegate}"),
        ),
    ] {
        let sidecar = setup
            .sidecar(&["--impersonate-service-account", &chain])
            .await;
        let detail = detail(&proxied(sidecar.proxy(), API, &[]).await, 502);
        assert!(detail.ends_with(&expected), "{detail}");
    }
}

#[tokio::test]
async fn a_404_names_the_account() {
    let setup = Setup::new().await;
    let not_found = Fault::api(404, "NOT_FOUND", "Not found; Gaia id not found for email");
    setup.google.always(Endpoint::GenerateIdToken, not_found);
    let detail = detail(&call_as_target(&setup, SERVICE).await, 502);
    let target = setup.address("target");
    assert!(
        detail.contains(&format!("is there a service account {target}")),
        "{detail}"
    );
    assert!(detail.contains("Gaia id not found"), "{detail}");
}

#[tokio::test]
async fn a_disabled_api_is_named() {
    let setup = Setup::new().await;
    let message = "IAM Service Account Credentials API has not been used in project 1 before or it is disabled.";
    let disabled = Fault::api(403, "PERMISSION_DENIED", message);
    setup.google.always(Endpoint::GenerateIdToken, disabled);
    let detail = detail(&call_as_target(&setup, SERVICE).await, 502);
    assert!(
        detail.contains("(iamcredentials.googleapis.com) in the project"),
        "{detail}"
    );
    assert!(!detail.contains("TokenCreator"), "{detail}");
}

#[tokio::test]
async fn a_server_that_fails_or_limits_is_retried() {
    for fault in [
        Fault::rate_limited(1),
        Fault::api(408, "DEADLINE_EXCEEDED", "late"),
        Fault::api(500, "INTERNAL", "oops"),
        Fault::api(503, "UNAVAILABLE", "later"),
        Fault::close(),
        Fault::cut_short(),
    ] {
        let setup = Setup::new().await;
        setup.google.script(Endpoint::GenerateAccessToken, [fault]);
        let begun = Instant::now();
        let response = call_as_target(&setup, API).await;
        assert_eq!(response.status(), 200, "{}", text(&response));
        let asked = setup.google.requests(Endpoint::GenerateAccessToken);
        assert_eq!(asked.len(), 2, "{asked:?}");
        assert!(begun.elapsed() < Duration::from_secs(8));
        assert_eq!(setup.metadata.count(Kind::Access), 1);
    }
}

#[tokio::test]
async fn a_limit_longer_than_the_token_timeout_is_reported_to_the_app() {
    let setup = Setup::new().await;
    setup
        .google
        .always(Endpoint::GenerateAccessToken, Fault::rate_limited(20));
    let response = call_as_target(&setup, API).await;
    let detail = detail(&response, 503);
    assert!(detail.contains("429"), "{detail}");
    let wait: u64 = response.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((15..=20).contains(&wait), "{wait}");
    assert_eq!(setup.google.count(Endpoint::GenerateAccessToken), 1);
}

#[tokio::test]
async fn a_response_without_a_token_is_rejected() {
    let edited =
        |name: &'static str, value: Value| Fault::edit(move |json| json[name] = value.clone());
    for (url, endpoint, fault) in [
        (API, Endpoint::GenerateAccessToken, Fault::torn_json()),
        (
            API,
            Endpoint::GenerateAccessToken,
            edited("expireTime", json!("in an hour")),
        ),
        (
            API,
            Endpoint::GenerateAccessToken,
            edited("expireTime", json!("2001-01-01T00:00:00Z")),
        ),
        (
            API,
            Endpoint::GenerateAccessToken,
            edited("accessToken", json!("")),
        ),
        (SERVICE, Endpoint::GenerateIdToken, Fault::torn_json()),
        (
            SERVICE,
            Endpoint::GenerateIdToken,
            edited("token", json!("e30.e30.c2ln")),
        ),
        (
            SERVICE,
            Endpoint::GenerateIdToken,
            Fault::redirect("https://storage.googleapis.com/"),
        ),
    ] {
        let setup = Setup::new().await;
        setup.google.always(endpoint, fault);
        let response = call_as_target(&setup, url).await;
        let detail = detail(&response, 502);
        assert!(detail.contains("iamcredentials.googleapis.com"), "{detail}");
        assert_eq!(setup.google.count(endpoint), 1);
        assert_eq!(setup.google.count(Endpoint::Api), 0, "{detail}");
    }
}

#[tokio::test]
async fn an_id_token_for_another_audience_is_rejected() {
    let setup = Setup::new().await;
    let other = Setup::new().await;
    let sidecar = other
        .sidecar(&["--impersonate-service-account", &other.address("target")])
        .await;
    proxied(sidecar.proxy(), "http://other.a.run.app/", &[]).await;
    let sent = other.google.only(Endpoint::Api);
    let token = sent.bearer().unwrap().to_owned();
    setup.google.always(
        Endpoint::GenerateIdToken,
        Fault::edit(move |json| json["token"] = json!(token)),
    );
    let detail = detail(&call_as_target(&setup, SERVICE).await, 502);
    assert!(
        detail.contains("aud is not exactly the audience"),
        "{detail}"
    );
}

#[tokio::test]
async fn a_silent_server_delays_a_call_by_the_token_timeout_only() {
    let setup = Setup::new().await;
    setup
        .google
        .always(Endpoint::GenerateAccessToken, Fault::never());
    let target = setup.address("target");
    let sidecar = setup
        .sidecar(&[
            "--impersonate-service-account",
            &target,
            "--token-timeout",
            "1s",
        ])
        .await;
    let begun = Instant::now();
    let detail = detail(&proxied(sidecar.proxy(), API, &[]).await, 503);
    assert!(detail.contains("no answer within"), "{detail}");
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_rejected_base_token_is_fetched_again_once() {
    let setup = Setup::new().await;
    let good = account_token(&setup.google);
    setup.metadata.script(
        Kind::Access,
        [Answer::access("expired", 3600), Answer::access(&good, 3600)],
    );
    let response = call_as_target(&setup, API).await;
    assert_eq!(response.status(), 200, "{}", text(&response));
    let asked = setup.google.requests(Endpoint::GenerateAccessToken);
    let tokens: Vec<_> = asked.iter().map(|asked| asked.bearer().unwrap()).collect();
    assert_eq!(tokens, ["expired", &*good]);
    assert_eq!(setup.metadata.count(Kind::Access), 2);
}

#[tokio::test]
async fn a_base_token_that_is_always_rejected_is_not_fetched_repeatedly() {
    let setup = Setup::new().await;
    setup.metadata.script(
        Kind::Access,
        [
            Answer::access("expired-1", 3600),
            Answer::access("expired-2", 3600),
        ],
    );
    let detail = detail(&call_as_target(&setup, API).await, 502);
    let main = setup.google.directory().main().to_owned();
    assert!(
        detail.contains(&format!("the token of {main} was not accepted")),
        "{detail}"
    );
    assert_eq!(setup.google.count(Endpoint::GenerateAccessToken), 2);
    assert_eq!(setup.metadata.count(Kind::Access), 2);
}

#[tokio::test]
async fn without_a_base_token_the_error_names_the_metadata_server_and_the_target() {
    let setup = Setup::new().await;
    setup
        .metadata
        .script(Kind::Access, [Answer::status(404, "no account")]);
    let detail = detail(&call_as_target(&setup, API).await, 502);
    let target = setup.address("target");
    assert!(
        detail.starts_with(&format!("token: {target} needs a token of ")),
        "{detail}"
    );
    assert!(detail.contains("no account"), "{detail}");
    assert_eq!(setup.google.all_requests().len(), 0);
}

#[tokio::test]
async fn a_clock_that_differs_by_ten_minutes_does_not_matter() {
    for skew in [600, -600] {
        let setup = Setup::new().await;
        setup
            .metadata
            .script(Kind::Access, [Answer::access("T", 3600)]);
        setup.google.skew(skew);
        // The server would refuse a token by its own clock, so it is made to accept this one.
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

/// A call with a credential file.
async fn call_with_file(setup: &Setup, file: &Value, args: &[&str], url: &str) -> Value {
    let sidecar = setup.sidecar_of(file, args).await;
    let response = proxied(sidecar.proxy(), url, &[]).await;
    assert_eq!(response.status(), 200, "{}", text(&response));
    json(&response)
}

#[tokio::test]
async fn every_kind_of_base_credential_impersonates_an_account() {
    for of in [service_account, authorized_user] {
        let setup = Setup::new().await;
        let file = of(&setup.google);
        let target = setup.address("target");
        let args = ["--impersonate-service-account", &target];
        let answer = call_with_file(&setup, &file, &args, API).await;
        assert_eq!(answer["member"], format!("serviceAccount:{target}"));
        let answer = call_with_file(&setup, &file, &args, SERVICE).await;
        assert_eq!(answer["id_token"]["email"], target);
    }
}

#[tokio::test]
async fn an_impersonated_file_uses_its_url_delegates_and_scopes() {
    for of in [service_account, authorized_user] {
        let setup = Setup::new().await;
        let (delegate, target) = (setup.address("delegate"), setup.address("target"));
        let endpoints = Endpoints::default();
        let mut file = setup
            .google
            .impersonated(&endpoints, &of(&setup.google), &[&delegate]);
        file["scopes"] = json!(["https://b.example/b", "https://a.example/a"]);
        let answer = call_with_file(&setup, &file, &[], API).await;
        assert_eq!(answer["member"], format!("serviceAccount:{target}"));
        let asked = setup.google.only(Endpoint::GenerateAccessToken);
        let url = file["service_account_impersonation_url"].as_str().unwrap();
        assert_eq!(format!("https://{}{}", asked.host, asked.path), url);
        assert_eq!(
            asked.json(),
            json!({
                "delegates": setup.delegates(&["delegate"]),
                "lifetime": "3600s",
                "scope": ["https://a.example/a", "https://b.example/b"],
            })
        );
    }
}

#[tokio::test]
async fn an_id_token_of_an_impersonated_file_is_authorised_by_its_source() {
    let setup = Setup::new().await;
    let endpoints = Endpoints::default();
    let source = authorized_user(&setup.google);
    let file = setup.google.impersonated(&endpoints, &source, &[]);
    let answer = call_with_file(&setup, &file, &[], SERVICE).await;
    assert_eq!(answer["id_token"]["email"], setup.address("target"));
    // Not by a token of the account itself, which would need a role on itself.
    assert_eq!(setup.google.count(Endpoint::GenerateAccessToken), 0);
    assert_eq!(setup.google.count(Endpoint::Token), 1);
    let asked = setup.google.only(Endpoint::GenerateIdToken).json();
    assert_eq!(asked["includeEmail"], true);
}

#[tokio::test]
async fn a_rule_impersonates_from_an_impersonated_file() {
    let setup = Setup::new().await;
    let (target, last) = (setup.address("target"), setup.address("last"));
    setup.google.grant(
        &format!("serviceAccount:{target}"),
        &last,
        Role::TokenCreator,
    );
    let file =
        setup
            .google
            .impersonated(&Endpoints::default(), &service_account(&setup.google), &[]);
    let rule = format!("storage.googleapis.com=access,impersonate={last}");
    let answer = call_with_file(&setup, &file, &["--rule", &rule], API).await;
    assert_eq!(answer["member"], format!("serviceAccount:{last}"));
    let asked = setup.google.requests(Endpoint::GenerateAccessToken);
    let accounts: Vec<_> = asked
        .iter()
        .map(|asked| asked.path.rsplit('/').next().unwrap())
        .collect();
    assert_eq!(
        accounts,
        [
            format!("{target}:generateAccessToken"),
            format!("{last}:generateAccessToken")
        ]
    );
}

#[tokio::test]
async fn a_403_of_an_impersonated_file_names_its_source() {
    let setup = Setup::new().await;
    let target = setup.address("target");
    setup.google.revoke(&target);
    let file =
        setup
            .google
            .impersonated(&Endpoints::default(), &service_account(&setup.google), &[]);
    let sidecar = setup.sidecar_of(&file, &[]).await;
    let detail = detail(&proxied(sidecar.proxy(), API, &[]).await, 502);
    let grant = format!("grant roles/iam.serviceAccountTokenCreator on {target} to ");
    assert!(detail.contains(&grant), "{detail}");
}
