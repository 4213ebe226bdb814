//! `sidentity exec`: any command, with the sidecar around it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

use super::support::metadata::{Answer, Kind, Metadata};
use super::support::service::Service;

/// Set where this very test binary is the command that `exec` runs.
const CHILD: &str = "SIDECAR_TEST_CHILD";

/// `sidentity exec` against these two; add `--` and the command.
fn exec(metadata: &Metadata, service: &Service) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidentity"));
    command
        .arg("exec")
        .args(service.flags())
        .env("GCE_METADATA_HOST", metadata.address().to_string())
        .env_remove("JAVA_TOOL_OPTIONS")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

async fn world() -> (Metadata, Service) {
    let metadata = Metadata::start().await;
    metadata.script(Kind::Access, [Answer::access("T1", 3600)]);
    metadata.script(Kind::Identity, [Answer::identity(3600)]);
    (metadata, Service::start().await)
}

async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The child: an app that knows proxies and certificates only by its environment, and Google not at all.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let variable = |name: &str| std::env::var_os(name).unwrap().into_string().unwrap();
    let url = variable("HTTPS_PROXY");
    let (credentials, proxy) = url
        .strip_prefix("http://")
        .unwrap()
        .split_once('@')
        .unwrap();
    let mut stream = std::net::TcpStream::connect(proxy).unwrap();
    let credentials = STANDARD.encode(credentials);
    let host = "storage.googleapis.com";
    write!(
        stream,
        "CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\nProxy-Authorization: Basic {credentials}\r\n\r\n"
    )
    .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", text(&head));
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(variable("SSL_CERT_FILE")).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host).unwrap();
    let mut session = rustls::ClientConnection::new(Arc::new(tls), name).unwrap();
    let mut tls = rustls::Stream::new(&mut session, &mut stream);
    write!(
        tls,
        "GET /b HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    let _ = tls.read_to_end(&mut answer);
    println!("{}", text(&answer));
}

#[tokio::test]
async fn an_app_that_insists_on_https_gets_its_identity() {
    let (metadata, service) = world().await;
    let mut command = exec(&metadata, &service);
    command
        .arg("--")
        .arg(std::env::current_exe().unwrap())
        .args(["exec::child", "--exact", "--nocapture"])
        .env(CHILD, "1");
    let output = output(command).await;
    assert!(text(&output.stdout).contains("hello"), "{output:?}");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(service.only().header("authorization"), Some("Bearer T1"));
}

#[tokio::test]
async fn the_commands_status_is_ours() {
    let (metadata, service) = world().await;
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain.txt");
    std::fs::write(&plain, "no program").unwrap();
    for (arguments, status) in [
        (vec!["sh", "-c", "exit 0"], 0),
        (vec!["sh", "-c", "exit 7"], 7),
        (vec!["sh", "-c", "kill -TERM $$"], 128 + 15),
        (vec!["sh", "-c", "kill -KILL $$"], 128 + 9),
        (vec!["no-such-command-here"], 127),
        (vec![plain.to_str().unwrap()], 126),
    ] {
        let mut command = exec(&metadata, &service);
        command.arg("--").args(&arguments);
        let output = output(command).await;
        assert_eq!(
            output.status.code(),
            Some(status),
            "{arguments:?}: {output:?}"
        );
    }
}

#[tokio::test]
async fn signals_reach_the_command() {
    let (metadata, service) = world().await;
    let script = "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let mut command = exec(&metadata, &service);
    let mut running = command.args(["--", "sh", "-c", script]).spawn().unwrap();
    let stdout = running.stdout.take().unwrap();
    let (status, said) = tokio::task::spawn_blocking(move || {
        let mut lines = BufReader::new(stdout).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        let id = running.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status().unwrap();
        let said = lines.next().unwrap().unwrap();
        (running.wait().unwrap(), said)
    })
    .await
    .unwrap();
    assert_eq!((status.code(), said.as_str()), (Some(3), "got it"));
}

#[tokio::test]
async fn a_stranger_cannot_use_the_proxy_and_nothing_private_is_left() {
    let (metadata, service) = world().await;
    let mut command = exec(&metadata, &service);
    let script = "echo $HTTP_PROXY; echo $SSL_CERT_FILE; read line";
    let mut running = command
        .args(["--", "sh", "-c", script])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = running.stdout.take().unwrap();
    let (proxy, bundle) = tokio::task::spawn_blocking(move || {
        let mut lines = BufReader::new(stdout).lines();
        (
            lines.next().unwrap().unwrap(),
            lines.next().unwrap().unwrap(),
        )
    })
    .await
    .unwrap();
    let proxy = proxy.rsplit('@').next().unwrap().parse().unwrap();
    let response = super::support::app::proxied(proxy, "http://storage.googleapis.com/", &[]).await;
    assert_eq!(response.status(), 407);
    let folder = Path::new(&bundle).parent().unwrap().to_owned();
    let about = std::fs::metadata(&folder).unwrap();
    assert_eq!(about.permissions().mode() & 0o777, 0o700);
    assert_eq!(about.uid(), std::fs::metadata("/proc/self").unwrap().uid());
    for file in std::fs::read_dir(&folder).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!text(&bytes).contains("PRIVATE KEY"));
    }
    drop(running.stdin.take());
    let status = tokio::task::spawn_blocking(move || running.wait().unwrap())
        .await
        .unwrap();
    assert!(status.code().is_some());
    assert!(!folder.exists(), "{} was left", folder.display());
    assert!(service.seen().is_empty());
}
