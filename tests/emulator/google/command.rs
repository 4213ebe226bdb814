//! `sidentity metadata-server --write-credentials`: the endpoints on the emulator's port, and the files for them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_rustls::TlsConnector;

struct Running {
    _child: Child,
    address: String,
    greeting: String,
}

async fn start(folder: &Path) -> Running {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sidentity"))
        .args(["metadata-server", "--listen", "127.0.0.1:0"])
        .arg("--write-credentials")
        .arg(folder)
        .env_clear()
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut greeting = String::new();
    while !greeting.contains("24 hours") {
        greeting += &(lines.next_line().await.unwrap().unwrap() + "\n");
    }
    let (_, rest) = greeting.split_once(" on ").unwrap();
    Running {
        address: rest.split_once(';').unwrap().0.to_owned(),
        greeting,
        _child: child,
    }
}

/// Sends a request unchanged, and reads status and body.
async fn send(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    // A peer that closes without close_notify has sent all of its response.
    let _ = stream.read_to_end(&mut reply).await;
    let reply = String::from_utf8(reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

async fn over_tls(address: &str, ca: &Path, name: &'static str, request: &str) -> (u16, String) {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(name).unwrap();
    let stream = TlsConnector::from(Arc::new(tls))
        .connect(name, stream)
        .await;
    send(stream.unwrap(), request).await
}

fn json(folder: &Path, name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder.join(name)).unwrap()).unwrap()
}

fn refresh(file: &Value, host: &str) -> String {
    let text = |name: &str| file[name].as_str().unwrap().to_owned();
    let body = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "refresh_token")
        .append_pair("client_id", &text("client_id"))
        .append_pair("client_secret", &text("client_secret"))
        .append_pair("refresh_token", &text("refresh_token"))
        .finish();
    format!(
        "POST /token HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn a_file_of_each_kind_is_written_readable_by_its_owner_only() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("credentials");
    let running = start(&folder).await;
    for (name, kind) in [
        ("authorized-user.json", "authorized_user"),
        (
            "external-account-authorized-user.json",
            "external_account_authorized_user",
        ),
        ("external-account-aws.json", "external_account"),
        ("external-account-executable.json", "external_account"),
        ("external-account-file.json", "external_account"),
        ("external-account-url.json", "external_account"),
        (
            "impersonated-service-account.json",
            "impersonated_service_account",
        ),
        ("service-account.json", "service_account"),
    ] {
        assert_eq!(json(&folder, name)["type"], kind);
        assert!(running.greeting.contains(name.trim_end_matches(".json")));
    }
    for entry in std::fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        let expected = if entry.file_name() == "subject-token.sh" {
            0o700
        } else {
            0o600
        };
        assert_eq!(mode, expected, "{entry:?}");
    }
    let mode = std::fs::metadata(&folder).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let source = &json(&folder, "external-account-file.json")["credential_source"]["file"];
    assert!(Path::new(source.as_str().unwrap()).is_absolute());
    let ca = folder.join("ca.pem").display().to_string();
    assert!(running.greeting.contains(&format!("--upstream-ca {ca}")));
}

#[tokio::test]
async fn the_token_endpoints_are_on_the_emulators_port_with_and_without_tls() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path()).await;
    let ca = folder.path().join("ca.pem");
    let file = json(folder.path(), "authorized-user.json");

    let stream = TcpStream::connect(&running.address).await.unwrap();
    // In Compose the server has a name.
    let (status, body) = send(stream, &refresh(&file, "emulator:8980")).await;
    assert_eq!(status, 200, "{body}");

    let host = "oauth2.googleapis.com";
    let (status, body) = over_tls(&running.address, &ca, host, &refresh(&file, host)).await;
    assert_eq!(status, 200, "{body}");
    let token: Value = serde_json::from_str(&body).unwrap();
    let token = token["access_token"].as_str().unwrap();
    let call = |host: &str| {
        format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        )
    };
    let host = "storage.googleapis.com";
    let (status, body) = over_tls(&running.address, &ca, host, &call(host)).await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("user:user@example.com"), "{body}");

    // The metadata server is at the same address as before.
    let stream = TcpStream::connect(&running.address).await.unwrap();
    let (status, body) = send(stream, &call("metadata.google.internal")).await;
    assert_eq!((status, &*body), (200, "computeMetadata/\n"));
}

#[tokio::test]
async fn the_program_prints_the_subject_token_of_an_executable_source() {
    let folder = tempfile::tempdir().unwrap();
    let _running = start(folder.path()).await;
    let source = json(folder.path(), "external-account-executable.json");
    let command = source["credential_source"]["executable"]["command"].as_str();
    let printed = Command::new(command.unwrap()).output().await.unwrap();
    let printed: Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(
        (&printed["version"], &printed["success"]),
        (&1.into(), &true.into())
    );
    let token = std::fs::read_to_string(folder.path().join("subject-token"));
    assert_eq!(printed["id_token"], token.unwrap());
}

#[tokio::test]
async fn a_directory_that_cannot_be_created_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let below = file.join("credentials");
    let ended = Command::new(env!("CARGO_BIN_EXE_sidentity"))
        .args([
            "metadata-server",
            "--listen",
            "127.0.0.1:0",
            "--write-credentials",
        ])
        .arg(&below)
        .env_clear()
        .output()
        .await
        .unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let error = String::from_utf8(ended.stderr).unwrap();
    let words = format!("--write-credentials {}: ", below.display());
    assert!(error.contains(&words), "{error}");
}
