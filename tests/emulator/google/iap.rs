//! Identity-Aware Proxy: JWTs that an account signs for a URL.

use http::Request;
use serde_json::{Value, json};

use super::client::{
    Reply, account_token, claims, google, key_file, now, post, send, signed, signed_with,
};
use sidentity::emulator::google::{Google, Role};

const URL: &str = "https://iap.example/reports/today";

fn call_with(google: &Google, url: &str, header: &str, jwt: &str) -> Reply {
    let request = Request::get(url)
        .header(header, format!("Bearer {jwt}"))
        .body(bytes::Bytes::new())
        .unwrap();
    let (status, answer) = send(google, &request);
    // Its errors are marked, so that a client knows who refused.
    let response = google.respond(&request, std::time::SystemTime::now());
    let is_marked = response
        .headers()
        .contains_key("x-goog-iap-generated-response");
    assert_eq!(is_marked, status == 401, "{answer}");
    (status, answer)
}

fn call(google: &Google, jwt: &str) -> Reply {
    call_with(google, URL, "authorization", jwt)
}

fn claims_of(file: &Value, changes: &Value) -> Value {
    let email = &file["client_email"];
    let iat = now() - 10;
    let mut claims = json!({
        "iss": email, "sub": email, "aud": "https://iap.example/*", "iat": iat, "exp": iat + 3600,
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

#[test]
fn a_jwt_that_the_account_signed_for_the_url_is_accepted() {
    let google = google();
    let file = key_file(&google);
    for aud in [
        "https://iap.example/*",
        "https://iap.example/reports/*",
        URL,
    ] {
        let jwt = signed(&file, &claims_of(&file, &json!({ "aud": aud })));
        for header in ["authorization", "proxy-authorization"] {
            let (status, answer) = call_with(&google, URL, header, &jwt);
            assert_eq!(status, 200, "{aud}: {answer}");
            assert_eq!(answer["iap"]["email"], file["client_email"]);
        }
    }
}

#[test]
fn a_jwt_with_a_wrong_claim_is_refused_with_the_reason() {
    let google = google();
    let file = key_file(&google);
    let (iat, exp) = (now() - 10, now() + 3590);
    for (changes, part) in [
        (
            json!({"aud": "https://other.example/*"}),
            "JWT audience doesn't match",
        ),
        (
            json!({"aud": "https://iap.example"}),
            "JWT audience doesn't match",
        ),
        (
            json!({"aud": "https://iap.example*"}),
            "JWT audience doesn't match",
        ),
        (
            json!({"aud": "https://iap.example/reports"}),
            "JWT audience doesn't match",
        ),
        (json!({"sub": "other@example.com"}), "is not its issuer"),
        (json!({"iat": iat - 3600, "exp": iat}), "JWT has expired"),
        (
            json!({"iat": iat + 700, "exp": iat + 900}),
            "issued in the future",
        ),
        (json!({"exp": exp + 60}), "at most 3600 s"),
        (json!({"exp": iat, "iat": exp}), "has expired"),
        (json!({"scope": "openid"}), "unknown field `scope`"),
        (
            json!({"target_audience": "x"}),
            "unknown field `target_audience`",
        ),
    ] {
        let (status, _) = call(&google, &signed(&file, &claims_of(&file, &changes)));
        assert_eq!(status, 401, "{changes}");
        let now = std::time::SystemTime::now();
        let why = google.verify_iap(&signed(&file, &claims_of(&file, &changes)), URL, now);
        let why = why.unwrap_err();
        assert!(why.starts_with("Invalid IAP credentials: "), "{why}");
        assert!(why.contains(part), "{part}: {why}");
    }
}

#[test]
fn a_jwt_of_another_key_or_without_its_id_is_refused() {
    let (google, other) = (google(), google());
    let (file, foreign) = (key_file(&google), key_file(&other));
    let all = claims_of(&file, &json!({}));
    let unnamed = json!({"alg": "RS256", "typ": "JWT"});
    let named = json!({"alg": "RS256", "typ": "JWT", "kid": file["private_key_id"]});
    for jwt in [
        signed_with(&foreign, &named, &all),
        signed(&foreign, &all),
        signed_with(&file, &unnamed, &all),
    ] {
        assert_eq!(call(&google, &jwt).0, 401);
    }
}

#[test]
fn a_jwt_for_iap_is_not_accepted_by_a_google_api() {
    let google = google();
    let file = key_file(&google);
    let aud = json!({"aud": "https://storage.googleapis.com/*"});
    let jwt = signed(&file, &claims_of(&file, &aud));
    let request = Request::get("https://storage.googleapis.com/storage/v1/b")
        .header("authorization", format!("Bearer {jwt}"))
        .body(bytes::Bytes::new())
        .unwrap();
    assert_eq!(send(&google, &request).0, 401);
}

#[test]
fn a_jwt_of_sign_jwt_is_accepted() {
    let google = google();
    let main = google.directory().main().to_owned();
    google.grant(&format!("serviceAccount:{main}"), &main, Role::TokenCreator);
    let payload = claims_of(&key_file(&google), &json!({}));
    let url = format!(
        "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{main}:signJwt"
    );
    let body = json!({"payload": payload.to_string()});
    let token = account_token(&google);
    let (status, answer) = post(&google, &url, &token, &body);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(claims(&answer["signedJwt"])["aud"], "https://iap.example/*");
    assert_eq!(call(&google, answer["signedJwt"].as_str().unwrap()).0, 200);
}
