//! An honest upstream on a real socket, with HTTP/1.1 and HTTP/2, with and without TLS. It records requests.
//!
//! Paths: `/hold` answers once [`Honest::release`] is called; `/echo` returns the body and its trailers; `/bytes/N`
//! returns N bytes; `/endless` never ends; `/early` answers without reading the body; `/close` closes after its
//! response; `/upgrade` switches to an echo of bytes; any other path returns a greeting.
#![allow(dead_code)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::{HandshakeKind, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type AnyBody = BoxBody<Bytes, BoxError>;

/// Longer than any step takes. A test that waits this long has failed.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A recorded request.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The number of the connection, from 0 in the order of accepts.
    pub connection: usize,
    pub method: Method,
    pub uri: String,
    pub version: Version,
    pub headers: HeaderMap,
    pub sni: Option<String>,
    pub alpn: Option<String>,
    /// Whether TLS resumed a session.
    pub resumed: bool,
}

/// How an [`Honest`] upstream serves.
#[derive(Clone, Default)]
pub struct Manner {
    pub tls: Option<Arc<ServerConfig>>,
    pub max_streams: Option<u32>,
}

pub struct Honest {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

/// The counts that tests wait for.
struct Shared {
    accepted: watch::Sender<usize>,
    open: watch::Sender<usize>,
    held: watch::Sender<usize>,
    cancelled: watch::Sender<usize>,
    released: watch::Sender<bool>,
    closing: watch::Sender<usize>,
    produced: AtomicU64,
    seen: Mutex<Vec<Seen>>,
}

/// The results of a connection's TLS handshake.
#[derive(Clone, Default)]
struct Handshake {
    sni: Option<String>,
    alpn: Option<String>,
    resumed: bool,
}

/// Counts up while it lives. Counts a cancellation if it is dropped before [`Counted::finish`].
struct Counted {
    shared: Arc<Shared>,
    finished: bool,
}

/// A body of this number of remaining zero bytes.
struct Zeroes {
    left: Option<u64>,
    counted: Option<Counted>,
    shared: Arc<Shared>,
}

impl Honest {
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            accepted: watch::channel(0).0,
            open: watch::channel(0).0,
            held: watch::channel(0).0,
            cancelled: watch::channel(0).0,
            released: watch::channel(false).0,
            closing: watch::channel(0).0,
            produced: AtomicU64::new(0),
            seen: Mutex::default(),
        });
        tokio::spawn(accept(listener, manner, Arc::clone(&shared)));
        Self { address, shared }
    }

    /// Returns the requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Returns the only request so far.
    pub fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen[0].clone()
    }

    /// Returns the number of accepted connections.
    pub fn accepted(&self) -> usize {
        *self.shared.accepted.borrow()
    }

    /// Returns the number of body bytes produced so far.
    pub fn produced(&self) -> u64 {
        self.shared.produced.load(Ordering::Relaxed)
    }

    /// Waits until exactly this number of connections is open.
    pub async fn open(&self, count: usize) {
        reach(&self.shared.open, "open connections", |open| *open == count).await;
    }

    /// Waits until exactly this number of requests is held.
    pub async fn held(&self, count: usize) {
        reach(&self.shared.held, "held requests", |held| *held == count).await;
    }

    /// Waits until this number of requests or responses was cancelled.
    pub async fn cancelled(&self, count: usize) {
        reach(&self.shared.cancelled, "cancelled requests", |cancelled| {
            *cancelled == count
        })
        .await;
    }

    /// Releases all held requests, now and later.
    pub fn release(&self) {
        self.shared.released.send_replace(true);
    }

    /// Closes all connections gracefully, with a GOAWAY on HTTP/2.
    pub fn close_gracefully(&self) {
        self.shared.closing.send_modify(|times| *times += 1);
    }
}

async fn reach<T: std::fmt::Debug>(
    count: &watch::Sender<T>,
    what: &str,
    reached: impl FnMut(&T) -> bool,
) {
    let mut count = count.subscribe();
    let late = tokio::time::timeout(TIMEOUT, count.wait_for(reached))
        .await
        .is_err();
    assert!(!late, "{what}: {:?} to the end", count.borrow());
}

/// Fails the test if the future takes too long.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(TIMEOUT, future)
        .await
        .expect("this takes too long")
}

async fn accept(listener: TcpListener, manner: Manner, shared: Arc<Shared>) {
    let mut connection = 0;
    while let Ok((stream, _)) = listener.accept().await {
        shared.accepted.send_modify(|count| *count += 1);
        shared.open.send_modify(|count| *count += 1);
        let (manner, shared) = (manner.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            serve(stream, connection, &manner, &shared).await;
            shared.open.send_modify(|count| *count -= 1);
        });
        connection += 1;
    }
}

