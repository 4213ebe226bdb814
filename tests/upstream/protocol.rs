//! Upstreams that violate HTTP or close early: the caller gets the reason, and no request hangs.

use http::Method;
use http_body_util::BodyExt;
use sidentity::error::ErrorKind;

use crate::client::{Client, NAME, get, h2c, http, request, whole};
use crate::support::hostile::Hostile;
use crate::support::upstream::{AnyBody, soon, text};

async fn answering(answer: impl Into<Vec<u8>>) -> (Hostile, Client) {
    let server = Hostile::once(answer).await;
    let client = Client::plain(server.address);
    (server, client)
}

#[tokio::test]
async fn closed_or_reset_before_an_answer_is_connection_terminated() {
    for server in [Hostile::closes_after_head().await, Hostile::resets().await] {
        let client = Client::plain(server.address);
        let sent = request(Method::POST, "/secret?key=abc", text("body"));
        let place = format!("http://{NAME} at {}", server.address);
        client
            .fails(&http(), sent, ErrorKind::ConnectionTerminated, &[&place])
            .await;
        assert_eq!(server.heads().len(), 1, "a POST is sent once");
        client.connections(0).await;
    }
}

#[tokio::test]
async fn bytes_that_are_not_http_are_a_protocol_error() {
    for garbage in [
        "SSH-2.0-OpenSSH_9.9\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello",
        "\0\0\0\0\r\n\r\n",
    ] {
        let (_server, client) = answering(garbage).await;
        client
            .fails(
                &http(),
                get("/"),
                ErrorKind::HttpProtocol,
                &["not valid HTTP"],
            )
            .await;
        client.connections(0).await;
    }
}

#[tokio::test]
async fn endless_header_fields_are_a_protocol_error() {
    let server = Hostile::endless_headers().await;
    let client = Client::plain(server.address);
    client
        .fails(&http(), get("/"), ErrorKind::HttpProtocol, &[])
        .await;
    server.heard(2).await;
    let sent: usize = server.heads()[1].parse().unwrap();
    assert!(sent < 32 << 20, "{sent} bytes of a head were taken");
}

#[tokio::test]
async fn thirty_two_interim_responses_pass_and_one_more_is_an_error() {
    let server = Hostile::storms(32).await;
    let client = Client::plain(server.address);
    for _ in 0..3 {
        let (status, body) = client.get(&http(), "/").await.unwrap();
        assert_eq!((status.as_u16(), &body[..]), (200, &b"hello"[..]));
    }
    assert_eq!(server.accepted(), 1);
    let server = Hostile::storms(33).await;
    let client = Client::plain(server.address);
    client
        .fails(&http(), get("/"), ErrorKind::HttpProtocol, &["interim"])
        .await;
    assert_eq!(server.heads().len(), 1, "it was sent again");
}

