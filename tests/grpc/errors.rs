//! Errors of the sidecar, from the view of a gRPC client.

use tonic::{Code, Request, Status};

use super::client::Client;
use super::support::metadata::{Answer, Kind};
use super::{HOST, Setting, started};

async fn failure(client: &Client) -> Status {
    let failed = client.unary("Unary", Request::new(String::new())).await;
    failed.unwrap_err()
}

/// Both kinds of ingress.
async fn both(setting: &Setting, code: Code, says: &str) {
    for client in [setting.proxied(), setting.routed()] {
        let status = failure(&client).await;
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(says), "{status:?}");
        let proxy_status = status.metadata().get("proxy-status").unwrap();
        let proxy_status = proxy_status.to_str().unwrap();
        assert!(proxy_status.starts_with("sidentity; error="), "{status:?}");
    }
}

#[tokio::test]
async fn a_missing_token_is_unavailable() {
    let mut setting = started(&[]).await;
    let refused = Answer::status(403, "Unauthenticated – no caller\n");
    setting.metadata.script(Kind::Identity, [refused]);
    let client = Client::new(setting.sidecar.proxy(), "http://other.a.run.app");
    let status = failure(&client).await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().starts_with("token:"), "{status:?}");
    assert!(status.message().contains("no caller"), "{status:?}");

    setting.metadata.stop().await;
    let client = Client::new(setting.sidecar.proxy(), "http://third.a.run.app");
    let status = failure(&client).await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().starts_with("token:"), "{status:?}");
    assert!(setting.service.heads().is_empty());
}

#[tokio::test]
async fn a_denied_call_is_permission_denied() {
    let setting = started(&["--rule", &format!("{HOST}=deny")]).await;
    both(&setting, Code::PermissionDenied, "").await;
    assert!(setting.service.heads().is_empty());
}

#[tokio::test]
async fn a_call_over_the_limit_is_resource_exhausted() {
    let setting = started(&["--max-connections", "3"]).await;
    let client = setting.proxied();
    let mut held = Vec::new();
    for _ in 0..3 {
        let client = client.clone();
        held.push(tokio::spawn(async move {
            client.unary("Hold", Request::new(String::new())).await
        }));
    }
    setting.service.held(3).await;
    both(&setting, Code::ResourceExhausted, "--max-connections").await;
    setting.service.release();
    for call in held {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn an_unreachable_service_is_unavailable() {
    let setting = started(&[]).await;
    let port = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().port()
    };
    for (name, error) in [
        ("http://nowhere.invalid:8443".to_owned(), "error=dns_"),
        (
            format!("http://127.0.0.1:{port}"),
            "error=connection_refused",
        ),
    ] {
        let status = failure(&Client::new(setting.sidecar.proxy(), &name)).await;
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        let proxy_status = status.metadata().get("proxy-status").unwrap();
        assert!(proxy_status.to_str().unwrap().contains(error), "{status:?}");
    }
}

#[tokio::test]
async fn a_slow_upstream_is_deadline_exceeded() {
    let setting = started(&["--response-timeout", "500ms"]).await;
    let client = setting.proxied();
    let failed = client.unary("Hold", Request::new(String::new())).await;
    let status = failed.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    setting.service.given_up(1).await;
}
