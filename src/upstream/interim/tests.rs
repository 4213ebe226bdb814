//! Interim responses over HTTP/1.1 and HTTP/2, however their bytes are split.

use proptest::prelude::*;

use super::http2::MALFORMED;
use super::*;
use crate::frames::{CONTINUATION, DATA, FrameReader, HEADERS, RST_STREAM};

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
    let mut interim = InterimLimiter::http1();
    let mut first = true;
    bytes.as_bytes().chunks(step).try_for_each(|part| {
        let inserted = interim.read(std::mem::take(&mut first), part)?;
        assert!(inserted.is_none());
        Ok(())
    })
}

/// Returns the bytes that h2 reads.
fn through(interim: &mut InterimLimiter, bytes: &[u8], step: usize) -> io::Result<Vec<u8>> {
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

/// Returns the streams that h2 resets.
fn http2(frames: &[Vec<u8>], step: usize) -> Vec<u32> {
    let bytes = frames.concat();
    let read = through(&mut InterimLimiter::http2(), &bytes, step).unwrap();
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
fn http1_interim_responses_are_limited_across_any_read_boundaries() {
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
        // The bytes after a final response are a body, or another protocol.
        assert!(http1(&(OK.to_owned() + &HINTS.repeat(99)), step).is_ok());
        let switched = "HTTP/1.1 101 Switching\r\n\r\n".to_owned();
        assert!(http1(&(switched + &HINTS.repeat(99)), step).is_ok());
    }
}

#[test]
fn each_http1_request_has_its_own_count() {
    let mut interim = InterimLimiter::http1();
    for _ in 0..10 {
        for round in 0..32 {
            interim.read(round == 0, HINTS.as_bytes()).unwrap();
        }
        interim.read(false, OK.as_bytes()).unwrap();
    }
}

#[test]
fn http2_interim_responses_are_limited_across_any_read_boundaries() {
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
            // The head of the frame before the reset must not have been read in part.
            if step > 100 {
                assert_eq!(http2(&hints(33), step), [1]);
            }
        }
    }
}

#[test]
fn each_stream_has_its_own_count() {
    let mut frames = Vec::new();
    for id in (1..40_000).step_by(2) {
        frames.push(frame(HEADERS, 0x4, id, FINAL));
        frames.push(frame(DATA, 0, id, b"data"));
        frames.push(frame(HEADERS, 0x5, id, INTERIM));
        // The status is unusual, and the app cancels its stream.
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
fn large_interim_responses_are_limited_by_size() {
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
    let flood = |size, count: usize| -> Vec<_> { (0..count).flat_map(|_| large(size)).collect() };
    assert_eq!(http2(&flood(1_000, 32), 4096), NONE);
    assert_eq!(http2(&flood(8_000, 11), 4096), [1]);
    assert_eq!(http2(&flood(200_000, 2), 4096), [1]);
    // A large response may be the final one.
    assert_eq!(http2(&flood(200_000, 1), 4096), NONE);
}

#[test]
fn alternating_streams_are_limited_together() {
    let turns: Vec<_> = (0..32)
        .flat_map(|_| {
            (1..6_000)
                .step_by(2)
                .map(|id| frame(HEADERS, 0x4, id, INTERIM))
        })
        .collect();
    let error = through(&mut InterimLimiter::http2(), &turns.concat(), 16 * 1024).unwrap_err();
    assert!(is_flood(&error));
}

#[test]
fn a_flood_resets_its_own_stream_only() {
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
    let error = through(&mut InterimLimiter::http2(), &flood, 4096).unwrap_err();
    assert!(is_flood(&error));
}

#[test]
fn interim_responses_before_a_lost_connection_are_reported_per_stream() {
    let mut interim = InterimLimiter::http2();
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
        interim.is_waiting() && interim.on_connection_lost().is_empty(),
        "within a frame"
    );
    through(&mut interim, part, 4096).unwrap();
    let resets = [1, 7].map(|stream| frame(RST_STREAM, 0, stream, &LOST.to_be_bytes()));
    assert_eq!(interim.on_connection_lost(), resets.concat());
    assert!(!interim.is_waiting() && interim.on_connection_lost().is_empty());
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..512), step in 1usize..64) {
        for mut interim in [InterimLimiter::http1(), InterimLimiter::http2()] {
            for part in bytes.chunks(step) {
                let _ = interim.read(false, part);
            }
        }
    }
}
