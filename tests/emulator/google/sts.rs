//! `https://sts.googleapis.com/v1/token` and `/v1/oauthtoken`.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sidentity::emulator::google::{Endpoints, Google};

use super::client::*;

const URL: &str = "https://sts.googleapis.com/v1/token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

fn fields(google: &Google) -> Vec<(&'static str, String)> {
    let pool = google.directory().pool();
    let token = google.subject_token(SystemTime::now(), 3600).unwrap();
    vec![
        (
            "grant_type",
            "urn:ietf:params:oauth:grant-type:token-exchange".to_owned(),
        ),
        ("audience", format!("{pool}/providers/oidc")),
        ("scope", CLOUD_PLATFORM.to_owned()),
        (
            "requested_token_type",
            "urn:ietf:params:oauth:token-type:access_token".to_owned(),
        ),
        ("subject_token", token),
        ("subject_token_type", JWT.to_owned()),
    ]
}

fn exchange(google: &Google, fields: &[(&str, String)]) -> Reply {
    let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (*n, &**v)).collect();
    form(google, URL, &fields)
}

#[test]
fn a_federated_principal_with_the_role_mints_id_tokens() {
    let google = google();
    let (status, answer) = exchange(&google, &fields(&google));
    assert_eq!(status, 200, "{answer}");
    let token = answer["access_token"].as_str().unwrap();
    let access = google.verifier().access(token, SystemTime::now()).unwrap();
    let pool = "principal://iam.googleapis.com/projects/424242/locations/global/workloadIdentityPools/example-pool";
    assert_eq!(access.member, format!("{pool}/subject/repo:example/shop"));
    let target = google.directory().address("target");
    let base = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/";
    for (method, body, status) in [
        (
            "generateIdToken",
            json!({"audience": "https://a.example"}),
            200,
        ),
        (
            "generateAccessToken",
            json!({"scope": [CLOUD_PLATFORM]}),
            200,
        ),
        // roles/iam.workloadIdentityUser does not include this permission.
        ("signJwt", json!({"payload": "{}"}), 403),
    ] {
        let url = format!("{base}{target}:{method}");
        let (answered, answer) = post(&google, &url, token, &body);
        assert_eq!(answered, status, "{method}: {answer}");
    }
}

#[test]
fn a_wrong_exchange_is_refused_with_the_reason() {
    let google = google();
    let expired = google.subject_token(SystemTime::now(), 0).unwrap();
    let foreign = super::client::google().subject_token(SystemTime::now(), 60);
    let pool = google.directory().pool();
    for (name, value, error, words) in [
        (
            "grant_type",
            "refresh_token".to_owned(),
            "invalid_request",
            "grant_type",
        ),
        (
            "audience",
            "https://a.example".to_owned(),
            "invalid_request",
            "audience",
        ),
        (
            "audience",
            format!("{pool}x/providers/oidc"),
            "invalid_request",
            "audience",
        ),
        (
            "audience",
            format!("{pool}/providers/aws"),
            "invalid_request",
            "subject_token_type",
        ),
        ("scope", String::new(), "invalid_request", "scope"),
        (
            "requested_token_type",
            JWT.to_owned(),
            "invalid_request",
            "requested_token_type",
        ),
        ("subject_token", expired, "invalid_grant", "stale"),
        (
            "subject_token",
            foreign.unwrap(),
            "invalid_grant",
            "signature",
        ),
        (
            "subject_token",
            "text".to_owned(),
            "invalid_grant",
            "not a JWT",
        ),
        (
            "options",
            r#"{"userProject":"example-project"}"#.to_owned(),
            "invalid_request",
            "options",
        ),
        (
            "resource",
            "x".to_owned(),
            "invalid_request",
            "unexpected form field",
        ),
    ] {
        let mut fields = fields(&google);
        fields.retain(|(known, _)| *known != name);
        fields.push((name, value.clone()));
        let (status, answer) = exchange(&google, &fields);
        assert_eq!(
            (status, &answer["error"]),
            (400, &json!(error)),
            "{name}={value}: {answer}"
        );
        let description = answer["error_description"].as_str().unwrap();
        assert!(description.contains(words), "{name}={value}: {description}");
    }
}

#[test]
fn a_workforce_pool_requires_a_project_or_a_client() {
    let google = google();
    let pool = google.directory().workforce_pool();
    let audience = format!("{pool}/providers/saml");
    let saml = "PHNhbWwycDpSZXNwb25zZT5lbXVsYXRvcjwvc2FtbDJwOlJlc3BvbnNlPg";
    let mut fields = fields(&google);
    fields[1].1 = audience;
    fields[4].1 = saml.to_owned();
    fields[5].1 = "urn:ietf:params:oauth:token-type:saml2".to_owned();
    let (status, answer) = exchange(&google, &fields);
    assert_eq!((status, &answer["error"]), (400, &json!("invalid_request")));
    fields.push(("options", r#"{"userProject":"example-project"}"#.to_owned()));
    assert_eq!(exchange(&google, &fields).0, 200);
    fields.pop();
    for (credentials, expected) in [(client(&google), 200), ("a:b".to_owned(), 401)] {
        let pairs: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (*n, &**v)).collect();
        let mut request = form_request(URL, &pairs);
        let basic = format!("Basic {}", STANDARD.encode(credentials));
        request
            .headers_mut()
            .insert("authorization", basic.parse().unwrap());
        assert_eq!(send(&google, &request).0, expected);
    }
}

fn client(google: &Google) -> String {
    let file = google.external_account_authorized_user(&Endpoints::default());
    let text = |name: &str| file[name].as_str().unwrap().to_owned();
    format!("{}:{}", text("client_id"), text("client_secret"))
}

#[test]
fn a_workforce_user_refreshes_with_the_clients_password_in_the_header() {
    let google = google();
    google.rotate_refresh_tokens(true);
    let file = google.external_account_authorized_user(&Endpoints::default());
    let url = file["token_url"].as_str().unwrap();
    assert_eq!(url, "https://sts.googleapis.com/v1/oauthtoken");
    let token = file["refresh_token"].as_str().unwrap();
    let fields = [("grant_type", "refresh_token"), ("refresh_token", token)];
    let (status, answer) = form(&google, url, &fields);
    assert_eq!((status, &answer["error"]), (401, &json!("invalid_client")));
    let send_basic = |fields: &[(&str, &str)]| {
        let mut request = form_request(url, fields);
        let basic = format!("Basic {}", STANDARD.encode(client(&google)));
        request
            .headers_mut()
            .insert("authorization", basic.parse().unwrap());
        send(&google, &request)
    };
    let (status, answer) = send_basic(&fields);
    assert_eq!(status, 200, "{answer}");
    assert!(answer["access_token"].is_string() && answer["refresh_token"] != Value::Null);
    assert_eq!(send_basic(&fields).1["error"], "invalid_grant");
}
