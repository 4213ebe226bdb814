//! JWTs that an account signs by `signJwt`: for IAP, and assertions for domain-wide delegation.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::command::{sidentity, var};
use crate::impersonation::Setup;
use crate::service_account;
use crate::support::app::{json, proxied, text};
use crate::support::google::{Endpoint, Endpoints, Fault, Jwt, Recorded, Role, UNIVERSE};
use crate::support::metadata::{Answer, Kind};

const IAP: &str = "http://iap.example.com/page";
const DRIVE: &str = "https://www.googleapis.com/auth/drive.readonly";
const FILES: &str = "http://www.googleapis.com/drive/v3/files";

/// Returns the claims of the signature request.
fn payload(asked: &Recorded) -> Value {
    serde_json::from_str(asked.json()["payload"].as_str().unwrap()).unwrap()
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// The account of the metadata server may sign for itself.
fn grant_to_itself(setup: &Setup) -> String {
    let main = setup.google.directory().main().to_owned();
    setup
        .google
        .grant(&format!("serviceAccount:{main}"), &main, Role::TokenCreator);
    main
}

#[track_caller]
fn assert_times(claims: &Value) {
    let (iat, exp) = (
        claims["iat"].as_u64().unwrap(),
        claims["exp"].as_u64().unwrap(),
    );
    assert!(exp - iat <= 3600, "{claims}");
    assert!((now() - 15..=now() - 9).contains(&iat), "{claims}");
}

#[tokio::test]
async fn a_jwt_for_iap_is_signed_by_the_impersonated_account() {
    let setup = Setup::new().await;
    let (delegate, target) = (setup.address("delegate"), setup.address("target"));
    let rule = format!("iap.example.com=id,token=jwt,delegate={delegate},impersonate={target}");
    let sidecar = setup.sidecar(&["--rule", &rule]).await;
    let response = proxied(sidecar.proxy(), IAP, &[("authorization", "Bearer app")]).await;
    assert_eq!(json(&response)["iap"]["email"], target);
    let sent = &setup.google.requests(Endpoint::Api)[0];
    assert_eq!(sent.header("authorization"), Some("Bearer app"));
    let token = sent.header("proxy-authorization").unwrap();
    let claims = Jwt::read(token.strip_prefix("Bearer ").unwrap()).claims;
    assert_times(&claims);
    let mut names: Vec<_> = claims.as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(names, ["aud", "exp", "iat", "iss", "sub"]);
    assert_eq!(claims["iss"], target);
    assert_eq!(claims["sub"], target);
    assert_eq!(claims["aud"], "https://iap.example.com/*");
    let asked = &setup.google.requests(Endpoint::SignJwt)[0];
    let path = format!("/v1/projects/-/serviceAccounts/{target}:signJwt");
    assert_eq!(asked.path, path);
    let delegates = json!([format!("projects/-/serviceAccounts/{delegate}")]);
    assert_eq!(asked.json()["delegates"], delegates);
    assert_eq!(payload(asked), claims);
}

#[tokio::test]
async fn a_jwt_for_iap_is_signed_by_the_account_of_the_metadata_server_itself() {
    let setup = Setup::new().await;
    let main = grant_to_itself(&setup);
    let rule = "iap.example.com=id,token=jwt,audience=https://iap.example.com/page";
    let sidecar = setup.sidecar(&["--rule", rule]).await;
    let response = proxied(sidecar.proxy(), IAP, &[]).await;
    assert_eq!(json(&response)["iap"]["email"], main);
    let sent = &setup.google.requests(Endpoint::Api)[0];
    let claims = Jwt::read(sent.bearer().unwrap()).claims;
    assert_eq!(claims["sub"], main);
    assert_eq!(claims["aud"], "https://iap.example.com/page");
    sidecar
        .counted("sidentity_token_lookups_total{credential=\"id\",outcome=\"wait\"} 1")
        .await;
}

#[tokio::test]
async fn an_account_that_may_not_sign_for_itself_gets_the_role_to_grant() {
    let setup = Setup::new().await;
    let main = setup.google.directory().main().to_owned();
    let sidecar = setup
        .sidecar(&["--rule", "iap.example.com=id,token=jwt"])
        .await;
    let response = proxied(sidecar.proxy(), IAP, &[]).await;
    assert_eq!(response.status(), 502);
    let detail = json(&response)["detail"].as_str().unwrap().to_owned();
    let grant = format!("grant roles/iam.serviceAccountTokenCreator on {main} to {main}");
    assert!(detail.ends_with(&grant), "{detail}");
    assert!(detail.contains("iam.serviceAccounts.signJwt"), "{detail}");
    assert_eq!(setup.google.count(Endpoint::Api), 0);
}

#[tokio::test]
async fn a_signed_response_that_is_not_the_requested_jwt_is_rejected() {
    let other_claims = |name: &'static str, value: Value| {
        Fault::edit(move |json| {
            let jwt = json["signedJwt"].as_str().unwrap().to_owned();
            let mut claims = Jwt::read(&jwt).claims;
            claims[name] = value.clone();
            let parts: Vec<_> = jwt.split('.').collect();
            let claims = base64::Engine::encode(
                &base64::engine::general_purpose::URL_SAFE_NO_PAD,
                claims.to_string(),
            );
            json["signedJwt"] = json!(format!("{}.{claims}.{}", parts[0], parts[2]));
        })
    };
    for fault in [
        Fault::torn_json(),
        Fault::edit(|json| json["signedJwt"] = json!("a.b")),
        other_claims("aud", json!("https://other/*")),
        other_claims("exp", json!(1)),
    ] {
        let setup = Setup::new().await;
        grant_to_itself(&setup);
        setup.google.always(Endpoint::SignJwt, fault);
        let sidecar = setup
            .sidecar(&["--rule", "iap.example.com=id,token=jwt"])
            .await;
        let response = proxied(sidecar.proxy(), IAP, &[]).await;
        assert_eq!(response.status(), 502, "{}", text(&response));
        assert_eq!(setup.google.count(Endpoint::Api), 0);
    }
}

