//! A minimal hop over hyper and rustls: the cost that every proxy on these libraries has, as the baseline of the
//! sidecar.
//!
//! It has one upstream, adds one fixed header, and has no policies, metrics, timeouts, retries or error handling. It
//! sends through its own pool, which is a stack of connections, or through the sidecar's.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri, Version, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use sidentity::upstream::{self, Target, Upstream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use super::Failure;

/// The upstream of the hop.
#[derive(Clone)]
pub struct Origin {
    /// The address.
    pub address: std::net::SocketAddr,
    /// The authority of requests.
    pub authority: Authority,
    /// The TLS configuration. `None` means no TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// Whether to use HTTP/2.
    pub http2: bool,
}

/// The pool of the hop.
#[derive(Clone)]
pub enum Pool {
    /// A stack of idle connections, or one HTTP/2 connection.
    Bare(Arc<Bare>),
    /// The sidecar's pool.
    Ours(Upstream<Sent>, Target),
}

/// A minimal pool.
pub struct Bare {
    origin: Origin,
    idle: Mutex<Vec<http1::SendRequest<Sent>>>,
    shared: tokio::sync::Mutex<Option<http2::SendRequest<Sent>>>,
}

/// The body of a request.
#[derive(Debug, Default)]
pub enum Sent {
    /// An empty body.
    #[default]
    Empty,
    /// The body of the incoming request.
    Incoming(Incoming),
}

/// The body of a response.
pub enum Received {
    /// A body over a connection of the bare pool. The connection returns to the pool at the end.
    Bare(Incoming, Option<(Arc<Bare>, http1::SendRequest<Sent>)>),
    /// A body of the sidecar's pool.
    Ours(upstream::UpstreamBody),
}

/// Forwards until the process ends.
pub async fn serve(listener: TcpListener, pool: Pool, token: HeaderValue) -> std::io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (pool, token) = (pool.clone(), token.clone());
        let service = service_fn(move |request| forward(pool.clone(), token.clone(), request));
        tokio::spawn(async move {
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(None);
            builder.http2().timer(TokioTimer::new());
            // The caller closes its connections when its time is up.
            let _ = builder
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn forward(
    pool: Pool,
    token: HeaderValue,
    request: Request<Incoming>,
) -> Result<Response<Received>, Failure> {
    let mut request = request.map(Sent::Incoming);
    request.headers_mut().remove(header::HOST);
    request.headers_mut().remove(header::CONNECTION);
    request.headers_mut().insert(header::AUTHORIZATION, token);
    let mut response = match pool {
        Pool::Ours(upstream, target) => upstream.send(&target, request).await?.map(Received::Ours),
        Pool::Bare(bare) if bare.origin.http2 => bare.http2(request).await?,
        Pool::Bare(bare) => bare.http1(request).await?,
    };
    *response.version_mut() = Version::HTTP_11;
    response.headers_mut().remove(header::CONNECTION);
    Ok(response)
}

// === impl Origin ===

impl Origin {
    /// Opens a connection.
    pub async fn tcp(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Starts TLS on a connection, and verifies the upstream.
    pub async fn secure(
        &self,
        tls: &Arc<ClientConfig>,
        stream: TcpStream,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Failure> {
        let name = ServerName::try_from(self.authority.host().to_owned())?;
        Ok(TlsConnector::from(tls.clone())
            .connect(name, stream)
            .await?)
    }
}

// === impl Bare ===

impl Bare {
    /// Creates a pool without a connection.
    pub fn new(origin: Origin) -> Self {
        Self {
            origin,
            idle: Mutex::default(),
            shared: tokio::sync::Mutex::default(),
        }
    }

    async fn http1(
        self: Arc<Self>,
        mut request: Request<Sent>,
    ) -> Result<Response<Received>, Failure> {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path
            .unwrap_or_else(|| PathAndQuery::from_static("/"))
            .into();
        *request.version_mut() = Version::HTTP_11;
        let host = HeaderValue::from_str(self.origin.authority.as_str())?;
        request.headers_mut().insert(header::HOST, host);
        let mut sender = loop {
            let Some(mut idle) = self.pop() else {
                break self.dial().await?;
            };
            if idle.ready().await.is_ok() {
                break idle;
            }
        };
        let response = sender.send_request(request).await?;
        Ok(response.map(|body| Received::Bare(body, Some((self, sender)))))
    }

    async fn http2(&self, mut request: Request<Sent>) -> Result<Response<Received>, Failure> {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(match self.origin.tls {
            None => Scheme::HTTP,
            Some(_) => Scheme::HTTPS,
        });
        parts.authority = Some(self.origin.authority.clone());
        *request.uri_mut() = Uri::from_parts(parts)?;
        *request.version_mut() = Version::HTTP_2;
        let mut sender = self.connected().await?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        Ok(response.map(|body| Received::Bare(body, None)))
    }

    fn pop(&self) -> Option<http1::SendRequest<Sent>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.pop()
    }

    async fn dial(&self) -> Result<http1::SendRequest<Sent>, Failure> {
        async fn open<S>(stream: S) -> Result<http1::SendRequest<Sent>, Failure>
        where
            S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            Ok(sender)
        }
        let stream = self.origin.tcp().await?;
        match &self.origin.tls {
            None => open(stream).await,
            Some(tls) => open(self.origin.secure(tls, stream).await?).await,
        }
    }

    /// Returns the only HTTP/2 connection.
    async fn connected(&self) -> Result<http2::SendRequest<Sent>, Failure> {
        async fn open<S>(stream: S) -> Result<http2::SendRequest<Sent>, Failure>
        where
            S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        {
            let builder = http2::Builder::new(TokioExecutor::new());
            let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            Ok(sender)
        }
        let mut shared = self.shared.lock().await;
        if let Some(sender) = shared.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let stream = self.origin.tcp().await?;
        let sender = match &self.origin.tls {
            None => open(stream).await?,
            Some(tls) => open(self.origin.secure(tls, stream).await?).await?,
        };
        *shared = Some(sender.clone());
        Ok(sender)
    }
}

// === impl Sent ===

impl Body for Sent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Incoming(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Incoming(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Incoming(body) => body.size_hint(),
        }
    }
}

// === impl Received ===

impl Body for Received {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match &mut *self {
            Self::Ours(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Bare(body, _) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Ours(body) => body.is_end_stream(),
            Self::Bare(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Ours(body) => body.size_hint(),
            Self::Bare(body, _) => body.size_hint(),
        }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        // hyper drops a body once it has sent all of it. The connection is ready again once the response is read.
        if let Self::Bare(_, kept) = self
            && let Some((pool, sender)) = kept.take()
        {
            let mut idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(sender);
        }
    }
}
