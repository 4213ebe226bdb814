//! Counts request heads against `--max-memory` while they are read.
//!
//! For HTTP/1.1, the count is the bytes since the last complete head. A connection keeps the buffer of a large head, so
//! that head counts until the connection ends. For HTTP/2, the count is the header blocks that frame headers announce.
//! The request counts its complete field list, so only incomplete header blocks and trailers count here.

use std::io;

use super::io::ClientProtocol;
use crate::frames::{CONTINUATION, END_HEADERS, FrameHeader, FrameReader, HEADERS};
use crate::memory::{Heads, HeadsFull, READ, SMALL_HEAD};
use crate::proxy::ConnectionState;

/// Counts the heads on one connection.
#[derive(Debug)]
pub(super) struct HeadMeter {
    heads: Heads,
    reading: HeadProgress,
}

#[derive(Debug)]
enum HeadProgress {
    /// The number of bytes of the next head.
    Http1(usize),
    Http2(Frames),
    /// The connection was refused, and its bytes are discarded.
    Nothing,
}

/// The header blocks among the frames of an HTTP/2 connection.
#[derive(Debug)]
struct Frames {
    reader: FrameReader,
    /// The highest stream that has begun.
    last: u32,
    /// The number of bytes of the current header block.
    block: usize,
    /// Whether the block's last frame has begun.
    ends: bool,
    /// Whether the block is one of trailers.
    trails: bool,
    /// The number of bytes of large trailer blocks since the connection was idle.
    trailers: usize,
}

// === impl HeadMeter ===

impl HeadMeter {
    /// Creates a meter for a connection that has sent nothing yet.
    pub(super) fn new(state: &ConnectionState) -> Self {
        Self {
            heads: state.memory().heads(),
            reading: HeadProgress::Http1(0),
        }
    }

    /// Sets the protocol before the first byte is read.
    pub(super) fn set_protocol(&mut self, protocol: ClientProtocol, preface: usize) {
        self.reading = match protocol {
            ClientProtocol::Http1 => HeadProgress::Http1(0),
            ClientProtocol::Http2 => HeadProgress::Http2(Frames::after(preface)),
        };
    }

    /// Returns the number of bytes since the last complete head of HTTP/1.1.
    pub(super) const fn length(&self) -> usize {
        match self.reading {
            HeadProgress::Http1(length) => length,
            HeadProgress::Http2(_) | HeadProgress::Nothing => 0,
        }
    }

    /// Returns the maximum number of bytes to read next.
    pub(super) fn most(&mut self, state: &ConnectionState) -> usize {
        match &mut self.reading {
            HeadProgress::Http1(length) => {
                if !state.is_reading_head() {
                    *length = 0;
                }
                // A body that follows a small head must not count as part of the head.
                match SMALL_HEAD.checked_sub(*length) {
                    Some(left @ 1..) if state.is_idle() => left,
                    _ => READ - 1,
                }
            }
            HeadProgress::Http2(_) | HeadProgress::Nothing => READ - 1,
        }
    }

    /// Counts the bytes that were read.
    ///
    /// # Errors
    ///
    /// Fails if large heads hold too much. The connection must then end.
    pub(super) fn read(&mut self, bytes: &[u8], state: &ConnectionState) -> io::Result<()> {
        let counted = match &mut self.reading {
            // Bytes that are discarded after the last response are not a head.
            HeadProgress::Http1(length) if state.is_idle() && !state.is_over() => {
                *length += bytes.len();
                let most = self.heads.bytes().max(*length);
                if most <= SMALL_HEAD {
                    return Ok(());
                }
                state.record_large_head();
                self.heads.set(most)
            }
            HeadProgress::Http2(frames) => frames.read(bytes, &mut self.heads, state),
            HeadProgress::Http1(_) | HeadProgress::Nothing => return Ok(()),
        };
        counted.map_err(|full| {
            self.reading = HeadProgress::Nothing;
            let _ = self.heads.set(0);
            // h2 keeps only the kind of the error.
            io::Error::new(io::ErrorKind::QuotaExceeded, full)
        })
    }
}

/// Returns whether this is the error of [`HeadMeter::read`].
pub(super) fn is_full(error: &io::Error) -> bool {
    match error.get_ref() {
        Some(inner) => inner.is::<HeadsFull>(),
        None => error.kind() == io::ErrorKind::QuotaExceeded,
    }
}

// === impl Frames ===

impl Frames {
    fn after(preface: usize) -> Self {
        Self {
            reader: FrameReader::after(preface),
            last: 0,
            block: 0,
            ends: false,
            trails: false,
            trailers: 0,
        }
    }

