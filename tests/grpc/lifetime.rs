//! Deadlines, cancellation, and a thousand calls at once.

use std::time::Duration;

use tokio::sync::mpsc;
use tonic::{Code, Request};

use super::started;
use super::support::app::{get, text};
use super::support::upstream::soon;

#[tokio::test]
async fn a_deadline_that_passes_ends_the_call_upstream() {
    let setting = started(&[]).await;
    let client = setting.proxied();
    let mut request = Request::new(String::new());
    request.set_timeout(Duration::from_secs(1));
    let call = tokio::spawn(async move { client.unary("Hold", request).await });
    setting.service.held(1).await;
    let failed = soon(call).await.unwrap().unwrap_err();
    assert!(
        matches!(failed.code(), Code::Cancelled | Code::DeadlineExceeded),
        "{failed:?}"
    );
    setting.service.given_up(1).await;
    assert!(setting.service.heads()[0].contains_key("grpc-timeout"));
}

#[tokio::test]
async fn a_dropped_call_is_cancelled_upstream_and_counted() {
    let setting = started(&[]).await;
    for client in [setting.proxied(), setting.routed()] {
        let call =
            tokio::spawn(async move { client.unary("Hold", Request::new(String::new())).await });
        setting.service.held(1).await;
        call.abort();
        setting.service.held(0).await;
    }
    setting.service.given_up(2).await;
    let cancelled = |metrics: &str| {
        let line = |line: &&str| {
            line.starts_with("sidentity_requests_total{code=\"cancelled\"") && line.ends_with(" 1")
        };
        metrics.lines().filter(line).count()
    };
    soon(async { while cancelled(text(&get(setting.sidecar.admin(), "/metrics").await)) < 2 {} })
        .await;
}

#[tokio::test]
async fn a_dropped_stream_is_cancelled_upstream() {
    let setting = started(&[]).await;
    for (client, count) in [(setting.proxied(), 1), (setting.routed(), 2)] {
        let mut watch = soon(client.server_streaming("Watch", "hello"))
            .await
            .unwrap();
        assert_eq!(soon(watch.message()).await.unwrap().unwrap(), "hello");
        setting.service.held(1).await;
        drop(watch);
        setting.service.given_up(count).await;
    }
}

#[tokio::test]
async fn a_thousand_concurrent_calls_of_one_client_reach_the_service() {
    let setting = started(&[]).await;
    let client = setting.proxied();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..1000 {
        let client = client.clone();
        calls.spawn(async move {
            let request = Request::new(number.to_string());
            let answer = client.unary("Hold", request).await.unwrap();
            assert_eq!(answer.into_inner(), number.to_string());
        });
    }
    // All calls have arrived before the first is answered.
    setting.service.held(1000).await;
    assert!(setting.service.connections() >= 10);
    setting.service.release();
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
}

#[tokio::test]
async fn a_thousand_chats_of_one_client_are_open_at_once() {
    let setting = started(&[]).await;
    let client = setting.routed();
    let mut chats = Vec::new();
    for number in 0..1000 {
        let (say, said) = mpsc::channel(1);
        say.send(number.to_string()).await.unwrap();
        let chat = soon(client.bidirectional("Chat", said)).await.unwrap();
        chats.push((say, chat));
    }
    setting.service.held(1000).await;
    assert!(setting.service.connections() >= 10);
    for (number, (_, chat)) in chats.iter_mut().enumerate() {
        let text = soon(chat.message()).await.unwrap().unwrap();
        assert_eq!(text, number.to_string());
    }
}
