//! The upstream: it returns and accepts bytes, serves a gRPC method, and can delay its responses.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// The number of streams on a connection that Google's front ends permit.
const STREAMS: u32 = 100;

/// The length of a gRPC response's message, without its prefix of five bytes.
const MESSAGE: usize = 1024;

/// The prefix of a gRPC response's message: not compressed, and the length.
const MESSAGE_HEAD: [u8; 5] = [0, 0, 0, 4, 0];

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A body of equal bytes, in frames of up to 1 MiB.
struct Repeated {
    left: usize,
}

/// Serves until the process ends.
///
/// `/bytes/N` returns N bytes. A `POST` is read to its end and answered. A request under `/token` must carry a token.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    delay: Duration,
) -> std::io::Result<()> {
    let acceptor = tls.map(TlsAcceptor::from);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            match acceptor {
                None => connection(stream, delay).await,
                Some(acceptor) => match acceptor.accept(stream).await {
                    Ok(stream) => connection(stream, delay).await,
                    Err(error) => eprintln!("upstream: TLS: {error}"),
                },
            }
        });
    }
}

async fn connection<S>(stream: S, delay: Duration)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .title_case_headers(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS);
    let service = service_fn(move |request| async move {
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        Ok::<_, Infallible>(answer(request).await)
    });
    // A caller closes its connections during calls when its time is up.
    let _ = builder
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    let path = match path.strip_prefix("/token") {
        Some(_) if !request.headers().contains_key(header::AUTHORIZATION) => {
            return status(StatusCode::UNAUTHORIZED);
        }
        Some(rest) => rest,
        None => path,
    };
    if request.method() == Method::POST {
        let grpc = request.headers().contains_key(header::TE);
        let mut body = request.into_body();
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return status(StatusCode::BAD_REQUEST);
            }
        }
        return if grpc {
            message()
        } else {
            status(StatusCode::OK)
        };
    }
    match path.rsplit('/').next().map(str::parse) {
        Some(Ok(length)) => bytes(request.version(), length),
        _ => status(StatusCode::NOT_FOUND),
    }
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Full::default().boxed_unsync());
    *response.status_mut() = status;
    response
}

/// Returns this number of bytes, with the head that nginx sends for a file.
fn bytes(version: Version, length: usize) -> Response<Body> {
    let mut response = Response::new(Repeated { left: length }.boxed_unsync());
    let headers = response.headers_mut();
    for (name, value) in [
        (header::SERVER, "nginx/1.22.1"),
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::LAST_MODIFIED, "Thu, 26 Nov 2026 12:00:00 GMT"),
        (header::ETAG, "\"6926d7c0-400\""),
        (header::ACCEPT_RANGES, "bytes"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if version == Version::HTTP_11 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
    }
    response
}

fn message() -> Response<Body> {
    let mut body = MESSAGE_HEAD.to_vec();
    body.resize(MESSAGE_HEAD.len() + MESSAGE, b'x');
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(Bytes::from(body)).with_trailers(async { Some(Ok(trailers)) });
    let mut response = Response::new(body.boxed_unsync());
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, grpc);
    response
}

// === impl Repeated ===

impl http_body::Body for Repeated {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static ALL: [u8; 1 << 20] = [b'x'; 1 << 20];
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let frame = Bytes::from_static(ALL.get(..self.left).unwrap_or(&ALL));
        self.left -= frame.len();
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}
