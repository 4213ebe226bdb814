//! Upstreams with one misbehaviour each. The function's name says which.
#![allow(dead_code)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A listener that misbehaves in the same way on every connection.
pub struct Hostile {
    pub address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    heads: watch::Sender<Vec<String>>,
    closed: watch::Sender<usize>,
}

/// The state that a connection's handler may use.
#[derive(Clone)]
pub struct Stage {
    /// The number of the connection, from 0.
    pub connection: usize,
    heads: watch::Sender<Vec<String>>,
}

/// How a connection is lost.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    Close,
    Reset,
    /// With a GOAWAY that covers every stream.
    GoAway,
}

pub const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

impl Hostile {
    pub async fn start<F, R>(treat: F) -> Self
    where
        F: Fn(TcpStream, Stage) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let heads = watch::channel(Vec::new()).0;
        let closed = watch::channel(0).0;
        let hostile = Self {
            address,
            accepted: Arc::clone(&accepted),
            heads: heads.clone(),
            closed: closed.clone(),
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let stage = Stage {
                    connection: accepted.fetch_add(1, Ordering::SeqCst),
                    heads: heads.clone(),
                };
                let treated = treat(stream, stage);
                let closed = closed.clone();
                tokio::spawn(async move {
                    treated.await;
                    closed.send_modify(|count| *count += 1);
                });
            }
        });
        hostile
    }

    /// Returns the number of accepted connections.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Returns the request heads so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.borrow().clone()
    }

    /// Waits until this number of request heads has arrived.
    pub async fn heard(&self, count: usize) {
        let mut heads = self.heads.subscribe();
        super::upstream::soon(heads.wait_for(|heads| heads.len() >= count))
            .await
            .unwrap();
    }

    /// Waits until this number of connections is finished.
    pub async fn closed(&self, count: usize) {
        let mut closed = self.closed.subscribe();
        super::upstream::soon(closed.wait_for(|closed| *closed >= count))
            .await
            .unwrap();
    }

    /// Answers each request with the same bytes and keeps the connection.
    pub async fn always(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::start(move |mut stream, stage| {
            let answer = Arc::clone(&answer);
            async move {
                while stage.head(&mut stream).await {
                    if stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await
    }

    /// Answers each request with the same bytes and closes the connection.
    pub async fn once(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::start(move |mut stream, stage| {
            let answer = Arc::clone(&answer);
            async move {
                if stage.head(&mut stream).await {
                    let _ = stream.write_all(&answer).await;
                }
            }
        })
        .await
    }

    /// Closes the connection after the request head.
    pub async fn closes_after_head() -> Self {
        Self::once("").await
    }

    /// Answers the first request of a connection, and closes on the second before the first byte of a response.
    pub async fn closes_on_reuse() -> Self {
        Self::start(|mut stream, stage| async move {
            if stage.head(&mut stream).await {
                stream.write_all(HELLO.as_bytes()).await.unwrap();
                stage.head(&mut stream).await;
            }
        })
        .await
    }

    /// Like [`Hostile::closes_on_reuse`], with a reset instead of a close.
    pub async fn resets_on_reuse() -> Self {
        Self::start(|mut stream, stage| async move {
            if stage.head(&mut stream).await {
                stream.write_all(HELLO.as_bytes()).await.unwrap();
                stage.head(&mut stream).await;
                reset(stream);
            }
        })
        .await
    }

    /// Like [`Hostile::closes_on_reuse`], after the first bytes of a response.
    pub async fn stutters_on_reuse() -> Self {
        Self::start(|mut stream, stage| async move {
            if stage.head(&mut stream).await {
                stream.write_all(HELLO.as_bytes()).await.unwrap();
                stage.head(&mut stream).await;
                stream.write_all(b"HTTP/1.1 2").await.unwrap();
            }
        })
        .await
    }

    /// Answers one request of a connection, then closes the idle connection.
    pub async fn closes_idle() -> Self {
        Self::once(HELLO).await
    }

    /// Reads the request and never responds. Finishes when the peer closes.
    pub async fn stalls() -> Self {
        Self::start(|mut stream, stage| async move {
            stage.head(&mut stream).await;
            until_closed(&mut stream).await;
        })
        .await
    }

    /// Resets every connection after the request head.
    pub async fn resets() -> Self {
        Self::start(|mut stream, stage| async move {
            stage.head(&mut stream).await;
            reset(stream);
        })
        .await
    }

    /// Answers with bytes that are not HTTP, and keeps the connection open.
    pub async fn babbles() -> Self {
        Self::start(|mut stream, stage| async move {
            if stage.head(&mut stream).await {
                let _ = stream.write_all(b"\x16\x03\x01\0\0 what?\r\n\r\n").await;
                until_closed(&mut stream).await;
            }
        })
        .await
    }

    /// Sends this number of interim responses before each final one.
    pub async fn storms(count: usize) -> Self {
        let storm = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(count);
        Self::always(format!("{storm}{HELLO}")).await
    }

    /// Declares 50 bytes, sends five and closes.
    pub async fn says_less_than_it_told() -> Self {
        Self::once("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello").await
    }

    /// Declares five bytes, and sends a second response that was not requested.
    pub async fn says_more_than_it_told() -> Self {
        let poison = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
        Self::always(format!("{HELLO}{poison}")).await
    }

    /// Sends header lines until the peer stops reading, and records the number of bytes.
    pub async fn endless_headers() -> Self {
        Self::start(|mut stream, stage| async move {
            stage.head(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
            let line = format!("x-more: {}\r\n", "a".repeat(8000));
            let mut sent = 0;
            while stream.write_all(line.as_bytes()).await.is_ok() {
                sent += line.len();
            }
            stage.note(sent.to_string());
        })
        .await
    }

    /// Accepts and sends nothing, not even for TLS or HTTP/2.
    pub async fn mute() -> Self {
        Self::start(|mut stream, _| async move { until_closed(&mut stream).await }).await
    }

    /// Closes every connection as soon as it is open.
    pub async fn slams() -> Self {
        Self::start(|stream, _| async move { drop(stream) }).await
    }

    /// Resets every connection at its first byte.
    pub async fn resets_at_once() -> Self {
        Self::start(|mut stream, _| async move {
            let _ = stream.read(&mut [0; 1]).await;
            reset(stream);
        })
        .await
    }

    /// Completes the TLS handshake, answers with these bytes, and closes TCP without a close_notify.
    pub async fn without_close_notify(config: Arc<ServerConfig>, answer: &'static str) -> Self {
        Self::start(move |stream, stage| {
            let config = Arc::clone(&config);
            async move {
                let mut stream = accept_tls(config, stream).await;
                stage.head(&mut stream).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
                let (mut tcp, _) = stream.into_inner();
                tcp.shutdown().await.unwrap();
            }
        })
        .await
    }

    /// HTTP/2: permits one stream at a time, and answers none before `count` have arrived on all connections.
    pub async fn allows_one_stream(count: usize) -> Self {
        Self::start(move |stream, stage| async move {
            let mut connection = h2::server::Builder::new()
                .max_concurrent_streams(1)
                .handshake(stream)
                .await
                .unwrap();
            let mut heads = stage.heads.subscribe();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                stage.note(format!("{} {}", stage.connection, request.uri()));
                heads.wait_for(|heads| heads.len() >= count).await.unwrap();
                hello(&mut respond);
            }
        })
        .await
    }

    /// HTTP/2: refuses the first `count` streams, then answers.
    pub async fn refuses_streams(count: usize) -> Self {
        let refused = Arc::new(AtomicUsize::new(0));
        Self::start(move |stream, stage| {
            let refused = Arc::clone(&refused);
            async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    stage.note(format!("{} {}", request.method(), request.uri()));
                    if refused.fetch_add(1, Ordering::SeqCst) < count {
                        respond.send_reset(h2::Reason::REFUSED_STREAM);
                        continue;
                    }
                    hello(&mut respond);
                }
            }
        })
        .await
    }

    /// HTTP/2: answers `count` requests of a connection, and sends GOAWAY for later ones. `count` 0 applies only to the
    /// first connection.
    pub async fn goes_away_after(count: usize) -> Self {
        Self::start(move |stream, stage| async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let mut answered = 0;
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                stage.note(format!("{} {}", request.method(), request.uri()));
                hello(&mut respond);
                answered += 1;
                if answered == count {
                    connection.graceful_shutdown();
                }
            }
        })
        .await
    }

    /// HTTP/2: sends a GOAWAY that covers no stream after the first request of the first connection. Later connections
    /// behave well.
    pub async fn disowns_the_first_connection() -> Self {
        Self::start(|mut stream, stage| async move {
            if stage.connection > 0 {
                return honest_http2(stream, stage).await;
            }
            stream.write_all(SETTINGS).await.unwrap();
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).await.unwrap();
            loop {
                let (kind, _) = frame(&mut stream).await;
                if kind == HEADERS {
                    break;
                }
            }
            stage.note("disowned".to_owned());
            // GOAWAY, last stream 0, NO_ERROR.
            let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            stream.write_all(&goaway).await.unwrap();
            until_closed(&mut stream).await;
        })
        .await
    }

    /// HTTP/2: like [`Hostile::refuses_streams`], and records the bodies and trailers of answered streams. With
    /// `after_data`, it refuses a stream only after some of the body.
    pub async fn refuses_bodies(count: usize, after_data: bool) -> Self {
        let refused = Arc::new(AtomicUsize::new(0));
        Self::start(move |stream, stage| {
            let refused = Arc::clone(&refused);
            async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let (stage, refused) = (stage.clone(), Arc::clone(&refused));
                    tokio::spawn(async move {
                        let mut body = request.into_body();
                        if refused.fetch_add(1, Ordering::SeqCst) < count {
                            if after_data {
                                let _ = body.data().await;
                            }
                            respond.send_reset(h2::Reason::REFUSED_STREAM);
                            stage.note("refused".to_owned());
                            return;
                        }
                        let mut whole = Vec::new();
                        while let Some(chunk) = body.data().await {
                            let chunk = chunk.unwrap();
                            let _ = body.flow_control().release_capacity(chunk.len());
                            whole.extend_from_slice(&chunk);
                        }
                        let trailers = body.trailers().await.unwrap();
                        let sum =
                            trailers.map(|fields| fields["x-sum"].to_str().unwrap().to_owned());
                        stage.note(format!("{} {sum:?}", String::from_utf8(whole).unwrap()));
                        hello(&mut respond);
                    });
                }
            }
        })
        .await
    }

    /// HTTP/2: loses the first `count` connections when `requests` requests are in flight on each, as `how` says. Later
    /// connections behave well.
    pub async fn loses(count: usize, requests: usize, how: Loss) -> Self {
        Self::loses_after(count, requests, how, &[]).await
    }

    /// Like [`loses`](Self::loses). The first stream gets this header block before the loss.
    pub async fn loses_after(
        count: usize,
        requests: usize,
        how: Loss,
        block: &'static [u8],
    ) -> Self {
        Self::start(move |mut stream, stage| async move {
            if stage.connection >= count {
                return honest_http2(stream, stage).await;
            }
            stream.write_all(SETTINGS).await.unwrap();
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).await.unwrap();
            for _ in 0..requests {
                while frame(&mut stream).await.0 != HEADERS {}
                stage.note("lost".to_owned());
            }
            if !block.is_empty() {
                let length = u8::try_from(block.len()).unwrap();
                let head = [0, 0, length, HEADERS, 4, 0, 0, 0, 1];
                stream.write_all(&[&head, block].concat()).await.unwrap();
            }
            match how {
                Loss::Close => {}
                Loss::Reset => reset(stream),
                Loss::GoAway => {
                    // GOAWAY, last stream 2^31-1, NO_ERROR.
                    let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 127, 255, 255, 255, 0, 0, 0, 0];
                    stream.write_all(&goaway).await.unwrap();
                }
            }
        })
        .await
    }

    /// HTTP/2: accepts a request's stream and resets it with this reason.
    pub async fn resets_streams(reason: h2::Reason) -> Self {
        Self::start(move |stream, stage| async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                stage.note(format!("{} {}", request.method(), request.uri()));
                respond.send_reset(reason);
            }
        })
        .await
    }

    /// HTTP/2: sends a valid preface, then bytes that are not a frame.
    pub async fn babbles_after_the_preface() -> Self {
        Self::start(|mut stream, _| async move {
            stream.write_all(SETTINGS).await.unwrap();
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).await.unwrap();
            loop {
                let (kind, _) = frame(&mut stream).await;
                if kind == HEADERS {
                    break;
                }
            }
            stream.write_all(&[0xff; 64]).await.unwrap();
            until_closed(&mut stream).await;
        })
        .await
    }

    /// HTTP/2: sends a valid preface, and nothing after the first request head, not even an answer to a PING.
    pub async fn falls_silent_after_the_preface() -> Self {
        Self::start(|mut stream, stage| async move {
            stream.write_all(SETTINGS).await.unwrap();
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).await.unwrap();
            loop {
                let (kind, _) = frame(&mut stream).await;
                if kind == HEADERS {
                    break;
                }
            }
            stage.note("request".to_owned());
            until_closed(&mut stream).await;
        })
        .await
    }

    /// HTTP/2: answers the first stream with a head, if requested, and without an end. Answers each PING and records it
    /// with the milliseconds since the start of the connection. After `enough` PINGs it closes with a GOAWAY for too
    /// many.
    pub async fn counts_pings(answers: bool, enough: usize) -> Self {
        Self::start(move |mut stream, stage| async move {
            let opened = tokio::time::Instant::now();
            stream.write_all(SETTINGS).await.unwrap();
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).await.unwrap();
            let mut pings = 0;
            loop {
                let mut head = [0; 9];
                if stream.read_exact(&mut head).await.is_err() {
                    return;
                }
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let mut payload = vec![0; length];
                stream.read_exact(&mut payload).await.unwrap();
                match (head[3], head[4] & 1) {
                    (HEADERS, _) => {
                        stage.note("request".to_owned());
                        if answers {
                            // `:status: 200` on the same stream, which stays open.
                            let mut answer = vec![0, 0, 1, 1, 4];
                            answer.extend_from_slice(&head[5..9]);
                            answer.push(0x88);
                            stream.write_all(&answer).await.unwrap();
                        }
                    }
                    (PING, 0) => {
                        stage.note(format!("PING {}", opened.elapsed().as_millis()));
                        pings += 1;
                        if pings == enough {
                            let mut goaway = vec![0, 0, 22, 7, 0, 0, 0, 0, 0];
                            goaway.extend_from_slice(&[127, 255, 255, 255, 0, 0, 0, 11]);
                            goaway.extend_from_slice(b"too_many_pings");
                            stream.write_all(&goaway).await.unwrap();
                            return;
                        }
                        let mut pong = vec![0, 0, 8, PING, 1, 0, 0, 0, 0];
                        pong.extend_from_slice(&payload);
                        stream.write_all(&pong).await.unwrap();
                    }
                    _ => {}
                }
            }
        })
        .await
    }

    /// HTTP/2: sends a valid preface, then closes the connection.
    pub async fn leaves_after_the_preface() -> Self {
        Self::start(|mut stream, _| async move {
            stream.write_all(SETTINGS).await.unwrap();
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).await.unwrap();
        })
        .await
    }
}

