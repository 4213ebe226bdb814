//! The sandbox, with credentials that need files or programs while the sidecar runs.

use std::os::unix::fs::symlink;

use serde_json::Value;

use super::{account, called_as, file_sourced, sidecar, sidecar_with, without_account};
use crate::support::google::{Endpoint, Endpoints, Fault, Google, SubjectSource};
use crate::support::sidecar::Sidecar;

async fn announced(sidecar: &Sidecar) -> String {
    let message = |line: &Value| line["message"].as_str().unwrap_or_default().to_owned();
    let line = sidecar
        .logged(|line| message(line).starts_with("sandbox: "))
        .await;
    message(&line)
}

#[tokio::test]
async fn a_subject_token_that_kubernetes_rotates_is_read_inside_the_sandbox() {
    let google = Google::start().await;
    google.always(
        Endpoint::StsExchange,
        Fault::edit(|json| json["expires_in"] = 10.into()),
    );
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    // Like a projected volume: token -> ..data/token, ..data -> ..1.
    let write = |name: &str| {
        std::fs::create_dir(path(name)).unwrap();
        std::fs::write(path(name).join("token"), google.subject()).unwrap();
        symlink(name, path("..new")).unwrap();
        std::fs::rename(path("..new"), path("..data")).unwrap();
    };
    write("..1");
    symlink("..data/token", path("token")).unwrap();
    let file = google.external_account(&Endpoints::default(), SubjectSource::File(&path("token")));
    let sidecar = sidecar(&google, &without_account(file), &[]).await;
    announced(&sidecar).await;
    called_as(&sidecar).await;
    write("..2");
    std::fs::remove_dir_all(path("..1")).unwrap();
    super::called_until(&sidecar, &google, Endpoint::StsExchange, 2).await;
}

#[tokio::test]
async fn a_subject_token_created_after_the_start_is_read_inside_the_sandbox() {
    let google = Google::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let file = google.external_account(&Endpoints::default(), SubjectSource::File(&path));
    let sidecar = sidecar(&google, &file, &[]).await;
    std::fs::write(&path, google.subject()).unwrap();
    assert_eq!(called_as(&sidecar).await, account(&google));
}

#[tokio::test]
async fn the_sandbox_is_off_if_a_program_must_be_started() {
    let google = Google::start().await;
    let file = google.external_account(
        &Endpoints::default(),
        SubjectSource::Executable("/bin/true"),
    );
    let allowed = [("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1")];
    let sidecar = sidecar_with(&google, &file, &[], &allowed).await;
    let said = announced(&sidecar).await;
    assert!(
        said.starts_with("sandbox: off: ") && said.contains("/bin/true"),
        "{said}"
    );
}

#[tokio::test]
async fn files_of_aws_variables_are_read_inside_the_sandbox() {
    let google = Google::start().await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, google.aws_container_authorization()).unwrap();
    let env = [
        (
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "/v2/credentials/x",
        ),
        (
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            token.to_str().unwrap(),
        ),
        ("AWS_REGION", crate::support::google::AWS_REGION),
    ];
    let file = google.external_account(&Endpoints::default(), SubjectSource::Aws);
    let sidecar = sidecar_with(&google, &file, &[], &env).await;
    assert_eq!(called_as(&sidecar).await, account(&google));
}

#[tokio::test]
async fn a_reload_to_a_program_is_refused_inside_the_sandbox() {
    let google = Google::start().await;
    let (file, _) = file_sourced(&google);
    let allowed = [("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1")];
    let sidecar = sidecar_with(&google, &file, &[], &allowed).await;
    let is_on = announced(&sidecar).await.starts_with("sandbox: on");
    let source = SubjectSource::Executable("/bin/true");
    google.file(
        "credentials.json",
        &google.external_account(&Endpoints::default(), source),
    );
    let before = sidecar.log().len();
    sidecar.signal("HUP");
    let ended = |line: &Value| {
        let message = line["message"].as_str().unwrap_or_default();
        message.starts_with("reloaded: ") || message.starts_with("reload failed")
    };
    let line = sidecar.logged_since(before, ended).await;
    let message = line["message"].as_str().unwrap();
    assert_eq!(message.starts_with("reload failed"), is_on, "{message}");
}

#[tokio::test]
async fn a_reload_to_a_token_outside_the_sandbox_is_refused() {
    let google = Google::start().await;
    let (file, _) = file_sourced(&google);
    let sidecar = sidecar(&google, &file, &[]).await;
    let is_on = announced(&sidecar).await.starts_with("sandbox: on");
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = folder.path().join("token");
    std::fs::write(&elsewhere, google.subject()).unwrap();
    let linked = google.ca().with_file_name("linked");
    symlink(&elsewhere, &linked).unwrap();
    let ended = |line: &Value| {
        let message = line["message"].as_str().unwrap_or_default();
        message.starts_with("reloaded: ") || message.starts_with("reload failed")
    };
    let beside = google.text_file("beside", &google.subject());
    let missing = folder.path().join("later");
    for (path, refused) in [
        (&elsewhere, is_on),
        (&missing, is_on),
        (&linked, is_on),
        (&beside, false),
    ] {
        let source = SubjectSource::File(path);
        let changed = google.external_account(&Endpoints::default(), source);
        google.file("credentials.json", &changed);
        let before = sidecar.log().len();
        sidecar.signal("HUP");
        let line = sidecar.logged_since(before, ended).await;
        let message = line["message"].as_str().unwrap();
        assert_eq!(message.starts_with("reload failed"), refused, "{message}");
        if refused {
            let said = format!("names the file {}", path.display());
            let log = sidecar.log();
            assert!(log.iter().any(|line| line.to_string().contains(&said)));
        }
        // The previous configuration still applies.
        assert_eq!(called_as(&sidecar).await, account(&google));
    }
}
