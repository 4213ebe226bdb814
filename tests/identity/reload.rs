//! A credential file that changes while the sidecar runs.

use super::authorized_user;
use super::support::app::{get, text};
use super::support::google::Google;
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
