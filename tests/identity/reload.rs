//! A credential file that changes while the sidecar runs.

use std::time::Duration;

use super::authorized_user;
use super::federation::{call, detail, sidecar};
use super::impersonation::Setup;
use super::metadata_server::Server;
use super::support::app::{get, text};
use super::support::google::{Endpoint, Endpoints, Google};
use super::support::metadata::Metadata;
use super::support::sidecar::Sidecar;
use serde_json::json;

#[tokio::test]
async fn sighup_reloads_the_credential_file_unless_it_is_invalid() {
    let google = Google::start().await;
    let metadata = Metadata::start().await;
    let mut file = authorized_user(&google);
    let path = google.file("reload.json", &file);
    let args = ["--credentials", path.to_str().unwrap()];
    let sidecar = Sidecar::start(&metadata, &args).await;
    let named = |line: &serde_json::Value| {
        let message = line["message"].as_str().unwrap_or_default();
        message.starts_with("tokens come from the authorized_user file")
            && message.contains("named by --credentials")
    };
    sidecar.logged(named).await;
    google.text_file("reload.json", "{\"type\": \"authorized_user\", TORN");
    let before = sidecar.log().len();
    sidecar.signal("HUP");
    let line = sidecar
        .logged_since(before, |line| line["severity"] == "ERROR")
        .await;
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("is not JSON: line 1"), "{message}");
    assert!(!message.contains("TORN"), "{message}");
    let status = get(sidecar.admin(), "/status").await;
    assert!(text(&status).contains("the authorized_user file"));
    file["quota_project_id"] = json!("another-project");
    google.file("reload.json", &file);
    let before = sidecar.log().len();
    sidecar.signal("HUP");
    let line = sidecar.logged_since(before, named).await;
    let message = line["message"].as_str().unwrap();
    assert!(
        message.contains("quota project another-project"),
        "{message}"
    );
}

const API: &str = "http://storage.googleapis.com/b";

/// The refresh token of the last request to an endpoint, and its status.
fn last(google: &Google, endpoint: Endpoint) -> (String, u16) {
    let request = google.requests(endpoint).pop().unwrap();
    (request.field("refresh_token"), request.status.as_u16())
}

/// gcloud's `set-quota-project` changes the file, and the endpoint accepts no refresh token twice.
#[tokio::test]
async fn a_rotated_refresh_token_survives_a_reload_of_a_changed_file() {
    let google = Google::start().await;
    google.rotate_refresh_tokens(true);
    for (mut file, endpoint) in [
        (authorized_user(&google), Endpoint::Token),
        (
            google.external_account_authorized_user(&Endpoints::default()),
            Endpoint::StsRefresh,
        ),
    ] {
        let written = file["refresh_token"].as_str().unwrap().to_owned();
        let sidecar = sidecar(&google, &file, &[]).await;
        let reload = async |file: &serde_json::Value| {
            google.file("credentials.json", file);
            let before = sidecar.log().len();
            sidecar.signal("HUP");
            let reloaded = |line: &serde_json::Value| line.to_string().contains("reloaded:");
            sidecar.logged_since(before, reloaded).await;
        };
        assert_eq!(call(&sidecar, API).await.status(), 200);
        assert_eq!(last(&google, endpoint), (written.clone(), 200));
        for project in ["first-project", "second-project"] {
            file["quota_project_id"] = json!(project);
            reload(&file).await;
            let before = google.count(endpoint);
            assert_eq!(call(&sidecar, API).await.status(), 200, "{project}");
            assert_eq!(google.count(endpoint), before + 1);
            let (used, status) = last(&google, endpoint);
            assert!(used != written && status == 200, "{project}: {status}");
        }
        // Another login.
        file["refresh_token"] = json!("1//another-login");
        reload(&file).await;
        let said = detail(&call(&sidecar, API).await);
        assert!(said.contains("invalid_grant"), "{said}");
        let other = ("1//another-login".to_owned(), 400);
        assert_eq!(last(&google, endpoint), other);
    }
}

#[tokio::test]
async fn a_rotated_refresh_token_survives_a_reload_of_the_metadata_server() {
    let setup = Setup::new().await;
    setup.google.rotate_refresh_tokens(true);
    let file = authorized_user(&setup.google);
    let server = Server::of_file(&setup, &file).await;
    server.access("").await;
    server.hang_up();
    server.said("real tokens of").await;
    server.access("").await;
    let (used, status) = last(&setup.google, Endpoint::Token);
    assert!(file["refresh_token"] != *used && status == 200, "{status}");
}

/// The file system that has a file does not respond: a pipe without a writer.
fn hang(path: &std::path::Path) {
    let _ = std::fs::remove_file(path);
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.unwrap().success());
}

#[tokio::test]
async fn the_metadata_server_serves_while_a_reload_hangs() {
    let setup = Setup::new().await;
    let ca = std::fs::read_to_string(setup.google.ca()).unwrap();
    let ca = setup.google.text_file("more-roots.pem", &ca);
    let key = setup
        .google
        .file("credentials.json", &super::service_account(&setup.google));
    let args = [
        "--credentials",
        key.to_str().unwrap(),
        "--upstream-ca",
        ca.to_str().unwrap(),
    ];
    let server = Server::start_with(&setup, &args, &[]).await;
    hang(&ca);
    server.hang_up();
    // The signal is handled before any of these.
    for _ in 0..5 {
        let served = tokio::time::timeout(Duration::from_secs(10), server.access("")).await;
        served.expect("an access token");
    }
}
