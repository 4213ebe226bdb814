//! Interim responses (1xx), counted as they are read. hyper discards those of HTTP/1.1 without an end, and h2 keeps those of
//! HTTP/2 until the final response: an upstream could hold a request, or fill the memory, with nothing else.
//!
//! Over HTTP/2 too many end their own stream, not the connection: h2 is made to reset it by a malformed response head that is
//! inserted into what it reads. By RST_STREAM in the same way, h2 learns which streams had heard something when their
//! connection was lost.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, FrameHead, FrameReader, HEADERS, RST_STREAM,
    SHIFTED,
};

/// Interim responses to one request; more are an error of the upstream.
pub(super) const MOST: u32 = 32;

/// Bytes of header blocks that HTTP/2 interim responses may take, of one stream and of all streams of a connection that
/// have no final response yet.
const STREAM_BYTES: u32 = 64 * 1024;
const CONNECTION_BYTES: u32 = 256 * 1024;

/// Streams that are followed at a time. Those cancelled by the app stay until then.
const STREAMS: usize = 1024;

/// Responses on streams that are not followed any more, in a connection's life.
const LATE: u32 = 4096;

/// Streams that are reset for too many, in a connection's life; an upstream that does not stop is reset again and again.
const FLOODS: u32 = 256;

/// A response head for which h2 resets a stream: `:status: 200`, and `content-length: x`.
const MALFORMED: &[u8; 5] = &[0x88, 0x0f, 0x0d, 0x01, b'x'];

/// The code of the reset that a stream gets whose connection is lost after interim responses. No upstream's: it is not assigned.
const LOST: u32 = 0x7369_6401;

/// Counts the interim responses on one connection.
#[derive(Debug)]
pub(super) enum Interim {
    Http1(Http1),
    Http2(Http2),
}

/// HTTP/1.1: looks at status lines until that of the final response.
#[derive(Debug)]
pub(super) struct Http1 {
    state: State,
    count: u32,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Before a status line, which empty lines may precede (RFC 9112, 2.2).
    Before,
    /// In a status line, after so many bytes of it.
    Line(u8),
    /// In a status line that begins with `HTTP/1.1 10`.
    Switching,
    /// In the rest of an interim head; `empty`: nothing is on this line yet.
    Head { empty: bool },
    /// The response is final.
    Final,
}

/// HTTP/2: looks at frame headers, and at the first byte of header blocks.
#[derive(Debug, Default)]
pub(super) struct Http2 {
    frames: FrameReader,
    /// Streams with responses that may be interim ones, as they came.
    streams: Vec<Stream>,
    /// Their bytes together.
    bytes: u32,
    /// The highest stream that is not followed any more.
    forgotten: u32,
    late: u32,
    floods: u32,
}

/// Frames to be read at this place in the bytes that were read, before the rest of them.
#[derive(Debug)]
pub(super) struct Inserted {
    pub(super) at: usize,
    pub(super) frames: Bytes,
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    id: u32,
    /// Responses, each but the last surely an interim one.
    count: u32,
    /// Bytes of those before the last.
    bytes: u32,
    /// Bytes of the last.
    last: u32,
}

/// What the reader of the connection is told.
#[derive(Debug, thiserror::Error)]
#[error("more than {MOST} interim responses (1xx) to one request, or too large ones")]
struct TooMany;

// === impl TooMany ===

impl TooMany {
    /// The kind tells it from the errors of sockets and of TLS, also where h2 keeps no more than that.
    fn error() -> io::Error {
        io::Error::new(io::ErrorKind::QuotaExceeded, Self)
    }
}

/// The stream was reset because its connection was lost after it had heard an interim response.
pub(super) fn is_lost(error: &h2::Error) -> bool {
    error.is_reset() && error.reason() == Some(LOST.into())
}

/// The connection ended because of too many interim responses.
pub(super) fn is_flood(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::QuotaExceeded
}

// === impl Interim ===

impl Interim {
    pub(super) const fn http1() -> Self {
        Self::Http1(Http1 {
            state: State::Before,
            count: 0,
        })
    }

    pub(super) fn http2() -> Self {
        Self::Http2(Http2::default())
    }

    /// Looks at bytes that were read; `first`: they are the first since a request began. Where something is to be inserted,
    /// the bytes from there on count as not looked at.
    ///
    /// # Errors
    ///
    /// There are too many interim responses for the connection to go on.
    pub(super) fn read(&mut self, first: bool, bytes: &[u8]) -> io::Result<Option<Inserted>> {
        match self {
            Self::Http1(http1) => {
                if first {
                    http1.state = State::Before;
                    http1.count = 0;
                }
                http1.read(bytes).ok_or_else(TooMany::error)?;
                Ok(None)
            }
            Self::Http2(http2) => http2.read(bytes).ok_or_else(TooMany::error),
        }
    }

