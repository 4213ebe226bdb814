//! Finds HTTP/2 requests that the h2 crate rejects without a call to our code. h2 resets the stream of a malformed
//! request, and answers 431 if the field list is too large. The frames of both directions and the number of served
//! requests show the rejections.
//!
//! A stream that a client opens either reaches the service or is rejected. If h2 wrote a reset or a 431 and fewer
//! requests were served than streams were opened, a request was rejected.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use h2::Reason;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::{Error, ErrorKind};
use crate::frames::{
    CONTINUATION, END_HEADERS, END_STREAM, FrameHeader, FrameReader, HEADERS, PADDED_OR_PRIORITY,
    PREFACE, RST_STREAM,
};
use crate::lock::lock;
use crate::proxy::ConnectionState;

/// A client's HTTP/2 stream that reads along with the frames.
#[derive(Debug)]
pub(super) struct WatchedIo<S> {
    stream: S,
    incoming: FrameReader,
    outgoing: FrameReader,
    /// The highest stream that the client has opened.
    highest: u32,
    /// Whether the header block of `highest` is incomplete.
    opening: bool,
    /// The bytes of that header block, with those of its padding and priority.
    block: usize,
    streams: Arc<StreamCounts>,
}

/// The counts of a connection's streams.
#[derive(Debug)]
pub(super) struct StreamCounts {
    connection: Arc<ConnectionState>,
    opened: AtomicUsize,
    /// The bytes of the largest header block so far.
    largest_block: AtomicUsize,
    /// Whether a frame was written that may be a rejection.
    suspicious: AtomicBool,
    suspects: Mutex<Suspects>,
}

#[derive(Debug, Default)]
struct Suspects {
    /// The possible rejections that were written since the last poll of the connection, in order.
    written: Vec<(u32, Rejection)>,
    /// The number of streams that were found to be rejected.
    rejected: usize,
}

/// How h2 rejects a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rejection {
    /// The request is not valid HTTP/2. The stream is reset.
    Malformed,
    /// The field list is too large. The response is 431.
    TooLarge,
    /// Another reset. The request is not its cause.
    Other,
}

pin_project! {
    /// A hyper connection over a [`WatchedIo`]. It reports each rejected request.
    pub(super) struct Watched<C, F> {
        #[pin]
        connection: C,
        streams: Arc<StreamCounts>,
        malformed: F,
    }
}

// === impl WatchedIo ===

impl<S> WatchedIo<S> {
    pub(super) fn new(stream: S, connection: Arc<ConnectionState>) -> (Self, Arc<StreamCounts>) {
        let streams = Arc::new(StreamCounts {
            connection,
            opened: AtomicUsize::new(0),
            largest_block: AtomicUsize::new(0),
            suspicious: AtomicBool::new(false),
            suspects: Mutex::default(),
        });
        let io = Self {
            stream,
            incoming: FrameReader::after(PREFACE.len()),
            outgoing: FrameReader::default(),
            highest: 0,
            opening: false,
            block: 0,
            streams: streams.clone(),
        };
        (io, streams)
    }

    fn received(&mut self, mut bytes: &[u8]) {
        while let Some(frame) = self.incoming.next(&mut bytes) {
            match frame.kind {
                HEADERS if frame.stream > self.highest && frame.stream % 2 == 1 => {
                    self.highest = frame.stream;
                    self.opening = true;
                    self.block = 0;
                }
                HEADERS | CONTINUATION => {}
                _ => continue,
            }
            self.block = self.block.saturating_add(frame.length as usize);
            if self.block > self.streams.largest_block.load(Ordering::Relaxed) {
                self.streams
                    .largest_block
                    .store(self.block, Ordering::Relaxed);
            }
            if self.opening && frame.flags & END_HEADERS != 0 {
                self.opening = false;
                self.streams.opened.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn sent(&mut self, mut bytes: &[u8]) {
        while let Some(frame) = self.outgoing.next(&mut bytes) {
            if let Some(rejection) = Rejection::of(&frame) {
                self.streams.suspect(frame.stream, rejection);
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.received(buf.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.sent(buf.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
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
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let now = buf.get(..left.min(buf.len())).unwrap_or_default();
            self.sent(now);
            left -= now.len();
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

// === impl Rejection ===

impl Rejection {
    /// Returns the rejection that a written frame may mean.
    fn of(frame: &FrameHeader) -> Option<Self> {
        match frame.kind {
            RST_STREAM
                if u32::from_be_bytes(frame.payload) == u32::from(Reason::PROTOCOL_ERROR) =>
            {
                Some(Self::Malformed)
            }
            RST_STREAM => Some(Self::Other),
            // A response without a body whose status is not in the static table (RFC 7541, A).
            HEADERS
                if frame.flags & END_STREAM != 0
                    && frame.flags & PADDED_OR_PRIORITY == 0
                    && !matches!(frame.payload, [0x88..=0x8e, ..]) =>
            {
                Some(Self::TooLarge)
            }
            _ => None,
        }
    }

    fn error(self) -> Option<Error> {
        match self {
            Self::Malformed => Some(Error::new(
                ErrorKind::Malformed,
                "the app's HTTP/2 request is malformed: the stream was reset. It has a connection-specific field, a missing, \
                 repeated or misplaced pseudo-header field, or a wrong content-length (RFC 9113, 8.1.1)",
            )),
            Self::TooLarge => Some(Error::new(
                ErrorKind::HeadTooLarge,
                "the request's field list is too large",
            )),
            Self::Other => None,
        }
    }
}

// === impl StreamCounts ===

impl StreamCounts {
    fn lock(&self) -> std::sync::MutexGuard<'_, Suspects> {
        lock(&self.suspects)
    }

    fn suspect(&self, stream: u32, rejection: Rejection) {
        let mut suspects = self.lock();
        // h2 also resets a stream after a 431.
        if suspects
            .written
            .last()
            .is_none_or(|(last, _)| *last != stream)
        {
            suspects.written.push((stream, rejection));
            self.suspicious.store(true, Ordering::Relaxed);
        }
    }

    /// Returns the rejections since the last call. The connection was polled before, so all other streams were served.
    fn rejected(&self) -> Vec<Error> {
        self.suspicious.store(false, Ordering::Relaxed);
        let missing = self
            .opened
            .load(Ordering::Relaxed)
            .saturating_sub(self.connection.heads());
        let mut suspects = self.lock();
        let written = std::mem::take(&mut suspects.written);
        let found = written.len().min(missing.saturating_sub(suspects.rejected));
        suspects.rejected += found;
        let rejected = written.into_iter().take(found);
        rejected
            .filter_map(|(_, rejection)| rejection.error())
            .collect()
    }

    /// Returns the bytes of the largest header block that was received, even if it is incomplete.
    pub(super) fn largest_block(&self) -> usize {
        self.largest_block.load(Ordering::Relaxed)
    }

    /// Returns the connection that is served over the stream.
    pub(super) fn of<C, F>(self: Arc<Self>, connection: C, malformed: F) -> Watched<C, F> {
        Watched {
            connection,
            streams: self,
            malformed,
        }
    }
}

// === impl Watched ===

impl<C, F> Watched<C, F> {
    /// Returns the connection.
    pub(super) fn connection(self: Pin<&mut Self>) -> Pin<&mut C> {
        self.project().connection
    }
}

impl<C: Future, F: Fn(Error)> Future for Watched<C, F> {
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let this = self.project();
        let polled = this.connection.poll(cx);
        if this.streams.suspicious.load(Ordering::Relaxed) {
            for error in this.streams.rejected() {
                (this.malformed)(error);
            }
        }
        polled
    }
}
