//! The upstream client under test, configured for a test's servers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use sidentity::config::{self, ConnectHost, ConnectTo, HttpVersion};
use sidentity::destination::{Destination, Host, Origin, Scheme};
use sidentity::error::{Error, ErrorKind};
use sidentity::memory::Memory;
use sidentity::telemetry::Metrics;
use sidentity::upstream::{DialPolicy, PoolLimits, Target, Upstream, UpstreamBody};

use crate::support::tls::TestCa;
use crate::support::upstream::{AnyBody, Honest, Manner, soon};

/// The name of every test's server.
pub const NAME: &str = "api.example";

pub struct Client {
    pub upstream: Upstream<AnyBody>,
    pub metrics: Arc<Metrics>,
    pub memory: Memory,
}

/// The settings that a test changes.
pub struct Setting {
    pub config: config::UpstreamConfig,
    pub refuse: DialPolicy,
    pub limits: PoolLimits,
}

impl Setting {
    /// Resolves all names to `server`, and trusts `ca`.
    pub fn new(server: SocketAddr, ca: Option<&TestCa>) -> Self {
        Self {
            config: config::UpstreamConfig {
                no_proxy: Default::default(),
                connect_to: vec![ConnectTo {
                    host: ConnectHost::Suffix(".example".into()),
                    port: None,
                    to_host: Some(Host::from(server.ip())),
                    to_port: Some(server.port()),
                }],
                ca_files: Vec::new(),
                extra_roots: ca.iter().map(|ca| ca.root.clone()).collect(),
                system_ca_file: None,
                http: HttpVersion::Auto,
                proxy: None,
                connect_timeout: Duration::from_secs(10),
                idle_timeout: Duration::from_secs(90),
                max_idle: 1024,
            },
            refuse: DialPolicy::default(),
            limits: PoolLimits::default(),
        }
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub fn client(self) -> Client {
        let metrics = Arc::new(Metrics::new());
        let memory = Memory::default();
        let upstream = Upstream::with_limits(
            &self.config,
            self.refuse,
            Arc::clone(&metrics),
            memory.clone(),
            self.limits,
        );
        Client {
            upstream: upstream.unwrap(),
            metrics,
            memory,
        }
    }
}

impl Client {
    /// Resolves all names to `server`, in cleartext.
    pub fn plain(server: SocketAddr) -> Self {
        Setting::new(server, None).client()
    }

    pub async fn send(
        &self,
        target: &Target,
        request: Request<AnyBody>,
    ) -> Result<Response<UpstreamBody>, Error> {
        soon(self.upstream.send(target, request)).await
    }

    /// Returns the status and the whole body.
    pub async fn get(&self, target: &Target, path: &str) -> Result<(StatusCode, Bytes), Error> {
        let response = self.send(target, get(path)).await?;
        let status = response.status();
        Ok((status, whole(response).await))
    }

    /// Returns the kind of the failure, whose text must contain all of `words`.
    #[track_caller]
    pub fn fails(
        &self,
        target: &Target,
        request: Request<AnyBody>,
        kind: ErrorKind,
        words: &[&str],
    ) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        async move {
            let error = match self.send(target, request).await {
                Ok(response) => panic!("{place}: answered {}", response.status()),
                Err(error) => error,
            };
            assert_eq!(error.kind(), kind, "{place}: {}", error.detail());
            for word in words {
                let detail = error.detail();
                assert!(
                    detail.contains(word),
                    "{place}: {word:?} is not in {detail:?}"
                );
            }
        }
    }

    /// Returns the value of a metric, by its name with labels.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.metrics.render();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .unwrap_or_else(|| panic!("no {name} in\n{text}"));
        line.parse().unwrap()
    }

    /// Waits until this number of connections is counted as open.
    pub async fn connections(&self, count: usize) {
        soon(async {
            while self.metric("sidentity_upstream_connections") != count as f64 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// Returns an honest HTTPS upstream with these protocols, and a client that trusts it.
pub async fn secure(alpn: &[&str]) -> (Honest, Client) {
    let ca = TestCa::new();
    let server = Honest::start(Manner {
        tls: Some(ca.leaf(&[NAME]).serving(alpn)),
        ..Manner::default()
    })
    .await;
    let client = Setting::new(server.address, Some(&ca)).client();
    (server, client)
}

pub fn target(scheme: Scheme, authority: &str, http: HttpVersion) -> Target {
    Target {
        origin: Origin::from_authority(scheme, authority).unwrap(),
        http,
        proxy_may_read: false,
        upgrade: false,
    }
}

/// Returns `https://api.example`, with the version that ALPN selects.
pub fn https() -> Target {
    target(Scheme::Https, NAME, HttpVersion::Auto)
}

/// Returns `http://api.example` over HTTP/1.1.
pub fn http() -> Target {
    target(Scheme::Http, NAME, HttpVersion::Auto)
}

/// Returns `http://api.example` over HTTP/2 by prior knowledge.
pub fn h2c() -> Target {
    target(Scheme::Http, NAME, HttpVersion::Http2)
}

/// Returns `http://` and an address, for servers that are called without a name.
pub fn at(address: SocketAddr) -> Target {
    let destination = Destination::parse(&format!("http://{address}")).unwrap();
    Target {
        origin: destination.origin,
        http: HttpVersion::Auto,
        proxy_may_read: false,
        upgrade: false,
    }
}

pub fn request(method: Method, path: &str, body: AnyBody) -> Request<AnyBody> {
    Request::builder()
        .method(method)
        .uri(path)
        .body(body)
        .unwrap()
}

pub fn get(path: &str) -> Request<AnyBody> {
    request(Method::GET, path, AnyBody::default())
}

/// Returns a GET that asks for another protocol.
pub fn upgrading(path: &str) -> Request<AnyBody> {
    let mut request = get(path);
    let headers = request.headers_mut();
    headers.insert("connection", HeaderValue::from_static("upgrade"));
    headers.insert("upgrade", HeaderValue::from_static("echo"));
    request
}

pub async fn whole(response: Response<UpstreamBody>) -> Bytes {
    soon(response.into_body().collect())
        .await
        .unwrap()
        .to_bytes()
}
