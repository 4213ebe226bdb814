//! The key file of a service account.

use super::support::google::{Endpoint, Endpoints, Fault, Google, Jwt, UNIVERSE};
use super::support::metadata::{in_seconds, jwt};
use super::{IAP, RUN_APP, STORAGE, run_with, service_account};

const EMAIL_SCOPE: &str = "https://www.googleapis.com/auth/userinfo.email";

#[tokio::test]
async fn a_google_api_gets_a_self_signed_jwt_without_a_fetch() {
    let google = Google::start().await;
    let file = service_account(&google);
    let ran = run_with(&google, &file, &["token", STORAGE]).await;
    assert_eq!(ran.status, Some(0), "{ran:?}");
    let jwt = Jwt::read(ran.out.trim());
    assert_eq!(jwt.header["kid"], file["private_key_id"]);
    assert_eq!(jwt.claims["iss"], file["client_email"]);
    assert_eq!(jwt.claims["sub"], file["client_email"]);
    assert_eq!(
        jwt.claims["scope"],
        "https://www.googleapis.com/auth/cloud-platform"
    );
    assert!(jwt.claims.get("aud").is_none(), "{jwt:?}");
    assert_eq!(google.called(), []);
    let email = file["client_email"].as_str().unwrap();
    assert!(
        ran.err.contains("service_account") && ran.err.contains(email),
        "{ran:?}"
    );
}

#[tokio::test]
async fn cloud_run_gets_an_id_token_exchanged_for_an_assertion() {
    let google = Google::start().await;
    let file = service_account(&google);
    let ran = run_with(&google, &file, &["token", RUN_APP]).await;
    assert_eq!(ran.status, Some(0), "{ran:?}");
    let token = Jwt::read(ran.out.trim());
    assert_eq!(
        token.claims["aud"],
        "https://private-424242.us-central1.run.app"
    );
    assert_eq!(token.claims["email"], file["client_email"]);
    let request = google.only(Endpoint::Token);
    assert!(request.tls);
    assert_eq!(
        request.field("grant_type"),
        "urn:ietf:params:oauth:grant-type:jwt-bearer"
    );
    assert_eq!(request.form().len(), 2);
    let assertion = request.jwt("assertion");
    assert_eq!(assertion.header["kid"], file["private_key_id"]);
    let claims = assertion.claims;
    assert_eq!(claims["target_audience"], token.claims["aud"]);
    assert_eq!(claims["aud"], "https://oauth2.googleapis.com/token");
    assert_eq!(claims["iss"], file["client_email"]);
    assert!(
        claims.get("scope").is_none() && claims.get("sub").is_none(),
        "{claims}"
    );
    let (iat, exp) = (
        claims["iat"].as_u64().unwrap(),
        claims["exp"].as_u64().unwrap(),
    );
    assert_eq!(exp - iat, 3600);
}

#[tokio::test]
async fn scopes_about_the_account_need_a_token_of_the_endpoint() {
    let google = Google::start().await;
    let rule = format!("--rule=iap.example=access,scope=openid,scope={EMAIL_SCOPE}");
    let ran = run_with(&google, &service_account(&google), &["token", &rule, IAP]).await;
    assert_eq!(ran.status, Some(0), "{ran:?}");
    let claims = google.only(Endpoint::Token).jwt("assertion").claims;
    assert_eq!(claims["scope"], format!("{EMAIL_SCOPE} openid"));
    assert!(claims.get("target_audience").is_none(), "{claims}");
}

#[tokio::test]
async fn the_aud_of_an_assertion_is_always_that_of_google() {
    let google = Google::start().await;
    let file = google
        .service_account(&Endpoints::Base(google.base()))
        .unwrap();
    let refused = run_with(&google, &file, &["token", RUN_APP]).await;
    assert_eq!(refused.status, Some(64), "{refused:?}");
    assert!(
        refused.err.contains("(service_account): token_uri: "),
        "{refused:?}"
    );
    let trust = format!("--trust-credential-url={}", google.base());
    let ran = run_with(&google, &file, &["token", &trust, RUN_APP]).await;
    assert_eq!(ran.status, Some(0), "{ran:?}");
    let request = google.only(Endpoint::Token);
    assert!(!request.tls);
    assert_eq!(
        request.jwt("assertion").claims["aud"],
        "https://oauth2.googleapis.com/token"
    );
}

#[tokio::test]
async fn in_another_universe_the_iam_credentials_api_issues_id_tokens() {
    let google = Google::start().await;
    let file = google
        .service_account(&Endpoints::Universe(UNIVERSE.to_owned()))
        .unwrap();
    let email = file["client_email"].as_str().unwrap();
    // The account has no role on itself.
    let ran = run_with(&google, &file, &["token", RUN_APP]).await;
    assert_eq!(ran.status, Some(1), "{ran:?}");
    let role =
        format!("grant roles/iam.serviceAccountOpenIdTokenCreator on {email} to {email} itself");
    assert!(ran.err.contains(&role), "{ran:?}");
    let audience = "https://private-424242.us-central1.run.app";
    let token = jwt(audience, in_seconds(3600));
    let answer = serde_json::json!({ "token": token }).to_string();
    google.script(Endpoint::GenerateIdToken, [Fault::status(200, answer)]);
    let ran = run_with(&google, &file, &["token", RUN_APP]).await;
    assert_eq!(ran.out.trim(), token, "{ran:?}");
    let request = google.requests(Endpoint::GenerateIdToken).pop().unwrap();
    assert_eq!(request.host, format!("iamcredentials.{UNIVERSE}"));
    assert_eq!(
        request.json(),
        serde_json::json!({"audience": audience, "includeEmail": true, "useEmailAzp": true})
    );
    let bearer = Jwt::read(request.bearer().unwrap());
    assert_eq!(
        bearer.claims["scope"],
        "https://www.googleapis.com/auth/iam"
    );
    assert_eq!(google.count(Endpoint::Token), 0);
}

#[tokio::test]
async fn only_apis_of_the_files_universe_get_its_token() {
    let google = Google::start().await;
    let file = google
        .service_account(&Endpoints::Universe(UNIVERSE.to_owned()))
        .unwrap();
    let own = format!("https://storage.{UNIVERSE}/");
    let ran = run_with(&google, &file, &["token", &own]).await;
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert!(Jwt::read(ran.out.trim()).claims.get("scope").is_some());
    let ran = run_with(&google, &file, &["token", STORAGE]).await;
    assert_eq!(ran.status, Some(1), "{ran:?}");
}

#[tokio::test]
async fn exec_calls_a_private_service_with_the_key() {
    let google = Google::start().await;
    let curl = ["exec", "--", "curl", "-sS", "--fail", RUN_APP];
    let ran = run_with(&google, &service_account(&google), &curl).await;
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert!(
        ran.out
            .contains("https://private-424242.us-central1.run.app"),
        "{ran:?}"
    );
}
