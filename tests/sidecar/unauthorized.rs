//! The handling of an upstream's 401 and 403.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;

use super::support::app::{proxied, raw, send, text};
use super::support::google::{Endpoints, Google};
use super::support::metadata::{Answer, Kind};
use super::support::service::{Service, reply};
use super::{beside, started_with};

const URL: &str = "http://storage.googleapis.com/";

/// Starts a service that accepts only `T2`.
async fn picky() -> Service {
    Service::answering(|seen| match seen.header("authorization") {
        Some("Bearer T2") => reply(200, "in"),
        _ => reply(401, "who?"),
    })
    .await
}

#[tokio::test]
async fn a_revoked_token_is_replaced_and_the_call_repeated_once() {
    let service = picky().await;
    let (metadata, sidecar) = started_with(&service, &[]).await;
    metadata.script(
        Kind::Access,
        [Answer::access("T1", 3600), Answer::access("T2", 3600)],
    );
    let response = proxied(sidecar.proxy(), URL, &[]).await;
    assert_eq!((response.status().as_u16(), text(&response)), (200, "in"));
    assert_eq!(service.seen().len(), 2);
    assert_eq!(metadata.count(Kind::Access), 2);
}

#[tokio::test]
async fn a_small_body_is_resent() {
    let service = picky().await;
    let (metadata, sidecar) = started_with(&service, &[]).await;
    metadata.script(
        Kind::Access,
        [Answer::access("T1", 3600), Answer::access("T2", 3600)],
    );
    let body = Bytes::from(vec![b'x'; 60_000]);
    let request = Request::post(URL)
        .header("host", "storage.googleapis.com")
        .body(body.clone());
    let response = send(sidecar.proxy(), request.unwrap()).await;
    assert_eq!(response.status(), 200);
    assert!(service.seen().iter().all(|seen| seen.body == body));
}

#[tokio::test]
async fn a_body_in_tens_of_thousands_of_chunks_is_resent() {
    let service = picky().await;
    let (metadata, sidecar) = started_with(&service, &["--upstream-http", "1"]).await;
    metadata.script(
        Kind::Access,
        [Answer::access("T1", 3600), Answer::access("T2", 3600)],
    );
    let mut request = format!(
        "POST {URL} HTTP/1.1\r\nHost: storage.googleapis.com\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    .into_bytes();
    for n in 0..60_000_u32 {
        request.extend([b'1', b'\r', b'\n', b'a' + (n % 23) as u8, b'\r', b'\n']);
    }
    request.extend(b"0\r\n\r\n");
    let answer = raw(sidecar.proxy(), &request).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let seen = service.seen();
    assert_eq!(seen.len(), 2);
    for seen in seen {
        assert_eq!(seen.body.len(), 60_000);
        assert!(
            seen.body
                .iter()
                .zip(0..)
                .all(|(b, n)| *b == b'a' + (n % 23) as u8)
        );
    }
}

#[tokio::test]
async fn a_large_body_is_sent_once_and_the_next_call_has_the_new_token() {
    let service = picky().await;
    let (metadata, sidecar) = started_with(&service, &[]).await;
    metadata.script(
        Kind::Access,
        [Answer::access("T1", 3600), Answer::access("T2", 3600)],
    );
    let request = Request::post(URL)
        .header("host", "storage.googleapis.com")
        .body(Bytes::from(vec![b'x'; 70_000]));
    assert_eq!(send(sidecar.proxy(), request.unwrap()).await.status(), 401);
    assert_eq!(service.seen().len(), 1);
    metadata.arrived(Kind::Access, 2).await;
    // The new token arrives shortly after it was requested.
    let deadline = Instant::now() + Duration::from_secs(10);
    while proxied(sidecar.proxy(), URL, &[]).await.status() != 200 {
        assert!(Instant::now() < deadline, "the new token was not used");
    }
}

#[tokio::test]
async fn a_token_that_stays_the_same_is_not_sent_twice() {
    let service = picky().await;
    let (metadata, sidecar) = started_with(&service, &[]).await;
    for _ in 0..3 {
        assert_eq!(proxied(sidecar.proxy(), URL, &[]).await.status(), 401);
    }
    assert_eq!(service.seen().len(), 3);
    assert_eq!(
        metadata.count(Kind::Access),
        2,
        "asked anew at most once a minute"
    );
}

/// A JWT that an account signs is the same within one second.
#[tokio::test]
async fn a_self_signed_token_that_was_rejected_is_not_sent_again() {
    let service = Service::answering(|_| reply(401, "never")).await;
    let google = Google::start().await;
    let file = google.service_account(&Endpoints::default()).unwrap();
    let file = google.file("key.json", &file);
    let credentials = ["--credentials", file.to_str().unwrap()];
    let (_metadata, sidecar) = started_with(&service, &credentials).await;
    assert_eq!(proxied(sidecar.proxy(), URL, &[]).await.status(), 401);
    let seen = service.seen();
    let tokens = seen.iter().map(|seen| seen.header("authorization"));
    let distinct: HashSet<_> = tokens.collect();
    assert!(!distinct.contains(&None));
    assert_eq!(distinct.len(), seen.len());
}

#[tokio::test]
async fn a_second_rejection_is_passed_to_the_app() {
    let service = Service::answering(|_| reply(401, "never")).await;
    let (metadata, sidecar) = started_with(&service, &[]).await;
    metadata.script(
        Kind::Access,
        [Answer::access("T1", 3600), Answer::access("T2", 3600)],
    );
    assert_eq!(proxied(sidecar.proxy(), URL, &[]).await.status(), 401);
    assert_eq!(service.seen().len(), 2);
}

#[tokio::test]
async fn a_rejection_of_the_apps_own_token_is_passed_to_the_app() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let service = Service::answering(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        reply(401, "")
    })
    .await;
    let (metadata, sidecar) = started_with(&service, &[]).await;
    proxied(sidecar.proxy(), URL, &[("authorization", "Bearer own")]).await;
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(metadata.count(Kind::Access), 0);
}

