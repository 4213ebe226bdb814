//! HTTP/1.1: connections are kept, the most recently used is reused first, and old ones are closed.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Version};
use http_body_util::BodyExt;

use crate::client::{Client, Setting, get, http, https, request, secure, whole};
use crate::support::hostile::Hostile;
use crate::support::upstream::{AnyBody, Honest, Manner, text};

#[tokio::test]
async fn a_request_arrives_in_origin_form_with_the_destinations_host() {
    let server = Honest::start(Manner::default()).await;
    let client = Client::plain(server.address);
    let mut sent = get("http://localhost:8081/a/b?c=d");
    sent.headers_mut()
        .insert("host", HeaderValue::from_static("localhost:8081"));
    sent.headers_mut()
        .insert("x-kept", HeaderValue::from_static("1"));
    let response = client.send(&http(), sent).await.unwrap();
    assert_eq!(whole(response).await, "hello");
    let seen = server.only();
    assert_eq!(seen.uri, "/a/b?c=d");
    assert_eq!(seen.version, Version::HTTP_11);
    assert_eq!(seen.headers["host"], "api.example");
    assert_eq!(seen.headers["x-kept"], "1");
}

#[tokio::test]
async fn successive_requests_share_a_connection() {
    let (server, client) = secure(&["http/1.1"]).await;
    for _ in 0..20 {
        client.get(&https(), "/").await.unwrap();
        client.get(&https(), "/nothing").await.unwrap();
        client.get(&https(), "/bytes/100000").await.unwrap();
    }
    assert_eq!(server.accepted(), 1);
    assert_eq!(server.seen()[0].alpn.as_deref(), Some("http/1.1"));
    let ok = client.metric("sidentity_upstream_connects_total{outcome=\"ok\"}");
    assert_eq!(ok, 1.0);
    client.connections(1).await;
}

