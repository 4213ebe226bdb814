//! Upstreams that send interim responses without end.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::observe::{Bounds, Observer};
use super::support::app::try_send;
use super::support::hostile::Hostile;
use super::support::upstream::soon;
use super::wire::{HEADERS, SETTINGS, frame, headers, interim};
use super::{ALONE, started};

const BOUNDS: Bounds = Bounds {
    peak: 64,
    descriptors: 100,
};

/// Makes calls. Each must end with 502.
async fn called(scenario: &str, upstream: &Hostile, http: &str) {
    let _alone = ALONE.lock().await;
    let (_metadata, sidecar) = started(&["--upstream-http", http]).await;
    let observer = Observer::of_admin(&sidecar);
    let calls = (0..4).map(|_| {
        let request = http::Request::get(format!("http://{}/", upstream.address))
            .header("host", upstream.address.to_string())
            .body(bytes::Bytes::new())
            .unwrap();
        tokio::spawn(try_send(sidecar.proxy(), request))
    });
    for call in calls.collect::<Vec<_>>() {
        let answer = tokio::time::timeout(Duration::from_secs(8), call).await;
        let answer = answer.unwrap_or_else(|_| panic!("{scenario}: {}", observer.figures()));
        assert_eq!(answer.unwrap().unwrap().status(), 502, "{scenario}");
    }
    observer.probes(5).await;
    observer.within(scenario, BOUNDS);
}

/// HTTP/2: answers each request with interim responses until the peer stops reading.
async fn h2(status: &'static str) -> Hostile {
    Hostile::start(move |mut stream, stage| async move {
        let mut preface = [0; 24];
        soon(stream.read_exact(&mut preface)).await.unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let mut endless = tokio::task::JoinSet::new();
        let (send, mut due) = tokio::sync::mpsc::channel::<u32>(64);
        endless.spawn(async move {
            let value = "a".repeat(4000);
            let block = interim(status, ("link", &value));
            let mut streams = Vec::new();
            loop {
                if streams.is_empty() {
                    let Some(stream) = due.recv().await else {
                        return;
                    };
                    streams.push(stream);
                }
                while let Ok(stream) = due.try_recv() {
                    streams.push(stream);
                }
                for stream in &streams {
                    let interim = headers(*stream, 0, &block);
                    if writer.write_all(&interim).await.is_err() {
                        return;
                    }
                }
            }
        });
        let mut head = [0; 9];
        while reader.read_exact(&mut head).await.is_ok() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            if reader.read_exact(&mut payload).await.is_err() {
                return;
            }
            if head[3] == HEADERS {
                stage.note("request".into());
                let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                let _ = send.send(stream).await;
            }
        }
    })
    .await
}

/// HTTP/1.1: answers each request with interim responses until the peer stops reading.
async fn h1(interim: &'static str) -> Hostile {
    Hostile::start(move |mut stream, stage| async move {
        stage.head(&mut stream).await;
        let interim = interim.as_bytes().repeat(100);
        while stream.write_all(&interim).await.is_ok() {}
    })
    .await
}

#[tokio::test]
async fn endless_early_hints_of_an_http2_upstream() {
    called("endless 103, h2", &h2("103").await, "2").await;
}

#[tokio::test]
async fn endless_continues_of_an_http2_upstream() {
    called("endless 100, h2", &h2("100").await, "2").await;
}

#[tokio::test]
async fn endless_interim_responses_of_an_http1_upstream() {
    let early = h1("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
    called("endless 103, HTTP/1.1", &early, "1").await;
    let go_on = h1("HTTP/1.1 100 Continue\r\n\r\n").await;
    called("endless 100, HTTP/1.1", &go_on, "1").await;
}
