//! Bodies of any size in both directions, in constant memory.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::support::bulk;
use super::support::metadata::{Answer, Kind, Metadata};
use super::support::sidecar::Sidecar;
use super::support::zeroes::Zeroes;

const GIGABYTE: u64 = 1 << 30;

#[tokio::test]
async fn a_gigabyte_each_way_uses_less_than_64_mib() {
    let bulk = bulk::start(GIGABYTE).await;
    let metadata = Metadata::start().await;
    metadata.script(Kind::Access, [Answer::access("T1", 3600)]);
    let flags = bulk.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let sidecar = Sidecar::start(&metadata, &flags).await;
    let stream = TokioIo::new(TcpStream::connect(sidecar.proxy()).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let up = Request::post("http://storage.googleapis.com/up")
        .header("host", "storage.googleapis.com")
        .body(Zeroes(GIGABYTE).boxed());
    let response = sender.send_request(up.unwrap()).await.unwrap();
    let answer = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(answer, GIGABYTE.to_string());

    let down = Request::get("http://storage.googleapis.com/down")
        .header("host", "storage.googleapis.com")
        .body(Empty::new().boxed());
    let mut body = sender
        .send_request(down.unwrap())
        .await
        .unwrap()
        .into_body();
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        received += frame.unwrap().data_ref().map_or(0, Bytes::len) as u64;
    }
    assert_eq!(received, GIGABYTE);
    let peak = sidecar.peak_memory();
    assert!(peak < 64 * 1024, "{peak} KiB");
}
