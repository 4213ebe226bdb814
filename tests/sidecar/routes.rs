//! Reverse routes.

use bytes::Bytes;
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::app::{get, json, proxied, send, text};
use super::support::frames::{END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame};
use super::support::metadata::{Answer, Kind, Metadata};
use super::support::service::{Service, reply};
use super::support::streams::{app, open};
use super::support::upstream::soon;
use super::support::wire::{Wire, field};
use super::{beside, is_for, started, started_with};

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
async fn the_longest_matching_prefix_of_a_port_decides() {
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
async fn a_path_without_a_route_is_404() {
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
async fn a_relative_redirect_leads_to_no_other_path_than_the_upstreams() {
    let service = Service::answering(|seen| {
        let mut response = reply(302, "");
        let to = seen.header("x-location").unwrap_or_default();
        response
            .headers_mut()
            .insert("location", to.parse().unwrap());
        response
    })
    .await;
    let name = "127.0.0.1:0/deep/app";
    let route = format!("{name}=https://svc.a.run.app/v1");
    let (_metadata, sidecar) = started_with(&service, &["--route", &route]).await;
    let route = sidecar.address(name);
    for (path, told, passed) in [
        ("/deep/app/x", "y", "/deep/app/y"),
        ("/deep/app/x", "../y", "https://svc.a.run.app/y"),
        ("/deep/app", "v1/", "/deep/app/"),
    ] {
        let request = Request::get(path)
            .header("host", "localhost")
            .header("x-location", told)
            .body(Bytes::new());
        let response = send(route, request.unwrap()).await;
        assert_eq!(response.headers()["location"], passed, "{path} {told}");
    }
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
    for (host, site, origin, status) in [
        // An allowed page calls from another site.
        ("localhost", "cross-site", "https://app.example.com", 200),
        ("localhost", "cross-site", "https://evil.test", 403),
        // A front end forwards the headers of its page's browser.
        ("localhost", "same-origin", "https://shop.example.com", 200),
        (
            "app.example.com",
            "same-origin",
            "https://shop.example.com",
            200,
        ),
        ("localhost", "same-site", "https://shop.example.com", 403),
        // A page whose name resolves to this machine has the same origin too.
        ("evil.test", "same-origin", "https://evil.test", 421),
    ] {
        let more = [("sec-fetch-site", site), ("origin", origin)];
        let response = called_as(route, host, &more).await;
        assert_eq!(response.status(), status, "{host} {site} {origin}");
    }
    assert_eq!(service.seen().len(), 5 + 3 + 3);
}

#[tokio::test]
async fn a_unix_socket_serves_a_route_and_is_removed_at_the_end() {
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

/// connect(2) needs write permission, and the app of another container runs as another user.
#[tokio::test]
async fn a_unix_socket_is_open_to_all_users_unless_a_mode_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let routes = [
        format!("unix:{}=https://svc.a.run.app", path("all.sock")),
        format!(
            "unix:{}=https://svc.a.run.app,mode=0660",
            path("group.sock")
        ),
        format!(
            "unix:{}:/a=https://svc.a.run.app,mode=600",
            path("own.sock")
        ),
        format!("unix:{}:/b=https://svc.a.run.app", path("own.sock")),
    ];
    let args: Vec<_> = routes.iter().flat_map(|route| ["--route", route]).collect();
    let (_metadata, _service, _sidecar) = started(&args).await;
    for (name, wanted) in [
        ("all.sock", 0o666),
        ("group.sock", 0o660),
        ("own.sock", 0o600),
    ] {
        let metadata = std::fs::metadata(path(name)).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
        assert_eq!(mode & 0o777, wanted, "{name}");
    }
}

/// HTTP/2 has no Host, and the retry must know the host that was called.
#[tokio::test]
async fn a_redirect_after_a_401_is_rewritten_over_http2() {
    let service = Service::answering(|seen| {
        if seen.header("authorization") == Some("Bearer T1") {
            return reply(401, "who?");
        }
        let mut response = reply(302, "");
        let to = "https://storage.googleapis.com/next".parse().unwrap();
        response.headers_mut().insert("location", to);
        response
    })
    .await;
    let route = "127.0.0.1:0=https://storage.googleapis.com";
    let metadata = Metadata::start().await;
    metadata.script(
        Kind::Access,
        [Answer::access("T1", 3600), Answer::access("T2", 3600)],
    );
    let sidecar = beside(&metadata, &service, &["--route", route]).await;
    let route = sidecar.address("127.0.0.1:0");
    let app = app(route).await;
    let request = Request::builder()
        .uri(format!("http://localhost:{}/x", route.port()))
        .body(())
        .unwrap();
    let (response, _) = open(&app, request, true).await;
    let response = soon(response).await.unwrap();
    assert_eq!(response.status(), 302);
    assert_eq!(
        response.headers()["location"],
        format!("http://localhost:{}/next", route.port())
    );
    assert_eq!(service.seen().len(), 2);
}

/// RFC 9112, 3.2: the Host of a target without an authority is empty. Some clients write the socket's path.
#[tokio::test]
async fn a_unix_socket_accepts_any_host_or_none() {
    let service = Service::answering(|_| {
        let mut response = reply(302, "");
        let headers = response.headers_mut();
        headers.insert("location", "https://svc.a.run.app/next?a".parse().unwrap());
        response
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("route.sock");
    let route = format!("unix:{}=https://svc.a.run.app", path.display());
    let (_metadata, _sidecar) = started_with(&service, &["--route", &route]).await;
    let ask = async |head: &str| {
        let mut wire = Wire::over(tokio::net::UnixStream::connect(&path).await.unwrap());
        wire.send(format!("GET {head}\r\nConnection: close\r\n\r\n"))
            .await;
        wire.head().await
    };
    for (head, location) in [
        ("/x HTTP/1.1\r\nHost:", "/next?a"),
        ("/x HTTP/1.1\r\nHost: ", "/next?a"),
        ("/x HTTP/1.1", "/next?a"),
        ("/x HTTP/1.0", "/next?a"),
        ("/x HTTP/1.1\r\nHost: /run/route.sock", "/next?a"),
        ("/x HTTP/1.1\r\nHost: %2Frun%2Froute.sock", "/next?a"),
        ("/x HTTP/1.1\r\nHost: evil.test", "http://evil.test/next?a"),
        ("/x HTTP/1.1\r\nHost: localhost", "http://localhost/next?a"),
        (
            "http://localhost/x HTTP/1.1\r\nHost: unix",
            "http://unix/next?a",
        ),
    ] {
        let answer = ask(head).await;
        assert!(answer.contains(" 302 "), "{head}: {answer}");
        assert_eq!(field(&answer, "location"), Some(location), "{head}");
        let seen = service.seen().pop().unwrap();
        assert_eq!(
            (&*seen.host, &*seen.target),
            ("svc.a.run.app", "/x"),
            "{head}"
        );
        assert!(is_for(
            seen.header("authorization"),
            "https://svc.a.run.app"
        ));
    }
    let before = service.seen().len();
    for head in [
        "/x HTTP/1.1\r\nHost: a\r\nHost: a",
        "/x HTTP/1.1\r\nHost:\r\nHost: a",
        "* HTTP/1.1\r\nHost:",
    ] {
        assert!(ask(head).await.contains(" 400 "), "{head}");
    }
    assert_eq!(service.seen().len(), before);
}

/// The h2 crate rejects it before this crate sees the request.
#[tokio::test]
async fn a_path_as_authority_on_a_unix_socket_is_logged_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("route.sock");
    let route = format!("unix:{}=https://svc.a.run.app", path.display());
    let (_metadata, service, sidecar) = started(&["--route", &route]).await;
    for authority in ["", "/run/route.sock", "%2Frun%2Froute.sock"] {
        let before = sidecar.log().len();
        let mut wire = Wire::over(tokio::net::UnixStream::connect(&path).await.unwrap());
        // :method POST, :scheme http, :path /, and a literal :authority (RFC 7541, A and 6.2.2).
        let mut block = vec![0x83, 0x86, 0x84, 0x01];
        block.push(u8::try_from(authority.len()).unwrap());
        block.extend(authority.as_bytes());
        let frames = [
            PREFACE.to_vec(),
            frame(SETTINGS, 0, 0, &[]),
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &block),
        ];
        wire.send(frames.concat()).await;
        sidecar
            .logged_since(before, |line| {
                line.to_string()
                    .contains("grpc.default_authority=localhost")
            })
            .await;
    }
    assert!(service.seen().is_empty());
    sidecar
        .counted("sidentity_proxy_errors_total{error=\"http_request_error\"} 3")
        .await;
}

#[tokio::test]
async fn a_unix_socket_accepts_any_authority() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("route.sock");
    let route = format!("unix:{}=https://svc.a.run.app", path.display());
    let (_metadata, service, _sidecar) = started(&["--route", &route]).await;
    let stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    for authority in ["evil.test", "localhost", "route.sock:0"] {
        let request = Request::get(format!("http://{authority}/x"));
        let request = request.body(http_body_util::Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200, "{authority}");
    }
    assert!(
        service
            .seen()
            .iter()
            .all(|seen| seen.host == "svc.a.run.app")
    );
}

/// Many clients resolve `localhost` to ::1 first.
#[tokio::test]
async fn a_port_alone_listens_on_both_loopback_addresses() {
    let args = [
        "--proxy",
        "0",
        "--admin",
        "0",
        "--route",
        "0=https://svc.a.run.app",
    ];
    let (_metadata, service, sidecar) = started(&args).await;
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        // The sidecar has started without IPv6.
        return;
    }
    let on_ipv6 = |listener: &str| {
        let address = sidecar.address(listener);
        assert!(address.is_ipv4());
        std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, address.port()))
    };
    for address in [sidecar.address("0"), on_ipv6("0")] {
        assert_eq!(text(&get(address, "/x").await), "hello");
    }
    let proxy = on_ipv6("proxy");
    assert_eq!(
        text(&proxied(proxy, "http://svc.a.run.app/", &[]).await),
        "hello"
    );
    assert_eq!(get(on_ipv6("admin"), "/startup").await.status(), 200);
    assert_eq!(service.seen().len(), 3);
    // They are the sidecar's own listeners.
    for listener in ["0", "proxy", "admin"] {
        let url = format!("http://{}/", on_ipv6(listener));
        let response = proxied(sidecar.proxy(), &url, &[]).await;
        assert_eq!(response.status(), 508, "{url}");
    }
}

