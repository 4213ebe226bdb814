//! Accepting and serving connections until told to stop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::front::{Ends, Front, Serving};
use super::listener::{Listener, Socket};
use crate::proxy::{Activity, Connection, Entrance, Opened};
use crate::telemetry::Gauged;

/// gRPC status details and cookies go beyond hyper's 16 KiB.
const HEADER_LIST: u32 = 256 * 1024;

/// Headers of an HTTP/1 request; beyond it 431.
const HEADERS: usize = 256;

/// Connections over the limit that still get an answer; beyond them a connection is closed unheard.
///
/// It is the same with the streams of an HTTP/2 connection: those over the limit hear so, instead of waiting at the app.
const GRACE: usize = 64;

/// Bytes of uploads that may be under way to us on one stream, and on all of a connection: 16 uploads whose upstream
/// does not read hold up none of the others. h2 derives from the second how many small messages may wait unread.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// HTTP/2: frames for streams that are reset already, in a connection's life. After an early answer those of an upload
/// are still on their way; an app that only ever sends such must not make us answer for ever.
const LATE_FRAMES: usize = 64 * 1024;

/// How long a connection over the limit may take to hear that it is refused.
const REFUSED: Duration = Duration::from_secs(1);

/// How many connections are served.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `--max-connections`.
    pub connections: usize,
}

/// Serves the app's connections, on all listeners.
#[derive(Clone, Debug)]
pub struct Server {
    activity: Arc<Activity>,
    limits: Limits,
    open: Arc<AtomicUsize>,
    /// Accept loops and connections.
    tasks: TaskTracker,
    closing: CancellationToken,
}

struct Open(Arc<AtomicUsize>);

// === impl Server ===

impl Server {
    /// One for the process.
    pub fn new(activity: Arc<Activity>, limits: Limits) -> Self {
        Self {
            activity,
            limits,
            open: Arc::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        }
    }

    /// Accepts on a task of its own until [`close`](Self::close) is called.
    pub fn listen(&self, listener: Listener, serving: Serving) {
        self.tasks.spawn(self.clone().accept(listener, serving));
    }

    async fn accept(self, listener: Listener, serving: Serving) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.socket.accept() => accepted,
                () = self.closing.cancelled() => return,
            };
            match accepted {
                Ok(Accepted::Tcp(stream, ends)) => self.spawn(stream, Some(ends), &serving, None),
                Ok(Accepted::Unix(stream)) => self.spawn(stream, None, &serving, None),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    // Out of descriptors: whoever closes one needs the CPU more than this loop.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Serves what comes out of opened tunnels through the listener that serves this, until [`close`](Self::close) is
    /// called.
    pub fn serve_opened(&self, mut opened: mpsc::Receiver<Opened>, serving: Serving) {
        let server = self.clone();
        self.tasks.spawn(async move {
            loop {
                let opened = tokio::select! {
                    opened = opened.recv() => opened,
                    () = server.closing.cancelled() => return,
                };
                let Some(Opened { stream, entrance }) = opened else {
                    return;
                };
                server.spawn(stream, None, &serving, Some(entrance));
            }
        });
    }

    /// Stops accepting, tells every connection to finish, and waits until all have.
    pub async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn spawn<S>(
        &self,
        stream: S,
        ends: Option<Ends>,
        serving: &Serving,
        tunnel: Option<Arc<Entrance>>,
    ) where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let open = Open(self.open.clone());
        if before >= self.limits.connections.saturating_add(GRACE) {
            return;
        }
        let served = serving.load_full();
        let counted = served.entrances.listener().metrics.connection_opened();
        let server = self.clone();
        let serving = serving.clone();
        let connection = Connection {
            local: ends.map(|ends| ends.near),
            over_limit: before >= self.limits.connections,
        };
        self.tasks.spawn(async move {
            let fixed = match tunnel {
                Some(entrance) => Some(entrance),
                None => served.entrances.fixed(ends).await,
            };
            // A connection may be open for days, and must not keep what a reload has replaced.
            drop(served);
            let front = Front {
                serving,
                fixed,
                connection,
                activity: server.activity,
            };
            let streams = server.limits.connections.saturating_add(GRACE);
            serve(stream, front, streams, server.closing, (open, counted)).await;
        });
    }
}

async fn serve<S>(
    stream: S,
    front: Front,
    streams: usize,
    closing: CancellationToken,
    _counted: (Open, Gauged),
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // The default closes a kept-alive connection after 30 s, just as an app's pool may be writing to it.
        .header_read_timeout(None)
        .max_headers(HEADERS)
        .preserve_header_case(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_LIST)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(u32::try_from(streams).unwrap_or(u32::MAX))
        // An app may give up a thousand calls in the same moment that it began them.
        .max_pending_accept_reset_streams(streams)
        .max_local_error_reset_streams(LATE_FRAMES);
    // A refused connection must not be kept: in an app's pool it would be refused for ever.
    let refused = front.connection.over_limit;
    builder.http1().keep_alive(!refused);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), front);
    tokio::pin!(connection);
    let told_to_end = async {
        tokio::select! {
            () = closing.cancelled() => {}
            () = tokio::time::sleep(REFUSED), if refused => {}
        }
    };
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = told_to_end => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        // An app that leaves or sends nonsense is its own affair; the record has counted what it began.
        tracing::debug!(%error, "connection ended");
    }
}

enum Accepted {
    Tcp(tokio::net::TcpStream, Ends),
    Unix(tokio::net::UnixStream),
}

impl Socket {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, far) = listener.accept().await?;
                // Both fail only on a connection that is gone already, which serving it will show.
                let _ = stream.set_nodelay(true);
                let near = stream.local_addr().or_else(|_| listener.local_addr())?;
                Ok(Accepted::Tcp(stream, Ends { far, near }))
            }
            Self::Unix(listener, _) => Ok(Accepted::Unix(listener.accept().await?.0)),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Else the second of two small writes waits for an acknowledgement: 40 ms for each answer.
    #[tokio::test]
    async fn an_accepted_connection_sends_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _app = TcpStream::connect(address).await.unwrap();
        let Accepted::Tcp(stream, ends) = Socket::Tcp(listener).accept().await.unwrap() else {
            panic!("no TCP");
        };
        assert!(stream.nodelay().unwrap());
        assert_eq!(ends.near, address);
    }
}
