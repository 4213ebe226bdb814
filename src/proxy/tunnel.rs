//! Tunnels: two connections joined after `CONNECT` or an upgrade.

pub(crate) mod intercept;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio_util::task::TaskTracker;

use crate::proxy::request::record::RequestRecord;

/// The size of the buffer for each direction of a tunnel.
const BUFFER: usize = 16 * 1024;

/// The open tunnels of the process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tunnels(TaskTracker);

/// The app's end of a tunnel. Counts bytes as they pass.
struct ClientStream<'a, S> {
    stream: S,
    record: &'a RequestRecord,
}

/// Treats EOF without `close_notify` as a half-close, and keeps the other direction open. The inner protocol checks
/// integrity.
struct IgnoreCloseNotify<S>(S);

// === impl Tunnels ===

impl Tunnels {
    /// Joins both connections once they are there. Errors of either end only end the tunnel.
    pub(crate) fn spawn<U>(
        &self,
        record: Arc<RequestRecord>,
        app: OnUpgrade,
        upstream: impl Future<Output = Option<U>> + Send + 'static,
    ) where
        U: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.track(async move {
            if let (Ok(app), Some(upstream)) = tokio::join!(app, upstream) {
                join(&record, TokioIo::new(app), upstream).await;
            }
        });
    }

    /// Runs a task that may become a tunnel.
    pub(crate) fn track(&self, tunnel: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(tunnel);
    }
}

/// Copies both ways until both directions have ended. Bytes are added to the request's record as they pass.
pub(crate) async fn join<A, U>(record: &RequestRecord, app: A, upstream: U)
where
    A: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let mut app = ClientStream {
        stream: IgnoreCloseNotify(app),
        record,
    };
    let mut upstream = IgnoreCloseNotify(upstream);
    let _ = copy_bidirectional_with_sizes(&mut app, &mut upstream, BUFFER, BUFFER).await;
}

// === impl ClientStream ===

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = buf.filled().len().saturating_sub(before);
        self.record.transfer().received(read as u64);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientStream<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.record.transfer().sent(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

// === impl IgnoreCloseNotify ===

impl<S: AsyncRead + Unpin> AsyncRead for IgnoreCloseNotify<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.0).poll_read(cx, buf)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            read => Poll::Ready(read),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for IgnoreCloseNotify<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
