//! Many concurrent operations on several threads: no request hangs, no resource leaks.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use sidentity::upstream::Target;
use tokio::task::JoinSet;

use crate::client::{Client, NAME, Setting, get, https, request, whole};
use crate::support::tls::TestCa;
use crate::support::upstream::{Honest, Manner, soon, text};

/// Runs one of the operations of callers. Some callers leave at any time.
async fn call(client: &Client, target: &Target, n: u64) {
    match n % 6 {
        0 => drop(client.get(target, "/bytes/100000").await.unwrap()),
        1 => {
            let sent = request(Method::POST, "/echo", text("ping"));
            let response = client.send(target, sent).await.unwrap();
            assert_eq!(whole(response).await, "ping");
        }
        2 => drop(client.send(target, get("/endless")).await.unwrap()),
        3 => {
            let wait = Duration::from_micros(50 * (n % 100));
            let sending = client.upstream.send(target, get("/"));
            let _ = tokio::time::timeout(wait, sending).await;
        }
        4 => drop(client.send(target, get("/bytes/1000")).await.unwrap()),
        _ => drop(client.get(target, "/").await.unwrap()),
    }
}

async fn storm(alpn: &[&str]) {
    let ca = TestCa::new();
    let server = Honest::start(Manner {
        tls: Some(ca.leaf(&[NAME]).serving(alpn)),
        max_streams: Some(7),
    })
    .await;
    let client = Setting::new(server.address, Some(&ca))
        .with(|setting| {
            setting.limits.per_target = 16;
            setting.limits.idle = 4;
        })
        .client();
    let client = Arc::new(client);
    let mut callers = JoinSet::new();
    for caller in 0..16 {
        let client = Arc::clone(&client);
        callers.spawn(async move {
            for n in 0..30 {
                call(&client, &https(), caller * 7 + n).await;
            }
        });
    }
    soon(async {
        while let Some(ended) = callers.join_next().await {
            ended.unwrap();
        }
    })
    .await;
    // All permits are free: as many requests as before can be held.
    let mut held = JoinSet::new();
    for _ in 0..16 {
        let client = Arc::clone(&client);
        held.spawn(async move { client.get(&https(), "/hold").await.unwrap() });
    }
    server.held(16).await;
    server.release();
    while let Some(ended) = held.join_next().await {
        ended.unwrap();
    }
    client.upstream.close_idle();
    client.connections(0).await;
    server.open(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cancelled_http1_requests_leave_no_connections_or_memory() {
    storm(&["http/1.1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cancelled_http2_requests_leave_no_streams_or_memory() {
    storm(&["h2"]).await;
}