#[tokio::test]
async fn a_403_passes_through_and_the_log_names_the_role_to_grant() {
    let service = Service::answering(|_| reply(403, "no")).await;
    let metadata = super::Metadata::start().await;
    metadata.script(Kind::Identity, [Answer::identity(3600)]);
    metadata.script(Kind::Email, [Answer::ok("app@p.iam.gserviceaccount.com")]);
    let sidecar = beside(&metadata, &service, &[]).await;
    for _ in 0..3 {
        let response = proxied(sidecar.proxy(), "http://svc.a.run.app/", &[]).await;
        assert_eq!((response.status().as_u16(), text(&response)), (403, "no"));
    }
    assert_eq!(metadata.count(Kind::Identity), 1);
    let told = |line: &serde_json::Value| {
        let text = line.to_string();
        [
            "roles/run.invoker",
            "app@p.iam.gserviceaccount.com",
            "https://svc.a.run.app",
        ]
        .iter()
        .all(|wanted| text.contains(wanted))
    };
    sidecar.logged(told).await;
    assert_eq!(sidecar.log().iter().filter(|line| told(line)).count(), 1);
}

/// A machine of Compute Engine limits the scopes of its account, by default to a few.
#[tokio::test]
async fn a_403_on_a_machine_with_narrow_scopes_names_them_and_how_to_widen_them() {
    let service = Service::answering(|_| reply(403, "no")).await;
    let scope = |name: &str| format!("https://www.googleapis.com/auth/{name}");
    let narrow = [scope("devstorage.read_only"), scope("logging.write")].join("\n");
    for (scopes, told) in [
        (
            narrow,
            "only the scopes devstorage.read_only, logging.write.",
        ),
        (scope("cloud-platform"), "the scopes are too narrow"),
    ] {
        let metadata = super::Metadata::start().await;
        let path = "/computeMetadata/v1/instance/service-accounts/default/scopes";
        metadata.script_path(path, [Answer::ok(&scopes)]);
        let sidecar = beside(&metadata, &service, &[]).await;
        for _ in 0..2 {
            assert_eq!(proxied(sidecar.proxy(), URL, &[]).await.status(), 403);
        }
        let line = sidecar.logged(|line| line["status"] == 403).await;
        let message = line["message"].as_str().unwrap();
        assert!(message.contains(told), "{message}");
        let widen = "gcloud compute instances set-service-account";
        assert_eq!(
            message.contains(widen),
            !scopes.contains("cloud-platform"),
            "{message}"
        );
        let asked = metadata.requests(Kind::Other);
        let asked = asked.iter().filter(|request| request.path == path).count();
        assert_eq!(asked, 1);
    }
}
