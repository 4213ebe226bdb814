//! Answers HTTP/1.1 requests whose head is incomplete or cannot be parsed.
//!
//! hyper answers such a request with a head of its own and ends the connection. [`ErrorResponseFilter`] withholds that
//! head. The error that hyper returns next selects the response that is sent instead.

use std::error::Error as StdError;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::parse_error::{Received, automatic, classify};
use crate::error::Error;
use crate::lock::lock;
use crate::proxy::rejection;

/// The time that a client has to read the last response and to finish its upload.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// The number of bytes that are read after a rejection. Closing with unread bytes would reset the connection and lose
/// the rejection.
const LINGER: usize = 1024 * 1024;

/// The number of bytes that are discarded at a time.
const SINK: usize = 16 * 1024;

/// The values of [`SharedClosedConnection::state`]: nothing is withheld, a response is withheld, or it is released.
const PASSING: u8 = 0;
const WITHHOLDING: u8 = 1;
const RELEASED: u8 = 2;

/// A client's stream that withholds hyper's own responses.
#[derive(Debug)]
pub(super) struct ErrorResponseFilter<S> {
    /// `None` only after the end of its use.
    stream: Option<S>,
    withheld: Vec<u8>,
    shared: Arc<SharedClosedConnection<S>>,
}

/// What remains of a connection when hyper has finished with it.
#[derive(Debug)]
pub(super) struct ClosedConnection<S>(Arc<SharedClosedConnection<S>>);

#[derive(Debug)]
struct SharedClosedConnection<S> {
    state: AtomicU8,
    remains: Mutex<Option<(S, Vec<u8>)>>,
}

pin_project! {
    /// A hyper connection over a [`ErrorResponseFilter`]. A withheld response is released if the connection goes on,
    /// because hyper's own response is always the last one.
    #[derive(Debug)]
    pub(super) struct FilteredConnection<C, S> {
        #[pin]
        connection: C,
        shared: Arc<SharedClosedConnection<S>>,
    }
}

// === impl ErrorResponseFilter ===

impl<S> ErrorResponseFilter<S> {
    pub(super) fn new(stream: S) -> (Self, ClosedConnection<S>) {
        let shared = Arc::new(SharedClosedConnection {
            state: AtomicU8::new(PASSING),
            remains: Mutex::new(None),
        });
        let filter = Self {
            stream: Some(stream),
            withheld: Vec::new(),
            shared: shared.clone(),
        };
        (filter, ClosedConnection(shared))
    }

    fn stream(&mut self) -> io::Result<&mut S> {
        self.stream
            .as_mut()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<S: AsyncWrite + Unpin> ErrorResponseFilter<S> {
    /// Writes the withheld bytes.
    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.withheld.is_empty() {
            let Some(stream) = &mut self.stream else {
                break;
            };
            let written = ready!(Pin::new(stream).poll_write(cx, &self.withheld))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.withheld.drain(..written);
        }
        self.shared.state.store(PASSING, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    /// Withholds the bytes if they are hyper's own response.
    fn withholds(&mut self, bytes: &[u8]) -> bool {
        let withholds = self.withheld.is_empty() && automatic(bytes).is_some();
        if withholds {
            self.withheld.extend_from_slice(bytes);
            self.shared.state.store(WITHHOLDING, Ordering::Relaxed);
        }
        withholds
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ErrorResponseFilter<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(self.stream()?).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ErrorResponseFilter<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.withholds(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        if !self.withheld.is_empty() {
            ready!(self.poll_release(cx))?;
        }
        Pin::new(self.stream()?).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.withheld.is_empty() {
            if self.shared.state.load(Ordering::Relaxed) != RELEASED {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_release(cx))?;
        }
        Pin::new(self.stream()?).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.withheld.is_empty() {
            // The end of the connection decides whether the bytes are sent.
            return Poll::Ready(Ok(()));
        }
        Pin::new(self.stream()?).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [buf] = bufs {
            return self.poll_write(cx, buf);
        }
        if !self.withheld.is_empty() {
            ready!(self.poll_release(cx))?;
        }
        Pin::new(self.stream()?).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(S::is_write_vectored)
    }
}

impl<S> Drop for ErrorResponseFilter<S> {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            let remains = (stream, std::mem::take(&mut self.withheld));
            *self.shared.lock() = Some(remains);
        }
    }
}

// === impl SharedClosedConnection ===

impl<S> SharedClosedConnection<S> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(S, Vec<u8>)>> {
        lock(&self.remains)
    }
}

// === impl FilteredConnection ===

impl<C, S> FilteredConnection<C, S> {
    /// Returns the connection.
    pub(super) fn connection(self: Pin<&mut Self>) -> Pin<&mut C> {
        self.project().connection
    }
}

impl<C, S> Future for FilteredConnection<C, S>
where
    C: Future,
{
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let mut this = self.project();
        let polled = this.connection.as_mut().poll(cx);
        let state = &this.shared.state;
        if polled.is_pending() && state.load(Ordering::Relaxed) == WITHHOLDING {
            state.store(RELEASED, Ordering::Relaxed);
            return this.connection.poll(cx);
        }
        polled
    }
}

