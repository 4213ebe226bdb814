//! Requests that the real metadata server never receives: from web pages, through proxies, by DNS rebinding.

use super::*;

#[tokio::test]
async fn requests_that_a_page_or_a_proxy_could_forge_are_refused() {
    let setup = Setup::new().await;
    let server = Server::start(&setup, &["--credentials", "auto"]).await;
    for headers in [
        &[][..],
        &[("metadata-flavor", "google")],
        &[FLAVOR, ("x-forwarded-for", "10.0.0.1")],
    ] {
        let response = server.get_with(TOKEN, headers).await;
        assert_eq!(response.status(), 403, "{headers:?}");
    }
    let post = Request::builder()
        .method(Method::POST)
        .uri(TOKEN)
        .header("host", "x")
        .header(FLAVOR.0, FLAVOR.1)
        .body(Bytes::new());
    assert_eq!(send(server.address, post.unwrap()).await.status(), 405);
    assert_eq!(setup.metadata.count(Kind::Access), 0);
    // The emulator's own paths do not exist here.
    for path in [
        "/oauth2/v3/certs",
        "/token",
        "/.well-known/openid-configuration",
    ] {
        assert_eq!(server.get(path).await.status(), 404, "{path}");
    }
    let probe = server.get_with("/", &[]).await;
    assert_eq!(probe.headers()["metadata-flavor"], "Google");
}

/// DNS rebinding: a web page's host name resolves to this machine, and the page requests a token.
#[tokio::test]
async fn a_page_gets_no_token_by_dns_rebinding() {
    let setup = Setup::new().await;
    let server = Server::start(
        &setup,
        &["--credentials", "auto", "--allowed-host", "tokens.example"],
    )
    .await;
    let port = server.address.port();
    let ask = async |host: &str, headers: &[(&str, &str)]| {
        let mut request = Request::get(TOKEN).header("host", host);
        for (name, value) in [&[FLAVOR], headers].concat() {
            request = request.header(name, value);
        }
        send(server.address, request.body(Bytes::new()).unwrap()).await
    };
    for host in [
        "evil.example",
        &format!("evil.example:{port}"),
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "metadata.google.internal.evil.example",
        "a.tokens.example",
        "user@localhost",
        "user:SECRETPW@localhost",
        "user:SECRETPW%40localhost",
        "203.0.113.7",
        "[2001:db8::1]",
        "",
    ] {
        let response = ask(host, &[]).await;
        assert_eq!(response.status(), 403, "{host}: {}", text(&response));
        assert!(
            text(&response).contains("--allowed-host"),
            "{}",
            text(&response)
        );
        // User information may be a password.
        assert!(!text(&response).contains("SECRETPW"), "{host}");
    }
    for header in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", "http://localhost"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("x-forwarded-for", "127.0.0.1"),
    ] {
        let response = ask("localhost", &[header]).await;
        assert_eq!(response.status(), 403, "{header:?}: {}", text(&response));
        assert!(!text(&response).is_empty());
    }
    // These responses have no data of the credential, and no Metadata-Flavor.
    for path in [
        "/",
        "/computeMetadata/v1/instance/service-accounts/default/email",
    ] {
        let request = Request::get(path)
            .header("host", "evil.example")
            .header(FLAVOR.0, FLAVOR.1);
        let response = send(server.address, request.body(Bytes::new()).unwrap()).await;
        assert_eq!(response.status(), 403, "{path}");
    }
    assert_eq!(setup.metadata.count(Kind::Access), 0);
    for host in [
        "localhost",
        &format!("localhost:{port}"),
        "127.0.0.1",
        "127.0.0.2:80",
        "[::1]",
        "metadata.google.internal",
        "METADATA.google.internal.",
        "metadata",
        "tokens",
        &format!("tokens:{port}"),
        "tokens.example",
        "169.254.169.254",
    ] {
        let response = ask(host, &[]).await;
        assert_eq!(response.status(), 200, "{host}: {}", text(&response));
    }
    let response = ask("localhost", &[("sec-fetch-site", "none")]).await;
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn the_emulator_refuses_requests_forwarded_by_a_proxy() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sidentity"))
        .args(["metadata-server", "--listen", "127.0.0.1:0"])
        .env_clear()
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let server = Server::greeted(&mut child).await;
    for headers in [&[][..], &[FLAVOR, ("x-forwarded-for", "10.0.0.1")]] {
        assert_eq!(
            server.get_with(TOKEN, headers).await.status(),
            403,
            "{headers:?}"
        );
    }
    assert_eq!(server.get(TOKEN).await.status(), 200);
}
