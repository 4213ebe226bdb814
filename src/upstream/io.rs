//! The socket of a connection to an upstream, with or without TLS, and the permit that it holds.
//!
//! hyper reads and writes through [`UpstreamIo`]. It observes the order of requests and responses, limits interim
//! responses, and keeps hyper's buffers small.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::client::TlsStream;

use super::interim::InterimLimiter;
use super::read_ahead::ReadAhead;
use super::receive_state::ReceiveState;
use crate::memory::READ;
use crate::telemetry::{GaugeGuard, Metrics};

/// Like [`READ`], for TLS. A TLS read costs more, so larger reads save more.
const TLS_READ: usize = 2 * READ;

/// The bytes to and from an upstream.
#[derive(Debug)]
pub(super) enum UpstreamStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<ReadAhead<TcpStream>>>),
}

/// The permit and the gauge of an open connection. Their drop frees the permit and decrements the gauge.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    _permit: OwnedSemaphorePermit,
    _gauge: GaugeGuard,
}

/// An [`UpstreamStream`] that holds its permit while the socket is open, also after an upgrade.
#[derive(Debug)]
pub(super) struct UpstreamIo {
    stream: UpstreamStream,
    received: ReceiveState,
    /// Counts the interim responses. `None` until the HTTP version selects the counter.
    interim: Option<InterimLimiter>,
    /// Bytes to read before those of the socket. They contain the frames that make h2 reset a stream.
    inserted: Bytes,
    _permit: ConnectionPermit,
}

// === impl UpstreamStream ===

impl UpstreamStream {
    /// Returns the TCP socket.
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0.get_ref(),
        }
    }
}

// === impl ConnectionPermit ===

impl ConnectionPermit {
    pub(super) fn new(permit: OwnedSemaphorePermit, metrics: &Metrics) -> Self {
        Self {
            _permit: permit,
            _gauge: metrics.upstream_connection(),
        }
    }
}

// === impl UpstreamIo ===

impl UpstreamIo {
    pub(super) fn new(stream: UpstreamStream, permit: ConnectionPermit) -> Self {
        Self {
            stream,
            received: ReceiveState::default(),
            interim: None,
            inserted: Bytes::new(),
            _permit: permit,
        }
    }

    /// Limits the interim responses that are read.
    pub(super) fn limiting(mut self, interim: InterimLimiter) -> Self {
        self.interim = Some(interim);
        self
    }

    pub(super) fn receive_state(&self) -> ReceiveState {
        self.received.clone()
    }

    /// Returns an error if a write waits for an upstream that does not read, and the request was cancelled. hyper polls
    /// the request's body, which would report that, only when it can write.
    fn unless_cancelled<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_pending() && self.received.is_cancelled() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        written
    }

    /// Processes the interim responses in the bytes from `start` on. `first`: these are the first bytes since the
    /// request began. If frames must be inserted, `buf` keeps only the bytes before them.
    fn process_interim(
        &mut self,
        first: bool,
        start: usize,
        buf: &mut ReadBuf<'_>,
    ) -> io::Result<()> {
        let Some(interim) = &mut self.interim else {
            return Ok(());
        };
        let bytes = buf.filled().get(start..).unwrap_or_default();
        let inserted = interim.read(first, bytes)?;
        self.received.set_interim(interim.is_waiting());
        if let Some(inserted) = inserted {
            self.received.set_flooded();
            let rest = bytes.get(inserted.at..).unwrap_or_default();
            let mut rest = inserted.frames.chain(rest).chain(&*self.inserted);
            self.inserted = rest.copy_to_bytes(rest.remaining());
            buf.set_filled(start + inserted.at);
        }
        Ok(())
    }

    /// Called when the socket cannot be read any more. Returns whether inserted bytes are left to read.
    fn on_connection_lost(&mut self) -> bool {
        if let Some(interim) = &mut self.interim
            && interim.is_waiting()
        {
            self.inserted = interim.on_connection_lost();
        }
        !self.inserted.is_empty()
    }

    /// Reads inserted bytes, or from the socket if there are none.
    fn poll_bytes(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.inserted.is_empty() {
            let now = self.inserted.len().min(buf.remaining());
            buf.put_slice(&self.inserted.split_to(now));
            return Poll::Ready(Ok(()));
        }
        match &mut self.stream {
            UpstreamStream::Plain(stream) if buf.remaining() >= READ => {
                read_limited(stream, cx, buf)
            }
            UpstreamStream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            UpstreamStream::Tls(stream) => read_records(Pin::new(stream), cx, buf),
        }
    }
}

