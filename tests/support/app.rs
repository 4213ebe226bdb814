//! An app that calls the sidecar, without code for Google Cloud.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends `GET URL` with headers through a forward proxy.
pub async fn proxied(proxy: SocketAddr, url: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
    let host = url.split('/').nth(2).unwrap().rsplit('@').next().unwrap();
    let mut request = Request::get(url).header("host", host);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(proxy, request.body(Bytes::new()).unwrap()).await
}

/// Sends `GET path` to a route or the admin port.
pub async fn get(address: SocketAddr, path: &str) -> Response<Bytes> {
    let request = Request::get(path).header("host", address.to_string());
    send(address, request.body(Bytes::new()).unwrap()).await
}

/// Sends any request in HTTP/1.1 on a new connection.
pub async fn send(address: SocketAddr, request: Request<Bytes>) -> Response<Bytes> {
    try_send(address, request).await.unwrap()
}

/// Like [`send`], and returns errors.
pub async fn try_send(
    address: SocketAddr,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TokioIo::new(TcpStream::connect(address).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    tokio::spawn(connection.with_upgrades());
    let response = sender.send_request(request.map(Full::new)).await?;
    let (head, body) = response.into_parts();
    Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
}

/// Writes bytes and reads until the peer closes the connection.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Returns the body as text.
pub fn text(response: &Response<Bytes>) -> &str {
    std::str::from_utf8(response.body()).unwrap()
}

/// Returns the body as JSON.
pub fn json(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap()
}

/// A connection that stays open after one call.
pub struct HeldConnection {
    _sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
}

impl HeldConnection {
    /// Opens a connection with one call through a forward proxy.
    pub async fn open(proxy: SocketAddr, url: &str) -> Self {
        let stream = TokioIo::new(TcpStream::connect(proxy).await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let host = url.split('/').nth(2).unwrap();
        let request = Request::get(url).header("host", host).body(Full::default());
        let response = sender.send_request(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap();
        Self { _sender: sender }
    }
}
