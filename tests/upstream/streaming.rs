//! Bodies stream: nothing is collected, and each side goes at the other's pace.

use http::Method;
use http_body::{Body, Frame};
use http_body_util::BodyExt;

use crate::client::{Client, get, h2c, http, https, request, secure};
use crate::support::upstream::{Honest, Manner, broken, channel, soon, text};

const MIB: u64 = 1024 * 1024;

/// Resident memory of this process, in bytes (Linux).
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// Four times as much through a connection as all its windows hold.
#[tokio::test]
async fn a_large_download_takes_no_more_memory_than_the_windows() {
    for alpn in ["http/1.1", "h2"] {
        let (_server, client) = secure(&[alpn]).await;
        let before = resident();
        let sent = get("/bytes/67108864");
        let mut body = client.send(&https(), sent).await.unwrap().into_body();
        let (mut received, mut highest) = (0, 0);
        while let Some(frame) = soon(body.frame()).await {
            received += frame.unwrap().into_data().unwrap().len() as u64;
            highest = highest.max(resident());
        }
        assert_eq!(received, 64 * MIB);
        let grown = highest.saturating_sub(before) / MIB;
        assert!(grown < 40, "{alpn}: {grown} MiB for 64 MiB");
    }
}

#[tokio::test]
async fn an_unread_body_stops_the_upstream() {
    use std::time::Duration;
    let server = Honest::start(Manner::default()).await;
    let client = Client::plain(server.address);
    for target in [http(), h2c()] {
        let response = client.send(&target, get("/endless")).await.unwrap();
        let before = resident();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(resident().saturating_sub(before) < 64 * MIB);
        drop(response);
    }
    server.cancelled(2).await;
}

#[tokio::test]
async fn the_length_of_a_body_is_known_where_the_upstream_says_it() {
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
async fn both_ways_at_once_each_frame_as_it_comes() {
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
async fn an_answer_before_the_upload_is_whole_reaches_the_caller() {
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
async fn an_upload_that_breaks_off_is_the_callers_fault_and_reaches_no_end() {
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
