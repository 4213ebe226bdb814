//! Reverse routes.

use bytes::Bytes;
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::app::{get, json, proxied, send, text};
use super::support::metadata::Kind;
use super::support::service::{Service, reply};
use super::{is_for, started, started_with};

const ROUTE: &str = "127.0.0.1:0";

async fn called_as(
    route: std::net::SocketAddr,
    host: &str,
    more: &[(&str, &str)],
) -> Response<Bytes> {
    let mut request = Request::get("/").header("host", host);
    for (name, value) in more {
        request = request.header(*name, *value);
    }
    send(route, request.body(Bytes::new()).unwrap()).await
}

#[tokio::test]
async fn routes_share_a_port_by_prefix_the_longest_first() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let all = format!("{port}=https://all.a.run.app/base");
    let api = format!("{port}/api=https://api.a.run.app");
    let deep = format!("{port}/api/v1=https://v1.a.run.app/one/");
    let (_metadata, service, sidecar) =
        started(&["--route", &all, "--route", &api, "--route", &deep]).await;
    let address = sidecar.address(&port.to_string());
    for path in [
        "/x",
        "/api",
        "/api/x?q",
        "/api/v1",
        "/api/v1/y",
        "/api/v10",
        "/apix",
    ] {
        assert_eq!(get(address, path).await.status(), 200);
    }
    let seen: Vec<_> = service
        .seen()
        .iter()
        .map(|s| format!("{}{}", s.host, s.target))
        .collect();
    assert_eq!(
        seen,
        [
            "all.a.run.app/base/x",
            "api.a.run.app/",
            "api.a.run.app/x?q",
            "v1.a.run.app/one/",
            "v1.a.run.app/one/y",
            "api.a.run.app/v10",
            "all.a.run.app/base/apix",
        ]
    );
    for seen in service.seen() {
        assert!(is_for(
            seen.header("authorization"),
            &format!("https://{}", seen.host)
        ));
    }
}

