//! Caps on connections: who is over one waits its turn, and not for ever.

use std::sync::Arc;
use std::time::Duration;

use sidentity::config::HttpVersion;
use sidentity::destination::Scheme;
use sidentity::error::ErrorKind;
use tokio::task::JoinSet;

use crate::client::{Client, Setting, get, h2c, http, target, whole};
use crate::support::upstream::{Honest, Manner};

#[tokio::test]
async fn requests_over_the_targets_cap_wait_for_a_connection() {
    let server = Honest::start(Manner::default()).await;
    let client = Arc::new(
        Setting::new(server.address, None)
            .with(|setting| setting.limits.per_target = 3)
            .client(),
    );
    let mut crowd = JoinSet::new();
    for _ in 0..12 {
        let client = Arc::clone(&client);
        crowd.spawn(async move { client.get(&http(), "/hold").await.unwrap() });
    }
    server.held(3).await;
    server.release();
    while let Some(ended) = crowd.join_next().await {
        ended.unwrap();
    }
    assert_eq!(server.accepted(), 3);
    assert_eq!(server.seen().len(), 12);
}

#[tokio::test]
async fn over_the_targets_cap_for_too_long_is_an_error() {
    let server = Honest::start(Manner::default()).await;
    let client = Setting::new(server.address, None)
        .with(|setting| {
            setting.limits.per_target = 1;
            setting.config.connect_timeout = Duration::from_secs(1);
        })
        .client();
    let target = http();
    let held = client.upstream.send(&target, get("/hold"));
    let refused = async {
        server.held(1).await;
        client
            .fails(
                &http(),
                get("/"),
                ErrorKind::LimitReached,
                &["all 1 connections"],
            )
            .await;
        server.release();
    };
    let (held, ()) = tokio::join!(held, refused);
    whole(held.unwrap()).await;
    client.get(&http(), "/").await.unwrap();
}

#[tokio::test]
async fn over_the_cap_of_all_targets_idle_connections_make_room() {
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

#[tokio::test]
async fn over_the_cap_of_all_targets_for_too_long_is_an_error() {
    let server = Honest::start(Manner::default()).await;
    let client = Setting::new(server.address, None)
        .with(|setting| {
            setting.limits.connections = 1;
            setting.config.connect_timeout = Duration::from_secs(1);
        })
        .client();
    let target = http();
    let held = client.upstream.send(&target, get("/hold"));
    let refused = async {
        server.held(1).await;
        client
            .fails(
                &h2c(),
                get("/"),
                ErrorKind::LimitReached,
                &["all 1 upstream"],
            )
            .await;
        server.release();
    };
    let (held, ()) = tokio::join!(held, refused);
    whole(held.unwrap()).await;
    client.get(&h2c(), "/").await.unwrap();
}

#[tokio::test]
async fn no_more_than_so_many_idle_connections_are_kept() {
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

/// A busy app of a thousand connections had its upstream dialled for two calls in three.
#[tokio::test]
async fn a_second_burst_of_four_hundred_calls_dials_nobody() {
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
async fn many_targets_do_not_pile_up() {
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
async fn who_waits_for_a_place_gets_that_of_a_connection_that_falls_idle() {
    for (busy, waits) in [(http(), h2c()), (h2c(), http())] {
        let server = Honest::start(Manner::default()).await;
        let client = Setting::new(server.address, None)
            .with(|setting| setting.limits.connections = 1)
            .client();
        let held = client.upstream.send(&busy, get("/hold"));
        let waiting = async {
            server.held(1).await;
            let mut waiting = std::pin::pin!(client.get(&waits, "/"));
            // In line before the other is done.
            for _ in 0..100 {
                tokio::select! {
                    biased;
                    _ = &mut waiting => panic!("over the cap"),
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
async fn who_waits_longest_is_served_first() {
    let one_target = vec![http(); 6];
    let targets = (0..6).map(|n| target(Scheme::Http, &format!("n{n}.example"), HttpVersion::Auto));
    for (targets, per_target) in [(one_target, true), (targets.collect(), false)] {
        let server = Honest::start(Manner::default()).await;
        let setting = Setting::new(server.address, None).with(|setting| match per_target {
            true => setting.limits.per_target = 1,
            false => setting.limits.connections = 1,
        });
        let client = Arc::new(setting.client());
        let held = client.upstream.send(&targets[0], get("/hold"));
        let waiting = async {
            server.held(1).await;
            let mut line = JoinSet::new();
            for (n, target) in targets.iter().cloned().enumerate() {
                let client = Arc::clone(&client);
                line.spawn(async move { client.get(&target, &format!("/{n}")).await.unwrap() });
                // In line before the next one comes.
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                assert!(line.try_join_next().is_none(), "over the cap");
            }
            server.release();
            while let Some(ended) = line.join_next().await {
                ended.unwrap();
            }
        };
        let done = async { whole(held.await.unwrap()).await };
        tokio::join!(done, waiting);
        let order: Vec<_> = server
            .seen()
            .iter()
            .map(|seen| seen.uri.to_string())
            .collect();
        assert_eq!(order, ["/hold", "/0", "/1", "/2", "/3", "/4", "/5"]);
    }
}
