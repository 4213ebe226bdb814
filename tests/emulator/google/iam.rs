//! `https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/EMAIL:METHOD`.

use serde_json::{Value, json};
use sidentity::emulator::google::{Google, Role};

use super::client::*;

fn url(google: &Google, account: &str, method: &str) -> String {
    let account = google.directory().address(account);
    format!(
        "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{account}:{method}"
    )
}

fn access(google: &Google, account: &str, token: &str, body: &Value) -> Reply {
    post(
        google,
        &url(google, account, "generateAccessToken"),
        token,
        body,
    )
}

#[test]
fn an_impersonated_token_has_the_requested_lifetime() {
    let google = google();
    let body = json!({"scope": [CLOUD_PLATFORM], "lifetime": "600s"});
    let (status, answer) = access(&google, "target", &account_token(&google), &body);
    assert_eq!(status, 200, "{answer}");
    let expires = answer["expireTime"].as_str().unwrap();
    let expires = humantime::parse_rfc3339(expires).unwrap();
    let left = expires
        .duration_since(std::time::SystemTime::now())
        .unwrap();
    assert!((590..=600).contains(&left.as_secs()), "{left:?}");
    let token = answer["accessToken"].as_str().unwrap();
    let access = google
        .verifier()
        .access(token, std::time::SystemTime::now());
    let target = google.directory().address("target");
    assert_eq!(access.unwrap().member, format!("serviceAccount:{target}"));
}

#[test]
fn an_id_token_has_the_email_only_with_include_email() {
    let google = google();
    let token = account_token(&google);
    let url = url(&google, "target", "generateIdToken");
    for (include, email) in [
        (json!(true), json!(google.directory().address("target"))),
        (json!(false), Value::Null),
    ] {
        let body = json!({"audience": "https://a.example", "includeEmail": include});
        let (status, answer) = post(&google, &url, &token, &body);
        assert_eq!(status, 200, "{answer}");
        let claims = claims(&answer["token"]);
        assert_eq!(
            (&claims["aud"], &claims["email"]),
            (&json!("https://a.example"), &email)
        );
    }
}

#[test]
fn a_signed_jwt_passes_the_token_endpoint_for_delegation() {
    let google = google();
    let target = google.directory().address("target");
    let payload = json!({
        "iss": target,
        "sub": "ann@example.com",
        "aud": "https://oauth2.googleapis.com/token",
        "scope": "https://www.googleapis.com/auth/drive",
        "iat": now(),
        "exp": now() + 3600,
    });
    let body = json!({"payload": payload.to_string()});
    let url = url(&google, "target", "signJwt");
    let (status, answer) = post(&google, &url, &account_token(&google), &body);
    assert_eq!(status, 200, "{answer}");
    assert!(answer["keyId"].is_string());
    let fields = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("assertion", answer["signedJwt"].as_str().unwrap()),
    ];
    let (status, answer) = form(&google, "https://oauth2.googleapis.com/token", &fields);
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn each_account_of_a_chain_needs_a_role_on_the_next() {
    let google = google();
    let token = account_token(&google);
    let delegate = google.directory().address("delegate");
    let chain = json!({
        "scope": [CLOUD_PLATFORM],
        "delegates": [format!("projects/-/serviceAccounts/{delegate}")],
    });
    assert_eq!(access(&google, "target", &token, &chain).0, 200);
    // Python's library sends this if there is no chain.
    let null = json!({"scope": [CLOUD_PLATFORM], "delegates": null});
    assert_eq!(access(&google, "target", &token, &null).0, 200);
    let target = google.directory().address("target");
    google.revoke(&target);
    let (status, answer) = access(&google, "target", &token, &chain);
    assert_eq!(
        (status, &answer["error"]["status"]),
        (403, &json!("PERMISSION_DENIED"))
    );
    let permission = "iam.serviceAccounts.getAccessToken";
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .contains(permission)
    );
    google.revoke(&delegate);
    let (_, answer) = access(&google, "target", &token, &chain);
    let permission = "iam.serviceAccounts.implicitDelegation";
    assert_eq!(
        answer["error"]["details"][0]["metadata"]["permission"],
        permission
    );
    let bare = json!({"scope": [CLOUD_PLATFORM], "delegates": [delegate]});
    assert_eq!(access(&google, "target", &token, &bare).0, 400);
}

#[test]
fn an_account_needs_a_role_on_itself_to_mint_its_own_token() {
    let google = google();
    let body = json!({"scope": [CLOUD_PLATFORM]});
    let (_, answer) = access(&google, "target", &account_token(&google), &body);
    let token = answer["accessToken"].as_str().unwrap();
    let url = url(&google, "target", "generateIdToken");
    let body = json!({"audience": "https://a.example", "includeEmail": true});
    let (status, answer) = post(&google, &url, token, &body);
    assert_eq!(status, 403, "{answer}");
    let target = google.directory().address("target");
    let member = format!("serviceAccount:{target}");
    google.grant(&member, &target, Role::TokenCreator);
    assert_eq!(post(&google, &url, token, &body).0, 200);
}

#[test]
fn a_wrong_request_is_refused_with_the_reason() {
    let google = google();
    let token = account_token(&google);
    for (body, words) in [
        (json!({}), "missing field `scope`"),
        (json!({"scope": CLOUD_PLATFORM}), "expected a sequence"),
        (json!({"scope": []}), "Scope required"),
        (json!({"scope": ["a b"]}), "one in each element"),
        (json!({"scope": ["a"], "lifetime": "3601s"}), "lifetime"),
        (json!({"scope": ["a"], "lifetime": "1h"}), "lifetime"),
        (
            json!({"scope": ["a"], "lifetime": 3600}),
            "expected a string",
        ),
        (
            json!({"scope": ["a"], "audience": "x"}),
            "unknown field `audience`",
        ),
    ] {
        let (status, answer) = access(&google, "target", &token, &body);
        assert_eq!(
            (status, &answer["error"]["status"]),
            (400, &json!("INVALID_ARGUMENT"))
        );
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(words), "{body}: {message}");
    }
    let body = json!({"scope": ["a"]});
    assert_eq!(access(&google, "isolated", &token, &body).0, 403);
    assert_eq!(access(&google, "unknown", &token, &body).0, 403);
    let (status, answer) = access(&google, "target", "ya29.c.other", &body);
    assert_eq!(
        (status, &answer["error"]["status"]),
        (401, &json!("UNAUTHENTICATED"))
    );
}

#[test]
fn a_token_without_a_scope_for_iam_is_refused() {
    let google = google();
    let file = key_file(&google);
    let email = &file["client_email"];
    let url = url(&google, "target", "generateIdToken");
    let body = json!({"audience": "https://a.example"});
    for (claim, value, status) in [
        ("scope", "https://www.googleapis.com/auth/iam", 200),
        ("aud", "https://iamcredentials.googleapis.com/", 200),
        ("aud", "https://storage.googleapis.com/", 401),
        ("scope", "https://www.googleapis.com/auth/drive", 403),
    ] {
        let claims = json!({
            "iss": email, "sub": email, claim: value, "iat": now() - 10, "exp": now() + 3590,
        });
        let (answered, answer) = post(&google, &url, &signed(&file, &claims), &body);
        assert_eq!(answered, status, "{value}: {answer}");
    }
}
