//! Requests and protocols inside a tunnel that do not belong to it.

use super::*;

#[tokio::test]
async fn an_intercepted_request_for_another_authority_is_misdirected() {
    let setup = Setup::new(&[]).await;
    let host = "svc.a.run.app";
    for alpn in [H1, H2] {
        for named in [
            "other.a.run.app",
            "storage.googleapis.com",
            "svc.a.run.app:8443",
        ] {
            let tls = setup.tls(host, &[alpn]).await;
            let response = call(tls, request(alpn, named, "/")).await;
            assert_eq!(response.status(), 421, "{named}");
            let problem = json(&response);
            assert!(
                problem["detail"].as_str().unwrap().contains(host),
                "{problem}"
            );
        }
        for same in ["SVC.a.run.app", "svc.a.run.app:443", "svc.a.run.app."] {
            let tls = setup.tls(host, &[alpn]).await;
            assert_eq!(
                call(tls, request(alpn, same, "/")).await.status(),
                200,
                "{same}"
            );
        }
    }
    // With both fields, and in absolute form.
    for (target, named) in [
        ("/", "storage.googleapis.com"),
        ("https://storage.googleapis.com/", "storage.googleapis.com"),
        ("http://svc.a.run.app/", "svc.a.run.app"),
    ] {
        let tls = setup.tls(host, &[H1]).await;
        let request = Request::get(target)
            .header("host", named)
            .body(Full::default());
        assert_eq!(call(tls, request.unwrap()).await.status(), 421, "{target}");
    }
    assert_eq!(setup.service.seen().len(), 6);
    assert_eq!(setup.metadata.count(Kind::Access), 0);
}

#[tokio::test]
async fn a_connection_cannot_be_used_for_a_second_host() {
    let setup = Setup::new(&[]).await;
    let stream = TokioIo::new(setup.tls("svc.a.run.app", &[H2]).await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
    tokio::spawn(connection);
    for (host, status) in [
        ("svc.a.run.app", 200),
        ("evil.a.run.app", 421),
        ("svc.a.run.app", 200),
    ] {
        let response = sender.send_request(request(H2, host, "/")).await.unwrap();
        assert_eq!(response.status(), status, "{host}");
    }
    assert!(
        setup
            .service
            .seen()
            .iter()
            .all(|seen| seen.host == "svc.a.run.app")
    );
}

#[tokio::test]
async fn only_the_negotiated_alpn_protocol_is_accepted_inside() {
    let setup = Setup::new(&[]).await;
    let http1 = "GET / HTTP/1.1\r\nHost: svc.a.run.app\r\nConnection: close\r\n\r\n";
    let http2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0";
    for (offered, sent, spoken) in [
        (&[H2][..], http1, None),
        (&[H2], "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", None),
        (&[H1], http2, None),
        (&[H2], http2, Some(H2)),
        (&[H1], http1, Some(H1)),
        // Without ALPN, the first bytes decide.
        (&[], http1, Some(H1)),
        (&[], http2, Some(H2)),
    ] {
        let mut tls = setup.tls("svc.a.run.app", offered).await;
        tls.write_all(sent.as_bytes()).await.unwrap();
        let mut received = [0; 12];
        let mut length = 0;
        while length < received.len() {
            match tls.read(&mut received[length..]).await {
                Ok(read) if read > 0 => length += read,
                Ok(_) | Err(_) => break,
            }
        }
        let received = &received[..length];
        let of_http1 = received.starts_with(b"HTTP/1.1 200");
        // This is a SETTINGS frame. After a wrong preface only a GOAWAY may follow.
        let of_http2 = received.get(3) == Some(&4);
        match spoken {
            Some(H1) => assert!(of_http1, "{offered:?} {sent:?}: {received:?}"),
            Some(_) => assert!(of_http2, "{offered:?} {sent:?}: {received:?}"),
            None => {
                let rest = tokio::time::timeout(Duration::from_secs(10), async {
                    let mut rest = Vec::new();
                    let _ = tls.read_to_end(&mut rest).await;
                    rest
                });
                let rest = rest.await.expect("the connection stayed open");
                let all = [received, &rest].concat();
                assert!(
                    !String::from_utf8_lossy(&all).contains("HTTP/1.1 200"),
                    "{offered:?} {sent:?}: {all:?}"
                );
            }
        }
    }
    // Two requests were answered in HTTP/1.1. Three clients spoke another protocol than ALPN had selected.
    assert_eq!(setup.service.seen().len(), 2);
    let counted = "sidentity_proxy_errors_total{error=\"http_request_error\"} 3";
    setup.sidecar.counted(counted).await;
}