#[tokio::test]
async fn an_upload_returns_its_connection_to_the_pool() {
    let server = Honest::start(Manner::default()).await;
    let client = Client::plain(server.address);
    for _ in 0..5 {
        let sent = request(Method::POST, "/echo", text("ping"));
        let response = client.send(&http(), sent).await.unwrap();
        assert_eq!(whole(response).await, "ping");
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_body_read_to_its_length_frees_the_connection() {
    let server = Honest::start(Manner::default()).await;
    let client = Client::plain(server.address);
    for _ in 0..5 {
        let mut body = client.send(&http(), get("/")).await.unwrap().into_body();
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "hello");
        assert!(http_body::Body::is_end_stream(&body));
        drop(body);
        // Lets hyper's own task run.
        tokio::task::yield_now().await;
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn the_most_recently_used_connection_is_used_first() {
    let server = Honest::start(Manner::default()).await;
    let client = Client::plain(server.address);
    // Three concurrent connections, which return in this order.
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(client.send(&http(), get("/bytes/1000000")).await.unwrap());
    }
    assert_eq!(server.accepted(), 3);
    for response in open {
        whole(response).await;
    }
    for _ in 0..4 {
        client.get(&http(), "/").await.unwrap();
    }
    let last: Vec<usize> = server.seen()[3..]
        .iter()
        .map(|seen| seen.connection)
        .collect();
    assert_eq!(last, [2, 2, 2, 2]);
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_time() {
    let server = Honest::start(Manner::default()).await;
    let client = Setting::new(server.address, None)
        .with(|setting| setting.config.idle_timeout = Duration::from_millis(50))
        .client();
    client.get(&http(), "/").await.unwrap();
    server.open(0).await;
    client.connections(0).await;
    client.get(&http(), "/").await.unwrap();
    assert_eq!(server.accepted(), 2);
    server.open(0).await;
}

#[tokio::test]
async fn an_expired_connection_is_not_used_before_it_is_closed() {
    let server = Honest::start(Manner::default()).await;
    let client = Setting::new(server.address, None)
        .with(|setting| setting.config.idle_timeout = Duration::ZERO)
        .client();
    client.get(&http(), "/").await.unwrap();
    client.get(&http(), "/").await.unwrap();
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn idle_connections_are_not_used_after_a_freeze() {
    let server = Honest::start(Manner::default()).await;
    let client = Client::plain(server.address);
    client.get(&http(), "/").await.unwrap();
    client.upstream.close_idle();
    server.open(0).await;
    client.get(&http(), "/").await.unwrap();
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn a_connection_that_the_upstream_closes_is_not_reused() {
    let server = Honest::start(Manner::default()).await;
    let client = Client::plain(server.address);
    for _ in 0..3 {
        client.get(&http(), "/close").await.unwrap();
    }
    assert_eq!(server.accepted(), 3);
    // Also while idle.
    let server = Hostile::closes_idle().await;
    let client = Client::plain(server.address);
    for round in 1..=3 {
        client.get(&http(), "/").await.unwrap();
        server.closed(round).await;
    }
    assert_eq!(server.heads().len(), 3);
}

#[tokio::test]
async fn the_case_of_field_names_is_kept_both_ways() {
    let server = Hostile::always("HTTP/1.1 200 OK\r\nX-CaSe: 1\r\nContent-Length: 0\r\n\r\n").await;
    let proxy = spelling_proxy(Client::plain(server.address)).await;
    let answer = raw(
        proxy,
        "GET / HTTP/1.1\r\nHost: x\r\nX-My-CaSe: 1\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(answer.contains("X-CaSe: 1"), "{answer}");
    let head = &server.heads()[0];
    assert!(head.contains("X-My-CaSe: 1"), "{head}");
    assert!(head.contains("Host: api.example\r\n"), "{head}");
}

/// Starts a server that keeps the spelling of header names, in front of the client, like the sidecar.
async fn spelling_proxy(client: Client) -> std::net::SocketAddr {
    use hyper::service::service_fn;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
            let mut request = request.map(|_| AnyBody::default());
            request.headers_mut().remove("connection");
            client.upstream.send(HTTP.get_or_init(http), request)
        });
        hyper::server::conn::http1::Builder::new()
            .preserve_header_case(true)
            .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
            .await
            .unwrap();
    });
    address
}

static HTTP: std::sync::OnceLock<sidentity::upstream::Target> = std::sync::OnceLock::new();

async fn raw(address: std::net::SocketAddr, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn big_heads_pass_both_ways() {
    let server = Honest::start(Manner::default()).await;
    let client = Client::plain(server.address);
    let mut sent = get("/");
    sent.headers_mut().insert(
        "x-big",
        HeaderValue::from_str(&"a".repeat(64 * 1024)).unwrap(),
    );
    client.send(&http(), sent).await.unwrap();
    assert_eq!(server.only().headers["x-big"].len(), 64 * 1024);
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-big: {}\r\n{}\r\n",
        "b".repeat(64 * 1024),
        (0..200)
            .map(|n| format!("x-{n}: 1\r\n"))
            .collect::<String>(),
    );
    let server = Hostile::always(answer).await;
    let client = Client::plain(server.address);
    let response = client.send(&http(), get("/")).await.unwrap();
    assert_eq!(response.headers()["x-big"].len(), 64 * 1024);
    assert_eq!(response.headers().len(), 202);
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let server = Honest::start(Manner::default()).await;
    let client = Client::plain(server.address);
    let (sender, body) = crate::support::upstream::channel();
    let mut sent = request(Method::POST, "/echo", body);
    let headers = sent.headers_mut();
    headers.insert("te", HeaderValue::from_static("trailers"));
    headers.insert("trailer", HeaderValue::from_static("x-sum"));
    let target = http();
    let response = client.send(&target, sent);
    let feed = async {
        let data = http_body::Frame::data("ping".into());
        sender.send(data).await.unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert(
            HeaderName::from_static("x-sum"),
            HeaderValue::from_static("7"),
        );
        sender
            .send(http_body::Frame::trailers(trailers))
            .await
            .unwrap();
        drop(sender);
    };
    let (response, ()) = tokio::join!(response, feed);
    let collected = response.unwrap().into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-sum"], "7");
    client.get(&http(), "/").await.unwrap();
    assert_eq!(server.accepted(), 1);
}