#[tokio::test]
async fn a_path_that_no_route_has_is_404() {
    let (_metadata, service, sidecar) =
        started(&["--route", "127.0.0.1:0/api=https://api.a.run.app"]).await;
    let response = get(sidecar.address("127.0.0.1:0/api"), "/other").await;
    assert_eq!(response.status(), 404);
    assert!(
        json(&response)["detail"]
            .as_str()
            .unwrap()
            .contains("/other")
    );
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn a_redirect_of_the_upstream_leads_back_through_the_route() {
    let service = Service::answering(|seen| {
        let mut response = reply(302, "");
        let to = match &*seen.target {
            "/up" => "https://svc.a.run.app/login?next=%2F#top",
            "/path" => "/login",
            _ => "https://elsewhere.example.com/",
        };
        response
            .headers_mut()
            .insert("location", to.parse().unwrap());
        response
    })
    .await;
    let (_metadata, sidecar) =
        started_with(&service, &["--route", "127.0.0.1:0=https://svc.a.run.app"]).await;
    let route = sidecar.address(ROUTE);
    let location = async |path: &str| {
        let response = get(route, path).await;
        response.headers()["location"].to_str().unwrap().to_owned()
    };
    assert_eq!(
        location("/up").await,
        format!("http://{route}/login?next=%2F#top")
    );
    assert_eq!(location("/path").await, "/login");
    assert_eq!(location("/away").await, "https://elsewhere.example.com/");
}

#[tokio::test]
async fn a_page_cannot_use_a_route() {
    let (metadata, service, sidecar) = started(&[
        "--route",
        "127.0.0.1:0=https://svc.a.run.app",
        "--allowed-host",
        "app.example.com",
    ])
    .await;
    metadata.arrived(Kind::Identity, 1).await;
    let route = sidecar.address(ROUTE);
    for (host, status) in [
        ("evil.test", 421),
        ("localhost.evil.test", 421),
        ("10.0.0.1", 421),
        ("localhost", 200),
        ("a.localhost:8081", 200),
        ("[::1]:9", 200),
        ("sidecar:8081", 200),
        ("APP.example.com.", 200),
    ] {
        assert_eq!(called_as(route, host, &[]).await.status(), status, "{host}");
    }
    for (name, value, status) in [
        ("origin", "https://evil.test", 403),
        ("origin", "null", 403),
        ("origin", "chrome-extension://x", 403),
        ("origin", "moz-extension://localhost", 403),
        ("origin", "app://localhost", 403),
        ("sec-fetch-site", "cross-site", 403),
        ("origin", "http://localhost:3000", 200),
        ("origin", "https://app.example.com", 200),
        ("sec-fetch-site", "same-origin", 200),
    ] {
        let response = called_as(route, "localhost", &[(name, value)]).await;
        assert_eq!(response.status(), status, "{name}: {value}");
    }
    assert_eq!(service.seen().len(), 5 + 3);
}

#[tokio::test]
async fn a_unix_socket_is_a_route_too_and_goes_with_the_sidecar() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("route.sock");
    let route = format!("unix:{}=https://svc.a.run.app", path.display());
    let (_metadata, service, mut sidecar) = started(&["--route", &route]).await;
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream
        .write_all(b"GET /x HTTP/1.1\r\nHost: whatever.test\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
    assert_eq!(service.only().host, "svc.a.run.app");
    sidecar.signal("TERM");
    assert!(sidecar.ended().await.success());
    assert!(!path.exists());
}

#[tokio::test]
async fn options_of_a_route_override_the_table() {
    let (metadata, service, sidecar) = started(&[
        "--route",
        "127.0.0.1:0=https://svc.a.run.app,audience=https://other,header=x-serverless-authorization",
    ])
    .await;
    metadata.arrived(Kind::Identity, 1).await;
    get(sidecar.address(ROUTE), "/").await;
    let seen = service.only();
    assert_eq!(seen.header("authorization"), None);
    assert!(is_for(
        seen.header("x-serverless-authorization"),
        "https://other"
    ));
}

#[tokio::test]
async fn a_route_to_a_function_takes_the_audience_from_each_path() {
    let host = "us-central1-p.cloudfunctions.net";
    let route = format!("127.0.0.1:0=https://{host}");
    let (_metadata, service, sidecar) = started(&["--route", &route]).await;
    for path in ["/one/x", "/two"] {
        assert_eq!(text(&get(sidecar.address(ROUTE), path).await), "hello");
    }
    let seen = service.seen();
    assert!(is_for(
        seen[0].header("authorization"),
        &format!("https://{host}/one")
    ));
    assert!(is_for(
        seen[1].header("authorization"),
        &format!("https://{host}/two")
    ));
}

#[tokio::test]
async fn a_credential_in_the_query_is_the_only_one_of_the_call() {
    let (metadata, service, sidecar) = started(&[
        "--route",
        "127.0.0.1:0=https://storage.googleapis.com",
        "--rule",
        "registry.example.com=access,existing=replace",
    ])
    .await;
    metadata.arrived(Kind::Access, 1).await;
    let route = sidecar.address(ROUTE);
    for path in [
        "/b/o?access_token=own",
        "/b/o?alt=media&oauth_token=own",
        "/b/o?access%5Ftoken=own",
        "/b/o?AWSAccessKeyId=GOOG1&Expires=1&Signature=y",
        "/b/o?Signature=y&awsaccesskeyid=GOOG1",
    ] {
        assert_eq!(get(route, path).await.status(), 200);
    }
    let url = "http://registry.example.com/v2/?access_token=own";
    assert_eq!(proxied(sidecar.proxy(), url, &[]).await.status(), 200);
    for seen in service.seen() {
        assert_eq!(seen.header("authorization"), None, "{}", seen.target);
    }
    let metrics = get(sidecar.admin(), "/metrics").await;
    let metrics = text(&metrics);
    for counted in [
        "sidentity_skipped_total{reason=\"existing\"} 4",
        "sidentity_skipped_total{reason=\"signed_url\"} 2",
    ] {
        assert!(metrics.contains(counted), "{counted}: {metrics}");
    }
    // An ID token goes beside the app's own credential, as it does beside an Authorization.
    let url = "http://svc.a.run.app/?access_token=own";
    assert_eq!(proxied(sidecar.proxy(), url, &[]).await.status(), 200);
    let seen = service.seen().pop().unwrap();
    assert_eq!(seen.header("authorization"), None);
    assert!(is_for(
        seen.header("x-serverless-authorization"),
        "https://svc.a.run.app"
    ));
}

#[tokio::test]
async fn signed_urls_keys_and_upload_sessions_pass_as_they_are() {
    let (metadata, service, sidecar) =
        started(&["--route", "127.0.0.1:0=https://storage.googleapis.com"]).await;
    metadata.arrived(Kind::Access, 1).await;
    let route = sidecar.address(ROUTE);
    for path in [
        "/b/o?X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Signature=abc",
        "/b/o?GoogleAccessId=x&Expires=1&Signature=y",
        "/b/o?X-Amz-Signature=abc",
        "/b/o?uploadType=resumable&upload_id=xyz",
        "/b/o?key=AIza",
    ] {
        assert_eq!(get(route, path).await.status(), 200);
    }
    for seen in service.seen() {
        assert_eq!(seen.header("authorization"), None, "{}", seen.target);
    }
    let metrics = get(sidecar.admin(), "/metrics").await;
    let metrics = text(&metrics);
    assert!(
        metrics.contains("sidentity_skipped_total{reason=\"signed_url\"} 3"),
        "{metrics}"
    );
    assert!(metrics.contains("sidentity_skipped_total{reason=\"api_key\"} 1"));
    // What carried no token counts as that.
    sidecar
        .counted(
            r#"sidentity_requests_total{code="200",credential="none",listener="127.0.0.1:0"} 5"#,
        )
        .await;
}
