//! A metadata server on loopback that answers from a script, records every request, and misbehaves on demand. It writes
//! responses byte by byte, to send what no HTTP library would.
//!
//! ```no_run
//! let mut server = Metadata::start().await;
//! server.script(Kind::Access, [Answer::status(503, "starting"), Answer::access("T1", 3600)]);
//! // … call the sidecar …
//! server.arrived(Kind::Access, 2).await;
//! assert_eq!(server.requests(Kind::Access)[1].header("metadata-flavor"), Some("Google"));
//! ```

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

/// The path of accounts and their tokens.
pub const ACCOUNTS: &str = "/computeMetadata/v1/instance/service-accounts";

/// The server. Without a script, every access token is `test-access-token`, every ID token is unsigned and valid for an
/// hour, and the facts are those of `test-project`. Like Google's server, it refuses requests without `Metadata-Flavor:
/// Google` or with `X-Forwarded-For`.
pub struct Metadata {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: Option<JoinHandle<()>>,
}

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Access,
    Identity,
    Email,
    ProjectId,
    Universe,
    Other,
}

/// A recorded request.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub kind: Kind,
    pub method: String,
    pub path: String,
    pub query: Option<String>,
    /// The headers in the order of arrival, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The number of the connection, from 1.
    pub connection: usize,
}

/// One response of a script.
#[derive(Clone)]
pub struct Answer {
    how: How,
    headers: Vec<(String, String)>,
    flavor: bool,
    delay: Duration,
    gate: Option<Gate>,
    /// The number of body bytes after which the connection ends.
    torn_at: Option<usize>,
}

/// Blocks responses until it is opened.
#[derive(Clone)]
pub struct Gate(Arc<Semaphore>);

#[derive(Clone)]
enum How {
    Respond(u16, String),
    With(Arc<dyn Fn(&Recorded) -> Answer + Send + Sync>),
    Raw(Vec<u8>),
    Close,
    Reset,
    Never,
}

struct Shared {
    log: Mutex<Log>,
    arrivals: watch::Sender<usize>,
}

#[derive(Default)]
struct Log {
    requests: Vec<Recorded>,
    by_kind: HashMap<Kind, VecDeque<Answer>>,
    by_path: HashMap<String, VecDeque<Answer>>,
    connections: usize,
}

// === impl Metadata ===

impl Metadata {
    /// Starts on a free port of 127.0.0.1.
    pub async fn start() -> Self {
        let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await;
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            log: Mutex::default(),
            arrivals: watch::Sender::new(0),
        });
        let serving = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            serving: Some(serving),
        }
    }

    /// Returns the address, also after a stop.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the responses to all requests of this kind. The last one is repeated.
    pub fn script(&self, kind: Kind, answers: impl IntoIterator<Item = Answer>) {
        let answers = answers.into_iter().collect();
        self.shared.log().by_kind.insert(kind, answers);
    }

    /// Sets the responses to this path (without a query). They take precedence over [`script`](Self::script).
    pub fn script_path(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        let answers = answers.into_iter().collect();
        self.shared.log().by_path.insert(path.to_owned(), answers);
    }

    /// Returns the requests of this kind so far.
    pub fn requests(&self, kind: Kind) -> Vec<Recorded> {
        let log = self.shared.log();
        let of_kind = log.requests.iter().filter(|r| r.kind == kind);
        of_kind.cloned().collect()
    }

    /// Returns all requests so far.
    pub fn all_requests(&self) -> Vec<Recorded> {
        self.shared.log().requests.clone()
    }

    /// Returns the number of requests of this kind so far.
    pub fn count(&self, kind: Kind) -> usize {
        self.requests(kind).len()
    }

    /// Waits until this number of requests of this kind has arrived.
    pub async fn arrived(&self, kind: Kind, count: usize) {
        let mut arrivals = self.shared.arrivals.subscribe();
        let enough = arrivals.wait_for(|_| self.count(kind) >= count);
        let waited = tokio::time::timeout(Duration::from_secs(20), enough).await;
        assert!(
            waited.is_ok(),
            "{} of {count} {kind:?} questions arrived",
            self.count(kind)
        );
    }

    /// Closes the port and every connection. New connections are refused.
    pub async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
    }

    /// Listens on the same port again, with the same script and record.
    pub async fn restart(&mut self) {
        self.stop().await;
        let listener = bind(self.address).await;
        self.serving = Some(tokio::spawn(serve(listener, Arc::clone(&self.shared))));
    }
}