#[tokio::test]
async fn an_address_with_a_port_listens_there_alone() {
    let args = ["--route", "127.0.0.1:0=https://svc.a.run.app"];
    let (_metadata, _service, sidecar) = started(&args).await;
    for listener in [ROUTE, "proxy", "admin"] {
        let port = sidecar.address(listener).port();
        let connected = tokio::net::TcpStream::connect(("::1", port)).await;
        assert!(connected.is_err(), "{listener}");
    }
}

/// Returns a port that is free on 127.0.0.1 and taken on ::1, and the listener that takes it.
fn taken_on_ipv6() -> Option<(std::net::TcpListener, u16)> {
    (0..64).find_map(|_| {
        let taken = std::net::TcpListener::bind("[::1]:0").ok()?;
        let port = taken.local_addr().ok()?.port();
        std::net::TcpListener::bind(("127.0.0.1", port)).ok()?;
        Some((taken, port))
    })
}

#[tokio::test]
async fn a_request_for_an_unknown_path_or_host_of_a_route_is_logged_with_its_url() {
    let route = "127.0.0.1:0/v1=https://svc.a.run.app";
    let (_metadata, _service, sidecar) = started(&["--route", route]).await;
    let at = sidecar.address(route.split('=').next().unwrap());
    for (path, host, status) in [
        ("/other?secret", at.to_string(), 404),
        ("/v1/x?secret", "evil.example.com".to_owned(), 421),
    ] {
        let mut app = Wire::open(at).await;
        app.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        let (head, _) = app.message().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        let url = format!("http://{host}{}", path.replace("secret", "…"));
        let line = sidecar
            .logged(|line| line["httpRequest"]["status"] == status)
            .await;
        assert_eq!(line["httpRequest"]["requestUrl"], url.as_str(), "{line}");
    }
}

