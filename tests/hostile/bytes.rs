//! Bytes that the sidecar must buffer: bodies that the receiver does not read.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::flood::{Flood, Reading};
use super::observe::{Bounds, Observer};
use super::support::bulk;
use super::support::hostile::Hostile;
use super::wire::{get, preface_without_window, requests};
use super::{ALONE, started};

const BOUNDS: Bounds = Bounds {
    peak: 96,
    descriptors: 1000,
};

/// The maximum time to write a flood.
const FLOOD: Duration = Duration::from_secs(5);

/// Sends a body without end.
async fn endless_download() -> Hostile {
    Hostile::start(|mut stream, stage| async move {
        stage.head(&mut stream).await;
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n";
        let _ = stream.write_all(head.as_bytes()).await;
        while stream.write_all(&[0; 64 * 1024]).await.is_ok() {}
    })
    .await
}

#[tokio::test]
async fn unread_downloads_from_http1() {
    let upstream = endless_download().await;
    let at = upstream.address;
    let request = format!("GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\n\r\n");
    for (reading, scenario) in [
        (Reading::Nothing, "100 unread downloads from HTTP/1.1"),
        (Reading::Slowly, "100 slow readers from HTTP/1.1"),
    ] {
        let _alone = ALONE.lock().await;
        let (_metadata, sidecar) = started(&[]).await;
        let observer = Observer::of_proxy(&sidecar, "");
        let mut flood = Flood::new();
        flood.open(sidecar.proxy(), 100, reading, request.as_bytes());
        flood.written(FLOOD).await;
        observer.probes(50).await;
        observer.within(scenario, BOUNDS);
    }
}

#[tokio::test]
async fn unread_downloads_from_http1_to_http2() {
    let _alone = ALONE.lock().await;
    let upstream = endless_download().await;
    let (_metadata, sidecar) = started(&[]).await;
    let observer = Observer::of_proxy(&sidecar, "");
    let mut flood = Flood::new();
    let requests = requests(100, &get(&upstream.address.to_string(), "/", &[]));
    let bytes = [preface_without_window(), requests].concat();
    flood.open(sidecar.proxy(), 1, Reading::All, bytes);
    flood.written(FLOOD).await;
    observer.probes(50).await;
    observer.within("100 streams without a window, HTTP/1.1 upstream", BOUNDS);
}

#[tokio::test]
async fn unread_downloads_over_tls() {
    let upstream = bulk::start(1 << 40).await;
    for (version, scenario) in [
        ("1", "100 unread downloads from HTTP/1.1 over TLS"),
        ("2", "100 unread downloads from HTTP/2"),
    ] {
        let _alone = ALONE.lock().await;
        let mut args = upstream.flags();
        args.extend(["--upstream-http".into(), version.into()]);
        args.extend(["--rule".into(), "*.example.com=access".into()]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (_metadata, sidecar) = started(&args).await;
        let observer = Observer::of_admin(&sidecar);
        let mut flood = Flood::new();
        let request = "GET http://api.example.com/ HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
        flood.open(sidecar.proxy(), 100, Reading::Nothing, request.as_bytes());
        flood.written(FLOOD).await;
        observer.probes(50).await;
        observer.within(scenario, BOUNDS);
    }
}