/// An empty SETTINGS frame.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const HEADERS: u8 = 1;
const PING: u8 = 6;

impl Stage {
    /// Reads a request head. Returns false at the end of the connection.
    pub async fn head(&self, stream: &mut (impl AsyncRead + Unpin)) -> bool {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return false,
            }
        }
        self.note(String::from_utf8(head).unwrap());
        true
    }

    pub fn note(&self, head: String) {
        self.heads.send_modify(|heads| heads.push(head));
    }
}

pub async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) {
    let mut sink = [0; 4096];
    while matches!(stream.read(&mut sink).await, Ok(count) if count > 0) {}
}

pub async fn accept_tls(config: Arc<ServerConfig>, stream: TcpStream) -> TlsStream<TcpStream> {
    TlsAcceptor::from(config).accept(stream).await.unwrap()
}

fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
    drop(stream);
}

async fn honest_http2(stream: impl AsyncRead + AsyncWrite + Unpin, stage: Stage) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        stage.note(format!("{} {}", request.method(), request.uri()));
        hello(&mut respond);
    }
}

fn hello(respond: &mut h2::server::SendResponse<Bytes>) {
    let mut body = respond
        .send_response(http::Response::new(()), false)
        .unwrap();
    body.send_data(Bytes::from_static(b"hello"), true).unwrap();
}

async fn frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.unwrap();
    (head[3], payload)
}

/// The time that tests wait to see that nothing happens.
pub const A_MOMENT: Duration = Duration::from_millis(100);
