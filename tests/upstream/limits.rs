//! Limits of connections: requests over a limit wait in order, for a limited time.

use std::sync::Arc;
use std::time::Duration;

use sidentity::config::HttpVersion;
use sidentity::destination::Scheme;
use sidentity::error::ErrorKind;
use sidentity::upstream::{PoolLimits, Target};
use tokio::task::JoinSet;

use crate::client::{Client, Setting, get, h2c, http, target, whole};
use crate::support::upstream::{Honest, Manner};

/// The targets of six requests, and the limit that serves one of them at a time.
type Case = (Vec<Target>, fn(&mut PoolLimits));

#[tokio::test]
async fn requests_over_the_limit_of_a_target_wait_for_a_connection() {
    let server = Honest::start(Manner::default()).await;
    let client = Arc::new(
        Setting::new(server.address, None)
            .with(|setting| setting.limits.per_target = 3)
            .client(),
    );
    let mut requests = JoinSet::new();
    for _ in 0..12 {
        let client = Arc::clone(&client);
        requests.spawn(async move { client.get(&http(), "/hold").await.unwrap() });
    }
    server.held(3).await;
    server.release();
    while let Some(ended) = requests.join_next().await {
        ended.unwrap();
    }
    assert_eq!(server.accepted(), 3);
    assert_eq!(server.seen().len(), 12);
}

#[tokio::test]
async fn idle_connections_are_closed_over_the_limit_of_all_targets() {
    let server = Honest::start(Manner::default()).await;
    let client = Setting::new(server.address, None)
        .with(|setting| setting.limits.connections = 2)
        .client();
    for round in 0..3 {
        for name in ["a.example", "b.example", "c.example", "d.example"] {
            for http in [HttpVersion::Http1, HttpVersion::Http2] {
                let target = target(Scheme::Http, name, http);
                let got = client.get(&target, "/").await;
                assert!(got.is_ok(), "round {round}, {name}: {got:?}");
            }
        }
    }
    assert!(client.metric("sidentity_upstream_connections") <= 2.0);
}

/// A request that waits for longer than the connect timeout fails, and the next one succeeds.
async fn waits_too_long(limit: fn(&mut PoolLimits), waits: Target, detail: &str) {
    let server = Honest::start(Manner::default()).await;
    let client = Setting::new(server.address, None)
        .with(|setting| {
            limit(&mut setting.limits);
            setting.config.connect_timeout = Duration::from_secs(1);
        })
        .client();
    let target = http();
    let held = client.upstream.send(&target, get("/hold"));
    let refused = async {
        server.held(1).await;
        client
            .fails(&waits, get("/"), ErrorKind::LimitReached, &[detail])
            .await;
        server.release();
    };
    let (held, ()) = tokio::join!(held, refused);
    whole(held.unwrap()).await;
    client.get(&waits, "/").await.unwrap();
}

#[tokio::test]
async fn a_request_that_waits_too_long_for_a_connection_fails() {
    waits_too_long(|limits| limits.per_target = 1, http(), "all 1 connections").await;
    waits_too_long(|limits| limits.connections = 1, h2c(), "all 1 upstream").await;
}

#[tokio::test]
async fn idle_connections_over_the_limit_are_closed() {
    let server = Honest::start(Manner::default()).await;
    let client = Setting::new(server.address, None)
        .with(|setting| setting.limits.idle = 2)
        .client();
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(client.send(&http(), get("/bytes/1000000")).await.unwrap());
    }
    for response in open {
        whole(response).await;
    }
    client.connections(2).await;
    server.open(2).await;
}

/// With a smaller limit of idle connections, a second burst would dial again.
#[tokio::test]
async fn a_second_burst_of_requests_reuses_the_connections() {
    const BURST: usize = 400;
    let server = Honest::start(Manner::default()).await;
    let client = Arc::new(Client::plain(server.address));
    for _ in 0..2 {
        let mut burst = JoinSet::new();
        for _ in 0..BURST {
            let client = Arc::clone(&client);
            burst.spawn(async move { client.get(&http(), "/hold").await.unwrap() });
        }
        server.held(BURST).await;
        server.release();
        while let Some(ended) = burst.join_next().await {
            ended.unwrap();
        }
    }
    assert_eq!(server.accepted(), BURST);
}

#[tokio::test]
async fn pools_of_closed_connections_are_dropped() {
    let server = Honest::start(Manner::default()).await;
    let client = Client::plain(server.address);
    for n in 0..600 {
        let name = format!("n{n}.example");
        client
            .get(&target(Scheme::Http, &name, HttpVersion::Auto), "/close")
            .await
            .unwrap();
    }
    client.connections(0).await;
    assert_eq!(server.seen().len(), 600);
}

#[tokio::test]
async fn a_waiting_request_gets_the_permit_of_a_connection_that_becomes_idle() {
    for (busy, waits) in [(http(), h2c()), (h2c(), http())] {
        let server = Honest::start(Manner::default()).await;
        let client = Setting::new(server.address, None)
            .with(|setting| setting.limits.connections = 1)
            .client();
        let held = client.upstream.send(&busy, get("/hold"));
        let waiting = async {
            server.held(1).await;
            let mut waiting = std::pin::pin!(client.get(&waits, "/"));
            // The request waits before the other ends.
            for _ in 0..100 {
                tokio::select! {
                    biased;
                    _ = &mut waiting => panic!("over the limit"),
                    () = tokio::task::yield_now() => {}
                }
            }
            server.release();
            waiting.await.unwrap();
        };
        let done = async { whole(held.await.unwrap()).await };
        tokio::join!(done, waiting);
    }
}

#[tokio::test]
async fn waiting_requests_are_served_in_order() {
    let some = (0..6).map(|n| target(Scheme::Http, &format!("n{n}.example"), HttpVersion::Auto));
    let cases: [Case; 3] = [
        (vec![http(); 6], |limits| limits.per_target = 1),
        (some.collect(), |limits| limits.connections = 1),
        (vec![h2c(); 6], |limits| {
            (limits.connections, limits.streams) = (1, 1)
        }),
    ];
    for (targets, limit) in cases {
        let server = Honest::start(Manner::default()).await;
        let setting = Setting::new(server.address, None).with(|setting| limit(&mut setting.limits));
        let client = Arc::new(setting.client());
        let held = client.upstream.send(&targets[0], get("/hold"));
        let waiting = async {
            server.held(1).await;
            let mut waiting = JoinSet::new();
            for (n, target) in targets.iter().cloned().enumerate() {
                let client = Arc::clone(&client);
                waiting.spawn(async move { client.get(&target, &format!("/{n}")).await.unwrap() });
                // The request waits before the next one begins.
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                assert!(waiting.try_join_next().is_none(), "over the limit");
            }
            server.release();
            while let Some(ended) = waiting.join_next().await {
                ended.unwrap();
            }
        };
        let done = async { whole(held.await.unwrap()).await };
        tokio::join!(done, waiting);
        let order: Vec<_> = server
            .seen()
            .iter()
            .map(|seen| seen.uri.rsplit('/').next().unwrap().to_owned())
            .collect();
        assert_eq!(order, ["hold", "0", "1", "2", "3", "4", "5"]);
    }
}
