//! Connections byte by byte: the app's end, the upstream's end, and assertions on the bytes.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::upstream::soon;

/// Any socket.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// One end of a connection. Each step has a time limit.
pub struct Wire {
    stream: Box<dyn Stream>,
}

/// An upstream that the test controls step by step.
pub struct Port {
    listener: TcpListener,
}

impl Wire {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = soon(TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    pub fn over(stream: impl Stream + 'static) -> Self {
        Self {
            stream: Box::new(stream),
        }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.stream.write_all(bytes.as_ref())).await.unwrap();
        soon(self.stream.flush()).await.unwrap();
    }

    /// Writes bytes and returns the result, because the peer may not accept them any more.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        soon(self.stream.write_all(bytes.as_ref())).await
    }

    /// Closes the sending side.
    pub async fn finish(&mut self) {
        soon(self.stream.shutdown()).await.unwrap();
    }

    /// Returns the next head, with its empty line.
    pub async fn head(&mut self) -> String {
        self.until(b"\r\n\r\n").await
    }

    /// Returns all bytes up to and including these.
    pub async fn until(&mut self, end: &[u8]) -> String {
        let mut bytes = Vec::new();
        while !bytes.ends_with(end) {
            let mut byte = [0];
            let read = soon(self.stream.read(&mut byte)).await;
            if !matches!(read, Ok(1)) {
                panic!("{read:?} after {:?}", String::from_utf8_lossy(&bytes));
            }
            bytes.push(byte[0]);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Returns this number of bytes.
    pub async fn exactly(&mut self, length: usize) -> String {
        let mut bytes = vec![0; length];
        soon(self.stream.read_exact(&mut bytes)).await.unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Returns the next head, and the body with its declared length.
    pub async fn message(&mut self) -> (String, String) {
        let head = self.head().await;
        let length = field(&head, "content-length").unwrap_or_else(|| panic!("no length: {head}"));
        let body = self.exactly(length.parse().unwrap()).await;
        (head, body)
    }

    /// Returns the joined chunks of a body, and its trailers.
    pub async fn chunked(&mut self) -> (String, String) {
        let mut body = String::new();
        loop {
            let size = self.until(b"\r\n").await;
            let size = usize::from_str_radix(size.trim(), 16).unwrap_or_else(|_| panic!("{size}"));
            if size == 0 {
                let mut trailers = String::new();
                loop {
                    let line = self.until(b"\r\n").await;
                    if line == "\r\n" {
                        return (body, trailers);
                    }
                    trailers.push_str(&line);
                }
            }
            body.push_str(&self.exactly(size).await);
            assert_eq!(self.exactly(2).await, "\r\n");
        }
    }

    /// Returns the next bytes, at most this number. It is empty at the end of the connection.
    pub async fn some(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; most];
        let read = soon(self.stream.read(&mut bytes)).await.unwrap();
        bytes.truncate(read);
        bytes
    }

    /// Returns all bytes up to the end, which may be a reset.
    pub async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let _ = soon(self.stream.read_to_end(&mut bytes)).await;
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Asserts that no byte arrives for a moment and that the connection stays open.
    pub async fn silent(&mut self) {
        let mut byte = [0];
        let read =
            tokio::time::timeout(super::hostile::A_MOMENT, self.stream.read(&mut byte)).await;
        assert!(read.is_err(), "{read:?} {byte:?}");
    }

    pub fn stream(&mut self) -> &mut (dyn Stream + 'static) {
        &mut *self.stream
    }
}

impl Port {
    pub async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Accepts the next connection, without TLS.
    pub async fn accept(&self) -> Wire {
        Wire::over(self.accept_tcp().await)
    }

    pub async fn accept_tcp(&self) -> TcpStream {
        let (stream, _) = soon(self.listener.accept()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Asserts that no connection has arrived.
    pub async fn untouched(&self) {
        let accepted = tokio::time::timeout(super::hostile::A_MOMENT, self.listener.accept()).await;
        assert!(accepted.is_err(), "somebody connected");
    }
}

/// Returns the value of a head's only field of that name, in any case.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut values = head.lines().filter_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    });
    let value = values.next();
    assert!(values.next().is_none(), "{name} twice: {head}");
    value
}
