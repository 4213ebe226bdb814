//! `--intercept`: an app that speaks TLS through `CONNECT`, and trusts the CA of `--ca-dir`.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connect::connect;
use super::support::app::{get, json, text};
use super::support::metadata::{Kind, Metadata};
use super::support::service::Service;
use super::support::sidecar::Sidecar;
use super::support::tls::TestCa;
use super::support::upstream::{Honest, Manner};
use super::{beside, is_for, started_with};

mod certificates;
mod failures;
mod misdirected;
mod scope;

const H1: &[u8] = b"http/1.1";

const H2: &[u8] = b"h2";

/// A sidecar that intercepts, its servers, and the roots that the app trusts.
struct Setup {
    metadata: Metadata,
    service: Service,
    sidecar: Sidecar,
    ca_dir: TempDir,
}

/// The app's end of a tunnel, after its handshake.
pub(super) type Tls = TlsStream<TcpStream>;

impl Setup {
    async fn new(args: &[&str]) -> Self {
        let service = Service::start().await;
        let ca_dir = tempfile::tempdir().unwrap();
        let own = ["--intercept", "--ca-dir", ca_dir.path().to_str().unwrap()];
        let (metadata, sidecar) = started_with(&service, &[&own[..], args].concat()).await;
        Self {
            metadata,
            service,
            sidecar,
            ca_dir,
        }
    }

    fn ca(&self) -> PathBuf {
        self.ca_dir.path().join("ca.pem")
    }

    /// Sends `CONNECT`, then performs a TLS handshake that trusts only the CA.
    async fn tls(&self, host: &str, alpn: &[&[u8]]) -> Tls {
        let target = format!("{host}:443");
        tls(self.sidecar.proxy(), &target, &self.ca(), alpn)
            .await
            .unwrap()
    }

    async fn metrics(&self) -> String {
        text(&get(self.sidecar.admin(), "/metrics").await).to_owned()
    }
}

pub(super) async fn tls(
    proxy: SocketAddr,
    target: &str,
    roots: &Path,
    alpn: &[&[u8]],
) -> std::io::Result<Tls> {
    let (answer, stream) = connect(proxy, target).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let host = target.split(':').next().unwrap().to_owned();
    let name = ServerName::try_from(host).unwrap();
    trusting(roots, alpn).connect(name, stream).await
}

/// Returns TLS of an app that trusts only these roots.
fn trusting(roots: &Path, alpn: &[&[u8]]) -> TlsConnector {
    let mut trusted = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(roots).unwrap() {
        trusted.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(trusted)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// Sends one request on its own connection, in the version that ALPN selected.
pub(super) async fn call(tls: Tls, request: Request<Full<Bytes>>) -> Response<Bytes> {
    let h2 = tls.get_ref().1.alpn_protocol() == Some(H2);
    let stream = TokioIo::new(tls);
    let response = if h2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
                .await
                .unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    };
    let (head, body) = response.into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

/// Returns a `GET` in the form of the protocol.
pub(super) fn request(alpn: &[u8], host: &str, path: &str) -> Request<Full<Bytes>> {
    let request = match alpn == H2 {
        true => Request::get(format!("https://{host}{path}")),
        false => Request::get(path).header("host", host),
    };
    request.body(Full::default()).unwrap()
}

fn leaf(tls: &Tls) -> CertificateDer<'static> {
    tls.get_ref().1.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}

/// Accepts one connection at a time, sends the first bytes, and echoes.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(b"220 echo\r\n").await.unwrap();
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    });
    address
}

