//! PINGs: gRPC servers close a connection with more than one in 5 minutes without data.

use std::time::Duration;

use http::Method;

use crate::client::{Client, get, h2c, request};
use crate::support::hostile::Hostile;
use crate::support::upstream::AnyBody;

const MINUTE: Duration = Duration::from_secs(60);

/// The times of the PINGs, in seconds after the start of their connection.
fn pings(server: &Hostile) -> Vec<u64> {
    let ping = |head: &String| Some(head.strip_prefix("PING ")?.parse::<u64>().unwrap() / 1000);
    server.heads().iter().filter_map(ping).collect()
}

/// A server-streaming call without a message for a quarter of an hour.
#[tokio::test]
async fn a_quiet_stream_is_pinged_less_than_once_in_five_minutes() {
    let server = Hostile::counts_pings(true, usize::MAX).await;
    let client = Client::plain(server.address);
    let response = client.send(&h2c(), get("/")).await.unwrap();
    // From here on, time is paused and advances when all tasks are idle.
    tokio::time::pause();
    tokio::time::sleep(16 * MINUTE).await;
    assert_eq!(pings(&server), [330, 660]);
    drop(response);
}

#[tokio::test]
async fn a_request_that_waits_on_a_silent_connection_is_pinged_for_once() {
    let server = Hostile::counts_pings(false, usize::MAX).await;
    let client = Client::plain(server.address);
    let target = h2c();
    let sent = request(Method::POST, "/", AnyBody::default());
    let mut sending = Box::pin(client.upstream.send(&target, sent));
    tokio::select! {
        _ = &mut sending => panic!("answered"),
        () = server.heard(1) => {}
    }
    tokio::time::pause();
    let waited = tokio::time::timeout(7 * MINUTE, sending).await;
    assert!(waited.is_err(), "it goes on waiting");
    assert_eq!(pings(&server), [30, 360]);
}

#[tokio::test]
async fn a_connection_without_streams_is_never_pinged() {
    let server = Hostile::counts_pings(true, usize::MAX).await;
    let client = crate::client::Setting::new(server.address, None)
        .with(|setting| setting.config.idle_timeout = 60 * MINUTE)
        .client();
    drop(client.send(&h2c(), get("/")).await.unwrap());
    tokio::time::pause();
    tokio::time::sleep(30 * MINUTE).await;
    assert_eq!(pings(&server), Vec::<u64>::new());
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn after_too_many_pings_an_upstream_gets_half_as_many() {
    let server = Hostile::counts_pings(true, 1).await;
    let client = Client::plain(server.address);
    for (call, expected) in [330, 660, 1320].into_iter().enumerate() {
        let response = client.send(&h2c(), get("/")).await.unwrap();
        tokio::time::pause();
        tokio::time::sleep(23 * MINUTE).await;
        tokio::time::resume();
        drop(response);
        assert_eq!(pings(&server)[call], expected);
    }
}
