//! An honest service behind TLS, for all host names of the tests. It records requests and sends scripted responses.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

const NAMES: [&str; 9] = [
    "*.googleapis.com",
    "*.s3nsapis.fr",
    "*.a.run.app",
    "*.us-central1.run.app",
    "*.cloudfunctions.net",
    "*.example.com",
    "example.com",
    "evilgoogleapis.com",
    "localhost",
];

/// A running service.
#[derive(Clone)]
pub struct Service {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    count: watch::Sender<usize>,
    folder: Arc<TempDir>,
}

/// A recorded request.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub version: Version,
    /// `Host` or `:authority`.
    pub host: String,
    /// The path and the query.
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Service {
    /// Starts a service that answers every request with 200 and `hello`.
    pub async fn start() -> Self {
        Self::answering(|_| Response::new("hello".into())).await
    }

    /// Starts a service that answers with the closure's result, and never on `/stuck`.
    pub async fn answering(
        answer: impl Fn(&Seen) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        Self::speaking(&[b"h2", b"http/1.1"], answer).await
    }

    /// Like [`answering`](Self::answering), over these protocols only.
    pub async fn speaking(
        alpn: &[&[u8]],
        answer: impl Fn(&Seen) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tls = tls(folder.path(), alpn);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            count: watch::Sender::new(0),
            folder: Arc::new(folder),
        };
        let this = service.clone();
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(tls);
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, this, answer) = (acceptor.clone(), this.clone(), answer.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(move |request| {
                        let (this, answer) = (this.clone(), answer.clone());
                        async move {
                            let seen = this.record(request).await;
                            if seen.target == "/stuck" {
                                std::future::pending::<()>().await;
                            }
                            Ok::<_, Infallible>(answer(&seen).map(Full::new))
                        }
                    });
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        service
    }

    async fn record(&self, request: Request<Incoming>) -> Seen {
        let (head, body) = request.into_parts();
        let authority = head.uri.authority().map(ToString::to_string);
        let host = head.headers.get("host").and_then(|host| host.to_str().ok());
        let seen = Seen {
            host: authority.unwrap_or_else(|| host.unwrap_or("").to_owned()),
            method: head.method,
            version: head.version,
            target: head
                .uri
                .path_and_query()
                .map_or("", |t| t.as_str())
                .to_owned(),
            headers: head.headers,
            body: body
                .collect()
                .await
                .map(|body| body.to_bytes())
                .unwrap_or_default(),
        };
        self.seen.lock().unwrap().push(seen.clone());
        self.count.send_modify(|count| *count += 1);
        seen
    }

    /// Returns all requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Returns the only request so far.
    pub fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:#?}");
        seen.into_iter().next().unwrap()
    }

    /// Waits until this number of requests has arrived.
    pub async fn arrived(&self, count: usize) {
        let mut arrived = self.count.subscribe();
        tokio::time::timeout(Duration::from_secs(30), arrived.wait_for(|n| *n >= count))
            .await
            .expect("they did not arrive")
            .unwrap();
    }

    /// Returns the actual address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the file of the certificate to trust.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Returns the flags that make a sidecar use it for every upstream.
    pub fn flags(&self) -> Vec<String> {
        vec![
            "--connect-to".into(),
            format!("*:443:127.0.0.1:{}", self.address.port()),
            "--upstream-ca".into(),
            self.ca().display().to_string(),
        ]
    }
}

impl Seen {
    /// Returns a header's only value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?;
        assert!(values.next().is_none(), "{name} twice: {:?}", self.headers);
        value.to_str().ok()
    }
}

/// Returns a response with a status and a text.
pub fn reply(status: u16, text: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::copy_from_slice(text.as_bytes()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// Returns a TLS server configuration for all names, and writes the certificate to trust into the directory.
pub fn tls(folder: &Path, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let pem = authority.self_signed(&authority_key).unwrap().pem();
    std::fs::write(folder.join("ca.pem"), pem).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = NAMES.iter().map(ToString::to_string).collect();
    let leaf = CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}
