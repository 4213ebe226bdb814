//! Failing endpoints, for each type of file.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::federation::{call, sidecar};
use super::support::google::{Endpoint, Fault, Google};
use super::{RUN_APP, authorized_user, run_with, service_account};

fn files(google: &Google) -> [(&'static str, Value); 2] {
    [
        ("service_account", service_account(google)),
        ("authorized_user", authorized_user(google)),
    ]
}

#[tokio::test]
async fn transient_errors_are_retried() {
    let google = Google::start().await;
    for (kind, file) in files(&google) {
        for fault in [
            Fault::status(500, "oops"),
            Fault::status(503, ""),
            Fault::status(408, ""),
            Fault::rate_limited(1),
            Fault::close(),
            Fault::cut_short(),
        ] {
            let before = google.count(Endpoint::Token);
            google.script(Endpoint::Token, [fault]);
            let ran = run_with(&google, &file, &["token", RUN_APP]).await;
            assert_eq!(ran.status, Some(0), "{kind}: {ran:?}");
            assert_eq!(google.count(Endpoint::Token), before + 2, "{kind}");
        }
    }
}

#[tokio::test]
async fn retry_after_is_obeyed() {
    let google = Google::start().await;
    google.script(Endpoint::Token, [Fault::rate_limited(2)]);
    let began = Instant::now();
    let ran = run_with(&google, &service_account(&google), &["token", RUN_APP]).await;
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert!(began.elapsed() >= Duration::from_secs(2));
}

#[tokio::test]
async fn a_refusal_is_reported_in_the_endpoints_words_and_not_retried() {
    let google = Google::start().await;
    for (kind, file) in files(&google) {
        for (fault, parts) in [
            (
                Fault::oauth("invalid_grant", "Bad thing."),
                &["400", "invalid_grant", "Bad thing."] as &[&str],
            ),
            (
                Fault::oauth("invalid_client", "Unauthorized"),
                &["400", "invalid_client"],
            ),
            (
                Fault::status(401, r#"{"error": "unauthorized_client"}"#),
                &["401", "unauthorized_client"],
            ),
            (
                Fault::api(403, "PERMISSION_DENIED", "No way."),
                &["403", "PERMISSION_DENIED", "No way."],
            ),
            (
                Fault::redirect("https://evil.example/"),
                &["302", "redirects are not followed"],
            ),
            (Fault::torn_json(), &["JSON"]),
        ] {
            let before = google.count(Endpoint::Token);
            google.script(Endpoint::Token, [fault]);
            let ran = run_with(&google, &file, &["token", RUN_APP]).await;
            assert_eq!(ran.status, Some(1), "{kind}: {ran:?}");
            for part in parts.iter().chain(&["https://oauth2.googleapis.com/token"]) {
                assert!(ran.err.contains(part), "{kind}: {part} in {ran:?}");
            }
            assert!(!ran.err.contains("evil.example"), "{ran:?}");
            assert_eq!(google.count(Endpoint::Token), before + 1, "{kind}");
        }
    }
}

#[tokio::test]
async fn a_403_of_the_token_endpoint_names_no_role() {
    let google = Google::start().await;
    let page = "<html><title>Blocked by policy</title></html>";
    for (kind, file) in files(&google) {
        for fault in [
            Fault::api(403, "PERMISSION_DENIED", "No way."),
            Fault::status(403, page),
        ] {
            google.script(Endpoint::Token, [fault]);
            let ran = run_with(&google, &file, &["token", RUN_APP]).await;
            assert_eq!(ran.status, Some(1), "{kind}: {ran:?}");
            for word in ["roles/", "universe", "grant "] {
                assert!(!ran.err.contains(word), "{kind}: {word} in {ran:?}");
            }
        }
    }
    // A proxy in front of the IAM Credentials API.
    let target = google.directory().address("target");
    google.script(Endpoint::GenerateIdToken, [Fault::status(403, page)]);
    let args = ["token", "--impersonate-service-account", &target, RUN_APP];
    let ran = run_with(&google, &service_account(&google), &args).await;
    assert_eq!(ran.status, Some(1), "{ran:?}");
    assert!(ran.err.contains("the answer is not Google's"), "{ran:?}");
    assert!(!ran.err.contains("roles/"), "{ran:?}");
}

#[tokio::test]
async fn a_silent_endpoint_fails_after_the_token_timeout() {
    let google = Google::start().await;
    google.always(Endpoint::Token, Fault::never());
    for (kind, file) in files(&google) {
        let began = Instant::now();
        let ran = run_with(&google, &file, &["token", "--token-timeout=2s", RUN_APP]).await;
        assert_eq!(ran.status, Some(1), "{kind}: {ran:?}");
        assert!(ran.err.contains("no response within"), "{kind}: {ran:?}");
        assert!(began.elapsed() < Duration::from_secs(6), "{kind}");
    }
}

#[tokio::test]
async fn a_slow_response_is_awaited() {
    let google = Google::start().await;
    for (kind, file) in files(&google) {
        google.script(
            Endpoint::Token,
            [Fault::none().after(Duration::from_secs(1))],
        );
        let ran = run_with(&google, &file, &["token", RUN_APP]).await;
        assert_eq!(ran.status, Some(0), "{kind}: {ran:?}");
    }
}

/// All signatures of a key: an assertion for an ID token, one for a user, and a token for the IAM Credentials API.
#[tokio::test]
async fn a_clock_that_is_ten_minutes_off_gets_a_hint() {
    let google = Google::start().await;
    let target = google.directory().address("target");
    let drive = "https://www.googleapis.com/auth/drive.readonly";
    let user = google.directory().user();
    let user = format!("--rule=www.googleapis.com=access,scope={drive},subject={user}");
    for (args, refusal) in [
        (vec![RUN_APP], "invalid_grant"),
        (vec![&*user, "https://www.googleapis.com/"], "invalid_grant"),
        (
            vec!["--impersonate-service-account", &target, RUN_APP],
            "UNAUTHENTICATED",
        ),
    ] {
        let args = [&["token"], &*args].concat();
        // The endpoint's clock is ahead, but the signed assertions are still valid.
        google.skew(600);
        let ran = run_with(&google, &service_account(&google), &args).await;
        assert_eq!(ran.status, Some(0), "{args:?}: {ran:?}");
        // The endpoint's clock is behind, so the assertions are from its future.
        google.skew(-600);
        let ran = run_with(&google, &service_account(&google), &args).await;
        assert_eq!(ran.status, Some(1), "{args:?}: {ran:?}");
        assert!(
            ran.err
                .contains("this machine's clock is 10m ahead of the server's"),
            "{args:?}: {ran:?}"
        );
        assert!(!ran.err.contains("was the key of"), "{args:?}: {ran:?}");
        assert!(ran.err.contains(refusal), "{args:?}: {ran:?}");
    }
}

#[tokio::test]
async fn a_rejected_self_signed_token_gets_a_hint_about_the_clock() {
    let google = Google::start().await;
    let api = "http://storage.googleapis.com/b";
    let sidecar = sidecar(&google, &service_account(&google), &[]).await;
    google.skew(600);
    assert_eq!(call(&sidecar, api).await.status(), 200);
    google.skew(-600);
    assert_eq!(call(&sidecar, api).await.status(), 401);
    let line = sidecar.logged(|line| line["status"] == 401).await;
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("this machine's clock"), "{message}");
}

#[tokio::test]
async fn the_key_of_another_account_is_refused_with_a_hint() {
    let (google, other) = (Google::start().await, Google::start().await);
    let mut file = service_account(&google);
    file["private_key"] = service_account(&other)["private_key"].clone();
    let ran = run_with(&google, &file, &["token", RUN_APP]).await;
    assert_eq!(ran.status, Some(1), "{ran:?}");
    assert!(
        ran.err.contains("invalid_grant") && ran.err.contains("was the key of"),
        "{ran:?}"
    );
    assert!(!ran.err.contains("PRIVATE KEY"), "{ran:?}");
    // The endpoint's Date shows that it is not the clock.
    assert!(!ran.err.contains("clock"), "{ran:?}");
}

#[tokio::test]
async fn an_endpoint_with_an_untrusted_certificate_gets_no_secret() {
    let google = Google::start().await;
    for (kind, file) in files(&google) {
        let path = google.file("untrusted.json", &file);
        let connect = format!("*:443:127.0.0.1:{}", google.tls_address().port());
        let args = [
            "token",
            "--credentials",
            path.to_str().unwrap(),
            "--connect-to",
            &connect,
            RUN_APP,
        ];
        let ran =
            super::command::sidentity(args, Vec::<(std::ffi::OsString, std::ffi::OsString)>::new())
                .await;
        assert_eq!(ran.status, Some(1), "{kind}: {ran:?}");
        assert!(ran.err.contains("--upstream-ca"), "{kind}: {ran:?}");
    }
    assert_eq!(google.called(), []);
}

#[tokio::test]
async fn no_error_repeats_a_secret() {
    let google = Google::start().await;
    for (kind, file) in files(&google) {
        let secret = match kind {
            "service_account" => "eyJhbGciOi.SECRET.SECRET",
            _ => file["refresh_token"].as_str().unwrap(),
        };
        let body = json!({"error": "invalid_grant", "error_description": format!("bad {secret}")});
        google.script(Endpoint::Token, [Fault::status(400, body.to_string())]);
        let ran = run_with(&google, &file, &["token", RUN_APP]).await;
        assert_eq!(ran.status, Some(1), "{kind}: {ran:?}");
        assert!(!ran.err.contains(secret), "{kind}: {ran:?}");
    }
}

/// gcloud's own client secret looks like an ordinary word.
#[tokio::test]
async fn no_error_repeats_a_secret_that_looks_like_a_word() {
    let google = Google::start().await;
    let (_, mut file) = files(&google)
        .into_iter()
        .find(|(kind, _)| *kind == "authorized_user")
        .unwrap();
    let (client_secret, refresh_token) = ("d-FL95Q19q7MQmFp", "REFRESHSECRETxyz");
    file["client_secret"] = client_secret.into();
    file["refresh_token"] = refresh_token.into();
    let body = json!({
        "error": refresh_token,
        "error_description": format!("the secret {client_secret} is wrong"),
    });
    google.script(Endpoint::Token, [Fault::status(400, body.to_string())]);
    let ran = run_with(&google, &file, &["token", RUN_APP]).await;
    assert_eq!(ran.status, Some(1), "{ran:?}");
    assert!(ran.err.contains("is wrong"), "{ran:?}");
    for secret in [client_secret, refresh_token] {
        assert!(!ran.err.contains(secret), "{ran:?}");
    }
}