    /// The connection is lost: what is to be read before its end. Nothing where a frame was cut off.
    pub(super) fn lost(&mut self) -> Bytes {
        match self {
            Self::Http2(http2) if http2.frames.is_between() => http2.lost(),
            _ => Bytes::new(),
        }
    }

    /// HTTP/2: a stream has heard a response, and as far as is known no final one.
    pub(super) const fn is_waiting(&self) -> bool {
        match self {
            Self::Http1(_) => false,
            Self::Http2(http2) => !http2.streams.is_empty(),
        }
    }
}

// === impl Http1 ===

impl Http1 {
    /// `None` if there are too many.
    fn read(&mut self, bytes: &[u8]) -> Option<()> {
        for byte in bytes {
            self.state = match (self.state, byte) {
                (State::Final, _) => return Some(()),
                (State::Before, b'\r' | b'\n') => State::Before,
                (State::Before, _) => State::Line(1),
                // `HTTP/1.1 1`: where it is something else hyper finds out.
                (State::Line(9), b'1') => State::Line(10),
                (State::Line(9), _) => State::Final,
                (State::Line(10), b'0') => State::Switching,
                (State::Line(10), _) => self.interim()?,
                (State::Line(at), _) => State::Line(at + 1),
                // 101 is final: the connection is another protocol's from there on.
                (State::Switching, b'1') => State::Final,
                (State::Switching, _) => self.interim()?,
                (State::Head { empty: true }, b'\n') => State::Before,
                (State::Head { .. }, b'\n') => State::Head { empty: true },
                (head, b'\r') => head,
                (State::Head { .. }, _) => State::Head { empty: false },
            };
        }
        Some(())
    }

    fn interim(&mut self) -> Option<State> {
        self.count += 1;
        (self.count <= MOST).then_some(State::Head { empty: false })
    }
}

// === impl Http2 ===

impl Http2 {
    /// `None` if the connection must end.
    fn read(&mut self, bytes: &[u8]) -> Option<Option<Inserted>> {
        let mut left = bytes;
        while let Some(frame) = self.frames.next(&mut left) {
            if self.frame(frame).is_none() {
                self.floods += 1;
                if self.floods > FLOODS {
                    return None;
                }
                // Where the frame began with earlier bytes, the stream's next one is as good.
                if let Some(at) = (bytes.len() - left.len()).checked_sub(frame.bytes()) {
                    return Some(Some(self.reset(frame.stream, at)));
                }
            }
        }
        Some(None)
    }

    /// Has h2 reset a stream before the frame that was read last.
    fn reset(&mut self, id: u32, at: usize) -> Inserted {
        self.end(id);
        self.frames = FrameReader::default();
        let mut frames = BytesMut::new();
        put_frame(&mut frames, HEADERS, END_HEADERS, id, MALFORMED);
        let frames = frames.freeze();
        Inserted { at, frames }
    }

    fn lost(&mut self) -> Bytes {
        let mut frames = BytesMut::new();
        for stream in std::mem::take(&mut self.streams) {
            put_frame(&mut frames, RST_STREAM, 0, stream.id, &LOST.to_be_bytes());
        }
        frames.freeze()
    }

    /// `None` if there are too many on its stream.
    fn frame(&mut self, frame: FrameHead) -> Option<()> {
        let FrameHead {
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
                let is_final = flags & SHIFTED == 0 && matches!(first, 0x88..=0x8e);
                self.headers(id, length, ends, is_final)
            }
            CONTINUATION => {
                if let Some(stream) = self.streams.iter_mut().rfind(|stream| stream.id == id) {
                    stream.last = stream.last.saturating_add(length);
                }
                Some(())
            }
            // The final response was before it, or there is none.
            DATA | RST_STREAM => {
                self.end(id);
                Some(())
            }
            _ => Some(()),
        }
    }

    fn headers(&mut self, id: u32, length: u32, ends: bool, is_final: bool) -> Option<()> {
        let Some(stream) = self.streams.iter_mut().rfind(|stream| stream.id == id) else {
            if !ends && !is_final {
                self.follow(id, length)?;
            }
            return Some(());
        };
        if is_final && stream.count > MOST {
            return None;
        }
        if is_final || ends {
            self.end(id);
            return Some(());
        }
        stream.count += 1;
        stream.bytes = stream.bytes.saturating_add(stream.last);
        self.bytes = self.bytes.saturating_add(stream.last);
        stream.last = length;
        // One of them may be the final one.
        let few = stream.count <= MOST + 1;
        (few && stream.bytes <= STREAM_BYTES && self.bytes <= CONNECTION_BYTES).then_some(())
    }

    /// A stream's first response, which may be an interim one.
    fn follow(&mut self, id: u32, length: u32) -> Option<()> {
        if id <= self.forgotten {
            self.late += 1;
            return (self.late <= LATE).then_some(());
        }
        if self.streams.len() >= STREAMS {
            let oldest = self.streams.remove(0);
            self.bytes = self.bytes.saturating_sub(oldest.bytes);
            self.forgotten = self.forgotten.max(oldest.id);
        }
        self.streams.push(Stream {
            id,
            count: 1,
            bytes: 0,
            last: length,
        });
        Some(())
    }

    fn end(&mut self, id: u32) {
        // Streams that have just begun are the likeliest to go on.
        if let Some(at) = self.streams.iter().rposition(|stream| stream.id == id) {
            let stream = self.streams.remove(at);
            self.bytes = self.bytes.saturating_sub(stream.bytes);
        }
    }
}

