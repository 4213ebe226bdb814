//! Bodies are streamed: no body is collected, and each side determines the pace of the other.

use http::Method;
use http_body::{Body, Frame};
use http_body_util::BodyExt;

use crate::client::{Client, get, h2c, http, https, request, secure};
use crate::support::upstream::{Honest, Manner, broken, channel, soon, text};

const MIB: u64 = 1024 * 1024;

/// Bytes that are sent and not read are in windows and buffers, for any speed of the reader and any length of the body.
#[tokio::test]
async fn a_large_download_is_streamed_at_the_readers_pace() {
    for alpn in ["http/1.1", "h2"] {
        let (server, client) = secure(&[alpn]).await;
        let sent = get("/bytes/67108864");
        let mut body = client.send(&https(), sent).await.unwrap().into_body();
        let (mut received, mut most) = (0, 0);
        while let Some(frame) = soon(body.frame()).await {
            received += frame.unwrap().into_data().unwrap().len() as u64;
            // All other tasks run until they block.
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            most = most.max(server.produced() - received);
        }
        assert_eq!(received, 64 * MIB);
        assert!(most < 24 * MIB, "{alpn}: {most} bytes under way");
    }
}

#[tokio::test]
async fn the_length_of_a_body_is_known_if_declared() {
    for alpn in ["http/1.1", "h2"] {
        let (_server, client) = secure(&[alpn]).await;
        let response = client.send(&https(), get("/bytes/1000")).await.unwrap();
        assert_eq!(response.body().size_hint().exact(), Some(1000));
        assert!(!response.body().is_end_stream());
        let response = client.send(&https(), get("/nothing")).await.unwrap();
        assert!(response.body().is_end_stream());
    }
}

#[tokio::test]
async fn frames_stream_both_ways_at_once() {
    for target in [http(), h2c()] {
        let server = Honest::start(Manner::default()).await;
        let client = Client::plain(server.address);
        let (sender, body) = channel();
        let sent = request(Method::POST, "/echo", body);
        let mut echo = client.send(&target, sent).await.unwrap().into_body();
        for word in ["one", "two", "three"] {
            sender.send(Frame::data(word.into())).await.unwrap();
            let frame = soon(echo.frame()).await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), word);
        }
        drop(sender);
        let rest = soon(echo.collect()).await.unwrap();
        assert!(rest.to_bytes().is_empty());
        client.get(&target, "/").await.unwrap();
        assert_eq!(server.accepted(), 1);
    }
}

#[tokio::test]
async fn a_response_before_the_end_of_the_upload_reaches_the_caller() {
    for target in [http(), h2c()] {
        let server = Honest::start(Manner::default()).await;
        let client = Client::plain(server.address);
        let (sender, body) = channel();
        let sent = request(Method::POST, "/early", body);
        let response = client.send(&target, sent).await.unwrap();
        let body = soon(response.into_body().collect()).await.unwrap();
        assert_eq!(body.to_bytes(), "not read");
        drop(sender);
        client.get(&target, "/").await.unwrap();
    }
}

#[tokio::test]
async fn a_truncated_upload_is_the_callers_error_and_stays_incomplete() {
    use sidentity::error::ErrorKind;
    for target in [http(), h2c()] {
        let server = Honest::start(Manner::default()).await;
        let client = Client::plain(server.address);
        let sent = request(Method::POST, "/hold", broken());
        client
            .fails(&target, sent, ErrorKind::BadRequest, &["body"])
            .await;
        let sent = request(Method::POST, "/echo", text("ping"));
        assert!(client.send(&target, sent).await.is_ok());
    }
}
