//! Upstream responses through a running sidecar. Head, body and trailers come from the fuzzer. The framing is
//! plausible, so that most inputs pass the parser.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sidentity::app::App;
use sidentity::config::{self, Env, OptionKey, RawConfig};
use tokio::runtime::Runtime;

/// The time within which the sidecar must end an exchange.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The time for which the upstream keeps a connection without a further request.
const KEPT: Duration = Duration::from_millis(30);

const PROBE: &str = "/probe";
const PROBED: &[u8] = b"probe";

/// Trailers that RFC 9110, 6.5.1 forbids, and hop-by-hop fields.
const NO_TRAILERS: &[&str] = &[
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "host",
    "keep-alive",
    "max-forwards",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-serverless-authorization",
];

static STAGE: LazyLock<Stage> = LazyLock::new(Stage::start);

/// A sidecar with one route to one upstream.
struct Stage {
    route: SocketAddr,
    runtime: Runtime,
    answer: &'static Mutex<ScriptedResponse>,
}

/// The upstream's response to every request except for a probe.
#[derive(Clone, Default)]
struct ScriptedResponse {
    bytes: Vec<u8>,
    keep: bool,
}

/// The response that the app received over HTTP/1.1.
struct Received {
    status: u16,
    body: Vec<u8>,
    trailers: Vec<String>,
}

/// One byte of flags, then head, body and trailers, each ended by an empty line. The exchange ends, the app gets one
/// response without a forbidden trailer, and the next call gets its own response.
pub fn responses(input: &[u8]) {
    let Some((flags, rest)) = input.split_first() else {
        return;
    };
    let stage = &*STAGE;
    *locked(stage.answer) = answer(*flags, rest);
    let method = if flags & 0b100 == 0 { "GET" } else { "HEAD" };
    if flags & 0b1000 == 0 {
        let received = call(stage.route, method, "/fuzz");
        for name in received.trailers {
            assert!(!NO_TRAILERS.contains(&&*name), "trailer {name}");
        }
    } else {
        stage.runtime.block_on(call_http2(stage.route, method));
    }
    let probed = call(stage.route, "GET", PROBE);
    assert_eq!((probed.status, &*probed.body), (200, PROBED));
}

fn answer(flags: u8, input: &[u8]) -> ScriptedResponse {
    let mut sections = input.splitn(3, |byte| *byte == 0);
    let mut section = || sections.next().unwrap_or_default();
    let (head, body, trailers) = (section(), section(), section());
    let framing = flags & 0b11;
    let mut bytes = b"HTTP/1.1 ".to_vec();
    lines(head, &mut bytes);
    match framing {
        0 => bytes.extend_from_slice(b"\r\n"),
        1 => bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes()),
        _ => bytes.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n"),
    }
    if framing < 2 {
        bytes.extend_from_slice(body);
    } else {
        for chunk in body.chunks(7) {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n");
        lines(trailers, &mut bytes);
        bytes.extend_from_slice(b"\r\n");
    }
    ScriptedResponse {
        bytes,
        keep: framing != 0,
    }
}

fn lines(text: &[u8], bytes: &mut Vec<u8>) {
    for line in text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        bytes.extend_from_slice(line);
        bytes.extend_from_slice(b"\r\n");
    }
}

// === impl Stage ===

impl Stage {
    fn start() -> Self {
        let answer: &'static Mutex<ScriptedResponse> = Box::leak(Box::default());
        let upstream = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = upstream.local_addr().expect("bound");
        thread::spawn(move || {
            for stream in upstream.incoming().flatten() {
                thread::spawn(move || serve(stream, answer));
            }
        });
        let mut raw = RawConfig::default();
        let route = format!("127.0.0.1:0=http://{address},credential=none");
        for (name, value) in [
            (OptionKey::Route, &*route),
            (OptionKey::Proxy, "off"),
            (OptionKey::Admin, "off"),
        ] {
            raw.set_flag(name, [value.to_owned()]);
        }
        let config = config::load(&raw, &Env::default()).expect("it is valid");
        let runtime = Runtime::new().expect("threads");
        let app = runtime.block_on(App::build(config)).expect("free ports");
        let route = app.route_addresses()[0];
        runtime.spawn(app.run(std::future::pending()));
        Self {
            route,
            runtime,
            answer,
        }
    }
}

