//! Transient failures: which are retried, how often and for how long.

use std::time::{Duration, Instant};

use sidentity::error::ErrorKind;

use super::support::metadata::{Answer, Kind, Metadata};
use super::{access, access_slot, cache_for, error, get};

#[tokio::test]
async fn a_server_that_is_starting_is_retried() {
    let (server, slot) = access_slot([
        Answer::status(503, "starting"),
        Answer::status(503, "starting"),
        Answer::access("T1", 3600),
    ])
    .await;
    let start = Instant::now();
    assert_eq!(get(&slot).await, "T1");
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(server.count(Kind::Access), 3);
}

#[tokio::test]
async fn every_transient_error_is_retried() {
    for trouble in [
        Answer::status(408, ""),
        Answer::status(429, ""),
        Answer::status(500, ""),
        Answer::status(502, "").without_flavor(),
        Answer::status(504, ""),
        Answer::close(),
        Answer::reset(),
        Answer::raw("HTTP/1.1 200 OK\r\nMetadata-Fl"),
        Answer::access("SECRET", 3600).torn_at(20),
        Answer::raw(
            "HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n{",
        ),
    ] {
        let (server, slot) = access_slot([trouble, Answer::access("T1", 3600)]).await;
        assert_eq!(get(&slot).await, "T1");
        let connections: Vec<_> = server
            .requests(Kind::Access)
            .iter()
            .map(|r| r.connection)
            .collect();
        assert_eq!(
            connections,
            [1, 2],
            "a connection of its own for each attempt"
        );
    }
}

#[tokio::test]
async fn retry_after_of_a_limited_server_is_obeyed() {
    let (server, slot) = access_slot([
        Answer::status(429, "slow down").header("retry-after", "1"),
        Answer::access("T1", 3600),
    ])
    .await;
    let start = Instant::now();
    assert_eq!(get(&slot).await, "T1");
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(server.count(Kind::Access), 2);
}

#[tokio::test]
async fn a_retry_after_beyond_the_deadline_fails_the_request_at_once() {
    let limited = Answer::status(429, "slow down").header("retry-after", "20");
    let (server, slot) = access_slot([limited]).await;
    let start = Instant::now();
    let failed = error(&slot).await;
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(failed.kind(), ErrorKind::TokenUnavailable);
    assert!(failed.wait().unwrap() > Duration::from_secs(15));
    assert_eq!(server.count(Kind::Access), 1);
}

#[tokio::test]
async fn a_server_that_stays_limited_is_tried_five_times() {
    let (server, slot) = access_slot([Answer::status(429, "Quota exceeded")]).await;
    let failed = error(&slot).await;
    assert_eq!(failed.kind(), ErrorKind::TokenUnavailable);
    let address = server.address();
    assert_eq!(
        failed.detail(),
        format!(
            "token: cannot get an access token (account default) from http://{address}: answered 429 Too Many Requests: \
             \"Quota exceeded\" (5 attempts)"
        )
    );
    assert_eq!(server.count(Kind::Access), 5);
    let start = Instant::now();
    let again = error(&slot).await;
    assert!(start.elapsed() < Duration::from_millis(500));
    assert_eq!(again.detail(), failed.detail());
    let wait = again.wait().unwrap();
    assert!(!wait.is_zero() && wait <= Duration::from_secs(1));
    assert_eq!(server.count(Kind::Access), 5);
}

#[tokio::test]
async fn a_server_that_starts_after_700_ms_is_awaited() {
    let (mut server, slot) = access_slot([Answer::access("T1", 3600)]).await;
    server.stop().await;
    let request = tokio::spawn(async move { get(&slot).await });
    tokio::time::sleep(Duration::from_millis(700)).await;
    server.restart().await;
    assert_eq!(request.await.unwrap(), "T1");
}

#[tokio::test]
async fn an_unreachable_server_is_an_error_with_advice() {
    let (mut server, slot) = access_slot([Answer::never()]).await;
    server.stop().await;
    let failed = error(&slot).await;
    assert_eq!(failed.kind(), ErrorKind::TokenUnavailable);
    for words in [
        "cannot connect",
        "refused",
        "GCE_METADATA_HOST",
        "5 attempts",
    ] {
        assert!(failed.detail().contains(words), "{}", failed.detail());
    }
}

#[tokio::test]
async fn a_silent_server_is_retried_on_a_new_connection() {
    let server = Metadata::start().await;
    server.script(Kind::Access, [Answer::never(), Answer::access("T2", 3600)]);
    let slot = cache_for(&server, Duration::from_millis(300)).slot(&access(&[]));
    let failed = error(&slot).await;
    assert_eq!(failed.kind(), ErrorKind::TokenUnavailable);
    assert!(failed.detail().contains("no response within 0.3 s"));
    tokio::time::sleep(failed.wait().unwrap()).await;
    assert_eq!(get(&slot).await, "T2");
    assert_eq!(server.requests(Kind::Access)[1].connection, 2);
}

#[tokio::test]
async fn an_attempt_cut_short_does_not_hide_the_previous_error() {
    let server = Metadata::start().await;
    let answers = [Answer::status(503, "warming up"), Answer::never()];
    server.script(Kind::Access, answers);
    let slot = cache_for(&server, Duration::from_secs(1)).slot(&access(&[]));
    let failed = error(&slot).await;
    assert!(
        failed.detail().contains("warming up"),
        "{}",
        failed.detail()
    );
    assert_eq!(server.requests(Kind::Access).len(), 2);
}

#[tokio::test]
async fn an_attempt_that_hangs_ends_after_three_seconds() {
    let (server, slot) = access_slot([Answer::never(), Answer::access("T2", 3600)]).await;
    let start = Instant::now();
    assert_eq!(get(&slot).await, "T2");
    let took = start.elapsed();
    assert!(took > Duration::from_secs(3) && took < Duration::from_secs(5));
    assert_eq!(server.count(Kind::Access), 2);
}

#[test]
fn a_response_received_before_a_freeze_is_not_used_after_expiry() {
    let elsewhere = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (server, slot) = elsewhere.block_on(access_slot([
        Answer::access("T1", 34),
        Answer::access("T2", 3600),
    ]));
    let here = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    here.block_on(async {
        slot.refresh_unless_fresh();
        while server.count(Kind::Access) == 0 {
            tokio::task::yield_now().await;
        }
        // The sidecar's code does not run, but the response arrives.
        std::thread::sleep(Duration::from_millis(4_500));
        assert_eq!(get(&slot).await, "T2");
    });
}
