//! Errors of the token source in the format for Google's libraries.

use tokio::io::AsyncWriteExt;

use super::*;

#[tokio::test]
async fn an_error_of_the_source_is_passed_on_with_its_message() {
    for (fault, status, words) in [
        (
            Fault::api(403, "PERMISSION_DENIED", "no"),
            403,
            "roles/iam.serviceAccountTokenCreator",
        ),
        (
            Fault::api(404, "NOT_FOUND", "no"),
            403,
            "is there a service account",
        ),
        (Fault::rate_limited(20), 429, "Quota exceeded"),
        (Fault::status(500, "oops"), 503, "oops"),
        (Fault::close(), 503, "iamcredentials.googleapis.com"),
        (Fault::torn_json(), 503, "not a JSON object"),
        (
            Fault::api(400, "INVALID_ARGUMENT", "bad scope"),
            400,
            "bad scope",
        ),
    ] {
        let setup = Setup::new().await;
        setup.google.always(Endpoint::GenerateAccessToken, fault);
        let target = setup.address("target");
        let server = Server::impersonating(&setup, &target).await;
        let response = server.get(TOKEN).await;
        assert_eq!(response.status(), status, "{}", text(&response));
        assert!(text(&response).contains(words), "{}", text(&response));
        // Retry-After only if another attempt may succeed.
        let again = matches!(status, 429 | 503);
        assert_eq!(
            response.headers().contains_key("retry-after"),
            again,
            "{status}"
        );
    }
}

#[tokio::test]
async fn an_ended_login_is_not_a_retryable_error() {
    for (fault, status) in [
        (
            Fault::oauth("invalid_grant", "Token has been expired or revoked."),
            400,
        ),
        (Fault::invalid_rapt(), 400),
        (Fault::status(401, r#"{"error": "invalid_client"}"#), 400),
        (Fault::status(500, ""), 503),
        (Fault::rate_limited(20), 429),
    ] {
        let setup = Setup::new().await;
        setup.google.always(Endpoint::Token, fault);
        let server = Server::of_file(&setup, &authorized_user(&setup.google)).await;
        // The second response comes from the cached error.
        for _ in 0..2 {
            let response = server.get(TOKEN).await;
            assert_eq!(response.status(), status, "{}", text(&response));
            let again = matches!(status, 429 | 503);
            assert_eq!(
                response.headers().contains_key("retry-after"),
                again,
                "{status}"
            );
        }
    }
}

#[tokio::test]
async fn an_unusable_token_is_a_retryable_error() {
    let change =
        |name: &'static str, value: Value| Fault::edit(move |token| token[name] = value.clone());
    for (fault, words) in [
        (Fault::torn_json(), "not a JSON object"),
        (change("access_token", json!("a\nb")), "not visible ASCII"),
        (change("token_type", json!("MAC")), "not Bearer"),
        (change("expires_in", json!(-1)), "expires_in"),
        (Fault::status(200, "a".repeat(70_000)), "longer than 64 KiB"),
    ] {
        let setup = Setup::new().await;
        setup.google.always(Endpoint::Token, fault);
        let server = Server::of_file(&setup, &authorized_user(&setup.google)).await;
        // The second response comes from the cached error.
        for _ in 0..2 {
            let response = server.get(TOKEN).await;
            assert_eq!(response.status(), 503, "{}", text(&response));
            assert!(text(&response).contains(words), "{}", text(&response));
            assert!(response.headers().contains_key("retry-after"), "{words}");
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_speaks_another_protocol_is_a_retryable_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n").await;
        }
    });
    assert_retryable_at(port).await;
}

#[tokio::test]
async fn an_unreachable_endpoint_is_a_retryable_error() {
    let closed_listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closed_listener.local_addr().unwrap().port();
    drop(closed_listener);
    assert_retryable_at(port).await;
}

/// Asserts the answer if the token endpoint is this port.
async fn assert_retryable_at(port: u16) {
    let setup = Setup::new().await;
    let login = authorized_user(&setup.google);
    let login = setup.google.file("login.json", &login);
    let to = format!("oauth2.googleapis.com:443:127.0.0.1:{port}");
    let args = [
        "--connect-to",
        &to,
        "--credentials",
        login.to_str().unwrap(),
    ];
    let server = Server::start_without_endpoints(&args);
    let response = server.await.get(TOKEN).await;
    assert_eq!(response.status(), 503, "{}", text(&response));
    assert!(response.headers().contains_key("retry-after"));
}