#[tokio::test]
async fn a_token_is_injected_into_intercepted_http1_and_http2() {
    let setup = Setup::new(&[]).await;
    for (alpn, version) in [(H1, Version::HTTP_11), (H2, Version::HTTP_2)] {
        for host in ["storage.googleapis.com", "svc.a.run.app"] {
            let tls = setup.tls(host, &[alpn]).await;
            let response = call(tls, request(alpn, host, "/b/o?x=%2F")).await;
            assert_eq!(
                (response.status().as_u16(), response.version()),
                (200, version)
            );
            assert_eq!(text(&response), "hello");
        }
    }
    let seen = setup.service.seen();
    assert_eq!(seen.len(), 4);
    for seen in seen {
        assert_eq!(seen.target, "/b/o?x=%2F");
        let authorization = seen.header("authorization");
        match &*seen.host {
            "storage.googleapis.com" => assert_eq!(authorization, Some("Bearer T1")),
            host => assert!(is_for(authorization, &format!("https://{host}"))),
        }
    }
    let metrics = setup.metrics().await;
    for wanted in [
        "sidentity_skipped_total{reason=\"tunnel\"} 0",
        // There were two tunnels, with one request in each.
        "sidentity_requests_total{code=\"200\",credential=\"access\",listener=\"proxy\"} 2",
        "sidentity_requests_total{code=\"200\",credential=\"id\",listener=\"proxy\"} 2",
        "sidentity_requests_total{code=\"200\",credential=\"none\",listener=\"proxy\"} 4",
    ] {
        assert!(metrics.contains(wanted), "{wanted} in {metrics}");
    }
}

#[tokio::test]
async fn the_app_selects_the_http_version_by_alpn() {
    let setup = Setup::new(&[]).await;
    for (offered, chosen) in [
        (&[H2, H1][..], Some(H2)),
        (&[H1, H2], Some(H2)),
        (&[H1], Some(H1)),
        (&[], None),
    ] {
        let tls = setup.tls("svc.a.run.app", offered).await;
        assert_eq!(tls.get_ref().1.alpn_protocol(), chosen);
        let form = chosen.unwrap_or(H1);
        let response = call(tls, request(form, "svc.a.run.app", "/")).await;
        assert_eq!(response.status(), 200);
    }
}

#[tokio::test]
async fn http2_bytes_after_http1_was_agreed_on_are_answered_with_400() {
    let setup = Setup::new(&[]).await;
    let mut tls = setup.tls("svc.a.run.app", &[H1]).await;
    tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let mut answer = String::new();
    tls.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
    assert!(
        answer.to_ascii_lowercase().contains("\r\nproxy-status: "),
        "{answer}"
    );
    assert!(setup.service.seen().is_empty());
}

/// A sidecar that intercepts, before an honest upstream for `svc.a.run.app`.
struct HonestSetup {
    honest: Honest,
    sidecar: Sidecar,
    folder: TempDir,
    _metadata: Metadata,
}

