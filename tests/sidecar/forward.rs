//! The forward proxy: requests without a token, and requests that must be refused.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::support::app::{get, json, proxied, raw, text};
use super::support::metadata::{Answer, Kind};
use super::support::service::{Service, reply};
use super::{started, started_with};

/// Answers in cleartext with the bytes of the received head.
async fn mirror() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                        return;
                    }
                    head.push(byte[0]);
                }
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    head.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.write_all(&head).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_request_without_a_token_passes_unchanged() {
    let mirror = mirror().await;
    let (_metadata, _service, sidecar) = started(&[]).await;
    let request = format!(
        "GET http://{mirror}/a%2Fb?c=d%20e HTTP/1.1\r\nHost: {mirror}\r\nX-Odd-Case: Kept\r\n\
         Authorization: Bearer own\r\nConnection: close, x-hop\r\nX-Hop: gone\r\nProxy-Connection: close\r\n\r\n"
    );
    let answer = raw(sidecar.proxy(), request.as_bytes()).await;
    let head = answer.split_once("\r\n\r\n").unwrap().1;
    assert!(
        head.starts_with("GET /a%2Fb?c=d%20e HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains("X-Odd-Case: Kept\r\n"), "{head}");
    assert!(head.contains("Authorization: Bearer own\r\n"), "{head}");
    let lower = head.to_lowercase();
    assert_eq!(lower.matches("host:").count(), 1, "{head}");
    for added in [
        "via:",
        "x-forwarded",
        "x-hop",
        "proxy-connection",
        "forwarded:",
    ] {
        assert!(!lower.contains(added), "{added} in {head}");
    }
}

/// urllib3 sends this after a redirect, Node's `http.get` with the proxy as host, and every app that sets `Host`
/// itself.
#[tokio::test]
async fn a_host_header_that_differs_from_the_absolute_target_is_replaced() {
    let mirror = mirror().await;
    let plain = format!("plain.example.com:80:{mirror}");
    let (metadata, service, sidecar) = started(&["--connect-to", &plain]).await;
    let own = sidecar.proxy().to_string();
    let call = async |version: &str, target: &str, host: &str| {
        let request =
            format!("GET {target} HTTP/{version}\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        raw(sidecar.proxy(), request.as_bytes()).await
    };
    // Token and connection follow the target: the policy does not see the name in Host.
    for host in [
        "storage.googleapis.com",
        "svc.a.run.app",
        &own,
        "plain.example.com:8080",
    ] {
        for version in ["1.1", "1.0"] {
            let answer = call(version, "http://plain.example.com/x", host).await;
            let (head, received) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(" 200 "), "{host}: {answer}");
            let received = received.to_lowercase();
            assert!(
                received.contains("\r\nhost: plain.example.com\r\n"),
                "{received}"
            );
            assert_eq!(received.matches("host:").count(), 1, "{received}");
            assert!(!received.contains("authorization"), "{received}");
        }
    }
    assert_eq!(
        (metadata.count(Kind::Access), metadata.count(Kind::Identity)),
        (0, 0)
    );
    for host in [
        "evil.test",
        "storage.googleapis.com:8443",
        "169.254.169.254",
        &own,
    ] {
        let answer = call("1.1", "http://storage.googleapis.com/b", host).await;
        assert!(answer.ends_with("hello"), "{host}: {answer}");
    }
    for seen in service.seen() {
        assert_eq!(seen.host, "storage.googleapis.com");
        assert_eq!(seen.header("authorization"), Some("Bearer T1"));
    }
    assert_eq!(service.seen().len(), 4);
}

/// RFC 6455, 4.1: a client with a proxy may use `ws://` like `http://`.
#[tokio::test]
async fn an_absolute_target_of_ws_or_wss_means_http_or_https() {
    let mirror = mirror().await;
    let plain = format!("plain.example.com:80:{mirror}");
    let (_metadata, service, sidecar) = started(&["--connect-to", &plain]).await;
    for target in [
        "ws://storage.googleapis.com/a",
        "wss://storage.googleapis.com/a",
        "WSS://storage.googleapis.com:443/a",
        "ws://storage.googleapis.com:80/a",
    ] {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: storage.googleapis.com\r\nConnection: close\r\n\r\n"
        );
        let answer = raw(sidecar.proxy(), request.as_bytes()).await;
        assert!(answer.ends_with("hello"), "{target}: {answer}");
    }
    for seen in service.seen() {
        assert_eq!(
            (&*seen.target, seen.header("authorization")),
            ("/a", Some("Bearer T1"))
        );
    }
    assert_eq!(service.seen().len(), 4);
    let request = "GET ws://plain.example.com/a HTTP/1.1\r\nHost: plain.example.com\r\nConnection: close\r\n\r\n";
    let answer = raw(sidecar.proxy(), request.as_bytes()).await;
    assert!(answer.contains("\r\n\r\nGET /a HTTP/1.1\r\n"), "{answer}");
}

/// Otherwise the app's next call is a tunnel, which gets no token.
#[tokio::test]
async fn a_redirect_to_the_https_equivalent_of_an_upgraded_url_stays_with_http() {
    let service = Service::answering(|seen| {
        let location = seen.header("x-location").unwrap_or_default();
        let status = seen.header("x-status").unwrap_or("302").parse().unwrap();
        let mut response = reply(status, "");
        let headers = response.headers_mut();
        headers.insert("location", location.parse().unwrap());
        response
    })
    .await;
    let (_metadata, sidecar) = started_with(&service, &["--rule", "odd.example.com=access"]).await;
    let location = async |url: &str, status: &str, location: &str| {
        let headers = [("x-location", location), ("x-status", status)];
        let response = proxied(sidecar.proxy(), url, &headers).await;
        response.headers()["location"].to_str().unwrap().to_owned()
    };
    for (url, status, told, passed) in [
        (
            "http://svc.a.run.app/a",
            "302",
            "https://svc.a.run.app/b?c#d",
            "http://svc.a.run.app/b?c#d",
        ),
        (
            "http://svc.a.run.app/a",
            "307",
            "https://SVC.a.run.app.:443/b",
            "http://svc.a.run.app/b",
        ),
        (
            "http://svc.a.run.app/a",
            "301",
            "http://svc.a.run.app/b",
            "http://svc.a.run.app/b",
        ),
        ("http://svc.a.run.app/a", "308", "/b", "/b"),
        (
            "http://svc.a.run.app/a",
            "303",
            "https://other.a.run.app/b",
            "https://other.a.run.app/b",
        ),
        (
            "http://svc.a.run.app/a",
            "302",
            "https://svc.a.run.app:8443/b",
            "https://svc.a.run.app:8443/b",
        ),
        (
            "http://svc.a.run.app/a",
            "302",
            "https://u@svc.a.run.app/b",
            "https://u@svc.a.run.app/b",
        ),
        // In this response `Location` names a new resource by its own URL.
        (
            "http://svc.a.run.app/a",
            "201",
            "https://svc.a.run.app/b",
            "https://svc.a.run.app/b",
        ),
        // This request was not upgraded.
        (
            "https://svc.a.run.app/a",
            "302",
            "https://svc.a.run.app/b",
            "https://svc.a.run.app/b",
        ),
    ] {
        assert_eq!(
            location(url, status, told).await,
            passed,
            "{url} {status} {told}"
        );
    }
}

#[tokio::test]
async fn the_metadata_server_can_be_called_through_the_proxy() {
    let (metadata, _service, sidecar) = started(&[]).await;
    let url = format!(
        "http://{}/computeMetadata/v1/instance/service-accounts/default/email",
        metadata.address()
    );
    metadata.script(Kind::Email, [Answer::ok("a@b.iam.gserviceaccount.com")]);
    let response = proxied(sidecar.proxy(), &url, &[("metadata-flavor", "Google")]).await;
    assert_eq!(text(&response), "a@b.iam.gserviceaccount.com");
    let asked = &metadata.requests(Kind::Email)[0];
    assert_eq!(asked.header("metadata-flavor"), Some("Google"));
    for added in ["via", "x-forwarded-for", "authorization"] {
        assert_eq!(asked.header(added), None);
    }
}

#[tokio::test]
async fn every_spelling_of_the_metadata_server_can_be_denied() {
    let (metadata, _service, sidecar) = started(&[
        "--metadata-access",
        "deny",
        "--connect-to",
        "rebound.example.test:80:169.254.169.254:80",
        "--connect-to",
        "translated.example.test:80:[64:ff9b::a9fe:a9fe]:80",
    ])
    .await;
    metadata.arrived(Kind::ProjectId, 1).await;
    let before = metadata.all_requests().len();
    let own = format!("http://{}/", metadata.address());
    for url in [
        "http://metadata.google.internal/",
        "http://METADATA.google.internal./",
        "http://metadata/",
        "http://169.254.169.254/",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://[::ffff:169.254.169.254]/",
        "http://[fd20:ce::254]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[64:ff9b::169.254.169.254]:8080/",
        "http://[64:ff9b:1::a9fe:a9fe]/",
        "http://[2002:a9fe:a9fe::]/",
        "http://[2002:a9fe:a9fe::1]/",
        "http://[::169.254.169.254]/",
        "http://[::a9fe:a9fe]/",
        "http://rebound.example.test/",
        "http://translated.example.test/",
        &own,
    ] {
        let response = proxied(sidecar.proxy(), url, &[]).await;
        assert_eq!(response.status(), 403, "{url}: {}", text(&response));
    }
    assert_eq!(metadata.all_requests().len(), before);
}

#[tokio::test]
async fn a_call_to_the_sidecar_itself_is_refused() {
    let (_metadata, _service, sidecar) =
        started(&["--route", "127.0.0.1:0=https://svc.a.run.app"]).await;
    let ports = [
        sidecar.proxy(),
        sidecar.admin(),
        sidecar.address("127.0.0.1:0"),
    ];
    for host in [
        "127.0.0.1",
        "localhost",
        "127.1",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
    ] {
        for address in ports {
            let url = format!("http://{host}:{}/", address.port());
            let response = proxied(sidecar.proxy(), &url, &[]).await;
            assert_eq!(response.status(), 508, "{url}: {}", text(&response));
            let status = response.headers()["proxy-status"].to_str().unwrap();
            assert!(status.contains("proxy_loop_detected"), "{status}");
        }
    }
}

#[tokio::test]
async fn the_page_says_that_a_call_to_the_sidecar_itself_is_refused() {
    let (_metadata, _service, sidecar) =
        started(&["--route", "127.0.0.1:0=https://svc.a.run.app"]).await;
    let explained = async |url: &str| {
        let url = url.replace('[', "%5B").replace(']', "%5D");
        text(&get(sidecar.admin(), &format!("/explain?url={url}")).await).to_owned()
    };
    for host in [
        "127.0.0.1",
        "localhost",
        "127.1",
        "0.0.0.0",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
    ] {
        for address in [sidecar.proxy(), sidecar.admin()] {
            let url = format!("http://{host}:{}/", address.port());
            let response = proxied(sidecar.proxy(), &url, &[]).await;
            assert_eq!(response.status(), 508, "{url}");
            let explained = explained(&url).await;
            assert!(
                explained.contains("rejects this call with 508"),
                "{url}: {explained}"
            );
        }
    }
    let port = sidecar.address("127.0.0.1:0").port();
    let explained = explained(&format!("http://localhost:{port}/x")).await;
    assert!(explained.contains("https://svc.a.run.app"), "{explained}");
    assert!(
        explained.contains("proxy rejects this URL with 508"),
        "{explained}"
    );
}

#[tokio::test]
async fn the_proxy_requires_its_credentials() {
    let (metadata, service, sidecar) = started(&["--proxy-auth", "app:s3cret"]).await;
    let url = "http://storage.googleapis.com/";
    for wrong in [
        &[][..],
        &[("proxy-authorization", "Basic d3Jvbmc6eA==")][..],
        &[("proxy-authorization", "YXBwOnMzY3JldA==")][..],
        &[("proxy-authorization", "Bearer YXBwOnMzY3JldA==")][..],
    ] {
        let response = proxied(sidecar.proxy(), url, wrong).await;
        assert_eq!(response.status(), 407);
        assert!(
            response.headers()["proxy-authenticate"]
                .to_str()
                .unwrap()
                .starts_with("Basic ")
        );
    }
    assert_eq!(metadata.count(Kind::Access), 0);
    for right in ["Basic YXBwOnMzY3JldA==", "basic  YXBwOnMzY3JldA=="] {
        let right = [("proxy-authorization", right)];
        assert_eq!(proxied(sidecar.proxy(), url, &right).await.status(), 200);
    }
    for seen in service.seen() {
        assert_eq!(seen.header("proxy-authorization"), None);
    }
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_accepted_on_the_same_port() {
    let (_metadata, service, sidecar) = started(&[]).await;
    let stream = TokioIo::new(TcpStream::connect(sidecar.proxy()).await.unwrap());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        let request = Request::get("http://svc.a.run.app/x").body(Full::<Bytes>::default());
        let response = sender.send_request(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes(),
            "hello"
        );
    }
    for seen in service.seen() {
        assert_eq!(
            (&*seen.host, seen.version),
            ("svc.a.run.app", http::Version::HTTP_2)
        );
        assert_eq!(seen.header("host"), None, "HTTP/2 has :authority alone");
    }
}

#[tokio::test]
async fn the_first_http_1_0_client_is_served() {
    let (_metadata, service, sidecar) = started(&[]).await;
    let answer = raw(
        sidecar.proxy(),
        b"GET http://svc.a.run.app/x HTTP/1.0\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
    assert!(answer.ends_with("hello"), "{answer}");
    assert_eq!(service.only().host, "svc.a.run.app");
}

#[tokio::test]
async fn an_origin_form_request_gets_an_error_that_explains_the_port() {
    let (_metadata, _service, sidecar) = started(&[]).await;
    let response = get(sidecar.proxy(), "/").await;
    assert_eq!(response.status(), 400);
    assert!(
        json(&response)["detail"]
            .as_str()
            .unwrap()
            .contains("HTTP_PROXY")
    );
}

#[tokio::test]
async fn a_query_without_a_path_arrives_as_one_of_the_root() {
    for alpn in [b"h2" as &[u8], b"http/1.1"] {
        let service = Service::speaking(&[alpn], |_| reply(200, "hello")).await;
        let (_metadata, sidecar) = started_with(&service, &[]).await;
        let request = "GET http://svc.a.run.app?q=1 HTTP/1.1\r\nHost: svc.a.run.app\r\nConnection: close\r\n\r\n";
        let answer = raw(sidecar.proxy(), request.as_bytes()).await;
        assert!(answer.ends_with("hello"), "{answer}");
        assert_eq!(service.only().target, "/?q=1");
    }
}

#[tokio::test]
async fn a_fragment_without_a_path_arrives_as_the_root() {
    for alpn in [b"h2" as &[u8], b"http/1.1"] {
        let service = Service::speaking(&[alpn], |_| reply(200, "hello")).await;
        let (_metadata, sidecar) = started_with(&service, &[]).await;
        let request = "GET http://svc.a.run.app#top HTTP/1.1\r\nHost: svc.a.run.app\r\nConnection: close\r\n\r\n";
        let answer = raw(sidecar.proxy(), request.as_bytes()).await;
        assert!(answer.ends_with("hello"), "{answer}");
        assert_eq!(service.only().target, "/");
    }
}