impl Drop for Metadata {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

// === impl Answer ===

impl Answer {
    fn new(how: How) -> Self {
        Self {
            how,
            headers: Vec::new(),
            flavor: true,
            delay: Duration::ZERO,
            gate: None,
            torn_at: None,
        }
    }

    /// Returns any status and body.
    pub fn status(status: u16, body: impl Into<String>) -> Self {
        Self::new(How::Respond(status, body.into()))
    }

    /// Returns 200 with this body.
    pub fn ok(body: impl Into<String>) -> Self {
        Self::status(200, body)
    }

    /// Returns 200 with an access token.
    pub fn access(token: &str, expires_in: u64) -> Self {
        let body = serde_json::json!({
            "access_token": token, "expires_in": expires_in, "token_type": "Bearer",
        });
        Self::ok(body.to_string()).header("content-type", "application/json")
    }

    /// Returns 200 with an unsigned ID token for the requested audience.
    pub fn identity(seconds: i64) -> Self {
        Self::with(move |request| Self::ok(jwt(&request.audience(), in_seconds(seconds))))
    }

    /// Returns the result of a function of the request.
    pub fn with(answer: impl Fn(&Recorded) -> Self + Send + Sync + 'static) -> Self {
        Self::new(How::With(Arc::new(answer)))
    }

    /// Sends these bytes, then closes the connection.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(How::Raw(bytes.into()))
    }

    /// Closes the connection without a byte.
    pub fn close() -> Self {
        Self::new(How::Close)
    }

    /// Resets the connection.
    pub fn reset() -> Self {
        Self::new(How::Reset)
    }

    /// Never responds.
    pub fn never() -> Self {
        Self::new(How::Never)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Removes the header that identifies a metadata server.
    #[must_use]
    pub fn without_flavor(mut self) -> Self {
        self.flavor = false;
        self
    }

    /// Delays the response.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Delays the response until the gate is opened.
    #[must_use]
    pub fn behind(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    /// Sends only the first bytes of the body, with the full length.
    #[must_use]
    pub fn torn_at(mut self, length: usize) -> Self {
        self.torn_at = Some(length);
        self
    }

    /// Writes the response. Returns whether the connection may be reused.
    async fn write(&self, stream: &mut TcpStream, request: &Recorded) -> bool {
        if let Some(gate) = &self.gate {
            gate.passed().await;
        }
        tokio::time::sleep(self.delay).await;
        if let How::With(answer) = &self.how {
            return Box::pin(answer(request).write(stream, request)).await;
        }
        match &self.how {
            How::Respond(status, body) => {
                let mut head = format!("HTTP/1.1 {status} Scripted\r\nServer: Metadata Server\r\n");
                if self.flavor {
                    head += "Metadata-Flavor: Google\r\n";
                }
                for (name, value) in &self.headers {
                    head += &format!("{name}: {value}\r\n");
                }
                head += &format!("Content-Length: {}\r\n\r\n", body.len());
                let sent = &body.as_bytes()[..self.torn_at.unwrap_or(body.len())];
                let bytes = [head.as_bytes(), sent].concat();
                stream.write_all(&bytes).await.is_ok() && self.torn_at.is_none()
            }
            How::Raw(bytes) => {
                let _ = stream.write_all(bytes).await;
                false
            }
            How::Close => false,
            How::Reset => {
                let _ = socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
                false
            }
            How::Never => std::future::pending().await,
            How::With(_) => unreachable!("answered above"),
        }
    }
}

// === impl Gate ===

impl Gate {
    /// Creates a closed gate.
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Waits until the gate is open.
    pub async fn passed(&self) {
        self.0.acquire().await.unwrap().forget();
        self.0.add_permits(1);
    }

    /// Lets all responses pass, now and later.
    pub fn open(&self) {
        self.0.add_permits(1);
    }
}

// === impl Recorded ===

impl Recorded {
    /// Returns the value of a header by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| &**value)
    }

    /// Returns a decoded parameter of the query.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let pairs = self.query.as_deref()?.split('&');
        let mut named = pairs.filter_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let value = named.next()?;
        let decoded = percent_encoding::percent_decode_str(value).decode_utf8();
        Some(decoded.unwrap().into_owned())
    }

