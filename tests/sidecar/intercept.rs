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

const H1: &[u8] = b"http/1.1";
const H2: &[u8] = b"h2";

/// A sidecar that intercepts, all around it, and what the app trusts.
struct Setup {
    metadata: Metadata,
    service: Service,
    sidecar: Sidecar,
    ca_dir: TempDir,
}

/// The app's side of a tunnel, after its handshake.
type Tls = TlsStream<TcpStream>;

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

    /// `CONNECT`, then TLS with the CA alone as trusted.
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

/// An app's TLS that trusts these roots and no others.
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

/// One request on a connection of its own; the version is that of ALPN.
async fn call(tls: Tls, request: Request<Full<Bytes>>) -> Response<Bytes> {
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

/// `GET` of a path in the form of the protocol.
fn request(alpn: &[u8], host: &str, path: &str) -> Request<Full<Bytes>> {
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

/// Takes one connection at a time, speaks first, and echoes.
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
        // Two tunnels, and a request in each.
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
async fn a_host_without_a_token_keeps_its_own_certificate() {
    let setup = Setup::new(&["--rule", "none.example.com=none"]).await;
    let proxy = setup.sidecar.proxy();
    for host in [
        "api.example.com",
        "none.example.com",
        "oauth2.googleapis.com",
    ] {
        let target = format!("{host}:443");
        let refused = tls(proxy, &target, &setup.ca(), &[H1]).await.unwrap_err();
        assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
        let real = tls(proxy, &target, &setup.service.ca(), &[H1])
            .await
            .unwrap();
        let response = call(real, request(H1, host, "/")).await;
        assert_eq!(text(&response), "hello");
    }
    for seen in setup.service.seen() {
        assert_eq!(seen.header("authorization"), None);
    }
}

#[tokio::test]
async fn an_intercepted_request_for_another_authority_is_misdirected() {
    let setup = Setup::new(&[]).await;
    let host = "svc.a.run.app";
    for alpn in [H1, H2] {
        for named in [
            "other.a.run.app",
            "storage.googleapis.com",
            "svc.a.run.app:8443",
        ] {
            let tls = setup.tls(host, &[alpn]).await;
            let response = call(tls, request(alpn, named, "/")).await;
            assert_eq!(response.status(), 421, "{named}");
            let problem = json(&response);
            assert!(
                problem["detail"].as_str().unwrap().contains(host),
                "{problem}"
            );
        }
        for same in ["SVC.a.run.app", "svc.a.run.app:443", "svc.a.run.app."] {
            let tls = setup.tls(host, &[alpn]).await;
            assert_eq!(
                call(tls, request(alpn, same, "/")).await.status(),
                200,
                "{same}"
            );
        }
    }
    // By both, and in the absolute form.
    for (target, named) in [
        ("/", "storage.googleapis.com"),
        ("https://storage.googleapis.com/", "storage.googleapis.com"),
        ("http://svc.a.run.app/", "svc.a.run.app"),
    ] {
        let tls = setup.tls(host, &[H1]).await;
        let request = Request::get(target)
            .header("host", named)
            .body(Full::default());
        assert_eq!(call(tls, request.unwrap()).await.status(), 421, "{target}");
    }
    assert_eq!(setup.service.seen().len(), 6);
    assert_eq!(setup.metadata.count(Kind::Access), 0);
}

#[tokio::test]
async fn a_connection_cannot_be_used_for_a_second_host() {
    let setup = Setup::new(&[]).await;
    let stream = TokioIo::new(setup.tls("svc.a.run.app", &[H2]).await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
    tokio::spawn(connection);
    for (host, status) in [
        ("svc.a.run.app", 200),
        ("evil.a.run.app", 421),
        ("svc.a.run.app", 200),
    ] {
        let response = sender.send_request(request(H2, host, "/")).await.unwrap();
        assert_eq!(response.status(), status, "{host}");
    }
    assert!(
        setup
            .service
            .seen()
            .iter()
            .all(|seen| seen.host == "svc.a.run.app")
    );
}

#[tokio::test]
async fn cleartext_silence_and_addresses_are_not_intercepted() {
    let echo = echo().await;
    let elsewhere = format!("echo.example.com:8000:127.0.0.1:{}", echo.port());
    let by_address = format!("{echo}=id,audience=x");
    let setup = Setup::new(&[
        "--connect-to",
        &elsewhere,
        "--rule",
        "echo.example.com=id",
        "--rule",
        &by_address,
    ])
    .await;
    for (target, said) in [
        ("echo.example.com:8000", &b"GET / HTTP/1.1\r\n\r\n"[..]),
        ("echo.example.com:8000", b"\x16\x03\x01\x00\x05\x02half"),
        // Waits for the greeting.
        ("echo.example.com:8000", b""),
        (&echo.to_string(), b"\x16\x03\x01\x00\x05\x01half"),
    ] {
        let (answer, mut app) = connect(setup.sidecar.proxy(), target).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let opened = Instant::now();
        app.write_all(said).await.unwrap();
        let expected = [b"220 echo\r\n", said].concat();
        let mut heard = vec![0; expected.len()];
        app.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, expected);
        if said.is_empty() {
            assert!(
                opened.elapsed() > Duration::from_secs(9),
                "{:?}",
                opened.elapsed()
            );
        }
    }
    let metrics = setup.metrics().await;
    assert!(
        metrics.contains("sidentity_skipped_total{reason=\"tunnel\"} 4"),
        "{metrics}"
    );
    setup
        .sidecar
        .logged(|line| {
            let message = line["message"].as_str().unwrap_or_default();
            message.contains("echo.example.com:8000") && message.contains("no TLS")
        })
        .await;
}

#[tokio::test]
async fn a_client_hello_in_pieces_is_intercepted() {
    let setup = Setup::new(&[]).await;
    let (_, stream) = connect(setup.sidecar.proxy(), "svc.a.run.app:443").await;
    // Between the app's TLS and the tunnel stands a wire of one byte.
    let (ours, mut theirs) = tokio::io::duplex(1);
    tokio::spawn(async move {
        let mut stream = stream;
        stream.set_nodelay(true).unwrap();
        let _ = tokio::io::copy_bidirectional_with_sizes(&mut theirs, &mut stream, 1, 1).await;
    });
    let name = ServerName::try_from("svc.a.run.app").unwrap();
    trusting(&setup.ca(), &[H1])
        .connect(name, ours)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_invalid_upstream_certificate_is_an_error_inside_the_tunnel() {
    let service = Service::start().await;
    let metadata = Metadata::start().await;
    let ca_dir = tempfile::tempdir().unwrap();
    let elsewhere = format!("*:443:127.0.0.1:{}", service.address().port());
    let folder = ca_dir.path().to_str().unwrap();
    let args = [
        "--connect-to",
        &elsewhere,
        "--intercept",
        "--ca-dir",
        folder,
    ];
    let sidecar = Sidecar::start(&metadata, &args).await;
    let roots = ca_dir.path().join("ca.pem");
    for alpn in [H1, H2] {
        let tls = tls(sidecar.proxy(), "svc.a.run.app:443", &roots, &[alpn])
            .await
            .unwrap();
        let response = call(tls, request(alpn, "svc.a.run.app", "/")).await;
        assert_eq!(response.status(), 502);
        let status = response.headers()["proxy-status"].to_str().unwrap();
        assert!(status.contains("error=tls_certificate_error"), "{status}");
    }
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn an_unreachable_upstream_is_an_error_inside_the_tunnel() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let refused = format!("refused.a.run.app:443:127.0.0.1:{port}");
    let unknown = "unknown.a.run.app:443:nobody.invalid:443";
    let metadata = Metadata::start().await;
    metadata.script(
        Kind::Identity,
        [super::support::metadata::Answer::identity(3600)],
    );
    let ca_dir = tempfile::tempdir().unwrap();
    let folder = ca_dir.path().to_str().unwrap();
    let own = ["--intercept", "--ca-dir", folder];
    let elsewhere = ["--connect-to", &refused, "--connect-to", unknown];
    let sidecar = Sidecar::start(&metadata, &[&own[..], &elsewhere].concat()).await;
    let roots = ca_dir.path().join("ca.pem");
    for alpn in [H1, H2] {
        for (host, error) in [
            ("refused.a.run.app", "connection_refused"),
            ("unknown.a.run.app", "dns_error"),
        ] {
            let target = format!("{host}:443");
            let tls = tls(sidecar.proxy(), &target, &roots, &[alpn])
                .await
                .unwrap();
            let response = call(tls, request(alpn, host, "/")).await;
            assert_eq!(response.status(), 502, "{host}");
            let status = response.headers()["proxy-status"].to_str().unwrap();
            assert!(status.contains(&format!("error={error}")), "{status}");
            let detail = json(&response)["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains(host), "{detail}");
        }
    }
}

#[tokio::test]
async fn five_hundred_first_connections_share_one_leaf() {
    let setup = Setup::new(&[]).await;
    let (proxy, roots) = (setup.sidecar.proxy(), setup.ca());
    let connections: Vec<_> = (0..500)
        .map(|_| {
            let roots = roots.clone();
            tokio::spawn(async move {
                tls(proxy, "storage.googleapis.com:443", &roots, &[H2])
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut leaves = HashSet::new();
    for connection in connections {
        leaves.insert(leaf(&connection.await.unwrap()));
    }
    assert_eq!(leaves.len(), 1);
    let other = setup.tls("svc.a.run.app", &[H2]).await;
    assert!(!leaves.contains(&leaf(&other)));
}

#[tokio::test]
async fn no_private_key_is_written_and_each_start_has_its_own_ca() {
    let setup = Setup::new(&[]).await;
    setup.tls("svc.a.run.app", &[H2]).await;
    let mut names: Vec<String> = Vec::new();
    for file in std::fs::read_dir(setup.ca_dir.path()).unwrap() {
        let file = file.unwrap();
        names.push(file.file_name().into_string().unwrap());
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o644);
        let bytes = std::fs::read(file.path()).unwrap();
        let holds = |wanted: &[u8]| bytes.windows(wanted.len()).any(|window| window == wanted);
        assert!(!holds(b"PRIVATE"), "{names:?}");
        // PKCS #8 and SEC 1 keys of P-256 begin so; and the bags for keys of PKCS #12.
        assert!(!holds(b"\x02\x01\x01\x04\x20"), "{names:?}");
        assert!(
            !holds(b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x01"),
            "{names:?}"
        );
        assert!(
            !holds(b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x02"),
            "{names:?}"
        );
    }
    names.sort();
    assert_eq!(names, ["bundle.pem", "ca.pem", "truststore.p12"]);
    let first = std::fs::read(setup.ca()).unwrap();
    let bundle = std::fs::read(setup.ca_dir.path().join("bundle.pem")).unwrap();
    assert!(bundle.ends_with(&first) && bundle.len() > 50 * first.len());

    let folder = setup.ca_dir.path().to_str().unwrap();
    let _again = beside(
        &setup.metadata,
        &setup.service,
        &["--intercept", "--ca-dir", folder],
    )
    .await;
    assert_ne!(std::fs::read(setup.ca()).unwrap(), first);
    // The first one's is trusted no more.
    let refused = tls(
        setup.sidecar.proxy(),
        "svc.a.run.app:443",
        &setup.ca(),
        &[H2],
    )
    .await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn an_app_that_does_not_trust_the_ca_is_logged_once() {
    let setup = Setup::new(&[]).await;
    for _ in 0..3 {
        let refused = tls(
            setup.sidecar.proxy(),
            "svc.a.run.app:443",
            &setup.service.ca(),
            &[H2],
        )
        .await
        .unwrap_err();
        assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
    }
    let hint = |line: &serde_json::Value| {
        let message = line["message"].as_str().unwrap_or_default();
        message.contains("https://svc.a.run.app") && message.contains("NODE_EXTRA_CA_CERTS")
    };
    let line = setup.sidecar.logged(hint).await;
    let message = line["message"].as_str().unwrap();
    let bundle = setup.ca_dir.path().join("bundle.pem");
    assert!(
        message.contains(&format!("SSL_CERT_FILE={}", bundle.display())),
        "{message}"
    );
    assert_eq!(
        setup.sidecar.log().iter().filter(|line| hint(line)).count(),
        1
    );
}

#[tokio::test]
async fn an_upgrade_inside_the_tunnel_works() {
    let authority = TestCa::new();
    let honest = Honest::start(Manner {
        tls: Some(
            authority
                .leaf(&["svc.a.run.app"])
                .serving(&["h2", "http/1.1"]),
        ),
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
    let args = [
        "--connect-to",
        &elsewhere,
        "--upstream-ca",
        trusted.to_str().unwrap(),
        "--intercept",
        "--ca-dir",
        ca_dir.to_str().unwrap(),
    ];
    let sidecar = Sidecar::start(&metadata, &args).await;
    let roots = ca_dir.join("ca.pem");
    let mut tls = tls(sidecar.proxy(), "svc.a.run.app:443", &roots, &[H1])
        .await
        .unwrap();
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
    let authorization = honest.only().headers["authorization"].clone();
    assert!(is_for(authorization.to_str().ok(), "https://svc.a.run.app"));
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
    // What is denied altogether is denied at once; so is what only TLS could make right.
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
    // GOAWAY, and no reset.
    connection.await.unwrap().unwrap();
}

#[test]
fn an_unwritable_ca_directory_is_reported_on_one_line() {
    for (folder, status, wanted) in [
        ("/proc", 1, "cannot write /proc/truststore.p12: "),
        ("/proc/none", 1, "cannot write /proc/none: "),
        ("/dev/null/ca", 64, "\"/dev/null/ca\" must be a directory"),
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_sidentity"))
            .args(["run", "--proxy", "127.0.0.1:0", "--admin", "off"])
            .args(["--log-level", "error", "--intercept", "--ca-dir", folder])
            .env_clear()
            .env("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "googleapis.com")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(status));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        let wanted = format!("flag --ca-dir: {wanted}");
        assert!(said.contains(&wanted), "{said}");
    }
}

#[test]
fn explain_shows_whether_tls_is_intercepted() {
    for (args, url, wanted) in [
        (
            &[][..],
            "https://svc.a.run.app/",
            "blind tunnel, into which nothing can be put without --intercept and --ca-dir DIR; sidentity exec -- CMD sets both",
        ),
        (
            &["--intercept"],
            "https://svc.a.run.app/",
            "with HTTPS_PROXY=http://127.0.0.1:3128, from an app that trusts this sidecar's CA, which --ca-dir DIR writes.",
        ),
        (
            &["--intercept", "--ca-dir", "/"],
            "https://svc.a.run.app/",
            "CA: SSL_CERT_FILE=/bundle.pem, NODE_EXTRA_CA_CERTS=/ca.pem, or for Java -Djavax.net.ssl.trustStore=/truststore.p12.",
        ),
        (
            &["--intercept", "--rule", "192.0.2.1=id,audience=x"],
            "https://192.0.2.1/",
            "nothing can be put: no certificate is for an address.",
        ),
        (
            &["--intercept"],
            "https://www.example.com/",
            "As the app does it now",
        ),
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_sidentity"))
            .args(["explain", url])
            .args(args)
            .env_clear()
            .output()
            .unwrap();
        // Long lines are broken between words.
        let said = String::from_utf8(output.stdout).unwrap();
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(output.status.success() && said.contains(wanted), "{said}");
    }
}

#[tokio::test]
async fn only_the_negotiated_alpn_protocol_is_accepted_inside() {
    let setup = Setup::new(&[]).await;
    let http1 = "GET / HTTP/1.1\r\nHost: svc.a.run.app\r\nConnection: close\r\n\r\n";
    let http2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0";
    for (offered, sent, spoken) in [
        (&[H2][..], http1, None),
        (&[H2], "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", None),
        (&[H1], http2, None),
        (&[H2], http2, Some(H2)),
        (&[H1], http1, Some(H1)),
        // Where none was agreed on, the first bytes say.
        (&[], http1, Some(H1)),
        (&[], http2, Some(H2)),
    ] {
        let mut tls = setup.tls("svc.a.run.app", offered).await;
        tls.write_all(sent.as_bytes()).await.unwrap();
        let mut received = [0; 12];
        let mut length = 0;
        while length < received.len() {
            match tls.read(&mut received[length..]).await {
                Ok(read) if read > 0 => length += read,
                Ok(_) | Err(_) => break,
            }
        }
        let received = &received[..length];
        let of_http1 = received.starts_with(b"HTTP/1.1 200");
        // A SETTINGS frame; after a wrong preface a GOAWAY may follow it, and nothing else.
        let of_http2 = received.get(3) == Some(&4);
        match spoken {
            Some(H1) => assert!(of_http1, "{offered:?} {sent:?}: {received:?}"),
            Some(_) => assert!(of_http2, "{offered:?} {sent:?}: {received:?}"),
            None => {
                let rest = tokio::time::timeout(Duration::from_secs(10), async {
                    let mut rest = Vec::new();
                    let _ = tls.read_to_end(&mut rest).await;
                    rest
                });
                let rest = rest.await.expect("the connection stayed open");
                let all = [received, &rest].concat();
                assert!(
                    !String::from_utf8_lossy(&all).contains("HTTP/1.1"),
                    "{offered:?} {sent:?}: {all:?}"
                );
            }
        }
    }
    // Two that answered in HTTP/1.1; three that spoke another protocol than they had agreed on.
    assert_eq!(setup.service.seen().len(), 2);
    let counted = "sidentity_proxy_errors_total{error=\"http_request_error\"} 3";
    setup.sidecar.counted(counted).await;
}