/// A connection of the upstream.
fn serve(mut stream: TcpStream, answer: &Mutex<ScriptedResponse>) {
    stream.set_read_timeout(Some(KEPT)).expect("not zero");
    stream.set_nodelay(true).expect("a socket");
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        while let Some(end) = find(&received, b"\r\n\r\n") {
            let probe = find(&received[..end], PROBE.as_bytes()).is_some();
            received.drain(..end + 4);
            let answer = if probe {
                ScriptedResponse {
                    bytes: b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nprobe".to_vec(),
                    keep: true,
                }
            } else {
                locked(answer).clone()
            };
            if stream.write_all(&answer.bytes).is_err() || !answer.keep {
                return;
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(length) => received.extend_from_slice(&buffer[..length]),
        }
    }
}

/// A call of the app, on its own connection.
fn call(route: SocketAddr, method: &str, path: &str) -> Received {
    let mut stream = TcpStream::connect(route).expect("it listens");
    stream.set_read_timeout(Some(TIMEOUT)).expect("not zero");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nte: trailers\r\nconnection: te, close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("it reads");
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        // A response that the upstream ends early also ends early here.
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    received(method, &bytes)
}

async fn call_http2(route: SocketAddr, method: &str) {
    let exchange = async {
        let stream = tokio::net::TcpStream::connect(route)
            .await
            .expect("it listens");
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("it speaks HTTP/2");
        tokio::spawn(connection);
        let request = http::Request::builder()
            .method(method)
            .uri(format!("http://localhost:{}/fuzz", route.port()))
            .header("te", "trailers")
            .body(Empty::<bytes::Bytes>::new())
            .expect("it is valid");
        // A body that fails at once may discard the head too.
        let response = match sender.send_request(request).await {
            Ok(response) => response,
            Err(error) => return assert!(is_reset(&error), "{error:?}"),
        };
        if let Ok(body) = response.into_body().collect().await {
            for name in body.trailers().into_iter().flat_map(http::HeaderMap::keys) {
                assert!(!NO_TRAILERS.contains(&name.as_str()), "trailer {name}");
            }
        }
    };
    tokio::time::timeout(TIMEOUT, exchange)
        .await
        .expect("the exchange ends");
}

/// Returns whether the sidecar reset the stream with INTERNAL_ERROR.
fn is_reset(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref());
    cause.is_some_and(|cause: &h2::Error| {
        cause.is_reset() && cause.reason() == Some(h2::Reason::INTERNAL_ERROR)
    })
}

/// Reads one response, and checks that no other follows.
fn received(method: &str, bytes: &[u8]) -> Received {
    let end = find(bytes, b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("http/1.1 "));
    let status = status.and_then(|status| status.get(..3)?.parse().ok());
    let status: u16 = status.expect("a status line");
    let field = |wanted: &str| {
        let mut lines = head.split("\r\n").skip(1);
        lines.find_map(|line| line.strip_prefix(wanted)?.strip_prefix(": "))
    };
    let rest = &bytes[end + 4..];
    let mut received = Received {
        status,
        body: Vec::new(),
        trailers: Vec::new(),
    };
    if method == "HEAD" || matches!(status, 204 | 304) {
        assert!(rest.is_empty(), "bytes after the head");
    } else if field("transfer-encoding").is_some() {
        assert_eq!(field("transfer-encoding"), Some("chunked"));
        assert_eq!(field("content-length"), None);
        chunks(rest, &mut received);
    } else if let Some(length) = field("content-length") {
        let length: usize = length.parse().expect("a number");
        assert!(rest.len() <= length, "bytes after the body");
        received.body = rest.to_vec();
    } else {
        received.body = rest.to_vec();
    }
    received
}

/// A chunked body, possibly incomplete.
fn chunks(mut rest: &[u8], received: &mut Received) {
    while let Some(end) = find(rest, b"\r\n") {
        let size = std::str::from_utf8(&rest[..end]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        rest = &rest[end + 2..];
        if size == 0 {
            let Some(end) = find(rest, b"\r\n") else {
                return;
            };
            let trailers = if end == 0 {
                Some(0)
            } else {
                find(rest, b"\r\n\r\n").map(|end| end + 2)
            };
            let Some(trailers) = trailers else { return };
            assert_eq!(rest.len(), trailers + 2, "bytes after the body");
            let text = String::from_utf8_lossy(&rest[..trailers]).to_ascii_lowercase();
            let names = text.split("\r\n").filter_map(|line| line.split_once(':'));
            received.trailers = names.map(|(name, _)| name.to_owned()).collect();
            return;
        }
        let Some(chunk) = rest.get(..size) else {
            return;
        };
        received.body.extend_from_slice(chunk);
        rest = rest.get(size + 2..).unwrap_or_default();
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