    fn audience(&self) -> String {
        self.parameter("audience").unwrap_or_default()
    }

    fn parse(head: &str, connection: usize) -> Self {
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default();
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        let headers = lines.filter_map(|line| line.split_once(':'));
        Self {
            kind: Kind::of(path),
            method,
            path: path.to_owned(),
            query,
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect(),
            connection,
        }
    }
}

// === impl Kind ===

impl Kind {
    fn of(path: &str) -> Self {
        let last = path.rsplit('/').next().unwrap_or_default();
        match last {
            "token" => Self::Access,
            "identity" => Self::Identity,
            "email" => Self::Email,
            "project-id" => Self::ProjectId,
            "universe-domain" => Self::Universe,
            _ => Self::Other,
        }
    }

    fn unscripted(self) -> Answer {
        match self {
            Self::Access => Answer::access("test-access-token", 3600),
            Self::Identity => Answer::identity(3600),
            Self::Email => Answer::ok("default@test-project.iam.gserviceaccount.com"),
            Self::ProjectId => Answer::ok("test-project"),
            Self::Universe => Answer::ok("googleapis.com"),
            Self::Other => Answer::status(404, "not found"),
        }
    }
}

// === impl Shared ===

impl Shared {
    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().unwrap()
    }

    fn answer(&self, request: &Recorded) -> Answer {
        let log = &mut *self.log();
        log.requests.push(request.clone());
        if request.header("metadata-flavor") != Some("Google") {
            let words = "Missing required header \"Metadata-Flavor\": \"Google\"";
            return Answer::status(403, words).without_flavor();
        }
        if request.header("x-forwarded-for").is_some() {
            return Answer::status(403, "X-Forwarded-For is not allowed");
        }
        let by_path = log.by_path.get_mut(&request.path);
        let script = by_path.or_else(|| log.by_kind.get_mut(&request.kind));
        match script {
            Some(answers) if answers.len() > 1 => answers.pop_front().unwrap(),
            Some(answers) => answers.front().cloned().expect("an answer in the script"),
            None => request.kind.unscripted(),
        }
    }
}

// === jwt ===

/// Returns an unsigned ID token in the format that a receiver expects.
pub fn jwt(audience: &str, exp: u64) -> String {
    let claims = serde_json::json!({
        "aud": audience,
        "email": "default@test-project.iam.gserviceaccount.com",
        "email_verified": true,
        "exp": exp,
        "iss": "https://accounts.google.com",
        "sub": "1234567890",
    });
    jwt_of(&claims.to_string())
}

/// Returns a JWT with any payload.
pub fn jwt_of(payload: &str) -> String {
    let [header, payload] =
        [r#"{"alg":"RS256","typ":"JWT"}"#, payload].map(|part| URL_SAFE_NO_PAD.encode(part));
    format!("{header}.{payload}.c2lnbmF0dXJl")
}

/// Returns the audience of a token from [`jwt`].
pub fn audience_of(token: &str) -> String {
    let payload = token.split('.').nth(1).expect("a payload");
    let payload = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    let claims: serde_json::Value = serde_json::from_slice(&payload).expect("JSON");
    claims["aud"].as_str().expect("an audience").to_owned()
}

/// Returns the time in this number of seconds, in seconds since the epoch.
pub fn in_seconds(seconds: i64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs().checked_add_signed(seconds).unwrap()
}

// === serving ===

async fn bind(address: SocketAddr) -> TcpListener {
    TcpListener::bind(address).await.expect("a free port")
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, which closes all connections.
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let shared = Arc::clone(&shared);
        shared.log().connections += 1;
        let number = shared.log().connections;
        connections.spawn(async move { converse(stream, number, &shared).await });
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(mut stream: TcpStream, number: usize, shared: &Shared) {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            match stream.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        };
        let head: Vec<u8> = bytes.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head);
        let request = Recorded::parse(head.trim_end(), number);
        let answer = shared.answer(&request);
        shared.arrivals.send_modify(|arrivals| *arrivals += 1);
        if !answer.write(&mut stream, &request).await {
            return;
        }
    }
}