/// A frame with a payload of less than 256 bytes.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nHTTP/1.1 103 \r\n\r\n";
    /// `:status: 103`, not indexed, and `:status: 200`.
    const INTERIM: &[u8] = &[0x08, 0x03, b'1', b'0', b'3'];
    const FINAL: &[u8] = &[0x88];
    const NONE: [u32; 0] = [];

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    fn http1(bytes: &str, step: usize) -> io::Result<()> {
        let mut interim = Interim::http1();
        let mut first = true;
        bytes.as_bytes().chunks(step).try_for_each(|part| {
            let inserted = interim.read(std::mem::take(&mut first), part)?;
            assert!(inserted.is_none());
            Ok(())
        })
    }

    /// The bytes that h2 reads.
    fn through(interim: &mut Interim, bytes: &[u8], step: usize) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        for part in bytes.chunks(step) {
            let mut part = part.to_vec();
            while let Some(inserted) = interim.read(false, &part)? {
                read.extend(&part[..inserted.at]);
                part = [&inserted.frames, &part[inserted.at..]].concat();
            }
            read.extend(part);
        }
        Ok(read)
    }

    /// The streams that h2 resets.
    fn http2(frames: &[Vec<u8>], step: usize) -> Vec<u32> {
        let bytes = frames.concat();
        let read = through(&mut Interim::http2(), &bytes, step).unwrap();
        let mut frames = FrameReader::default();
        let mut left = &read[..];
        let mut reset = Vec::new();
        while let Some(frame) = frames.next(&mut left) {
            if frame.kind == HEADERS && frame.length == 5 && frame.payload == MALFORMED[..4] {
                reset.push(frame.stream);
            }
        }
        assert!(frames.is_between());
        assert_eq!(
            read.len(),
            bytes.len() + reset.len() * (9 + MALFORMED.len())
        );
        reset
    }

    #[test]
    fn so_many_pass_and_no_more_over_http1_however_they_are_cut() {
        for step in [1, 2, 3, 7, 4096] {
            for hints in [
                HINTS,
                "HTTP/1.1 100 Continue\r\n\r\n",
                "\r\n\nHTTP/1.1 199\nx: HTTP/1.1 200\n\n",
                "HTTP/1.1 102\r\n\r\n",
            ] {
                assert!(http1(&(hints.repeat(32) + OK), step).is_ok(), "{hints}");
                let error = http1(&(hints.repeat(33) + OK), step).unwrap_err();
                assert!(is_flood(&error), "{hints}");
            }
            // What follows a final response is a body, or another protocol.
            assert!(http1(&(OK.to_owned() + &HINTS.repeat(99)), step).is_ok());
            let switched = "HTTP/1.1 101 Switching\r\n\r\n".to_owned();
            assert!(http1(&(switched + &HINTS.repeat(99)), step).is_ok());
        }
    }

    #[test]
    fn each_request_of_an_http1_connection_has_its_own_count() {
        let mut interim = Interim::http1();
        for _ in 0..10 {
            for round in 0..32 {
                interim.read(round == 0, HINTS.as_bytes()).unwrap();
            }
            interim.read(false, OK.as_bytes()).unwrap();
        }
    }

    #[test]
    fn so_many_pass_and_no_more_over_http2_however_they_are_cut() {
        for step in [1, 2, 9, 10, 11, 4096] {
            for tail in [
                vec![frame(HEADERS, 0x4, 1, FINAL), frame(DATA, 1, 1, b"x")],
                vec![frame(HEADERS, 0x5, 1, FINAL)],
                vec![
                    frame(HEADERS, 0x4, 1, &[0x08, 3, b'2', b'0', b'1']),
                    frame(DATA, 1, 1, b""),
                ],
            ] {
                let hints = |count| {
                    let mut frames = vec![frame(4, 0, 0, &[])];
                    frames.extend(vec![frame(HEADERS, 0x4, 1, INTERIM); count]);
                    frames.extend(tail.clone());
                    frames
                };
                assert_eq!(http2(&hints(32), step), NONE);
                // The head of the one before which it is reset must not have been read in part.
                if step > 100 {
                    assert_eq!(http2(&hints(33), step), [1]);
                }
            }
        }
    }

    #[test]
    fn each_stream_has_its_own_count_and_ordinary_responses_none() {
        let mut frames = Vec::new();
        for id in (1..40_000).step_by(2) {
            frames.push(frame(HEADERS, 0x4, id, FINAL));
            frames.push(frame(DATA, 0, id, b"data"));
            frames.push(frame(HEADERS, 0x5, id, INTERIM));
            // An unusual status whose stream the app gives up.
            frames.push(frame(HEADERS, 0x4, id, INTERIM));
        }
        assert_eq!(http2(&frames, 16 * 1024), NONE);
        let interleaved: Vec<_> = (0..31)
            .flat_map(|_| {
                (1..20)
                    .step_by(2)
                    .map(|id| frame(HEADERS, 0x4, id, INTERIM))
            })
            .collect();
        assert_eq!(http2(&interleaved, 16 * 1024), NONE);
    }

    #[test]
    fn large_ones_are_too_many_before_they_are_33() {
        let large = |size| {
            let block = [INTERIM, &vec![b'x'; size]].concat();
            let (first, more) = block.split_at(block.len().min(16_000));
            let mut frames = vec![frame(HEADERS, 0, 1, first)];
            frames.extend(
                more.chunks(16_000)
                    .map(|part| frame(CONTINUATION, 0, 1, part)),
            );
            frames
        };
        let flood =
            |size, count: usize| -> Vec<_> { (0..count).flat_map(|_| large(size)).collect() };
        assert_eq!(http2(&flood(1_000, 32), 4096), NONE);
        assert_eq!(http2(&flood(8_000, 11), 4096), [1]);
        assert_eq!(http2(&flood(200_000, 2), 4096), [1]);
        // One that is large may be the final one.
        assert_eq!(http2(&flood(200_000, 1), 4096), NONE);
    }

    #[test]
    fn streams_that_take_turns_cannot_hide_behind_each_other() {
        let turns: Vec<_> = (0..32)
            .flat_map(|_| {
                (1..6_000)
                    .step_by(2)
                    .map(|id| frame(HEADERS, 0x4, id, INTERIM))
            })
            .collect();
        let error = through(&mut Interim::http2(), &turns.concat(), 16 * 1024).unwrap_err();
        assert!(is_flood(&error));
    }

    #[test]
    fn a_flood_resets_its_stream_and_no_other_until_there_are_too_many() {
        for step in [30, 64, 4096] {
            let mut frames = vec![
                frame(HEADERS, 0x4, 1, INTERIM),
                frame(HEADERS, 0x4, 5, FINAL),
            ];
            frames.extend(vec![frame(HEADERS, 0x4, 3, INTERIM); 100]);
            frames.push(frame(HEADERS, 0x4, 1, FINAL));
            frames.push(frame(DATA, 0, 5, b"data"));
            let reset = http2(&frames, step);
            assert!((1..=3).contains(&reset.len()), "{step}: {reset:?}");
            assert!(reset.iter().all(|stream| *stream == 3));
        }
        let flood = vec![frame(HEADERS, 0x4, 3, INTERIM); 33 * 257 + 1].concat();
        let error = through(&mut Interim::http2(), &flood, 4096).unwrap_err();
        assert!(is_flood(&error));
    }

    #[test]
    fn what_was_heard_before_the_connection_was_lost_is_told_stream_by_stream() {
        let mut interim = Interim::http2();
        let frames = [
            frame(HEADERS, 0x4, 1, INTERIM),
            frame(HEADERS, 0x4, 3, FINAL),
            frame(HEADERS, 0x4, 5, INTERIM),
            frame(HEADERS, 0x4, 5, FINAL),
            frame(HEADERS, 0x4, 7, INTERIM),
        ]
        .concat();
        let (whole, part) = frames.split_at(frames.len() - 1);
        through(&mut interim, whole, 4096).unwrap();
        assert!(
            interim.is_waiting() && interim.lost().is_empty(),
            "within a frame"
        );
        through(&mut interim, part, 4096).unwrap();
        let resets = [1, 7].map(|stream| frame(RST_STREAM, 0, stream, &LOST.to_be_bytes()));
        assert_eq!(interim.lost(), resets.concat());
        assert!(!interim.is_waiting() && interim.lost().is_empty());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..512), step in 1usize..64) {
            for mut interim in [Interim::http1(), Interim::http2()] {
                for part in bytes.chunks(step) {
                    let _ = interim.read(false, part);
                }
            }
        }
    }
}
