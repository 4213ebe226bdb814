//! An attacker's connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Connections that stay open until this is dropped.
pub(super) struct Flood {
    connections: JoinSet<()>,
    written: watch::Sender<usize>,
}

/// How an attacker reads responses.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Reading {
    /// Reads everything at once.
    All,
    /// Reads nothing.
    Nothing,
    /// Reads a byte every ten milliseconds.
    Slowly,
}

// === impl Flood ===

impl Flood {
    pub(super) fn new() -> Self {
        Self {
            connections: JoinSet::new(),
            written: watch::Sender::new(0),
        }
    }

    /// Opens this number of connections. Each writes these bytes.
    pub(super) fn open(
        &mut self,
        address: SocketAddr,
        count: usize,
        reading: Reading,
        bytes: impl Into<Arc<[u8]>>,
    ) {
        let bytes = bytes.into();
        for _ in 0..count {
            let (bytes, written) = (bytes.clone(), self.written.clone());
            self.connections.spawn(async move {
                let Ok(stream) = TcpStream::connect(address).await else {
                    written.send_modify(|written| *written += 1);
                    return;
                };
                let (reader, mut writer) = stream.into_split();
                let write = async {
                    // The sidecar may close a connection that floods it.
                    let _ = writer.write_all(&bytes).await;
                    written.send_modify(|written| *written += 1);
                };
                tokio::join!(write, read(reader, reading));
            });
        }
    }

    /// Keeps this number of connections open. Each writes these bytes, and a closed one is replaced.
    pub(super) fn churn(&mut self, address: SocketAddr, count: usize, bytes: impl Into<Arc<[u8]>>) {
        let bytes = bytes.into();
        for _ in 0..count {
            let bytes = bytes.clone();
            self.connections.spawn(async move {
                while let Ok(stream) = TcpStream::connect(address).await {
                    let (reader, mut writer) = stream.into_split();
                    let _ = writer.write_all(&bytes).await;
                    read(reader, Reading::All).await;
                }
            });
        }
    }

    /// Waits until every connection has written its bytes or was closed, at most for this time.
    ///
    /// A connection that the sidecar does not read never finishes.
    pub(super) async fn written(&self, at_most: Duration) {
        let all = self.connections.len();
        let mut written = self.written.subscribe();
        let _ = tokio::time::timeout(at_most, written.wait_for(|written| *written >= all)).await;
    }
}

/// Reads as configured. Returns only if the attacker reads and the connection has ended.
async fn read(mut reader: tokio::net::tcp::OwnedReadHalf, reading: Reading) {
    let mut sink = vec![
        0;
        if reading == Reading::Slowly {
            1
        } else {
            64 * 1024
        }
    ];
    loop {
        match reading {
            Reading::Nothing => std::future::pending::<()>().await,
            Reading::Slowly => tokio::time::sleep(Duration::from_millis(10)).await,
            Reading::All => {}
        }
        if !matches!(reader.read(&mut sink).await, Ok(1..)) {
            return;
        }
    }
}