#[tokio::test]
async fn a_call_for_a_user_carries_the_users_token() {
    let setup = Setup::new().await;
    let target = setup.address("target");
    let user = setup.google.directory().user();
    let rule =
        format!("www.googleapis.com=access,scope={DRIVE},subject={user},impersonate={target}");
    let sidecar = setup.sidecar(&["--rule", &rule]).await;
    let response = proxied(sidecar.proxy(), FILES, &[]).await;
    assert_eq!(response.status(), 200, "{}", text(&response));
    let answer = json(&response);
    assert_eq!(answer["member"], format!("user:{user}"));
    assert_eq!(answer["scopes"], json!([DRIVE]));
    let claims = payload(&setup.google.only(Endpoint::SignJwt));
    assert_times(&claims);
    assert_eq!(claims["iss"], target);
    assert_eq!(claims["sub"], user);
    assert_eq!(claims["scope"], DRIVE);
    assert_eq!(claims["aud"], "https://oauth2.googleapis.com/token");
    let form = setup.google.only(Endpoint::Token);
    assert_eq!(form.host, "oauth2.googleapis.com");
    let names: Vec<_> = form.form().into_keys().collect();
    assert_eq!(names, ["assertion", "grant_type"]);
    assert_eq!(
        form.field("grant_type"),
        "urn:ietf:params:oauth:grant-type:jwt-bearer"
    );
    assert_eq!(form.jwt("assertion").claims, claims);
}

#[tokio::test]
async fn the_account_of_the_metadata_server_acts_for_a_user() {
    let setup = Setup::new().await;
    let main = grant_to_itself(&setup);
    let user = setup.google.directory().user();
    let route = format!("127.0.0.1:0=https://www.googleapis.com,scope={DRIVE},subject={user}");
    let sidecar = setup.sidecar(&["--route", &route]).await;
    let response =
        crate::support::app::get(sidecar.address("127.0.0.1:0"), "/drive/v3/files").await;
    assert_eq!(response.status(), 200, "{}", text(&response));
    assert_eq!(json(&response)["member"], format!("user:{user}"));
    assert_eq!(payload(&setup.google.only(Endpoint::SignJwt))["iss"], main);
}

#[tokio::test]
async fn unauthorised_delegation_is_reported_with_advice() {
    let setup = Setup::new().await;
    let target = setup.address("target");
    let main = setup.google.directory().main().to_owned();
    let user = setup.google.directory().user();
    let refused = Fault::oauth(
        "unauthorized_client",
        "Client is unauthorized to retrieve access tokens",
    );
    setup.google.always(Endpoint::Token, refused);
    let rule = format!("www.googleapis.com=access,scope={DRIVE},subject={user}");
    let impersonating = setup
        .sidecar(&["--rule", &format!("{rule},impersonate={target}")])
        .await;
    let key = setup.google.service_account(&Endpoints::default()).unwrap();
    let with_key = setup.sidecar_of(&key, &["--rule", &rule]).await;
    for (sidecar, account) in [(impersonating, &target), (with_key, &main)] {
        let response = proxied(sidecar.proxy(), FILES, &[]).await;
        assert_eq!(response.status(), 502, "{}", text(&response));
        let problem = json(&response);
        let kind = problem["type"].as_str().unwrap();
        assert!(kind.ends_with("#token-not-delegated"), "{kind}");
        let detail = problem["detail"].as_str().unwrap();
        for part in [
            "oauth2.googleapis.com",
            "Client is unauthorized",
            "Admin console",
            &format!("the client id of {account} for these scopes"),
            DRIVE,
            &user,
        ] {
            assert!(detail.contains(part), "{part} in {detail}");
        }
        let logged = sidecar
            .logged(|line| {
                line["message"]
                    .as_str()
                    .is_some_and(|message| message.starts_with("token: cannot get"))
            })
            .await;
        let advice = logged["advice"].as_str();
        assert!(
            advice.is_some_and(|advice| advice.contains("Admin console")),
            "{logged}"
        );
        assert_eq!(logged["help"], problem["type"], "{logged}");
    }
}

