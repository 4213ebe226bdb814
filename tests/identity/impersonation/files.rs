//! Credential files that impersonate an account, with each kind of base credential.

use super::*;

/// Calls with a credential file.
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
    // Not with a token of the account itself, which would need a role on itself.
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
