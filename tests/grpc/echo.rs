//! The service: a method of each kind, one that waits, and two that fail.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request as HttpRequest};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tonic::codegen::tokio_stream::StreamExt;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::server::Grpc;
use tonic::{Code, Request, Response, Status, Streaming};

use super::client::Text;
use super::support::service::tls;
use super::support::upstream::soon;

/// The content of `grpc-status-details-bin`: 60 KiB on the wire.
pub(super) fn details() -> Bytes {
    (0..45 * 1024).map(|number: u32| number as u8).collect()
}

/// A running service.
pub(super) struct Echo {
    port: u16,
    folder: TempDir,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    heads: Mutex<Vec<HeaderMap>>,
    connections: watch::Sender<usize>,
    held: watch::Sender<usize>,
    given_up: watch::Sender<usize>,
    released: watch::Sender<bool>,
}

/// A call that is answered, or cancelled before.
struct Held {
    shared: Arc<Shared>,
    answered: bool,
}

impl Echo {
    pub(super) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let acceptor = TlsAcceptor::from(tls(folder.path(), &[b"h2"]));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::<Shared>::default();
        let this = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                this.connections.send_modify(|count| *count += 1);
                let (acceptor, this) = (acceptor.clone(), this.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(move |request| {
                        let this = this.clone();
                        async move { Ok::<_, Infallible>(answer(request, this).await) }
                    });
                    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .max_concurrent_streams(100)
                        .max_header_list_size(1024 * 1024)
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            port,
            folder,
            shared,
        }
    }

    /// Returns the flags that make a sidecar use it for every upstream.
    pub(super) fn flags(&self) -> Vec<String> {
        let ca: PathBuf = self.folder.path().join("ca.pem");
        vec![
            "--connect-to".into(),
            format!("*:443:127.0.0.1:{}", self.port),
            "--upstream-ca".into(),
            ca.display().to_string(),
        ]
    }

    /// Returns the heads so far.
    pub(super) fn heads(&self) -> Vec<HeaderMap> {
        self.shared.heads.lock().unwrap().clone()
    }

    /// Returns the number of accepted connections.
    pub(super) fn connections(&self) -> usize {
        *self.shared.connections.borrow()
    }

    /// Waits until this number of calls is held.
    pub(super) async fn held(&self, count: usize) {
        let mut held = self.shared.held.subscribe();
        soon(held.wait_for(|held| *held == count)).await.unwrap();
    }

    /// Waits until this number of calls was cancelled.
    pub(super) async fn given_up(&self, count: usize) {
        let mut given_up = self.shared.given_up.subscribe();
        soon(given_up.wait_for(|given_up| *given_up == count))
            .await
            .unwrap();
    }

    /// Answers all held calls.
    pub(super) fn release(&self) {
        self.shared.released.send_replace(true);
    }
}

async fn answer(request: HttpRequest<Incoming>, shared: Arc<Shared>) -> http::Response<Body> {
    let head = request.headers().clone();
    shared.heads.lock().unwrap().push(head);
    let mut grpc = Grpc::new(Text);
    match request.uri().path() {
        "/test.Echo/Unary" => grpc.unary(tower::service_fn(unary), request).await,
        "/test.Echo/Fail" => {
            let fail = |_: Request<String>| async { Err::<Response<String>, _>(failure()) };
            grpc.unary(tower::service_fn(fail), request).await
        }
        "/test.Echo/Hold" => {
            let hold = |request: Request<String>| hold(request, shared.clone());
            grpc.unary(tower::service_fn(hold), request).await
        }
        "/test.Echo/Count" => {
            let service = tower::service_fn(count);
            grpc.server_streaming(service, request).await
        }
        "/test.Echo/Watch" => {
            let watch = |request| watch(request, shared.clone());
            let service = tower::service_fn(watch);
            grpc.server_streaming(service, request).await
        }
        "/test.Echo/Join" => {
            let service = tower::service_fn(join);
            grpc.client_streaming(service, request).await
        }
        "/test.Echo/Chat" => {
            let chat = |request| chat(request, shared.clone());
            grpc.streaming(tower::service_fn(chat), request).await
        }
        _ => Status::unimplemented("no such method").into_http(),
    }
}

fn failure() -> Status {
    Status::with_details(Code::FailedPrecondition, "100% – not now", details())
}

/// Returns the same text and the same binary metadata.
async fn unary(request: Request<String>) -> Result<Response<String>, Status> {
    let (metadata, _, text) = request.into_parts();
    let mut response = Response::new(text);
    if let Some(value) = metadata.get_bin("x-echo-bin") {
        response
            .metadata_mut()
            .insert_bin("x-echo-bin", value.clone());
    }
    Ok(response)
}

async fn hold(request: Request<String>, shared: Arc<Shared>) -> Result<Response<String>, Status> {
    let mut held = Held::new(&shared);
    let mut released = shared.released.subscribe();
    released.wait_for(|released| *released).await.unwrap();
    held.answered = true;
    Ok(Response::new(request.into_inner()))
}

/// Returns the requested number of messages, then an end, or a failure if the text says so.
async fn count(
    request: Request<String>,
) -> Result<Response<ReceiverStream<Result<String, Status>>>, Status> {
    let text = request.into_inner();
    let (number, fails) = match text.split_once(' ') {
        Some((number, _)) => (number, true),
        None => (&*text, false),
    };
    let number: usize = number.parse().unwrap();
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        for number in 1..=number {
            if sender.send(Ok(number.to_string())).await.is_err() {
                return;
            }
        }
        if fails {
            let _ = sender.send(Err(failure())).await;
        }
    });
    Ok(Response::new(ReceiverStream::new(receiver)))
}

/// Returns the text, then waits until the app leaves.
async fn watch(
    request: Request<String>,
    shared: Arc<Shared>,
) -> Result<Response<ReceiverStream<Result<String, Status>>>, Status> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let _held = Held::new(&shared);
        let _ = sender.send(Ok(request.into_inner())).await;
        sender.closed().await;
    });
    Ok(Response::new(ReceiverStream::new(receiver)))
}

async fn join(request: Request<Streaming<String>>) -> Result<Response<String>, Status> {
    let mut texts = request.into_inner();
    let mut joined = String::new();
    while let Some(text) = texts.message().await? {
        joined.push_str(&text);
    }
    Ok(Response::new(joined))
}

/// Returns each text at once, until the app ends the stream.
async fn chat(
    request: Request<Streaming<String>>,
    shared: Arc<Shared>,
) -> Result<Response<ReceiverStream<Result<String, Status>>>, Status> {
    let mut texts = request.into_inner();
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut held = Held::new(&shared);
        while let Some(Ok(text)) = texts.next().await {
            if sender.send(Ok(text)).await.is_err() {
                return;
            }
        }
        held.answered = !sender.is_closed();
    });
    Ok(Response::new(ReceiverStream::new(receiver)))
}

impl Held {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.held.send_modify(|held| *held += 1);
        Self {
            shared: shared.clone(),
            answered: false,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.held.send_modify(|held| *held -= 1);
        if !self.answered {
            self.shared.given_up.send_modify(|count| *count += 1);
        }
    }
}
