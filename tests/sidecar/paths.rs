//! Paths that servers interpret in different ways: the strictest interpretation decides, and the path is sent
//! unchanged.

use super::started;
use super::support::app::{get, json, raw, text};

async fn called(address: std::net::SocketAddr, target: &str) -> String {
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    raw(address, request.as_bytes()).await
}

#[tokio::test]
async fn every_spelling_of_a_denied_path_is_denied() {
    let (_metadata, service, sidecar) = started(&[
        "--rule",
        "api.example.com/admin=deny",
        "--rule",
        "api.example.com=access",
        "--route",
        "127.0.0.1:0=https://api.example.com",
    ])
    .await;
    let route = sidecar.address("127.0.0.1:0");
    for path in [
        "/admin%2fx",
        "/%2fadmin",
        "/admin;x",
        "//admin",
        "/x/..;/admin",
        "/x\\..\\admin",
        "/x/%2e%2e/admin",
        "/x/%252E%252E/admin",
    ] {
        let answer = called(route, path).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{path}: {answer}");
        let why = "some servers read this path as";
        assert!(answer.contains(why), "{path}: {answer}");
    }
    assert!(service.seen().is_empty());
    let path = "/x%2fy;z/..\\a//b?c=%2e%2e";
    let answer = called(route, path).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(service.only().target, path);
    assert_eq!(service.only().header("authorization"), Some("Bearer T1"));
}

#[tokio::test]
async fn an_ambiguous_path_gets_no_grant_for_a_path() {
    let (_metadata, service, sidecar) = started(&[
        "--rule",
        "api.example.com/pub=access",
        "--route",
        "127.0.0.1:0=https://api.example.com",
    ])
    .await;
    let route = sidecar.address("127.0.0.1:0");
    for path in [
        "/pub/..;",
        "/x\\../pub",
        "/pub/..%2fadmin",
        "/pub%2fx",
        "//pub",
    ] {
        let answer = called(route, path).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        let seen = service.seen().pop().unwrap();
        assert_eq!(
            (seen.target.as_str(), seen.header("authorization")),
            (path, None)
        );
        let url = format!(
            "/explain?url=https://api.example.com{}",
            path.replace('%', "%25")
                .replace(';', "%3b")
                .replace('\\', "%5c")
        );
        let explained = get(sidecar.admin(), &url).await;
        assert_eq!(
            json(&explained)["credential"],
            "none",
            "{}",
            text(&explained)
        );
    }
    called(route, "/pub/a%2fb;c").await;
    let seen = service.seen().pop().unwrap();
    assert_eq!(seen.header("authorization"), Some("Bearer T1"));
}

#[tokio::test]
async fn a_function_gets_no_token_for_another_function() {
    let (_metadata, service, sidecar) = started(&[
        "--route",
        "127.0.0.1:0=https://us-central1-p.cloudfunctions.net/fn1",
    ])
    .await;
    let route = sidecar.address("127.0.0.1:0");
    for path in [
        "/../fn2",
        "/..;/fn2",
        "/%2e%2e/fn2",
        "/..%2ffn2",
        "\\..\\..\\fn2",
    ] {
        let target = format!("/x/..{path}");
        called(route, &target).await;
        let seen = service.seen().pop().unwrap();
        assert_eq!(seen.target, format!("/fn1{target}"));
        assert_eq!(seen.header("authorization"), None, "{target}");
    }
    sidecar
        .logged(|line| {
            let message = line["message"].as_str().unwrap_or("");
            message.starts_with("decision: some servers read this path as")
        })
        .await;
    called(route, "/a%2fb;c").await;
    assert!(
        service
            .seen()
            .pop()
            .unwrap()
            .header("authorization")
            .is_some()
    );
}
