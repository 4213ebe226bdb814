//! `--sandbox`: Landlock restricts the files that the sidecar can open. If the kernel has no Landlock, the start-up log
//! says so and nothing is restricted.

use std::path::Path;

use serde_json::Value;

use super::support::app::{get, proxied};
use super::support::metadata::{Answer, Kind, Metadata};
use super::support::service::Service;
use super::support::sidecar::Sidecar;
use super::{beside, started};

fn message(line: &Value) -> &str {
    line["message"].as_str().unwrap_or_default()
}

/// Returns what the start-up log says about the sandbox.
async fn announced(sidecar: &Sidecar) -> String {
    let line = sidecar
        .logged(|line| message(line).starts_with("sandbox: "))
        .await;
    message(&line).to_owned()
}

/// Reloads a file that names a certificate elsewhere, and returns the messages that follow.
async fn reloaded_with_certificate_elsewhere(args: &[&str]) -> (String, Vec<String>) {
    let (configuration, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = configuration.path().join("sidentity.yaml");
    std::fs::write(&file, "log_level: debug\n").unwrap();
    let path = file.display().to_string();
    let args: Vec<&str> = [&["--config", &path], args].concat();
    let (_metadata, service, sidecar) = started(&args).await;
    let sandbox = announced(&sidecar).await;
    let certificate = elsewhere.path().join("ca.pem");
    std::fs::copy(trust_root(&service), &certificate).unwrap();
    // Editors and Kubernetes replace it like this: by another file of the same name.
    let new = configuration.path().join("new.yaml");
    std::fs::write(&new, format!("upstream_ca: [{}]\n", certificate.display())).unwrap();
    std::fs::rename(&new, &file).unwrap();
    let before = sidecar.log().len();
    sidecar.signal("HUP");
    let is_end = |line: &Value| {
        message(line).starts_with("reloaded: ") || message(line).starts_with("reload failed")
    };
    sidecar.logged_since(before, is_end).await;
    let log = sidecar.log().split_off(before);
    (
        sandbox,
        log.iter().map(|line| message(line).to_owned()).collect(),
    )
}

/// The file of `--upstream-ca` that the service's flags name.
fn trust_root(service: &Service) -> String {
    let flags = service.flags();
    let at = flags
        .iter()
        .position(|flag| flag == "--upstream-ca")
        .unwrap();
    flags[at + 1].clone()
}

#[tokio::test]
async fn a_reload_cannot_read_a_file_that_the_start_did_not_name() {
    let (sandbox, messages) = reloaded_with_certificate_elsewhere(&[]).await;
    if sandbox.starts_with("sandbox: on (Landlock") {
        let refused = |message: &String| message.contains("Permission denied");
        assert!(messages.iter().any(refused), "{messages:?}");
        let last = |message: &String| message.starts_with("reload failed");
        assert!(messages.iter().any(last), "{messages:?}");
    } else {
        assert!(sandbox.starts_with("sandbox: off: "), "{sandbox}");
    }
}

#[tokio::test]
async fn without_the_sandbox_a_reload_reads_every_file() {
    let (sandbox, messages) = reloaded_with_certificate_elsewhere(&["--sandbox", "off"]).await;
    assert_eq!(sandbox, "sandbox: off (--sandbox off)");
    let reloaded = |message: &String| message.starts_with("reloaded: ");
    assert!(messages.iter().any(reloaded), "{messages:?}");
}

#[tokio::test]
async fn certificates_and_sockets_are_written_and_names_resolved_inside_the_sandbox() {
    let folder = tempfile::tempdir().unwrap();
    let (certificates, socket) = (
        folder.path().join("new/ca"),
        folder.path().join("run/x.sock"),
    );
    std::fs::create_dir(folder.path().join("run")).unwrap();
    let route = format!(
        "unix:{}=https://localhost:1,credential=none",
        socket.display()
    );
    let metadata = Metadata::start().await;
    metadata.script(Kind::Access, [Answer::access("T1", 3600)]);
    let service = Service::start().await;
    let args = [
        "--intercept",
        "--ca-dir",
        path(&certificates),
        "--route",
        &route,
    ];
    let mut sidecar = beside(&metadata, &service, &args).await;
    announced(&sidecar).await;
    assert!(certificates.join("ca.pem").exists());
    assert!(socket.exists());
    // The name is in /etc/hosts, or the resolver knows it (RFC 6761, 6.3). Nothing listens on the port.
    let answer = proxied(sidecar.proxy(), "http://localhost:1/", &[]).await;
    let status = answer.headers().get("proxy-status").unwrap();
    let status = status.to_str().unwrap();
    assert!(status.contains("connection_refused"), "{status}");
    // Process metrics come from /proc.
    let metrics = get(sidecar.admin(), "/metrics").await;
    assert!(super::support::app::text(&metrics).contains("process_open_fds "));
    sidecar.signal("TERM");
    assert!(sidecar.ended().await.success());
    assert!(!socket.exists(), "the socket's file outlives the sidecar");
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The directory of a login that is made later does not exist at the start, so no rule of the sandbox names it.
#[tokio::test]
async fn after_a_first_login_the_sidecar_says_that_it_must_be_restarted() {
    let home = tempfile::tempdir().unwrap();
    let env = [
        ("HOME", path(home.path())),
        ("NO_GCE_CHECK", "true"),
        ("GCE_METADATA_HOST", ""),
    ];
    let metadata = Metadata::start().await;
    let sidecar = Sidecar::start_with(&metadata, &[], &env).await;
    let sandbox = announced(&sidecar).await;
    let answer = proxied(sidecar.proxy(), "http://storage.googleapis.com/", &[]).await;
    let status = answer.headers().get("proxy-status").unwrap();
    let status = status.to_str().unwrap();
    assert!(status.contains("then restart"), "{status}");
    let folder = home.path().join(".config/gcloud");
    std::fs::create_dir_all(&folder).unwrap();
    let login = r#"{"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}"#;
    std::fs::write(folder.join("application_default_credentials.json"), login).unwrap();
    let before = sidecar.log().len();
    sidecar.signal("HUP");
    let is_end = |line: &Value| {
        message(line).starts_with("reloaded: ") || message(line).starts_with("reload failed")
    };
    let end = sidecar.logged_since(before, is_end).await;
    if sandbox.starts_with("sandbox: on (Landlock") {
        assert_eq!(end["severity"], "ERROR");
        let end = message(&end);
        let advice = "only in directories that existed at the start and that the configuration named: restart to use others";
        assert!(end.contains(advice), "{end}");
        assert!(!end.contains("send SIGHUP again"), "{end}");
    } else {
        assert!(message(&end).starts_with("reloaded: "), "{end}");
    }
}
