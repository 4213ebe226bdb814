//! The drain of a sidecar, from the view of an HTTP/2 app.

use bytes::Bytes;
use http::Response;

use super::frames::{GOAWAY, Raw};
use super::support::streams::{Streams, app, open, whole};
use super::support::upstream::soon;
use super::{beside, request};

#[tokio::test]
async fn a_drain_serves_open_and_new_streams_and_sends_goaway() {
    let service = Streams::start().await;
    let flags = ["--drain-timeout", "60s"];
    let (_metadata, mut sidecar) = beside(&service, service.address, &flags).await;
    let mut idle = Raw::open(sidecar.proxy()).await;
    let app = app(sidecar.proxy()).await;
    let (long, _) = open(&app, request("GET", "/long"), true).await;
    let mut stream = service.next().await;
    let mut download = stream.begin(Response::new(()));
    download.send_data(Bytes::from("begun, "), false).unwrap();
    let mut long = soon(long).await.unwrap();
    sidecar.signal("TERM");
    sidecar
        .logged(|line| {
            line["message"]
                .as_str()
                .is_some_and(|message| message.starts_with("draining"))
        })
        .await;

    let (late, _) = open(&app, request("GET", "/late"), true).await;
    service.next().await.answer("late");
    let mut late = soon(late).await.unwrap();
    assert_eq!(whole(late.body_mut()).await.unwrap().0, "late");
    download.send_data(Bytes::from("ended"), true).unwrap();
    assert_eq!(whole(long.body_mut()).await.unwrap().0, "begun, ended");

    let goodbye = idle.find(GOAWAY).await;
    let reason = &goodbye.payload[4..8];
    assert_eq!(reason, [0; 4], "NO_ERROR");
    assert_eq!(sidecar.ended().await.code(), Some(0));
}
