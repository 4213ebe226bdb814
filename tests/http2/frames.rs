//! HTTP/2 frame by frame, for bytes that no ordinary client sends or shows (RFC 9113, 4.1).

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::HOST;
use super::support::upstream::soon;

pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const GOAWAY: u8 = 7;

/// A received frame.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

/// A connection after the prefaces.
pub(super) struct Raw(TcpStream);

impl Raw {
    pub(super) async fn open(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        let mut raw = Self(stream);
        raw.write(&frame(SETTINGS, 0, 0, &[])).await;
        raw
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// Returns the next frame; `None` at the end of the connection.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        soon(async {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            Some(Frame {
                kind: head[3],
                stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
                payload,
            })
        })
        .await
    }

    /// Returns the next frame of a kind.
    pub(super) async fn find(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next().await.expect("the connection ended");
            if frame.kind == kind {
                return frame;
            }
        }
    }
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Returns a complete `GET`.
pub(super) fn get(stream: u32, path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86];
    block.extend(literal(4, path));
    block.extend(literal(1, HOST));
    frame(HEADERS, 0x5, stream, &block)
}

/// Returns a field with a name of the static table and a value that is not indexed (RFC 7541, 6.2.2).
pub(super) fn literal(name: u8, value: &str) -> Vec<u8> {
    let mut field = vec![name, value.len() as u8];
    field.extend(value.as_bytes());
    field
}

/// Returns a field whose name is in no table.
pub(super) fn named(name: &str, value: &str) -> Vec<u8> {
    let mut field = literal(0, name);
    field.push(value.len() as u8);
    field.extend(value.as_bytes());
    field
}