impl HonestSetup {
    async fn new(protocols: &[&str], args: &[&str]) -> Self {
        let authority = TestCa::new();
        let honest = Honest::start(Manner {
            tls: Some(authority.leaf(&["svc.a.run.app"]).serving(protocols)),
            ..Manner::default()
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let (trusted, ca_dir) = (folder.path().join("trusted.pem"), folder.path().join("ca"));
        std::fs::write(&trusted, &authority.pem).unwrap();
        std::fs::create_dir(&ca_dir).unwrap();
        let metadata = Metadata::start().await;
        metadata.script(
            Kind::Identity,
            [super::support::metadata::Answer::identity(3600)],
        );
        let elsewhere = format!("*:443:127.0.0.1:{}", honest.address.port());
        let own = [
            "--connect-to",
            &elsewhere,
            "--upstream-ca",
            trusted.to_str().unwrap(),
            "--intercept",
            "--ca-dir",
            ca_dir.to_str().unwrap(),
        ];
        let sidecar = Sidecar::start(&metadata, &[&own[..], args].concat()).await;
        Self {
            honest,
            sidecar,
            folder,
            _metadata: metadata,
        }
    }

    async fn tls(&self, alpn: &[u8]) -> Tls {
        let roots = self.folder.path().join("ca/ca.pem");
        tls(self.sidecar.proxy(), "svc.a.run.app:443", &roots, &[alpn])
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn an_upgrade_inside_the_tunnel_works() {
    let setup = HonestSetup::new(&["h2", "http/1.1"], &[]).await;
    let mut tls = setup.tls(H1).await;
    tls.write_all(
        b"GET /upgrade HTTP/1.1\r\nHost: svc.a.run.app\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
    )
    .await
    .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tls.read_u8().await.unwrap());
    }
    assert!(
        head.starts_with(b"HTTP/1.1 101 "),
        "{}",
        String::from_utf8_lossy(&head)
    );
    tls.write_all(b"there and back").await.unwrap();
    let mut heard = [0; 14];
    tls.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"there and back");
    let authorization = setup.honest.only().headers["authorization"].clone();
    assert!(is_for(authorization.to_str().ok(), "https://svc.a.run.app"));
}

/// The app's bytes behind its request are not read, so its end is not read either.
#[tokio::test]
async fn an_app_that_disconnects_after_further_bytes_in_a_tunnel_is_noticed() {
    let setup = HonestSetup::new(&["http/1.1"], &["--max-connections", "2"]).await;
    let get = "GET /hold HTTP/1.1\r\nHost: svc.a.run.app\r\n\r\n";
    for (count, further) in ["\r\n", get].into_iter().enumerate() {
        let mut tls = setup.tls(H1).await;
        tls.write_all(format!("{get}{further}").as_bytes())
            .await
            .unwrap();
        setup.honest.held(1).await;
        drop(tls);
        setup.honest.cancelled(count + 1).await;
        let total =
            r#"sidentity_requests_total{code="cancelled",credential="id",listener="proxy"}"#;
        setup
            .sidecar
            .counted(&format!("{total} {}", count + 1))
            .await;
        let none = r#"sidentity_connections{listener="proxy"} 0"#;
        setup.sidecar.counted(none).await;
    }
}

#[tokio::test]
async fn rules_for_paths_apply_inside_the_tunnel() {
    let setup = Setup::new(&[
        "--unmatched",
        "deny",
        "--rule",
        "api.example.com/v2=id",
        "--rule",
        "api.example.com/v2/admin=deny",
    ])
    .await;
    for (host, path, status) in [
        ("api.example.com", "/v2/x", 200),
        ("api.example.com", "/v1/x", 403),
        ("api.example.com", "/v2/admin", 403),
        ("us-central1-p.cloudfunctions.net", "/one/x", 200),
    ] {
        let tls = setup.tls(host, &[H2]).await;
        let response = call(tls, request(H2, host, path)).await;
        assert_eq!(response.status(), status, "{host}{path}");
    }
    let seen = setup.service.seen();
    assert_eq!(seen.len(), 2);
    assert!(is_for(
        seen[0].header("authorization"),
        "https://api.example.com"
    ));
    assert!(is_for(
        seen[1].header("authorization"),
        "https://us-central1-p.cloudfunctions.net/one"
    ));
    // A host that is denied for every path is refused at once, and so is a call that only TLS could make valid.
    let (answer, _) = connect(setup.sidecar.proxy(), "other.example.com:443").await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    let (answer, mut app) = connect(setup.sidecar.proxy(), "api.example.com:443").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    app.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(app.read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn proxy_credentials_are_required_once_per_tunnel() {
    let setup = Setup::new(&["--proxy-auth", "app:s3cret"]).await;
    let (answer, _) = connect(setup.sidecar.proxy(), "svc.a.run.app:443").await;
    assert!(answer.starts_with("HTTP/1.1 407 "), "{answer}");
    let mut stream = TcpStream::connect(setup.sidecar.proxy()).await.unwrap();
    stream
        .write_all(
            b"CONNECT svc.a.run.app:443 HTTP/1.1\r\nHost: svc.a.run.app:443\r\n\
              Proxy-Authorization: Basic YXBwOnMzY3JldA==\r\n\r\n",
        )
        .await
        .unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let name = ServerName::try_from("svc.a.run.app").unwrap();
    let tls = trusting(&setup.ca(), &[H1])
        .connect(name, stream)
        .await
        .unwrap();
    assert_eq!(
        call(tls, request(H1, "svc.a.run.app", "/")).await.status(),
        200
    );
}

#[tokio::test]
async fn an_idle_connection_does_not_delay_the_drain() {
    let mut setup = Setup::new(&[]).await;
    let stream = TokioIo::new(setup.tls("svc.a.run.app", &[H2]).await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let request = request(H2, "svc.a.run.app", "/");
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    setup.sidecar.signal("TERM");
    assert!(setup.sidecar.ended().await.success());
    setup
        .sidecar
        .logged(|line| line["message"] == "drained")
        .await;
    // The connection ends with GOAWAY, not with a reset.
    connection.await.unwrap().unwrap();
}
