//! Misbehaving HTTP/2 clients: they stop within a head, grant no window, or send only PINGs.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::upstream::soon;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A received frame.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A client's connection.
pub struct RawHttp2 {
    pub stream: TcpStream,
    next: u32,
}

/// Returns a frame's bytes (RFC 9113, 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Returns SETTINGS with this initial window for every stream.
pub fn settings(window: u32) -> Vec<u8> {
    let mut payload = vec![0, 4];
    payload.extend(window.to_be_bytes());
    frame(SETTINGS, 0, 0, &payload)
}

/// Returns a header block without compression (RFC 7541, 6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for text in fields
        .iter()
        .flat_map(|(name, value)| [name, value])
        .enumerate()
    {
        let (index, text) = text;
        if index % 2 == 0 {
            block.push(0);
        }
        assert!(text.len() < 127);
        block.push(u8::try_from(text.len()).unwrap());
        block.extend(text.as_bytes());
    }
    block
}

/// Returns the header block of a GET.
pub fn get(authority: &str, path: &str) -> Vec<u8> {
    block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", authority),
        (":path", path),
    ])
}

impl RawHttp2 {
    /// Connects, and sends the preface and SETTINGS with this initial window.
    pub async fn open(address: SocketAddr, window: u32) -> Self {
        let mut stream = soon(TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(PREFACE).await.unwrap();
        stream.write_all(&settings(window)).await.unwrap();
        Self { stream, next: 1 }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        soon(self.stream.write_all(bytes)).await.unwrap();
    }

    /// Opens a stream with this header block, and ends it.
    pub async fn request(&mut self, block: &[u8]) -> u32 {
        let stream = self.next;
        self.next += 2;
        let headers = frame(HEADERS, END_STREAM | END_HEADERS, stream, block);
        self.send(&headers).await;
        stream
    }

    /// Returns the next frame within this time, or `None` at the end of the connection.
    pub async fn next_within(&mut self, time: Duration) -> Option<Frame> {
        let read = async {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.stream.read_exact(&mut payload).await.ok()?;
            Some(Frame {
                kind: head[3],
                flags: head[4],
                stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
                payload,
            })
        };
        tokio::time::timeout(time, read)
            .await
            .expect("no frame in this time")
    }

    /// Returns the next frame of a kind within this time, or `None` at the end of the connection.
    pub async fn frame_within(&mut self, kind: u8, time: Duration) -> Option<Frame> {
        loop {
            let frame = self.next_within(time).await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }
}

/// Reads until the peer closes the connection, and returns the elapsed time.
pub async fn closed_within(stream: &mut (impl AsyncRead + Unpin), time: Duration) -> Duration {
    let began = std::time::Instant::now();
    let mut sink = [0; 4096];
    let closed = async { while matches!(stream.read(&mut sink).await, Ok(read) if read > 0) {} };
    tokio::time::timeout(time, closed)
        .await
        .expect("it was not closed");
    began.elapsed()
}
