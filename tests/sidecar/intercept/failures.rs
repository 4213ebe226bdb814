//! Errors of interception: upstreams that cannot be reached, apps that do not trust the CA, directories.

use super::*;

#[tokio::test]
async fn an_invalid_upstream_certificate_is_an_error_inside_the_tunnel() {
    let service = Service::start().await;
    let metadata = Metadata::start().await;
    let ca_dir = tempfile::tempdir().unwrap();
    let elsewhere = format!("*:443:127.0.0.1:{}", service.address().port());
    let folder = ca_dir.path().to_str().unwrap();
    let args = [
        "--connect-to",
        &elsewhere,
        "--intercept",
        "--ca-dir",
        folder,
    ];
    let sidecar = Sidecar::start(&metadata, &args).await;
    let roots = ca_dir.path().join("ca.pem");
    for alpn in [H1, H2] {
        let tls = tls(sidecar.proxy(), "svc.a.run.app:443", &roots, &[alpn])
            .await
            .unwrap();
        let response = call(tls, request(alpn, "svc.a.run.app", "/")).await;
        assert_eq!(response.status(), 502);
        let status = response.headers()["proxy-status"].to_str().unwrap();
        assert!(status.contains("error=tls_certificate_error"), "{status}");
    }
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn an_unreachable_upstream_is_an_error_inside_the_tunnel() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let refused = format!("refused.a.run.app:443:127.0.0.1:{port}");
    let unknown = "unknown.a.run.app:443:nobody.invalid:443";
    let metadata = Metadata::start().await;
    metadata.script(
        Kind::Identity,
        [crate::support::metadata::Answer::identity(3600)],
    );
    let ca_dir = tempfile::tempdir().unwrap();
    let folder = ca_dir.path().to_str().unwrap();
    let own = ["--intercept", "--ca-dir", folder];
    let elsewhere = ["--connect-to", &refused, "--connect-to", unknown];
    let sidecar = Sidecar::start(&metadata, &[&own[..], &elsewhere].concat()).await;
    let roots = ca_dir.path().join("ca.pem");
    for alpn in [H1, H2] {
        for (host, error) in [
            ("refused.a.run.app", "connection_refused"),
            ("unknown.a.run.app", "dns_error"),
        ] {
            let target = format!("{host}:443");
            let tls = tls(sidecar.proxy(), &target, &roots, &[alpn])
                .await
                .unwrap();
            let response = call(tls, request(alpn, host, "/")).await;
            assert_eq!(response.status(), 502, "{host}");
            let status = response.headers()["proxy-status"].to_str().unwrap();
            assert!(status.contains(&format!("error={error}")), "{status}");
            let detail = json(&response)["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains(host), "{detail}");
        }
    }
}

#[tokio::test]
async fn an_app_that_does_not_trust_the_ca_is_logged_once() {
    let setup = Setup::new(&[]).await;
    for _ in 0..3 {
        let refused = tls(
            setup.sidecar.proxy(),
            "svc.a.run.app:443",
            &setup.service.ca(),
            &[H2],
        )
        .await
        .unwrap_err();
        assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
    }
    let hint = |line: &serde_json::Value| {
        let message = line["message"].as_str().unwrap_or_default();
        message.contains("https://svc.a.run.app") && message.contains("NODE_EXTRA_CA_CERTS")
    };
    let line = setup.sidecar.logged(hint).await;
    let message = line["message"].as_str().unwrap();
    let bundle = setup.ca_dir.path().join("bundle.pem");
    assert!(
        message.contains(&format!("SSL_CERT_FILE={}", bundle.display())),
        "{message}"
    );
    assert_eq!(
        setup.sidecar.log().iter().filter(|line| hint(line)).count(),
        1
    );
}

#[test]
fn an_unwritable_ca_directory_is_reported_on_one_line() {
    for (folder, status, wanted) in [
        ("/proc", 1, "cannot write /proc/truststore.p12: "),
        ("/proc/none", 1, "cannot write /proc/none: "),
        ("/dev/null/ca", 64, "\"/dev/null/ca\" must be a directory"),
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_sidentity"))
            .args(["run", "--proxy", "127.0.0.1:0", "--admin", "off"])
            .args(["--log-level", "error", "--intercept", "--ca-dir", folder])
            .env_clear()
            .env("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "googleapis.com")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(status));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        let wanted = format!("flag --ca-dir: {wanted}");
        assert!(said.contains(&wanted), "{said}");
    }
}