async fn serve(stream: TcpStream, connection: usize, manner: &Manner, shared: &Arc<Shared>) {
    stream.set_nodelay(true).unwrap();
    let Some(config) = &manner.tls else {
        return speak(stream, Handshake::default(), connection, manner, shared).await;
    };
    let Ok(stream) = TlsAcceptor::from(Arc::clone(config)).accept(stream).await else {
        return;
    };
    let tls = stream.get_ref().1;
    let handshake = Handshake {
        sni: tls.server_name().map(str::to_owned),
        alpn: tls
            .alpn_protocol()
            .map(|name| String::from_utf8(name.to_vec()).unwrap()),
        resumed: tls.handshake_kind() == Some(HandshakeKind::Resumed),
    };
    speak(stream, handshake, connection, manner, shared).await;
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    handshake: Handshake,
    connection: usize,
    manner: &Manner,
    shared: &Arc<Shared>,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .preserve_header_case(true)
        .max_buf_size(1024 * 1024);
    builder
        .http2()
        .max_concurrent_streams(manner.max_streams.unwrap_or(200))
        .max_header_list_size(1024 * 1024);
    let mut closing = shared.closing.subscribe();
    let service = service_fn(|request: Request<Incoming>| {
        let shared = Arc::clone(shared);
        shared.seen.lock().unwrap().push(Seen {
            connection,
            method: request.method().clone(),
            uri: request.uri().to_string(),
            version: request.version(),
            headers: request.headers().clone(),
            sni: handshake.sni.clone(),
            alpn: handshake.alpn.clone(),
            resumed: handshake.resumed,
        });
        async move { Ok::<_, Infallible>(answer(request, shared).await) }
    });
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    loop {
        tokio::select! {
            _ = serving.as_mut() => return,
            _ = closing.changed() => serving.as_mut().graceful_shutdown(),
        }
    }
}

async fn answer(mut request: Request<Incoming>, shared: Arc<Shared>) -> Response<AnyBody> {
    let path = request.uri().path().to_owned();
    match path.as_str() {
        "/hold" => {
            let mut counted = Counted::new(&shared);
            shared.held.send_modify(|held| *held += 1);
            let mut released = shared.released.subscribe();
            released.wait_for(|released| *released).await.unwrap();
            counted.finish();
            Response::new(text("held"))
        }
        "/echo" => {
            let mut response = Response::new(AnyBody::default());
            if let Some(trailer) = request.headers().get("trailer") {
                response.headers_mut().insert("trailer", trailer.clone());
            }
            *response.body_mut() = request.into_body().map_err(BoxError::from).boxed();
            response
        }
        "/endless" => Response::new(
            Zeroes {
                left: None,
                counted: Some(Counted::new(&shared)),
                shared,
            }
            .boxed(),
        ),
        "/early" => Response::new(text("not read")),
        "/close" => {
            let mut response = Response::new(text("closing"));
            response
                .headers_mut()
                .insert("connection", HeaderValue::from_static("close"));
            response
        }
        "/upgrade" => {
            let upgrading = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let upgraded = upgrading.await.unwrap();
                let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
            Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header("connection", "upgrade")
                .header("upgrade", "echo")
                .body(AnyBody::default())
                .unwrap()
        }
        "/nothing" => Response::builder()
            .status(StatusCode::NO_CONTENT)
            .body(Empty::new().map_err(|never| match never {}).boxed())
            .unwrap(),
        path => match path.strip_prefix("/bytes/") {
            Some(count) => Response::new(
                Zeroes {
                    left: Some(count.parse().unwrap()),
                    counted: None,
                    shared,
                }
                .boxed(),
            ),
            None => Response::new(text("hello")),
        },
    }
}

pub fn text(text: &'static str) -> AnyBody {
    Full::new(Bytes::from_static(text.as_bytes()))
        .map_err(|never| match never {})
        .boxed()
}

/// Returns a body whose frames the test sends. It ends when the sender is dropped.
pub fn channel() -> (mpsc::Sender<Frame<Bytes>>, AnyBody) {
    struct Frames(mpsc::Receiver<Frame<Bytes>>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            self.0.poll_recv(cx).map(|frame| frame.map(Ok))
        }
    }

    let (sender, receiver) = mpsc::channel(1);
    (sender, Frames(receiver).boxed())
}

/// Returns a body that fails after its first bytes.
pub fn broken() -> AnyBody {
    struct Broken(bool);

    impl Body for Broken {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            let first = !std::mem::replace(&mut self.0, true);
            Poll::Ready(Some(if first {
                Ok(Frame::data(Bytes::from_static(b"part")))
            } else {
                Err("the app went away".into())
            }))
        }
    }

    Broken(false).boxed()
}

impl Counted {
    fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
            finished: false,
        }
    }

    fn finish(&mut self) {
        self.finished = true;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if !self.finished {
            self.shared.cancelled.send_modify(|count| *count += 1);
        }
    }
}

impl Body for Zeroes {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        static CHUNK: [u8; 64 * 1024] = [0; 64 * 1024];
        let length = match &mut self.left {
            None => CHUNK.len(),
            Some(0) => return Poll::Ready(None),
            Some(left) => {
                let length = CHUNK.len().min(*left as usize);
                *left -= length as u64;
                length
            }
        };
        let produced = &self.shared.produced;
        produced.fetch_add(length as u64, Ordering::Relaxed);
        let chunk = Bytes::from_static(&CHUNK[..length]);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self.left {
            Some(left) => http_body::SizeHint::with_exact(left),
            None => http_body::SizeHint::default(),
        }
    }
}