    fn read(
        &mut self,
        mut bytes: &[u8],
        heads: &mut Heads,
        state: &ConnectionState,
    ) -> Result<(), HeadsFull> {
        while let Some(frame) = self.reader.next(&mut bytes) {
            if self.begins(&frame, state) {
                heads.set_incomplete(self.block + self.trailers)?;
            }
        }
        Ok(())
    }

    /// Handles the begin of a frame. Returns whether the number of bytes to count has changed.
    fn begins(&mut self, frame: &FrameHeader, state: &ConnectionState) -> bool {
        let (kind, length) = (frame.kind, frame.length as usize);
        let before = self.block + self.trailers;
        if self.ends {
            // h2 has consumed the block. It belongs to a request, or waits as trailers until the body is read.
            if self.trails && self.block > SMALL_HEAD {
                self.trailers += self.block;
            }
            (self.block, self.ends) = (0, false);
        }
        if self.trailers > 0 && state.is_idle() {
            self.trailers = 0;
        }
        if kind == HEADERS {
            self.trails = frame.stream <= self.last;
            self.last = self.last.max(frame.stream);
            self.block = length;
        } else if kind == CONTINUATION {
            self.block += length;
        }
        self.ends = matches!(kind, HEADERS | CONTINUATION) && frame.flags & END_HEADERS != 0;
        let now = self.block + self.trailers;
        now != before && now.max(before) > SMALL_HEAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use crate::proxy::Connections;

    const MANY: usize = 100_000;

    fn metered(protocol: ClientProtocol) -> (Memory, std::sync::Arc<ConnectionState>, HeadMeter) {
        let memory = Memory::new(256 * 1024 * 1024);
        let state = ConnectionState::new(Connections::new(1, memory.clone()));
        let mut meter = HeadMeter::new(&state);
        meter.set_protocol(protocol, 0);
        (memory, state, meter)
    }

    /// Reads in the same steps as a connection.
    fn read(meter: &mut HeadMeter, state: &ConnectionState, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let most = meter.most(state).min(bytes.len());
            let (now, later) = bytes.split_at(most);
            state.received(now);
            meter.read(now, state).unwrap();
            bytes = later;
        }
    }

    fn frame(kind: u8, flags: u8, stream: u8, length: usize) -> Vec<u8> {
        let mut frame = u32::try_from(length).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, stream]);
        frame.resize(9 + length, 0);
        frame
    }

    #[test]
    fn http1_counts_heads_and_no_bodies() {
        let (_memory, state, mut meter) = metered(ClientProtocol::Http1);
        for _ in 0..MANY / 1000 {
            read(&mut meter, &state, &[b'a'; 1000]);
            let request = state.begin();
            read(&mut meter, &state, &[b'b'; MANY]);
            drop(request);
        }
        assert_eq!(meter.heads.bytes(), 0);
        read(&mut meter, &state, &[b'a'; MANY]);
        drop(state.begin());
        read(&mut meter, &state, b"a");
        assert_eq!(meter.heads.bytes(), MANY, "the buffer stays");
    }

    #[test]
    fn http1_does_not_count_discarded_bytes() {
        let (_memory, state, mut meter) = metered(ClientProtocol::Http1);
        drop(state.begin());
        state.truncate();
        read(&mut meter, &state, &[b'a'; MANY]);
        assert_eq!(meter.heads.bytes(), MANY, "hyper may read on");
        state.end();
        read(&mut meter, &state, &vec![b'b'; 100 * MANY]);
        assert_eq!(meter.heads.bytes(), MANY);
    }

    #[test]
    fn http2_counts_field_blocks_and_trailers_until_they_end() {
        let (_memory, state, mut meter) = metered(ClientProtocol::Http2);
        let part = SMALL_HEAD;
        read(&mut meter, &state, &frame(HEADERS, 0, 1, part));
        assert_eq!(meter.heads.bytes(), 0);
        read(&mut meter, &state, &frame(CONTINUATION, 0, 1, part));
        assert_eq!(meter.heads.bytes(), 2 * part);
        read(
            &mut meter,
            &state,
            &frame(CONTINUATION, END_HEADERS, 1, part),
        );
        let request = state.begin();
        read(&mut meter, &state, &frame(0, 0, 1, part));
        assert_eq!(meter.heads.bytes(), 0);
        for _ in 0..2 {
            read(&mut meter, &state, &frame(HEADERS, 0, 1, part));
            read(
                &mut meter,
                &state,
                &frame(CONTINUATION, END_HEADERS, 1, part),
            );
        }
        read(&mut meter, &state, &frame(0, 0, 1, part));
        assert_eq!(meter.heads.bytes(), 4 * part);
        drop(request);
        read(&mut meter, &state, &frame(0, 0, 1, part));
        assert_eq!(meter.heads.bytes(), 0);
    }
}
