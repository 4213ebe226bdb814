//! A service with request and response bodies larger than memory.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::service::tls;
use super::zeroes::Zeroes;

/// A running bulk service.
pub struct Bulk {
    address: SocketAddr,
    folder: TempDir,
}

/// Starts the service. `GET` returns `size` bytes, `POST` returns the number of bytes received.
pub async fn start(size: u64) -> Bulk {
    let folder = tempfile::tempdir().unwrap();
    let acceptor = TlsAcceptor::from(tls(folder.path(), &[b"h2", b"http/1.1"]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = service_fn(move |request| answer(request, size));
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Bulk { address, folder }
}

async fn answer(
    request: Request<Incoming>,
    size: u64,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    if request.method() == "GET" {
        return Ok(Response::new(Zeroes(size).boxed()));
    }
    let mut body = request.into_body();
    let mut taken = 0;
    while let Some(Ok(frame)) = body.frame().await {
        taken += frame.data_ref().map_or(0, Bytes::len) as u64;
    }
    Ok(Response::new(Full::from(taken.to_string()).boxed()))
}

impl Bulk {
    /// Returns the flags that make a sidecar use it for every upstream.
    pub fn flags(&self) -> Vec<String> {
        let ca: PathBuf = self.folder.path().join("ca.pem");
        vec![
            "--connect-to".into(),
            format!("*:443:127.0.0.1:{}", self.address.port()),
            "--upstream-ca".into(),
            ca.display().to_string(),
        ]
    }
}
