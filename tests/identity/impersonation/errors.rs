//! Errors of the IAM Credentials API and of the base token: retries, and the app's error.

use super::*;

#[tokio::test]
async fn a_403_names_the_missing_role_the_account_and_the_caller() {
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
async fn an_app_that_waits_as_long_as_retry_after_says_gets_a_token() {
    let setup = Setup::new().await;
    setup
        .google
        .script(Endpoint::GenerateAccessToken, [Fault::rate_limited(2)]);
    let target = setup.address("target");
    let flags = [
        "--impersonate-service-account",
        &target,
        "--token-timeout",
        "1s",
    ];
    let sidecar = setup.sidecar(&flags).await;
    let limited = proxied(sidecar.proxy(), API, &[]).await;
    assert_eq!(limited.status(), 503, "{}", text(&limited));
    let wait = limited.headers()["retry-after"].to_str().unwrap();
    tokio::time::sleep(Duration::from_secs(wait.parse().unwrap())).await;
    let response = proxied(sidecar.proxy(), API, &[]).await;
    assert_eq!(
        response.status(),
        200,
        "after {wait} s: {}",
        text(&response)
    );
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
        detail.contains("aud differs from the requested audience"),
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
    assert!(detail.contains("no response within"), "{detail}");
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
