//! The end of the process: SIGTERM, SIGINT, and a second signal.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::support::app::{get, proxied};
use super::support::service::Service;
use super::support::wire::Wire;
use super::{started, started_with};

const URL: &str = "http://storage.googleapis.com/";

#[tokio::test]
async fn after_sigterm_requests_are_served_until_none_is_left() {
    let (_metadata, service, mut sidecar) = started(&[]).await;
    let admin = sidecar.admin();
    assert_eq!(get(admin, "/readiness").await.status(), 200);
    sidecar.signal("TERM");
    sidecar
        .logged(|line| {
            line["message"]
                .as_str()
                .is_some_and(|m| m.starts_with("draining"))
        })
        .await;
    assert_eq!(get(admin, "/readiness").await.status(), 503);
    assert_eq!(get(admin, "/liveness").await.status(), 200);
    assert_eq!(proxied(sidecar.proxy(), URL, &[]).await.status(), 200);
    let began = Instant::now();
    assert_eq!(sidecar.ended().await.code(), Some(0));
    let took = began.elapsed();
    assert!(
        took > Duration::from_millis(800),
        "not quiet for a second yet: {took:?}"
    );
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(service.seen().len(), 1);
}

#[tokio::test]
async fn idle_connections_do_not_delay_the_drain() {
    let (_metadata, _service, mut sidecar) = started(&["--drain-timeout", "25s"]).await;
    let mut mute = Wire::open(sidecar.proxy()).await;
    let mut preface = Wire::open(sidecar.proxy()).await;
    preface.send("PRI * HTTP/2.0\r\n").await;
    let mut begun = Wire::open(sidecar.proxy()).await;
    begun.send("GET http://storage.googleapis.com/ HT").await;
    let mut used = Wire::open(sidecar.proxy()).await;
    used.send(format!(
        "GET {URL} HTTP/1.1\r\nHost: storage.googleapis.com\r\n\r\n"
    ))
    .await;
    assert!(used.head().await.starts_with("HTTP/1.1 200 "));
    let began = Instant::now();
    sidecar.signal("TERM");
    assert_eq!(sidecar.ended().await.code(), Some(0));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(12), "{took:?}");
    for wire in [&mut mute, &mut preface, &mut begun, &mut used] {
        wire.rest().await;
    }
}

/// The drain ends before no request was in flight for a second.
#[tokio::test]
async fn a_short_drain_without_requests_reports_none_that_is_cut_off() {
    let (_metadata, _service, mut sidecar) = started(&["--drain-timeout", "300ms"]).await;
    sidecar.signal("TERM");
    assert_eq!(sidecar.ended().await.code(), Some(0));
    // The last line may be read after the end.
    sidecar.logged(|line| line["message"] == "drained").await;
    let log = format!("{:?}", sidecar.log());
    assert!(!log.contains("cut off"), "{log}");
}

#[tokio::test]
async fn an_endless_request_is_cut_off_at_the_end_of_the_drain() {
    let service = Service::start().await;
    let (_metadata, mut sidecar) = started_with(&service, &["--drain-timeout", "2s"]).await;
    let proxy = sidecar.proxy();
    let stuck = tokio::spawn(async move {
        let request = http::Request::get("http://storage.googleapis.com/stuck")
            .header("host", "storage.googleapis.com")
            .body(Bytes::new());
        super::support::app::try_send(proxy, request.unwrap())
            .await
            .is_err()
    });
    service.arrived(1).await;
    let began = Instant::now();
    sidecar.signal("INT");
    assert_eq!(sidecar.ended().await.code(), Some(0));
    let took = began.elapsed();
    assert!(
        took > Duration::from_millis(1900) && took < Duration::from_secs(6),
        "{took:?}"
    );
    assert!(stuck.await.unwrap());
    let log = sidecar.log();
    let cut_off = log
        .iter()
        .find(|line| line["message"].to_string().contains("cut off"));
    assert_eq!(cut_off.unwrap()["in_flight"], 1, "{log:?}");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    for (name, number) in [("TERM", 15), ("INT", 2)] {
        let (_metadata, _service, mut sidecar) = started(&[]).await;
        sidecar.signal("TERM");
        sidecar
            .logged(|line| {
                line["message"]
                    .as_str()
                    .is_some_and(|m| m.starts_with("draining"))
            })
            .await;
        let began = Instant::now();
        sidecar.signal(name);
        assert_eq!(sidecar.ended().await.code(), Some(128 + number));
        assert!(began.elapsed() < Duration::from_millis(900));
        let line = sidecar
            .logged(|line| {
                line["message"]
                    .as_str()
                    .is_some_and(|m| m.starts_with("a second signal"))
            })
            .await;
        assert_eq!(line["severity"], "WARNING");
    }
}
