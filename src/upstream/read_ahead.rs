//! Reads more bytes below TLS than TLS requests, if many bytes are available.
//!
//! rustls requests 4 KiB at a time, a quarter of a record. After a read that filled the request, the next one reads
//! several records, and buffers the rest.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The length of a larger read: four TLS records (RFC 8446, 5.1).
const AHEAD: usize = 64 * 1024;

/// After a larger read with fewer bytes, reads are small again.
const MUCH: usize = 8 * 1024;

/// A stream that reads ahead while many bytes are available. It holds no buffer at other times.
#[derive(Debug)]
pub(super) struct ReadAhead<S> {
    stream: S,
    /// The buffered bytes, from `at` to `end`.
    ahead: Box<[u8]>,
    at: usize,
    end: usize,
    /// Whether the last read returned so many bytes that more are probably available.
    more: bool,
}

// === impl ReadAhead ===

impl<S> ReadAhead<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            ahead: Box::default(),
            at: 0,
            end: 0,
            more: false,
        }
    }

    pub(super) const fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Returns whether more bytes can be read without a system call.
    pub(super) fn has_more(&self) -> bool {
        self.at < self.end
    }

    /// Copies buffered bytes into `buf`. Frees an empty buffer unless more bytes are expected.
    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let there = self.ahead.get(self.at..self.end).unwrap_or_default();
        let given = there.get(..buf.remaining()).unwrap_or(there);
        buf.put_slice(given);
        self.at += given.len();
        if self.at == self.end && !self.more {
            self.ahead = Box::default();
        }
    }
}

impl ReadAhead<TcpStream> {
    /// Returns whether nothing can be read. The task is then woken once something can.
    pub(super) fn is_silent(&self, cx: &mut Context<'_>) -> bool {
        self.ahead.is_empty() && self.stream.poll_read_ready(cx).is_pending()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.at < this.end {
            this.give(buf);
            return Poll::Ready(Ok(()));
        }
        if !this.more || buf.remaining() >= AHEAD {
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            this.more = buf.remaining() == 0 && buf.filled().len() > before;
            return Poll::Ready(Ok(()));
        }
        if this.ahead.is_empty() {
            this.ahead = vec![0; AHEAD].into();
        }
        let mut larger = ReadBuf::new(&mut this.ahead);
        let polled = Pin::new(&mut this.stream).poll_read(cx, &mut larger);
        let read = larger.filled().len();
        if polled.is_pending() {
            // The stream may be idle for a long time.
            this.ahead = Box::default();
        }
        ready!(polled)?;
        this.more = read >= MUCH;
        (this.at, this.end) = (0, read);
        this.give(buf);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
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

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;

    use super::*;

    /// Returns at most this number of bytes for each read, and records the requested lengths.
    struct Source {
        bytes: Vec<u8>,
        at: usize,
        gives: Vec<usize>,
        asked: Vec<usize>,
    }

    impl AsyncRead for Source {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.asked.push(buf.remaining());
            let most = self.gives.pop().unwrap_or(usize::MAX).max(1);
            let end = self.bytes.len().min(self.at + most.min(buf.remaining()));
            buf.put_slice(&self.bytes[self.at..end]);
            self.at = end;
            Poll::Ready(Ok(()))
        }
    }

    fn source(length: usize, gives: Vec<usize>) -> Source {
        Source {
            bytes: (0..length).map(|at| (at % 251) as u8).collect(),
            at: 0,
            gives,
            asked: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_download_is_read_in_large_pieces_and_frees_its_buffer() {
        let mut stream = ReadAhead::new(source(1024 * 1024, vec![]));
        let mut read = vec![0; 4096];
        let mut all = Vec::new();
        loop {
            match stream.read(&mut read).await.unwrap() {
                0 => break,
                length => all.extend_from_slice(&read[..length]),
            }
        }
        assert_eq!(all, stream.stream.bytes);
        assert!(stream.stream.asked.len() < 20, "{:?}", stream.stream.asked);
        assert!(stream.ahead.is_empty());
    }

    #[tokio::test]
    async fn small_responses_need_no_buffer() {
        let mut stream = ReadAhead::new(source(3000, vec![1000, 1000, 1000]));
        let mut read = [0; 4096];
        for _ in 0..3 {
            assert_eq!(stream.read(&mut read).await.unwrap(), 1000);
            assert!(stream.ahead.is_empty());
        }
        assert_eq!(stream.stream.asked, [4096, 4096, 4096]);
    }

    #[tokio::test]
    async fn writes_are_passed_through() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let mut stream = ReadAhead::new(stream);
        assert!(stream.is_write_vectored());
        let slices = [IoSlice::new(b"one "), IoSlice::new(b"two")];
        let written =
            std::future::poll_fn(|cx| Pin::new(&mut stream).poll_write_vectored(cx, &slices)).await;
        assert_eq!(written.unwrap(), 7);
    }

    proptest! {
        #[test]
        fn every_byte_arrives_once_and_in_order(
            length in 0usize..300_000,
            gives in prop::collection::vec(1usize..100_000, 0..20),
            sizes in prop::collection::vec(1usize..100_000, 1..10),
        ) {
            let mut stream = ReadAhead::new(source(length, gives));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let all = runtime.block_on(async {
                let mut all = Vec::new();
                for size in sizes.iter().cycle() {
                    let mut read = vec![0; *size];
                    match stream.read(&mut read).await.unwrap() {
                        0 => break,
                        length => all.extend_from_slice(&read[..length]),
                    }
                }
                all
            });
            prop_assert_eq!(all, stream.stream.bytes);
        }
    }
}
