//! Counts the interim responses of HTTP/2 by frame headers, and inserts the frames that make h2 reset a stream.
//!
//! The status is not decoded, because HPACK would need a second decoder with its own table. A response is known to be
//! final if it begins with an indexed `:status` of the static table, or if it ends the stream. Any other response may
//! be interim. It is known to be interim once another response follows on its stream.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Inserted, MAX_INTERIM};
use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, FrameHeader, FrameReader, HEADERS,
    PADDED_OR_PRIORITY, RST_STREAM,
};

/// The largest total size of the header blocks of one stream's interim responses.
const MAX_STREAM_BYTES: u32 = 64 * 1024;

/// The largest total size of the header blocks of interim responses, for all tracked streams of a connection.
const MAX_CONNECTION_BYTES: u32 = 256 * 1024;

/// The largest number of streams that are tracked. Streams that the app cancelled count too, because only the
/// upstream's frames are read.
const MAX_STREAMS: usize = 1024;

/// The largest number of responses on streams that are no longer tracked, for one connection.
const MAX_LATE: u32 = 4096;

/// The largest number of resets because of interim responses, for one connection.
const MAX_FLOODS: u32 = 256;

/// A response head for which h2 resets a stream: `:status: 200`, and `content-length: x`. Neither field enters the
/// dynamic table of HPACK, so the later responses of the upstream are decoded correctly.
pub(super) const MALFORMED: &[u8; 5] = &[0x88, 0x0f, 0x0d, 0x01, b'x'];

/// The error code that marks a stream whose connection was lost after interim responses. It is not assigned to any
/// error.
pub(super) const LOST: u32 = 0x7369_6401;

/// Reads frame headers and the first byte of header blocks.
#[derive(Debug, Default)]
pub(in crate::upstream) struct Http2 {
    frames: FrameReader,
    /// Streams with responses that may be interim, in the order of their first such response.
    streams: Vec<InterimStream>,
    /// The sum of [`InterimStream::bytes`] over `streams`.
    bytes: u32,
    /// The highest stream that is no longer tracked.
    forgotten: u32,
    /// The number of responses on streams that are no longer tracked.
    late: u32,
    /// The number of times that a stream exceeded a limit.
    floods: u32,
}

/// A stream whose responses so far may all be interim.
#[derive(Clone, Copy, Debug)]
struct InterimStream {
    id: u32,
    /// The number of responses. All except the last one are certainly interim.
    count: u32,
    /// The bytes of the responses before the last one.
    bytes: u32,
    /// The bytes of the last one.
    last: u32,
}

// === impl Http2 ===

