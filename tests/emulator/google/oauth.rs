//! `https://oauth2.googleapis.com/token`.

use serde_json::{Value, json};
use sidentity::emulator::google::{Endpoints, Google};

use super::client::*;

const URL: &str = "https://oauth2.googleapis.com/token";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Returns the claims that a client sends for an access token, with changes. Null removes a claim.
fn assertion(google: &Google, changes: &Value) -> String {
    let file = key_file(google);
    let iat = now() - 10;
    let mut claims = json!({
        "iss": file["client_email"],
        "aud": URL,
        "scope": CLOUD_PLATFORM,
        "iat": iat,
        "exp": iat + 3600,
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
        .as_object_mut()
        .unwrap()
        .retain(|_, value| !value.is_null());
    signed(&file, &claims)
}

fn bearer_grant(google: &Google, assertion: &str) -> Reply {
    form(
        google,
        URL,
        &[("grant_type", JWT_BEARER), ("assertion", assertion)],
    )
}

fn user_fields(google: &Google) -> Vec<(String, String)> {
    let file = google.authorized_user(&Endpoints::default());
    let field = |name: &str| (name.to_owned(), file[name].as_str().unwrap().to_owned());
    let mut fields = vec![("grant_type".to_owned(), "refresh_token".to_owned())];
    fields.extend(["client_id", "client_secret", "refresh_token"].map(field));
    fields
}

fn refresh(google: &Google, fields: &[(String, String)]) -> Reply {
    let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (&**n, &**v)).collect();
    form(google, URL, &fields)
}

#[test]
fn a_signed_assertion_obtains_an_access_token_of_the_account() {
    let google = google();
    let (status, answer) = bearer_grant(&google, &assertion(&google, &json!({})));
    assert_eq!((status, &answer["token_type"]), (200, &json!("Bearer")));
    assert_eq!(answer["expires_in"], 3599);
    let token = answer["access_token"].as_str().unwrap();
    let access = google
        .verifier()
        .access(token, std::time::SystemTime::now());
    let access = access.unwrap();
    let email = google.directory().main().to_owned();
    assert_eq!(access.member, format!("serviceAccount:{email}"));
    assert_eq!(access.scopes, [CLOUD_PLATFORM]);
}

#[test]
fn a_target_audience_obtains_an_id_token() {
    let google = google();
    let changes = json!({"scope": null, "target_audience": "https://shop.example.com"});
    let (status, answer) = bearer_grant(&google, &assertion(&google, &changes));
    assert_eq!(status, 200, "{answer}");
    let claims = claims(&answer["id_token"]);
    assert_eq!(claims["aud"], "https://shop.example.com");
    assert_eq!(claims["email"], google.directory().main());
}

#[test]
fn an_assertion_with_a_wrong_claim_is_refused_with_googles_message() {
    let google = google();
    let iat = now();
    for (changes, error, words) in [
        (
            json!({"iss": "x@y.z"}),
            "invalid_grant",
            "account not found",
        ),
        (
            json!({"aud": "https://sts.googleapis.com/v1/token"}),
            "invalid_grant",
            "audience",
        ),
        (json!({"aud": null}), "invalid_grant", "missing field"),
        (
            json!({"iat": iat + 600, "exp": iat + 4200}),
            "invalid_grant",
            "timeframe",
        ),
        (
            json!({"iat": iat - 4200, "exp": iat - 600}),
            "invalid_grant",
            "timeframe",
        ),
        (
            json!({"iat": iat, "exp": iat + 3601}),
            "invalid_grant",
            "60 minutes",
        ),
        (
            json!({"scope": null}),
            "invalid_scope",
            "scope or ID token audience",
        ),
        (
            json!({"target_audience": "https://a.example"}),
            "invalid_scope",
            "audience",
        ),
        (
            json!({"email": "x"}),
            "invalid_grant",
            "unknown field `email`",
        ),
        (
            json!({"sub": "user@example.com"}),
            "unauthorized_client",
            "unauthorized",
        ),
    ] {
        let (status, answer) = bearer_grant(&google, &assertion(&google, &changes));
        assert!((400..=401).contains(&status), "{changes}: {status}");
        assert_eq!(answer["error"], error, "{changes}: {answer}");
        let description = answer["error_description"].as_str().unwrap();
        assert!(description.contains(words), "{changes}: {description}");
    }
}

#[test]
fn an_assertion_of_another_key_or_key_id_is_refused() {
    let google = google();
    let claims = json!({
        "iss": google.directory().main(), "aud": URL, "scope": "a", "iat": now(), "exp": now() + 60,
    });
    let own = key_file(&google);
    let other = key_file(&super::client::google());
    let header = |alg: &str, kid: &Value| json!({"alg": alg, "typ": "JWT", "kid": kid});
    let id = &own["private_key_id"];
    for (file, header, words) in [
        (&other, header("RS256", id), "Invalid JWT Signature."),
        (
            &own,
            header("RS256", &json!("other")),
            "Invalid JWT Signature.",
        ),
        (&own, header("HS256", id), "RS256"),
    ] {
        let jwt = signed_with(file, &header, &claims);
        let (status, answer) = bearer_grant(&google, &jwt);
        assert_eq!((status, &answer["error"]), (400, &json!("invalid_grant")));
        let description = answer["error_description"].as_str().unwrap();
        assert!(description.contains(words), "{description}");
    }
}

#[test]
fn delegation_is_limited_to_the_delegated_scopes() {
    let google = google();
    let drive = "https://www.googleapis.com/auth/drive";
    let changes = json!({"sub": "ann@example.com", "scope": drive});
    let (status, answer) = bearer_grant(&google, &assertion(&google, &changes));
    assert_eq!(status, 200, "{answer}");
    let token = answer["access_token"].as_str().unwrap();
    let access = google
        .verifier()
        .access(token, std::time::SystemTime::now());
    assert_eq!(access.unwrap().member, "user:ann@example.com");
    for (user, scope) in [
        ("ann@example.com", CLOUD_PLATFORM),
        ("ann@example.net", drive),
        ("example.com", drive),
    ] {
        let changes = json!({"sub": user, "scope": scope});
        let (status, answer) = bearer_grant(&google, &assertion(&google, &changes));
        assert_eq!(
            (status, &answer["error"]),
            (401, &json!("unauthorized_client"))
        );
    }
}

#[test]
fn a_refresh_token_gets_an_access_token_and_an_id_token_for_the_client() {
    let google = google();
    let fields = user_fields(&google);
    let (status, answer) = refresh(&google, &fields);
    assert_eq!(status, 200, "{answer}");
    assert!(answer.get("refresh_token").is_none());
    let claims = claims(&answer["id_token"]);
    assert_eq!(claims["aud"], fields[1].1);
    assert_eq!(claims["email"], "user@example.com");
}

#[test]
fn a_rotated_refresh_token_replaces_the_old_one() {
    let google = google();
    google.rotate_refresh_tokens(true);
    let mut fields = user_fields(&google);
    let (status, answer) = refresh(&google, &fields);
    assert_eq!(status, 200);
    let (status, refused) = refresh(&google, &fields);
    assert_eq!((status, &refused["error"]), (400, &json!("invalid_grant")));
    fields[3].1 = answer["refresh_token"].as_str().unwrap().to_owned();
    assert_eq!(refresh(&google, &fields).0, 200);
}

#[test]
fn a_refresh_with_a_wrong_or_unknown_field_is_refused() {
    let google = google();
    let fields = user_fields(&google);
    for (at, name, value, status, error) in [
        (0, "grant_type", "password", 400, "unsupported_grant_type"),
        (1, "client_id", "other", 401, "invalid_client"),
        (2, "client_secret", "other", 401, "invalid_client"),
        (3, "refresh_token", "other", 400, "invalid_grant"),
        (3, "refresh_token", "", 400, "invalid_request"),
        (
            4,
            "scope",
            "https://www.googleapis.com/auth/drive",
            400,
            "invalid_scope",
        ),
        (4, "audience", "https://a.example", 400, "invalid_request"),
        (4, "grant_type", "refresh_token", 400, "invalid_request"),
    ] {
        let mut fields = fields.clone();
        fields.truncate(at.max(4));
        fields.resize(fields.len().max(at + 1), Default::default());
        fields[at] = (name.to_owned(), value.to_owned());
        let answer = refresh(&google, &fields);
        assert_eq!(answer.0, status, "{name}={value}: {}", answer.1);
        assert_eq!(answer.1["error"], error, "{name}={value}");
    }
}

/// Google's library for Cloud Storage requests its own scopes with a login of gcloud.
#[test]
fn a_login_with_cloud_platform_may_request_scopes_of_google_cloud() {
    let google = google();
    let auth = "https://www.googleapis.com/auth/";
    for (scopes, is_granted) in [
        (
            "devstorage.full_control devstorage.read_only devstorage.read_write",
            true,
        ),
        ("cloud-platform", true),
        (
            "bigquery bigquery.readonly pubsub compute.readonly logging.write",
            true,
        ),
        ("devstorage.", false),
        ("devstorage", false),
        ("computex", false),
        ("drive", false),
        ("devstorage.read_only drive.readonly", false),
        ("gmail.readonly", false),
        ("calendar", false),
    ] {
        let scopes: Vec<String> = scopes
            .split(' ')
            .map(|name| format!("{auth}{name}"))
            .collect();
        let mut fields = user_fields(&google);
        fields.push(("scope".to_owned(), scopes.join(" ")));
        let (status, answer) = refresh(&google, &fields);
        if is_granted {
            assert_eq!(status, 200, "{scopes:?}: {answer}");
            assert_eq!(answer["scope"], scopes.join(" "));
        } else {
            assert_eq!(
                (status, &answer["error"]),
                (400, &json!("invalid_scope")),
                "{scopes:?}"
            );
        }
    }
}

#[test]
fn only_a_posted_form_is_accepted() {
    let google = google();
    let assertion = assertion(&google, &json!({}));
    let fields = [("grant_type", JWT_BEARER), ("assertion", &*assertion)];
    let right = form_request(URL, &fields);
    let body = String::from_utf8(right.body().to_vec()).unwrap();
    for (method, url, media) in [
        (
            "GET",
            format!("{URL}?{body}"),
            "application/x-www-form-urlencoded",
        ),
        ("PUT", URL.to_owned(), "application/x-www-form-urlencoded"),
        (
            "POST",
            format!("{URL}?{body}"),
            "application/x-www-form-urlencoded",
        ),
        ("POST", URL.to_owned(), "application/json"),
    ] {
        let request = http::Request::builder()
            .method(method)
            .uri(&url)
            .header("content-type", media)
            .body(right.body().clone());
        let (status, answer) = send(&google, &request.unwrap());
        assert_eq!((status, &answer["error"]), (400, &json!("invalid_request")));
    }
    // Other universes have no such endpoint.
    let elsewhere = "https://oauth2.example-universe.test/token";
    assert_ne!(form(&google, elsewhere, &fields).0, 200);
}