#[tokio::test]
async fn a_body_shorter_than_announced_is_an_error_at_its_end() {
    let server = Hostile::says_less_than_it_told().await;
    let client = Client::plain(server.address);
    let response = client.send(&http(), get("/")).await.unwrap();
    let error = soon(response.into_body().collect()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    // The same without the last chunk.
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let (_server, client) = answering(format!("{head}5\r\nhello\r\n")).await;
    let response = client.send(&http(), get("/")).await.unwrap();
    let error = soon(response.into_body().collect()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    client.connections(0).await;
}

#[tokio::test]
async fn bytes_beyond_the_body_are_not_used_as_a_response() {
    let server = Hostile::says_more_than_it_told().await;
    let client = Client::plain(server.address);
    for _ in 0..10 {
        let (_, body) = client.get(&http(), "/").await.unwrap();
        assert_eq!(body, "hello");
    }
}

#[tokio::test]
async fn a_body_delimited_by_close_is_complete() {
    let (_server, client) = answering("HTTP/1.0 200 OK\r\n\r\nhello").await;
    let (_, body) = client.get(&http(), "/").await.unwrap();
    assert_eq!(body, "hello");
}

#[tokio::test]
async fn an_http1_response_to_an_http2_preface_is_a_protocol_error() {
    let server = Hostile::start(|mut stream, _| async move {
        use tokio::io::AsyncWriteExt;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        crate::support::hostile::until_closed(&mut stream).await;
    })
    .await;
    let client = Client::plain(server.address);
    client
        .fails(&h2c(), get("/"), ErrorKind::HttpProtocol, &["HTTP/2"])
        .await;
    client.connections(0).await;
    // The connection was closed without a byte.
    let server = Hostile::slams().await;
    let client = Client::plain(server.address);
    client
        .fails(&h2c(), get("/"), ErrorKind::ConnectionTerminated, &[])
        .await;
}

#[tokio::test]
async fn invalid_frames_are_a_protocol_error() {
    let server = Hostile::babbles_after_the_preface().await;
    let client = Client::plain(server.address);
    client
        .fails(&h2c(), get("/"), ErrorKind::HttpProtocol, &["HTTP/2"])
        .await;
    client.connections(0).await;
}

#[tokio::test]
async fn an_upstream_that_always_closes_after_the_preface_is_given_up() {
    let server = Hostile::leaves_after_the_preface().await;
    let client = Client::plain(server.address);
    client
        .fails(&h2c(), get("/"), ErrorKind::ConnectionTerminated, &[])
        .await;
    assert!(server.accepted() <= 3, "{}", server.accepted());
    client.connections(0).await;
}

#[tokio::test]
async fn a_reset_stream_is_an_error_with_its_code() {
    for (reason, kind) in [
        (h2::Reason::INTERNAL_ERROR, ErrorKind::ConnectionTerminated),
        (h2::Reason::CANCEL, ErrorKind::ConnectionTerminated),
        (h2::Reason::PROTOCOL_ERROR, ErrorKind::HttpProtocol),
        (h2::Reason::HTTP_1_1_REQUIRED, ErrorKind::HttpProtocol),
    ] {
        let server = Hostile::resets_streams(reason).await;
        let client = Client::plain(server.address);
        client
            .fails(&h2c(), get("/"), kind, &[reason.description()])
            .await;
        assert_eq!(server.heads().len(), 1, "sent once");
    }
}

#[tokio::test]
async fn a_stalled_upstream_is_limited_only_by_the_callers_deadline() {
    let server = Hostile::stalls().await;
    let client = Client::plain(server.address);
    let target = http();
    {
        let mut sending = std::pin::pin!(client.upstream.send(&target, get("/")));
        tokio::select! {
            _ = &mut sending => panic!("answered"),
            () = server.heard(1) => {}
        }
    }
    server.closed(1).await;
    client.connections(0).await;
}

#[tokio::test]
async fn responses_without_a_body_are_complete_at_once() {
    use http_body::Body;
    let server = Hostile::always("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n").await;
    let client = Client::plain(server.address);
    for _ in 0..5 {
        let response = client.send(&http(), get("/")).await.unwrap();
        assert!(response.body().is_end_stream());
        // A response that is dropped unread still returns its connection.
        drop(response);
        tokio::task::yield_now().await;
    }
    let head = request(Method::HEAD, "/", Default::default());
    let response = client.send(&http(), head).await.unwrap();
    assert_eq!(response.headers()["content-length"], "5");
    assert!(whole(response).await.is_empty());
}

#[tokio::test]
async fn a_connection_without_ping_responses_is_closed() {
    let server = Hostile::falls_silent_after_the_preface().await;
    let client = Client::plain(server.address);
    let target = h2c();
    // Not a GET, which would be resent on another connection.
    let sent = request(Method::POST, "/", AnyBody::default());
    let mut sending = Box::pin(client.upstream.send(&target, sent));
    tokio::select! {
        _ = &mut sending => panic!("answered"),
        () = server.heard(1) => {}
    }
    // From here on, time is paused and advances when all tasks are idle.
    tokio::time::pause();
    let soon = std::time::Duration::from_secs(70);
    let given_up = tokio::time::timeout(soon, sending).await.unwrap();
    let error = given_up.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionTerminated);
    assert!(error.detail().contains("PING"), "{}", error.detail());
}
