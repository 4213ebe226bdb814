//! Large heads and field lists, in large numbers, without a response.

use std::time::Duration;

use super::flood::{Flood, Reading};
use super::observe::{Bounds, Observer};
use super::support::hostile::Hostile;
use super::wire::{END_STREAM, get, headers, preface, requests};
use super::{ALONE, started};

const BOUNDS: Bounds = Bounds {
    peak: 96,
    descriptors: 1000,
};

/// The maximum time to write a flood.
const FLOOD: Duration = Duration::from_secs(5);

const COUNT: usize = 300;

/// Returns the start of a head of 350 KB.
fn head(at: &str) -> String {
    format!(
        "GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\nX-Big: {}",
        "b".repeat(350_000)
    )
}

/// Returns a field list of 240 KB.
fn fields(at: &str) -> Vec<u8> {
    let value = "v".repeat(8000);
    let fields: Vec<(String, &str)> = (0..30).map(|n| (format!("x-{n}"), &*value)).collect();
    let fields: Vec<(&str, &str)> = fields
        .iter()
        .map(|(name, value)| (&**name, *value))
        .collect();
    get(at, "/", &fields)
}

/// Opens this number of connections. Each writes these bytes.
async fn flooded(scenario: &str, connections: usize, bytes: impl Fn(&str) -> Vec<u8>) {
    let _alone = ALONE.lock().await;
    let upstream = Hostile::stalls().await;
    let (_metadata, sidecar) = started(&[]).await;
    let observer = Observer::of_proxy(&sidecar, "");
    let mut flood = Flood::new();
    let bytes = bytes(&upstream.address.to_string());
    flood.open(sidecar.proxy(), connections, Reading::All, bytes);
    flood.written(FLOOD).await;
    observer.probes(50).await;
    observer.within(scenario, BOUNDS);
}

#[tokio::test]
async fn large_heads_that_do_not_end() {
    flooded("300 incomplete heads of 350 KB", COUNT, |at| {
        head(at).into_bytes()
    })
    .await;
}

#[tokio::test]
async fn large_heads_of_unanswered_requests() {
    flooded("300 heads of 350 KB", COUNT, |at| {
        (head(at) + "\r\n\r\n").into_bytes()
    })
    .await;
}

#[tokio::test]
async fn large_field_lists_of_unanswered_requests() {
    for (scenario, connections) in [
        ("300 field lists of 240 KB on one connection", 1),
        ("300 field lists of 240 KB on 10 connections", 10),
    ] {
        flooded(scenario, connections, |at| {
            [preface(), requests(COUNT / connections, &fields(at))].concat()
        })
        .await;
    }
}

#[tokio::test]
async fn large_field_lists_that_do_not_end() {
    flooded("300 incomplete field lists of 240 KB", COUNT, |at| {
        // The open stream keeps the connection from being idle.
        let open = headers(1, END_STREAM, &get(at, "/", &[]));
        let mut block = headers(3, END_STREAM, &fields(at));
        block.truncate(block.len() - 10_000);
        [preface(), open, block].concat()
    })
    .await;
}

#[tokio::test]
async fn unread_large_trailers() {
    flooded("300 trailers of 240 KB", 10, |at| {
        let streams = (1..).step_by(2).take(COUNT / 10);
        let mut bytes = preface();
        // Trailers have no pseudo-header fields.
        let trailers: Vec<u8> = fields(at).split_off(get(at, "/", &[]).len());
        for stream in streams {
            bytes.extend(headers(stream, 0, &get(at, "/", &[])));
            bytes.extend(headers(stream, END_STREAM, &trailers));
        }
        bytes
    })
    .await;
}
