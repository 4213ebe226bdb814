//! HTTP/2 by streams: a service behind TLS whose streams the test handles, and an app.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc, watch};
use tokio_rustls::TlsAcceptor;

use super::service::tls;
use super::upstream::soon;

/// A service whose streams the test answers.
pub struct Streams {
    pub address: SocketAddr,
    folder: TempDir,
    arriving: Mutex<mpsc::UnboundedReceiver<Stream>>,
    connections: Arc<watch::Sender<usize>>,
}

/// A request, and the handle for its response.
pub struct Stream {
    /// The number of the connection, from 0.
    pub connection: usize,
    pub head: http::request::Parts,
    pub body: RecvStream,
    pub reply: SendResponse<Bytes>,
}

impl Streams {
    /// Starts a service that permits 100 streams per connection.
    pub async fn start() -> Self {
        Self::with(|builder| {
            builder.max_concurrent_streams(100);
        })
        .await
    }

    pub async fn with(settings: impl Fn(&mut h2::server::Builder) + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let acceptor = TlsAcceptor::from(tls(folder.path(), &[b"h2"]));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (arrived, arriving) = mpsc::unbounded_channel();
        let connections = Arc::new(watch::Sender::new(0));
        let accepted = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let number = *accepted.borrow();
                accepted.send_modify(|count| *count += 1);
                let mut builder = h2::server::Builder::new();
                builder.max_header_list_size(1024 * 1024);
                settings(&mut builder);
                let (acceptor, arrived) = (acceptor.clone(), arrived.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let Ok(mut connection) = builder.handshake(stream).await else {
                        return;
                    };
                    while let Some(Ok((request, reply))) = connection.accept().await {
                        let (head, body) = request.into_parts();
                        let _ = arrived.send(Stream {
                            connection: number,
                            head,
                            body,
                            reply,
                        });
                    }
                });
            }
        });
        Self {
            address,
            folder,
            arriving: Mutex::new(arriving),
            connections,
        }
    }

    /// Returns the next request.
    pub async fn next(&self) -> Stream {
        soon(async { self.arriving.lock().await.recv().await })
            .await
            .unwrap()
    }

    /// Returns the number of accepted connections.
    pub fn connections(&self) -> usize {
        *self.connections.borrow()
    }

    /// Returns the flags that make a sidecar use it for every upstream.
    pub fn flags(&self) -> Vec<String> {
        self.flags_by(self.address)
    }

    /// Like [`flags`](Self::flags), through another address that leads to it.
    pub fn flags_by(&self, address: SocketAddr) -> Vec<String> {
        let ca: PathBuf = self.folder.path().join("ca.pem");
        vec![
            "--connect-to".into(),
            format!("*:443:127.0.0.1:{}", address.port()),
            "--upstream-ca".into(),
            ca.display().to_string(),
        ]
    }
}

impl Stream {
    /// Sends a head, and returns the handle for the rest.
    pub fn begin(&mut self, response: Response<()>) -> SendStream<Bytes> {
        self.reply.send_response(response, false).unwrap()
    }

    /// Sends a whole response with this text.
    pub fn answer(mut self, text: &'static str) {
        let mut body = self.begin(Response::new(()));
        body.send_data(Bytes::from_static(text.as_bytes()), true)
            .unwrap();
    }

    /// Waits until the peer resets this stream before a response.
    pub async fn reset(&mut self) -> Reason {
        soon(std::future::poll_fn(|cx| self.reply.poll_reset(cx)))
            .await
            .unwrap()
    }
}

/// Opens an app's connection with prior knowledge.
pub async fn app(address: SocketAddr) -> SendRequest<Bytes> {
    app_with(address, &h2::client::Builder::new()).await
}

/// Like [`app`], with other settings.
pub async fn app_with(address: SocketAddr, builder: &h2::client::Builder) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = builder.handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Waits until a stream can be opened, and opens it.
pub async fn open(
    app: &SendRequest<Bytes>,
    request: Request<()>,
    end: bool,
) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
    let mut ready = soon(app.clone().ready()).await.unwrap();
    ready.send_request(request, end).unwrap()
}

/// Waits until the peer resets a stream.
pub async fn reset(stream: &mut SendStream<Bytes>) -> Reason {
    soon(std::future::poll_fn(|cx| stream.poll_reset(cx)))
        .await
        .unwrap()
}

/// Reads a body with its trailers to its end or its error.
pub async fn whole(body: &mut RecvStream) -> Result<(Bytes, Option<HeaderMap>), h2::Error> {
    soon(async {
        let mut bytes = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            bytes.extend_from_slice(&chunk);
        }
        Ok((bytes.into(), body.trailers().await?))
    })
    .await
}

/// Sends a body as fast as the windows permit, until its end or the end of the stream.
pub async fn pour(stream: &mut SendStream<Bytes>, bytes: usize) -> Result<(), h2::Error> {
    static CHUNK: [u8; 16 * 1024] = [0; 16 * 1024];
    let mut left = bytes;
    while left > 0 {
        stream.reserve_capacity(left.min(CHUNK.len()));
        let Some(room) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
            return Err(Reason::CANCEL.into());
        };
        let length = room?.min(left).min(CHUNK.len());
        left -= length;
        stream.send_data(Bytes::from_static(&CHUNK[..length]), left == 0)?;
    }
    Ok(())
}