// === impl ClosedConnection ===

impl<S: AsyncRead + AsyncWrite + Unpin> ClosedConnection<S> {
    /// Returns the connection that is served over the filter.
    pub(super) fn of<C>(&self, connection: C) -> FilteredConnection<C, S> {
        FilteredConnection {
            connection,
            shared: self.0.clone(),
        }
    }

    /// Calls `f` with the stream, unless the connection was upgraded.
    pub(super) fn with_stream(&self, f: impl FnOnce(&S)) {
        if let Some((stream, _)) = self.0.lock().as_ref() {
            f(stream);
        }
    }

    /// Returns the error of a client's bytes that are not a request, or `None` if the connection ended for another
    /// reason. `received` inspects the stream.
    pub(super) fn rejected(
        &self,
        ended: &(dyn StdError + 'static),
        received: impl Fn(&S) -> Received,
    ) -> Option<Error> {
        let remains = self.0.lock();
        let answered = remains.as_ref().and_then(|(_, head)| automatic(head));
        let received = remains
            .as_ref()
            .map_or_else(Received::default, |(stream, _)| received(stream));
        classify(ended, answered, received)
    }

    /// Ends a connection after hyper, with the rejection or with the withheld bytes. An upgraded connection goes on.
    /// `may_answer` permits the rejection where nothing was withheld.
    pub(super) async fn end(self, rejected: Option<&Error>, may_answer: bool) {
        let Some((stream, withheld)) = self.0.lock().take() else {
            return;
        };
        let answer = match rejected {
            Some(error) if !withheld.is_empty() || may_answer => rejection(error),
            _ => withheld,
        };
        if !answer.is_empty() {
            // A client that has closed or does not read misses the rejection.
            let _ = timeout(LINGER_TIMEOUT, write_final_response(stream, &answer)).await;
        }
    }

    /// Reads for a while after the last response to a client that was sending a body (RFC 9112, 9.6).
    pub(super) async fn linger(self) {
        let remains = self.0.lock().take();
        if let Some((mut stream, withheld)) = remains
            && withheld.is_empty()
        {
            let _ = timeout(LINGER_TIMEOUT, discard(&mut stream, usize::MAX)).await;
        }
    }
}

/// Writes a last response, then reads for a while.
async fn write_final_response<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    answer: &[u8],
) -> io::Result<()> {
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    discard(&mut stream, LINGER).await
}

/// Reads and discards a limited number of bytes. Closing a connection with unread bytes resets it, and the client may
/// lose the response.
async fn discard<S: AsyncRead + Unpin>(stream: &mut S, mut left: usize) -> io::Result<()> {
    // On the heap, because every connection holds this future.
    let mut sink = vec![0; SINK];
    while left > 0 {
        match stream.read(&mut sink).await? {
            0 => break,
            read => left = left.saturating_sub(read),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: Sat, 28 Nov 2026 12:00:00 GMT\r\n\r\n";

    /// An upstream may answer with the same head.
    #[tokio::test]
    async fn a_withheld_response_that_hyper_did_not_make_is_sent_whole() {
        let (mut client, server) = tokio::io::duplex(4096);
        let (mut filter, remains) = ErrorResponseFilter::new(server);
        filter.write_all(OWN).await.unwrap();
        filter.write_all(b"more").await.unwrap();
        filter.write_all(OWN).await.unwrap();
        drop(filter);
        let ended = tokio::spawn(remains.end(None, true));
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, [OWN, b"more", OWN].concat());
        drop(client);
        ended.await.unwrap();
    }

    /// The connection goes on, so the response was not hyper's own.
    #[tokio::test]
    async fn a_response_on_a_kept_connection_is_written_at_once() {
        let (mut client, server) = tokio::io::duplex(4096);
        let (mut filter, remains) = ErrorResponseFilter::new(server);
        let connection = remains.of(async move {
            filter.write_all(OWN).await.unwrap();
            std::future::poll_fn(|cx| {
                // hyper flushes whenever it is polled.
                let _ = Pin::new(&mut filter).poll_flush(cx);
                Poll::<()>::Pending
            })
            .await;
        });
        tokio::spawn(connection);
        let mut received = vec![0; OWN.len()];
        client.read_exact(&mut received).await.unwrap();
        assert_eq!(received, OWN);
    }
}
