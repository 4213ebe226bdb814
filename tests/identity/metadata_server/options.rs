//! The options of `metadata-server --credentials`, and errors at the start.

use std::time::Duration;

use super::*;
use crate::command::Ran;

#[tokio::test]
async fn it_listens_on_loopback_only_unless_allowed() {
    let args = [
        "metadata-server",
        "--credentials",
        "metadata",
        "--listen",
        "0.0.0.0:0",
    ];
    let ran = sidentity(args, [var("GCE_METADATA_HOST", "127.0.0.1:1")]).await;
    assert_eq!(ran.status, Some(64), "{ran:?}");
    assert!(ran.err.contains("--allow-non-loopback"), "{ran:?}");
    let setup = Setup::new().await;
    let args = [
        "--credentials",
        "auto",
        "--allow-non-loopback",
        "--listen",
        "0.0.0.0:0",
    ];
    let host = setup.metadata.address().to_string();
    let child = Command::new(env!("CARGO_BIN_EXE_sidentity"))
        .arg("metadata-server")
        .args(args)
        .env_clear()
        .env("GCE_METADATA_HOST", host)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = child.unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let greeting = lines.next_line().await.unwrap().unwrap();
    assert!(greeting.contains("on 0.0.0.0:"), "{greeting}");
}

#[tokio::test]
async fn options_of_real_tokens_exclude_those_of_the_emulator() {
    for (args, words) in [
        (
            &["--impersonate-service-account", "a@b.c"][..],
            "--credentials",
        ),
        (&["--upstream-ca", "x"], "--credentials"),
        (
            &["--credentials", "auto", "--email", "a@b.c"],
            "cannot be used with",
        ),
        (
            &["--credentials", "auto", "--lifetime", "1h"],
            "cannot be used with",
        ),
        (
            &[
                "--credentials",
                "auto",
                "--impersonate-service-account",
                "a",
            ],
            "A,B,TARGET",
        ),
        (&["--credentials", "/nonexistent"], "/nonexistent"),
    ] {
        let all = [&["metadata-server", "--listen", "127.0.0.1:0"], args].concat();
        let ran = sidentity(all, [var("GCE_METADATA_HOST", "127.0.0.1:1")]).await;
        assert_eq!(ran.status, Some(64), "{ran:?}");
        assert!(ran.err.contains(words), "{ran:?}");
    }
}

#[tokio::test]
async fn without_any_credential_it_reports_that_once_and_ends() {
    let closed_listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = closed_listener.local_addr().unwrap().to_string();
    drop(closed_listener);
    let none = "no credentials were found";
    for (credentials, variable, words) in [
        ("auto", ("NO_GCE_CHECK", "true"), none),
        ("auto", ("GCE_METADATA_IP", &*closed), none),
        ("metadata", ("NO_GCE_CHECK", "true"), "NO_GCE_CHECK says"),
    ] {
        let args = [
            "metadata-server",
            "--listen",
            "127.0.0.1:0",
            "--credentials",
            credentials,
        ];
        let running = Command::new(env!("CARGO_BIN_EXE_sidentity"))
            .args(args)
            .env_clear()
            .envs([("HOME", "/nonexistent"), variable])
            .kill_on_drop(true)
            .output();
        let ran = tokio::time::timeout(Duration::from_secs(8), running).await;
        let ran = Ran::from(ran.expect("it ends").unwrap());
        assert_eq!(ran.status, Some(1), "{ran:?}");
        assert_eq!(ran.err.matches(words).count(), 1, "{ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
        assert_eq!(ran.out, "", "{ran:?}");
    }
}

#[tokio::test]
async fn it_does_not_request_tokens_from_itself() {
    for (credentials, variable, why) in [
        (
            "auto",
            "GCE_METADATA_HOST",
            "no credential file was searched, because a variable names a metadata server",
        ),
        (
            "auto",
            "GCE_METADATA_IP",
            "no credential file was found (GOOGLE_APPLICATION_CREDENTIALS is not set; CLOUDSDK_CONFIG and HOME are not set, \
             so there is no file of gcloud)",
        ),
        (
            "metadata",
            "GCE_METADATA_HOST",
            "--credentials metadata uses no credential file",
        ),
    ] {
        let args = [
            "metadata-server",
            "--credentials",
            credentials,
            "--listen",
            "127.0.0.1:8999",
        ];
        let ran = sidentity(args, [var(variable, "127.0.0.1:8999")]).await;
        assert_eq!(ran.status, Some(64), "{ran:?}");
        let said = format!(
            "sidentity: environment {variable}: 127.0.0.1:8999 is this server itself, and {why}. Name a file with \
             --credentials, or unset the variable for this command, so that gcloud's file is searched\n"
        );
        assert_eq!(ran.err, said);
    }
}
