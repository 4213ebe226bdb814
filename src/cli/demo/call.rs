//! The app of the demo: an HTTP client without credentials.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::error::BoxError;

/// A response.
#[derive(Debug)]
pub(super) struct DemoResponse {
    pub(super) status: StatusCode,
    pub(super) text: String,
}

/// Sends `GET target` over HTTP/1.1 to `address`.
pub(super) async fn get(
    address: SocketAddr,
    target: &str,
    host: &str,
) -> Result<DemoResponse, BoxError> {
    exchange(TcpStream::connect(address).await?, target, host).await
}

/// Like [`get`], on an open connection.
pub(super) async fn exchange<S>(
    stream: S,
    target: &str,
    host: &str,
) -> Result<DemoResponse, BoxError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(target)
        .header(header::HOST, host)
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), 64 * 1024)
        .collect()
        .await?;
    Ok(DemoResponse {
        status,
        text: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
    })
}
