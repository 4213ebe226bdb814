//! Detects the HTTP version of a client's connection and records its state.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};

use super::client_stream::ClientStream;
use super::heads::HeadMeter;
use crate::frames::PREFACE;
use crate::proxy::ConnectionState;

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientProtocol {
    /// HTTP/1.0 and HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// A client's stream. It buffers the first bytes for detection and records reads and writes in the connection's state.
#[derive(Debug)]
pub(super) struct ClientIo<S> {
    stream: Take<S>,
    state: Arc<ConnectionState>,
    heads: HeadMeter,
    seen: [u8; PREFACE.len()],
    /// The range of `seen` that was not read yet.
    unread: (u8, u8),
}

// === impl ClientProtocol ===

impl ClientProtocol {
    /// Returns the protocol that TLS negotiated by ALPN (RFC 7301), if any.
    pub(super) fn agreed(alpn: Option<&[u8]>) -> Option<Self> {
        match alpn? {
            b"h2" => Some(Self::Http2),
            b"http/1.1" => Some(Self::Http1),
            _ => None,
        }
    }
}

// === impl ClientIo ===

impl<S: ClientStream> ClientIo<S> {
    pub(super) fn new(stream: S, state: Arc<ConnectionState>) -> Self {
        Self {
            stream: stream.take(0),
            heads: HeadMeter::new(&state),
            state,
            seen: [0; PREFACE.len()],
            unread: (0, 0),
        }
    }

    /// Returns the client's stream.
    pub(super) fn stream(&self) -> &S {
        self.stream.get_ref()
    }

    /// Returns the number of bytes since the last complete head of HTTP/1.1.
    pub(super) fn head_length(&self) -> usize {
        self.heads.length()
    }

    /// Returns whether the first bytes are the header of a TLS handshake record (RFC 8446, 5.1).
    pub(super) fn begins_as_tls(&self) -> bool {
        self.seen.starts_with(&[0x16, 3])
    }

    /// Sets the protocol.
    pub(super) fn set_protocol(&mut self, protocol: ClientProtocol) {
        self.heads.set_protocol(protocol, PREFACE.len());
    }

    /// Reads until the protocol is known. Returns `None` if the client closes the connection before.
    pub(super) async fn protocol(&mut self) -> io::Result<Option<ClientProtocol>> {
        let mut length = 0;
        while let Some(free) = self.seen.get_mut(length..)
            && !free.is_empty()
        {
            let read = self.stream.get_mut().read(free).await?;
            if read == 0 {
                // The bytes so far are handled as HTTP/1.1.
                break;
            }
            length += read;
            if self.seen.get(..length) != PREFACE.get(..length) {
                break;
            }
        }
        self.unread = (0, u8::try_from(length).unwrap_or(u8::MAX));
        Ok(match length {
            0 => None,
            _ if self.seen == *PREFACE => Some(ClientProtocol::Http2),
            _ => Some(ClientProtocol::Http1),
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let (start, end) = this.unread;
        if start < end {
            let seen = this.seen.get(usize::from(start)..usize::from(end));
            let seen = seen.unwrap_or_default();
            let seen = seen.get(..buf.remaining()).unwrap_or(seen);
            buf.put_slice(seen);
            this.unread.0 += u8::try_from(seen.len()).unwrap_or(u8::MAX);
            this.state.received(seen);
            return Poll::Ready(this.heads.read(seen, &this.state));
        }
        let before = buf.filled().len();
        this.stream.set_limit(this.heads.most(&this.state) as u64);
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        let read = buf.filled().get(before..).unwrap_or_default();
        if !read.is_empty() {
            this.state.received(read);
            this.heads.read(read, &this.state)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: ClientStream> ClientIo<S> {
    fn noted<T>(&self, written: Poll<T>) -> Poll<T> {
        if written.is_pending() {
            self.state.write_blocked();
        }
        self.check_client();
        written
    }

    /// Checks whether the client is gone, if that is due. hyper does not see it while it does not read: with bytes of a
    /// next request in its buffer, or with a body that the upstream does not take. It flushes at every poll.
    fn check_client(&self) {
        if self.state.take_check() && self.stream.get_ref().is_closed_by_client() {
            self.state.client_gone();
        }
    }
}

impl<S: ClientStream> AsyncWrite for ClientIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(self.stream.get_mut()).poll_write(cx, buf);
        self.noted(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(self.stream.get_mut()).poll_flush(cx);
        if flushed.is_ready() {
            self.state.flushed();
        }
        self.noted(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.get_mut()).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(self.stream.get_mut()).poll_write_vectored(cx, bufs);
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.get_ref().is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::memory::Memory;
    use crate::proxy::Connections;

    async fn spoken(bytes: &[u8]) -> (Option<ClientProtocol>, Vec<u8>) {
        let (mut client, server) = tokio::io::duplex(64);
        let state = ConnectionState::new(Connections::new(1, Memory::default()));
        let mut io = ClientIo::new(server, state);
        client.write_all(bytes).await.unwrap();
        drop(client);
        let protocol = io.protocol().await.unwrap();
        let mut rest = Vec::new();
        io.read_to_end(&mut rest).await.unwrap();
        (protocol, rest)
    }

    #[tokio::test]
    async fn the_preface_selects_the_protocol_and_stays_readable() {
        for (bytes, protocol) in [
            (&b""[..], None),
            (b"G", Some(ClientProtocol::Http1)),
            (b"PRI * HTTP/2.0\r\n", Some(ClientProtocol::Http1)),
            (
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                Some(ClientProtocol::Http2),
            ),
            (
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore",
                Some(ClientProtocol::Http2),
            ),
            (
                b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
                Some(ClientProtocol::Http1),
            ),
        ] {
            assert_eq!(spoken(bytes).await, (protocol, bytes.to_vec()));
        }
    }
}
