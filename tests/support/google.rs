//! Google's token endpoints on loopback, with and without TLS. They check every request strictly (with the emulator's
//! code), record it, and fail on demand.
//!
//! ```no_run
//! let google = Google::start().await;
//! let file = google.file("key.json", &google.service_account(&Endpoints::default()));
//! let flags = google.flags(); // --connect-to … --upstream-ca …
//! google.script(Endpoint::Token, [Fault::status(503, "starting"), Fault::none()]);
//! // … call the sidecar …
//! let assertion = google.requests(Endpoint::Token)[1].jwt("assertion");
//! assert_eq!(assertion.claims["aud"], "https://oauth2.googleapis.com/token");
//! ```

mod fault;
mod recorded;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

pub use fault::Fault;
use fault::Sent;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
#[allow(unused_imports)] // each test binary uses its own part
pub use recorded::{Jwt, Recorded};
use serde_json::Value;
use sidentity::emulator::Identity;
#[allow(unused_imports)] // each test binary uses its own part
pub use sidentity::emulator::google::{
    AWS_REGION, AWS_ROLE, Endpoint, Endpoints, Role, SubjectSource,
};
use sidentity::emulator::google::{Google as Emulated, host};
use sidentity::emulator::tls::LocalCa;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// Longer than any step takes. A test that waits this long has failed.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The other universe whose endpoints are emulated.
pub const UNIVERSE: &str = "example-universe.test";

/// The running endpoints. [`Deref`] returns the emulated Google: the credential files, and the directory
/// ([`Emulated::directory`]).
/// ([`Emulated::directory`]).
#[derive(Clone)]
pub struct Google(Arc<Shared>);

struct Shared {
    emulated: Emulated,
    tls: SocketAddr,
    plain: SocketAddr,
    folder: TempDir,
    skew: AtomicI64,
    connections: AtomicUsize,
    /// The number of connections with TLS so far, and of those that will be closed during the handshake.
    accepted: AtomicUsize,
    broken: AtomicUsize,
    log: Mutex<Vec<Recorded>>,
    scripts: Mutex<HashMap<Endpoint, Script>>,
    arrivals: watch::Sender<usize>,
}

#[derive(Default)]
struct Script {
    faults: VecDeque<Fault>,
    always: Option<Fault>,
}

// === impl Google ===

