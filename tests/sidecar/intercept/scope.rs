//! Which tunnels are intercepted.

use super::*;

#[tokio::test]
async fn a_host_without_a_token_keeps_its_own_certificate() {
    let setup = Setup::new(&["--rule", "none.example.com=none"]).await;
    let proxy = setup.sidecar.proxy();
    for host in [
        "api.example.com",
        "none.example.com",
        "oauth2.googleapis.com",
    ] {
        let target = format!("{host}:443");
        let refused = tls(proxy, &target, &setup.ca(), &[H1]).await.unwrap_err();
        assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
        let real = tls(proxy, &target, &setup.service.ca(), &[H1])
            .await
            .unwrap();
        let response = call(real, request(H1, host, "/")).await;
        assert_eq!(text(&response), "hello");
    }
    for seen in setup.service.seen() {
        assert_eq!(seen.header("authorization"), None);
    }
}

#[tokio::test]
async fn cleartext_silence_and_addresses_are_not_intercepted() {
    let echo = echo().await;
    let elsewhere = format!("echo.example.com:8000:127.0.0.1:{}", echo.port());
    let by_address = format!("{echo}=id,audience=x");
    let setup = Setup::new(&[
        "--connect-to",
        &elsewhere,
        "--rule",
        "echo.example.com=id",
        "--rule",
        &by_address,
    ])
    .await;
    for (target, said) in [
        ("echo.example.com:8000", &b"GET / HTTP/1.1\r\n\r\n"[..]),
        ("echo.example.com:8000", b"\x16\x03\x01\x00\x05\x02half"),
        // The client waits for the server's greeting.
        ("echo.example.com:8000", b""),
        (&echo.to_string(), b"\x16\x03\x01\x00\x05\x01half"),
    ] {
        let (answer, mut app) = connect(setup.sidecar.proxy(), target).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let opened = Instant::now();
        app.write_all(said).await.unwrap();
        let expected = [b"220 echo\r\n", said].concat();
        let mut heard = vec![0; expected.len()];
        app.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, expected);
        if said.is_empty() {
            assert!(
                opened.elapsed() > Duration::from_secs(9),
                "{:?}",
                opened.elapsed()
            );
        }
    }
    let metrics = setup.metrics().await;
    assert!(
        metrics.contains("sidentity_skipped_total{reason=\"tunnel\"} 4"),
        "{metrics}"
    );
    setup
        .sidecar
        .logged(|line| {
            let message = line["message"].as_str().unwrap_or_default();
            message.contains("echo.example.com:8000") && message.contains("not TLS")
        })
        .await;
}

#[tokio::test]
async fn a_client_hello_in_pieces_is_intercepted() {
    let setup = Setup::new(&[]).await;
    let (_, stream) = connect(setup.sidecar.proxy(), "svc.a.run.app:443").await;
    // A pipe of one byte is between the app's TLS and the tunnel.
    let (ours, mut theirs) = tokio::io::duplex(1);
    tokio::spawn(async move {
        let mut stream = stream;
        stream.set_nodelay(true).unwrap();
        let _ = tokio::io::copy_bidirectional_with_sizes(&mut theirs, &mut stream, 1, 1).await;
    });
    let name = ServerName::try_from("svc.a.run.app").unwrap();
    trusting(&setup.ca(), &[H1])
        .connect(name, ours)
        .await
        .unwrap();
}

#[test]
fn explain_shows_whether_tls_is_intercepted() {
    for (args, url, wanted) in [
        (
            &[][..],
            "https://svc.a.run.app/",
            "blind tunnel without a token, unless --intercept and --ca-dir DIR are set; sidentity exec -- CMD sets both",
        ),
        (
            &["--intercept"],
            "https://svc.a.run.app/",
            "with HTTPS_PROXY=http://127.0.0.1:3128, if the app trusts this sidecar's CA, which --ca-dir DIR writes.",
        ),
        (
            &["--intercept", "--ca-dir", "/"],
            "https://svc.a.run.app/",
            "CA: SSL_CERT_FILE=/bundle.pem, NODE_EXTRA_CA_CERTS=/ca.pem, or for Java -Djavax.net.ssl.trustStore=/truststore.p12.",
        ),
        (
            &["--intercept", "--rule", "192.0.2.1=id,audience=x"],
            "https://192.0.2.1/",
            "blind tunnel without a token, because the CA has no certificates for addresses.",
        ),
        (
            &["--intercept"],
            "https://www.example.com/",
            "No change is needed",
        ),
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_sidentity"))
            .args(["explain", url])
            .args(args)
            .env_clear()
            .output()
            .unwrap();
        // Long lines are wrapped between words.
        let said = String::from_utf8(output.stdout).unwrap();
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(output.status.success() && said.contains(wanted), "{said}");
    }
}