#[tokio::test]
async fn another_universe_has_no_delegation() {
    let setup = Setup::new().await;
    setup
        .metadata
        .script(Kind::Universe, [Answer::ok(UNIVERSE)]);
    let target = setup.address("target");
    let host = format!("drive.{UNIVERSE}");
    let rule = format!("{host}=access,scope={DRIVE},subject=jane@example.com,impersonate={target}");
    let sidecar = setup.sidecar(&["--rule", &rule]).await;
    let response = proxied(sidecar.proxy(), &format!("http://{host}/"), &[]).await;
    assert_eq!(response.status(), 502, "{}", text(&response));
    let detail = json(&response)["detail"].as_str().unwrap().to_owned();
    let expected = "exists only in the universe googleapis.com";
    assert!(detail.contains(expected), "{detail}");
    assert_eq!(setup.google.count(Endpoint::SignJwt), 0);
    // If the universe is known before the start, it is a configuration error.
    let universe = [var("GOOGLE_CLOUD_UNIVERSE_DOMAIN", UNIVERSE)];
    let ran = sidentity(["check", "--rule", &rule], universe).await;
    assert_eq!(ran.status, Some(64), "{ran:?}");
    assert!(ran.err.contains(expected), "{ran:?}");
}

#[tokio::test]
async fn a_login_signs_nothing_unless_it_impersonates_an_account() {
    let setup = Setup::new().await;
    let content = setup.google.authorized_user(&Endpoints::default());
    let file = setup.google.file("login.json", &content);
    let file = file.display().to_string();
    let target = setup.address("target");
    for (rule, what) in [
        (
            format!("www.googleapis.com=access,scope={DRIVE},subject=jane@example.com"),
            "subject=jane@example.com",
        ),
        ("iap.example.com=id,token=jwt".to_owned(), "token=jwt"),
    ] {
        let check = async |rule: &str| {
            let args = ["check", "--credentials", &file, "--rule", rule];
            sidentity(args, [var("HOME", "/nonexistent")]).await
        };
        let ran = check(&rule).await;
        assert_eq!(ran.status, Some(64), "{ran:?}");
        let expected = format!("{what} must be signed by a service account");
        assert!(ran.err.contains(&expected), "{ran:?}");
        assert!(ran.err.contains("add impersonate=ACCOUNT"), "{ran:?}");
        let ran = check(&format!("{rule},impersonate={target}")).await;
        assert_eq!(ran.status, Some(0), "{ran:?}");
    }
}

#[tokio::test]
async fn a_key_file_signs_the_jwt_for_iap_itself() {
    let setup = Setup::new().await;
    let sidecar = setup
        .sidecar_of(
            &service_account(&setup.google),
            &["--rule", "iap.example.com=id,token=jwt"],
        )
        .await;
    let response = proxied(sidecar.proxy(), IAP, &[]).await;
    assert_eq!(response.status(), 200, "{}", text(&response));
    let sent = &setup.google.requests(Endpoint::Api)[0];
    let jwt = Jwt::read(sent.bearer().unwrap());
    assert_times(&jwt.claims);
    let main = setup.google.directory().main().to_owned();
    assert_eq!(jwt.claims["iss"], main);
    assert_eq!(jwt.claims["sub"], main);
    assert_eq!(jwt.claims["aud"], "https://iap.example.com/*");
    assert!(jwt.header["kid"].is_string());
    let called = setup.google.called();
    assert!(
        called.iter().all(|endpoint| *endpoint == Endpoint::Api),
        "{called:?}"
    );
}

#[tokio::test]
async fn a_key_file_acts_for_a_user() {
    let setup = Setup::new().await;
    let user = setup.google.directory().user();
    let rule = format!("www.googleapis.com=access,scope={DRIVE},subject={user}");
    let sidecar = setup
        .sidecar_of(&service_account(&setup.google), &["--rule", &rule])
        .await;
    let response = proxied(sidecar.proxy(), FILES, &[]).await;
    assert_eq!(response.status(), 200, "{}", text(&response));
    assert_eq!(json(&response)["member"], format!("user:{user}"));
    let claims = setup.google.only(Endpoint::Token).jwt("assertion").claims;
    assert_times(&claims);
    assert_eq!(claims["iss"], setup.google.directory().main());
    assert_eq!(claims["sub"], user);
    assert_eq!(claims["scope"], DRIVE);
    assert_eq!(claims["aud"], "https://oauth2.googleapis.com/token");
    assert_eq!(setup.google.count(Endpoint::SignJwt), 0);
}

#[tokio::test]
async fn unauthorised_delegation_of_a_key_file_is_reported_with_advice() {
    let setup = Setup::new().await;
    let user = setup.google.directory().user();
    let rule = format!(
        "www.googleapis.com=access,scope=https://www.googleapis.com/auth/admin,subject={user}"
    );
    let sidecar = setup
        .sidecar_of(&service_account(&setup.google), &["--rule", &rule])
        .await;
    let response = proxied(sidecar.proxy(), FILES, &[]).await;
    assert_eq!(response.status(), 502, "{}", text(&response));
    let detail = json(&response)["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("Admin console"), "{detail}");
}