impl Google {
    /// Starts with the emulator's default project, account and users.
    pub async fn start() -> Self {
        let tls = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ca = Arc::new(LocalCa::new().unwrap());
        std::fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
        let config = ca.server_config(&[b"h2", b"http/1.1"]).unwrap();
        let google = Self(Arc::new(Shared {
            emulated: Emulated::new(&Identity::default()).unwrap(),
            tls: tls.local_addr().unwrap(),
            plain: plain.local_addr().unwrap(),
            folder,
            skew: AtomicI64::new(0),
            connections: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            broken: AtomicUsize::new(0),
            log: Mutex::default(),
            scripts: Mutex::default(),
            arrivals: watch::Sender::new(0),
        }));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let this = google.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tls.accept().await {
                let (this, acceptor) = (this.clone(), acceptor.clone());
                this.0.accepted.fetch_add(1, Ordering::Relaxed);
                let broken = &this.0.broken;
                let one_less = |left: usize| left.checked_sub(1);
                if broken
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
                    .is_ok()
                {
                    tokio::spawn(async move { stream.read(&mut [0; 2048]).await });
                    continue;
                }
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        this.serve(stream, true).await;
                    }
                });
            }
        });
        let this = google.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = plain.accept().await {
                let this = this.clone();
                tokio::spawn(async move { this.serve(stream, false).await });
            }
        });
        google
    }

    /// Closes the next connections after the first bytes of the TLS handshake.
    pub fn break_handshakes(&self, connections: usize) {
        self.0.broken.store(connections, Ordering::Relaxed);
    }

    /// Returns the number of connections with TLS so far, with failed handshakes.
    pub fn accepted(&self) -> usize {
        self.0.accepted.load(Ordering::Relaxed)
    }

    /// Returns the address with TLS.
    pub fn tls_address(&self) -> SocketAddr {
        self.0.tls
    }

    /// Returns the address without TLS. It serves all endpoints, including those of AWS and `/actions/id-token`.
    pub fn plain_address(&self) -> SocketAddr {
        self.0.plain
    }

    /// Returns the base URL without TLS for `--trust-credential-url`, without a final slash.
    pub fn base(&self) -> String {
        format!("http://{}", self.0.plain)
    }

    /// Returns the file of the certificate to trust.
    pub fn ca(&self) -> PathBuf {
        self.0.folder.path().join("ca.pem")
    }

    /// Returns the flags that redirect the token endpoints of both universes, AWS STS and the AWS metadata addresses
    /// here.
    pub fn flags(&self) -> Vec<String> {
        let (tls, plain) = (self.0.tls.port(), self.0.plain.port());
        let mut entries: Vec<String> = [
            "oauth2.googleapis.com",
            "sts.googleapis.com",
            "iamcredentials.googleapis.com",
            &format!("*.{UNIVERSE}"),
            &format!("sts.{AWS_REGION}.amazonaws.com"),
        ]
        .iter()
        .map(|host| format!("{host}:443:127.0.0.1:{tls}"))
        .collect();
        for host in ["169.254.169.254", "169.254.170.2", "169.254.170.23"] {
            entries.push(format!("{host}:80:127.0.0.1:{plain}"));
        }
        let mut flags: Vec<String> = entries
            .into_iter()
            .flat_map(|entry| ["--connect-to".to_owned(), entry])
            .collect();
        flags.extend(["--upstream-ca".to_owned(), self.ca().display().to_string()]);
        flags
    }

    /// Returns the flags that redirect all hosts here. Other hosts answer with the member and scopes of the call's
    /// access token, the claims of its ID token, or 401.
    pub fn flags_for_all(&self) -> Vec<String> {
        let mut flags = self.flags();
        let all = format!("*:443:127.0.0.1:{}", self.0.tls.port());
        flags.extend(["--connect-to".to_owned(), all]);
        flags
    }

    /// Writes a credential file, or any JSON, that only the owner can read.
    pub fn file(&self, name: &str, content: &Value) -> PathBuf {
        self.text_file(name, &content.to_string())
    }

    /// Writes a text, such as a subject token, that only the owner can read. It replaces the file atomically.
    pub fn text_file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.folder.path().join(name);
        let new = path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(&new, &path).unwrap();
        path
    }

    /// Writes a program for an executable source: a shell script that only the owner can run.
    pub fn program(&self, name: &str, script: &str) -> PathBuf {
        let path = self.text_file(name, &format!("#!/bin/sh\n{script}\n"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        path
    }

    /// Returns a subject token of the OIDC provider that is valid for an hour, by the server's clock.
    pub fn subject(&self) -> String {
        self.subject_token(self.now(), 3600).unwrap()
    }

    /// Returns a subject token that expired a minute ago.
    pub fn expired_subject(&self) -> String {
        let then = self.now() - Duration::from_secs(3660);
        self.subject_token(then, 3600).unwrap()
    }

    /// Sets the server's clock ahead of ours by this number of seconds, or behind.
    pub fn skew(&self, seconds: i64) {
        self.0.skew.store(seconds, Ordering::Relaxed);
    }

    /// Sets the faults of an endpoint's next responses. Later responses have none.
    pub fn script(&self, endpoint: Endpoint, faults: impl IntoIterator<Item = Fault>) {
        let mut scripts = self.0.scripts.lock().unwrap();
        let script = scripts.entry(endpoint).or_default();
        script.faults = faults.into_iter().collect();
    }

    /// Sets the fault of all responses of an endpoint after the script.
    pub fn always(&self, endpoint: Endpoint, fault: Fault) {
        let mut scripts = self.0.scripts.lock().unwrap();
        scripts.entry(endpoint).or_default().always = Some(fault);
    }

    /// Removes all faults.
    pub fn heal(&self) {
        self.0.scripts.lock().unwrap().clear();
    }

    /// Returns the requests to an endpoint so far.
    pub fn requests(&self, endpoint: Endpoint) -> Vec<Recorded> {
        let log = self.log();
        let of_it = log.iter().filter(|r| r.endpoint == Some(endpoint));
        of_it.cloned().collect()
    }

    /// Returns all requests so far.
    pub fn all_requests(&self) -> Vec<Recorded> {
        self.log().clone()
    }

    /// Returns the only request to an endpoint so far.
    pub fn only(&self, endpoint: Endpoint) -> Recorded {
        let requests = self.requests(endpoint);
        assert_eq!(requests.len(), 1, "{requests:#?}");
        requests[0].clone()
    }

    /// Returns the number of requests to an endpoint so far.
    pub fn count(&self, endpoint: Endpoint) -> usize {
        self.requests(endpoint).len()
    }

    /// Returns the endpoints that were called so far, in order.
    pub fn called(&self) -> Vec<Endpoint> {
        self.log().iter().filter_map(|r| r.endpoint).collect()
    }

    /// Waits until this number of requests to an endpoint has arrived.
    pub async fn arrived(&self, endpoint: Endpoint, count: usize) {
        let mut arrivals = self.0.arrivals.subscribe();
        let enough = arrivals.wait_for(|_| self.count(endpoint) >= count);
        let waited = tokio::time::timeout(TIMEOUT, enough).await.is_ok();
        let all = self.called();
        assert!(waited, "{count} requests to {endpoint:?} wanted: {all:?}");
    }

    /// Returns the server's time.
    pub fn now(&self) -> SystemTime {
        let skew = self.0.skew.load(Ordering::Relaxed);
        let by = Duration::from_secs(skew.unsigned_abs());
        let now = SystemTime::now();
        if skew < 0 { now - by } else { now + by }
    }

    fn log(&self) -> MutexGuard<'_, Vec<Recorded>> {
        self.0.log.lock().unwrap()
    }

    async fn serve<S>(&self, stream: S, tls: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = 1 + self.0.connections.fetch_add(1, Ordering::Relaxed);
        let service = service_fn(|request: Request<Incoming>| {
            let this = self.clone();
            async move { this.answer(request, tls, connection).await }
        });
        let _ = auto::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        tls: bool,
        connection: usize,
    ) -> Result<Response<Sent>, io::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let request = Request::from_parts(head, body);
        let endpoint = Endpoint::of(host(&request), request.uri().path());
        let now = self.now();
        let mut strict = self.0.emulated.respond(&request, now);
        let date = httpdate::fmt_http_date(now).parse().unwrap();
        strict.headers_mut().insert("date", date);
        self.log().push(Recorded {
            endpoint,
            method: request.method().clone(),
            version: request.version(),
            tls,
            host: host(&request).to_owned(),
            path: request.uri().path().to_owned(),
            query: request.uri().query().map(str::to_owned),
            headers: request.headers().clone(),
            body: request.body().clone(),
            connection,
            status: strict.status(),
        });
        self.0.arrivals.send_modify(|count| *count += 1);
        match endpoint.and_then(|endpoint| self.fault(endpoint)) {
            None => Ok(strict.map(Sent::whole)),
            Some(fault) => fault.apply(strict).await,
        }
    }

    fn fault(&self, endpoint: Endpoint) -> Option<Fault> {
        let mut scripts = self.0.scripts.lock().unwrap();
        let script = scripts.get_mut(&endpoint)?;
        script.faults.pop_front().or_else(|| script.always.clone())
    }
}

impl Deref for Google {
    type Target = Emulated;

    fn deref(&self) -> &Emulated {
        &self.0.emulated
    }
}