impl AsyncRead for UpstreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.received.poll_readable(cx));
        let before = buf.filled().len();
        loop {
            let polled = this.poll_bytes(cx, buf);
            if buf.filled().len() > before {
                let first = !this.received.has_received();
                this.received.bytes_received();
                this.process_interim(first, before, buf)?;
                // If frames were inserted before all new bytes, `buf` has none of these. The next iteration reads the
                // frames.
                if buf.filled().len() > before {
                    return polled;
                }
            } else if polled.is_pending() || buf.remaining() == 0 || !this.on_connection_lost() {
                return polled;
            }
        }
    }
}

/// Reads fewer than [`READ`] bytes, even into a larger buffer, because hyper enlarges its buffer after each read that
/// fills it.
fn read_limited(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        match stream.try_read_buf(&mut (&mut *buf).limit(READ - 1)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return Poll::Ready(read.map(drop)),
        }
    }
}

/// Reads fewer than [`TLS_READ`] bytes, from the records that have arrived. tokio-rustls would fill the whole buffer,
/// and hyper enlarges its buffer after each read that fills it.
fn read_records(
    mut stream: Pin<&mut TlsStream<ReadAhead<TcpStream>>>,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    // hyper reads several times for each response. Below TLS, it costs less to find out that nothing has arrived.
    let (socket, session) = stream.as_mut().get_mut().get_mut();
    if session.wants_read() && socket.is_silent(cx) {
        return Poll::Pending;
    }
    let mut room = buf.remaining().min(TLS_READ - 1);
    let mut read = 0;
    while room > 0 {
        let record = match stream.as_mut().poll_fill_buf(cx) {
            Poll::Ready(Ok(record)) => record,
            // The next read returns the error, or registers the waker.
            _ if read > 0 => break,
            nothing => return nothing.map_ok(drop),
        };
        let piece = record.get(..room).unwrap_or(record);
        let length = piece.len();
        buf.put_slice(piece);
        stream.as_mut().consume(length);
        read += length;
        room -= length;
        if length == 0 || !stream.get_ref().0.has_more() {
            break;
        }
    }
    Poll::Ready(Ok(()))
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.stream {
            UpstreamStream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            UpstreamStream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        self.unless_cancelled(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = match &mut self.stream {
            UpstreamStream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            UpstreamStream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        };
        ready!(self.unless_cancelled(flushed))?;
        if self.received.record_flush() {
            // The connection is now ready for its next request, but hyper may return from this poll before it checks
            // that. Without a wake-up, hyper would report the end of the connection only after the socket's next event.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            UpstreamStream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            UpstreamStream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    // Without these two methods, hyper would copy every body into one buffer.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.stream {
            UpstreamStream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            UpstreamStream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        };
        self.unless_cancelled(written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            UpstreamStream::Plain(stream) => stream.is_write_vectored(),
            UpstreamStream::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;

    use super::*;

    /// Returns a connection and its other end.
    async fn connected() -> (UpstreamIo, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let permit = ConnectionPermit::new(permit, &Metrics::new());
        (UpstreamIo::new(UpstreamStream::Plain(stream), permit), far)
    }

    /// Otherwise hyper would hold another piece of each download that the app does not read.
    #[tokio::test]
    async fn nothing_is_read_until_the_app_has_taken_the_last_piece() {
        let (mut io, mut far) = connected().await;
        let received = io.receive_state();
        received.pause();
        far.write_all(b"next").await.unwrap();
        io.stream.tcp().readable().await.unwrap();
        let mut piece = [0; 4];
        let mut read = pin!(io.read(&mut piece));
        let early = poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await;
        assert!(early.is_pending());
        let written = tokio::spawn(async move { received.resume() });
        assert_eq!(read.await.unwrap(), 4);
        written.await.unwrap();
    }

    /// hyper copies bodies into one buffer if a transport does not support vectored writes.
    #[tokio::test]
    async fn a_head_and_its_body_are_sent_in_one_write() {
        let (mut io, mut far) = connected().await;
        assert!(io.is_write_vectored());
        let slices = [IoSlice::new(b"head "), IoSlice::new(b"body")];
        let written = poll_fn(|cx| Pin::new(&mut io).poll_write_vectored(cx, &slices)).await;
        assert_eq!(written.unwrap(), 9);
        let mut read = [0; 9];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"head body");
    }
}
