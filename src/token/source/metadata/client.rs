//! Sends one request to the metadata server on its own connection, and reads the response.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header, response};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::destination::{Host, Origin, Scheme};
use crate::dns::{Priority, Resolver, Unresolved};
use crate::error::BoxError;
use crate::token::source::response_body::{self, BodyError};

/// The time limit of the name resolution and the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The largest head of a response, in bytes.
const LONGEST_HEAD: usize = 64 * 1024;

/// The host name of the server at its well-known address.
const NAME: &str = "metadata.google.internal";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// The metadata server.
#[derive(Debug)]
pub(super) struct MetadataEndpoint {
    origin: Origin,
    /// Resolves one name only, so that it blocks at most one thread.
    resolver: Resolver,
    /// The value of `Host`.
    pub(super) authority: String,
}

/// The response of the server.
#[derive(Debug)]
pub(super) struct BufferedResponse {
    pub(super) head: response::Parts,
    pub(super) body: Bytes,
}

/// The reason why there is no usable response.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransportError {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("cannot connect: {0}")]
    Resolve(Unresolved),
    #[error("no connection within {} s", .0.as_secs_f32())]
    ConnectTimeout(Duration),
    #[error("the connection was closed: {0}")]
    ConnectionBroken(BoxError),
    #[error("the response is not HTTP")]
    NoHttp,
    #[error("{0}")]
    TooLong(BodyError),
}

// === impl MetadataEndpoint ===

impl MetadataEndpoint {
    pub(super) fn new(host: &Host, port: u16) -> Self {
        let origin = Origin {
            scheme: Scheme::Http,
            host: host.clone(),
            port,
        };
        let authority = if *host == Host::Ip(IpAddr::V4(ADDRESS)) && port == 80 {
            NAME.to_owned()
        } else {
            origin.authority()
        };
        Self {
            origin,
            resolver: Resolver::new(),
            authority,
        }
    }

    /// Sends `GET target` and reads the whole response. The caller sets the timeout.
    pub(super) async fn get(&self, target: &str) -> Result<BufferedResponse, TransportError> {
        let stream = self.connect().await?;
        let request = Request::get(target)
            .header(header::HOST, &self.authority)
            .header(
                header::USER_AGENT,
                concat!("sidentity/", env!("CARGO_PKG_VERSION")),
            )
            .header("metadata-flavor", "Google")
            .body(Empty::<Bytes>::new())
            .map_err(|error| TransportError::ConnectionBroken(error.into()))?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(LONGEST_HEAD)
            .handshake(TokioIo::new(stream))
            .await?;
        let exchange = pin!(async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            match response_body::read(head.status, body).await {
                Ok(body) => Ok(BufferedResponse { head, body }),
                Err(error @ BodyError::TooLong) => Err(TransportError::TooLong(error)),
                Err(BodyError::Broken(error)) => Err(match error.downcast::<hyper::Error>() {
                    Ok(error) => TransportError::from(*error),
                    Err(error) => TransportError::ConnectionBroken(error),
                }),
            }
        });
        // The connection is polled here, so that it ends with the attempt and its errors reach the caller.
        let driver = pin!(async {
            let _ = connection.await;
            std::future::pending::<std::convert::Infallible>().await
        });
        tokio::select! {
            answer = exchange => answer,
            never = driver => match never {},
        }
    }

    async fn connect(&self) -> Result<TcpStream, TransportError> {
        let port = self.origin.port;
        let connecting = async {
            let addresses = self
                .resolver
                .resolve(&self.origin.host, port, Priority::High, CONNECT_TIMEOUT)
                .await
                .map_err(TransportError::Resolve)?;
            TcpStream::connect(&*addresses)
                .await
                .map_err(TransportError::Connect)
        };
        let stream = timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| TransportError::ConnectTimeout(CONNECT_TIMEOUT))??;
        stream.set_nodelay(true).map_err(TransportError::Connect)?;
        Ok(stream)
    }
}

impl fmt::Display for MetadataEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.origin.fmt(f)
    }
}

// === impl TransportError ===

impl From<hyper::Error> for TransportError {
    fn from(error: hyper::Error) -> Self {
        if error.is_parse() {
            Self::NoHttp
        } else {
            Self::ConnectionBroken(error.into())
        }
    }
}
