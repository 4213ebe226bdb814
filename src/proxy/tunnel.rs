//! Tunnels: two connections joined after `CONNECT` or an upgrade.

pub(crate) mod intercept;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use crate::proxy::request::record::RequestRecord;
use crate::proxy::request::transfer::Transfer;

/// The size of the buffer for each direction of a tunnel.
const BUFFER: usize = 16 * 1024;

/// The time without a byte after which a tunnel ends that one side has closed. The other side may never close: a client
/// that has gone looks like one that has closed its direction.
const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(60);

/// The open tunnels of the process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tunnels(TaskTracker);

/// The app's end of a tunnel. Counts bytes as they pass.
struct ClientStream<'a, S> {
    stream: S,
    transfer: &'a Transfer,
}

/// Treats EOF without `close_notify` as a half-close, and keeps the other direction open. The inner protocol checks
/// integrity.
struct IgnoreCloseNotify<'a, S> {
    stream: S,
    /// Notified at the end of the stream.
    ended: &'a Notify,
}

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
                join(record.transfer(), TokioIo::new(app), upstream).await;
            }
        });
    }

    /// Runs a task that may become a tunnel.
    pub(crate) fn track(&self, tunnel: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(tunnel);
    }
}

/// Copies both ways until both directions have ended, or one has and no byte passes for [`HALF_CLOSED_TIMEOUT`].
/// `transfer` counts the bytes.
pub(crate) async fn join<A, U>(transfer: &Transfer, app: A, upstream: U)
where
    A: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let ended = Notify::new();
    let mut app = ClientStream {
        stream: IgnoreCloseNotify {
            stream: app,
            ended: &ended,
        },
        transfer,
    };
    let mut upstream = IgnoreCloseNotify {
        stream: upstream,
        ended: &ended,
    };
    let idle = async {
        ended.notified().await;
        loop {
            let before = transfer.bytes();
            sleep(HALF_CLOSED_TIMEOUT).await;
            if transfer.bytes() == before {
                return;
            }
        }
    };
    tokio::select! {
        _ = copy_bidirectional_with_sizes(&mut app, &mut upstream, BUFFER, BUFFER) => {}
        () = idle => {}
    }
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
        self.transfer.received(read as u64);
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
        self.transfer.sent(written as u64);
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

impl<S: AsyncRead + Unpin> AsyncRead for IgnoreCloseNotify<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = match ready!(Pin::new(&mut self.stream).poll_read(cx, buf)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            read => read,
        };
        if read.is_ok() && buf.filled().len() == before && buf.remaining() > 0 {
            self.ended.notify_one();
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for IgnoreCloseNotify<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use super::*;

    fn tunnel() -> (DuplexStream, DuplexStream, JoinHandle<()>) {
        let (app, app_end) = duplex(1024);
        let (upstream, upstream_end) = duplex(1024);
        let tunnel = tokio::spawn(async move {
            join(&Transfer::default(), app_end, upstream_end).await;
        });
        (app, upstream, tunnel)
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_whose_app_has_gone_ends_though_the_upstream_is_silent() {
        let (app, mut upstream, tunnel) = tunnel();
        let start = Instant::now();
        drop(app);
        assert_eq!(upstream.read(&mut [0]).await.unwrap(), 0);
        tunnel.await.unwrap();
        assert_eq!(start.elapsed(), HALF_CLOSED_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_whose_upstream_has_closed_ends_though_the_app_is_silent() {
        let (mut app, upstream, tunnel) = tunnel();
        drop(upstream);
        assert_eq!(app.read(&mut [0]).await.unwrap(), 0);
        tunnel.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_closed_tunnel_lives_while_bytes_pass() {
        let (mut app, mut upstream, tunnel) = tunnel();
        app.shutdown().await.unwrap();
        for _ in 0..5 {
            sleep(HALF_CLOSED_TIMEOUT / 2).await;
            upstream.write_all(b"x").await.unwrap();
            assert_eq!(app.read_u8().await.unwrap(), b'x');
        }
        assert!(!tunnel.is_finished());
        drop(upstream);
        tunnel.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_tunnel_may_be_silent_for_hours() {
        let (app, _upstream, tunnel) = tunnel();
        sleep(Duration::from_secs(7200)).await;
        assert!(!tunnel.is_finished());
        drop(app);
    }
}