impl Http2 {
    /// Reads bytes. Returns `None` if the connection must end, and `Some(None)` if no frame must be inserted.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Option<Option<Inserted>> {
        let mut left = bytes;
        while let Some(frame) = self.frames.next(&mut left) {
            if self.on_frame(frame).is_none() {
                self.floods += 1;
                if self.floods > MAX_FLOODS {
                    return None;
                }
                // If the frame began in earlier bytes, the stream is reset at its next frame.
                if let Some(at) = (bytes.len() - left.len()).checked_sub(frame.bytes()) {
                    return Some(Some(self.reset(frame.stream, at)));
                }
            }
        }
        Some(None)
    }

    /// Returns the frame that makes h2 reset a stream. It is inserted at `at`, before the frame that was read last. The
    /// bytes from `at` on are read again, so the reader starts anew.
    fn reset(&mut self, id: u32, at: usize) -> Inserted {
        self.untrack(id);
        self.frames = FrameReader::default();
        let mut frames = BytesMut::new();
        put_frame(&mut frames, HEADERS, END_HEADERS, id, MALFORMED);
        let frames = frames.freeze();
        Inserted { at, frames }
    }

    /// Returns the frames that reset the tracked streams. Returns none if the connection was lost inside a frame,
    /// because h2 would read them as the rest of that frame.
    pub(super) fn on_connection_lost(&mut self) -> Bytes {
        let mut frames = BytesMut::new();
        if !self.frames.is_between() {
            return frames.freeze();
        }
        for stream in std::mem::take(&mut self.streams) {
            put_frame(&mut frames, RST_STREAM, 0, stream.id, &LOST.to_be_bytes());
        }
        frames.freeze()
    }

    /// Returns whether a stream may have received only interim responses.
    pub(super) const fn is_waiting(&self) -> bool {
        !self.streams.is_empty()
    }

    /// Processes a frame. Returns `None` if it exceeds a limit of interim responses.
    fn on_frame(&mut self, frame: FrameHeader) -> Option<()> {
        let FrameHeader {
            length,
            kind,
            flags,
            stream: id,
            payload: [first, ..],
        } = frame;
        match kind {
            HEADERS => {
                let ends = flags & END_STREAM != 0;
                // An indexed `:status` of the static table, 200 to 500 (RFC 7541, A).
                let is_final = flags & PADDED_OR_PRIORITY == 0 && matches!(first, 0x88..=0x8e);
                self.on_headers(id, length, ends, is_final)
            }
            CONTINUATION => {
                if let Some(stream) = self.streams.iter_mut().rfind(|stream| stream.id == id) {
                    stream.last = stream.last.saturating_add(length);
                }
                Some(())
            }
            // The final response came before, or there is none.
            DATA | RST_STREAM => {
                self.untrack(id);
                Some(())
            }
            _ => Some(()),
        }
    }

    /// Processes a response head. Returns `None` if it exceeds a limit.
    fn on_headers(&mut self, id: u32, length: u32, ends: bool, is_final: bool) -> Option<()> {
        let Some(stream) = self.streams.iter_mut().rfind(|stream| stream.id == id) else {
            if !ends && !is_final {
                self.track(id, length)?;
            }
            return Some(());
        };
        if is_final && stream.count > MAX_INTERIM {
            return None;
        }
        if is_final || ends {
            self.untrack(id);
            return Some(());
        }
        stream.count += 1;
        stream.bytes = stream.bytes.saturating_add(stream.last);
        self.bytes = self.bytes.saturating_add(stream.last);
        stream.last = length;
        // The last of these responses may be the final one, so one more than the limit is accepted.
        let few = stream.count <= MAX_INTERIM + 1;
        (few && stream.bytes <= MAX_STREAM_BYTES && self.bytes <= MAX_CONNECTION_BYTES)
            .then_some(())
    }

    /// Begins to track a stream at its first response. Returns `None` if too many responses cannot be tracked.
    fn track(&mut self, id: u32, length: u32) -> Option<()> {
        if id <= self.forgotten {
            self.late += 1;
            return (self.late <= MAX_LATE).then_some(());
        }
        if self.streams.len() >= MAX_STREAMS {
            let oldest = self.streams.remove(0);
            self.bytes = self.bytes.saturating_sub(oldest.bytes);
            self.forgotten = self.forgotten.max(oldest.id);
        }
        self.streams.push(InterimStream {
            id,
            count: 1,
            bytes: 0,
            last: length,
        });
        Some(())
    }

    /// Ends the tracking of a stream.
    fn untrack(&mut self, id: u32) {
        // Searches from the end: recent streams are the most active.
        if let Some(at) = self.streams.iter().rposition(|stream| stream.id == id) {
            let stream = self.streams.remove(at);
            self.bytes = self.bytes.saturating_sub(stream.bytes);
        }
    }
}

/// Writes a frame. Its payload has fewer than 256 bytes, so the last byte of the length field is enough.
fn put_frame<const LENGTH: usize>(
    bytes: &mut BytesMut,
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &[u8; LENGTH],
) {
    const { assert!(LENGTH < 256) };
    bytes.put_slice(&[0, 0, LENGTH as u8, kind, flags]);
    bytes.put_u32(stream);
    bytes.put_slice(payload);
}