#[test]
fn a_port_in_use_on_ipv6_only_is_an_error_with_the_address() {
    let Some((_taken, port)) = taken_on_ipv6() else {
        return;
    };
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_sidentity"))
        .args(["run", "--proxy", "off", "--admin", "off", "--route"])
        .arg(format!("{port}=https://svc.a.run.app"))
        .env_clear()
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    let wanted = format!(
        "cannot listen on [::1]:{port}: the address is in use by another process; choose another with --route {port}=… (port 0 takes a free one)"
    );
    assert!(said.contains(&wanted), "{said}");
}

#[tokio::test]
async fn routes_on_the_same_port_of_ipv4_and_ipv6_are_separate() {
    let Some((taken, port)) = taken_on_ipv6() else {
        return;
    };
    drop(taken);
    let (first, second) = (
        format!("{port}=https://svc.a.run.app"),
        format!("[::1]:{port}=https://other.a.run.app"),
    );
    let (_metadata, service, _sidecar) = started(&["--route", &first, "--route", &second]).await;
    for ip in ["127.0.0.1", "[::1]"] {
        get(format!("{ip}:{port}").parse().unwrap(), "/").await;
    }
    let hosts: Vec<_> = service.seen().into_iter().map(|seen| seen.host).collect();
    assert_eq!(hosts, ["svc.a.run.app", "other.a.run.app"]);
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
async fn a_route_to_functions_takes_the_audience_from_each_path() {
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
async fn a_call_with_a_credential_in_the_query_gets_no_token() {
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
    // An ID token is added beside the app's own credential, as beside an Authorization.
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
async fn signed_urls_keys_and_upload_sessions_pass_unchanged() {
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
    // Requests without a token are counted as `none`.
    sidecar
        .counted(
            r#"sidentity_requests_total{code="200",credential="none",listener="127.0.0.1:0"} 5"#,
        )
        .await;
}

/// An upstream that removes trailing slashes redirects such a request without end.
#[tokio::test]
async fn a_request_for_exactly_the_prefix_gets_no_further_slash() {
    let route = "127.0.0.1:0/api=https://storage.googleapis.com/two";
    let (_metadata, service, sidecar) = started(&["--route", route]).await;
    let at = sidecar.address("127.0.0.1:0/api");
    for (path, sent) in [("/api", "/two"), ("/api?q", "/two?q"), ("/api/", "/two/")] {
        get(at, path).await;
        assert_eq!(service.seen().last().unwrap().target, sent, "{path}");
    }
}

#[tokio::test]
async fn every_location_of_a_redirect_is_kept() {
    let service = Service::answering(|_| {
        let mut response = reply(302, "");
        for location in [
            "https://svc.a.run.app/one",
            "https://elsewhere.example.com/",
            "https://svc.a.run.app/two",
        ] {
            let headers = response.headers_mut();
            headers.append("location", location.parse().unwrap());
        }
        response
    })
    .await;
    let route = format!("{ROUTE}=https://svc.a.run.app");
    let (_metadata, sidecar) = started_with(&service, &["--route", &route]).await;
    let address = sidecar.address(ROUTE);
    let response = get(address, "/").await;
    let locations: Vec<_> = response.headers().get_all("location").iter().collect();
    assert_eq!(
        locations,
        [
            &*format!("http://{address}/one"),
            "https://elsewhere.example.com/",
            &*format!("http://{address}/two"),
        ]
    );
}
