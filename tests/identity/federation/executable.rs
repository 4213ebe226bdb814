//! Subject tokens of executables.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{API, account, call, called_as, detail, sidecar_with, without_account};
use crate::support::google::{Endpoint, Endpoints, Fault, Google, SubjectSource};
use crate::support::sidecar::Sidecar;

const ALLOWED: (&str, &str) = ("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1");
const PATH: (&str, &str) = ("PATH", "/usr/bin:/bin");
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

fn answer(google: &Google) -> Value {
    json!({ "version": 1, "success": true, "token_type": JWT, "id_token": google.subject() })
}

/// Returns a file whose subject token is printed by a shell script.
fn file(google: &Google, script: &str) -> Value {
    let program = google.program("token", script);
    let source = SubjectSource::Executable(program.to_str().unwrap());
    google.external_account(&Endpoints::default(), source)
}

async fn started(google: &Google, file: &Value) -> Sidecar {
    sidecar_with(google, file, &[], &[ALLOWED, PATH]).await
}

/// Returns the error of a call whose subject token comes from this script.
async fn error(google: &Google, script: &str) -> String {
    let sidecar = started(google, &file(google, script)).await;
    let detail = detail(&call(&sidecar, API).await);
    assert_eq!(google.count(Endpoint::StsExchange), 0, "{detail}");
    assert!(detail.contains("/token"), "{detail}");
    detail
}

async fn gone(id: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::path::Path::new(&format!("/proc/{id}")).exists() {
        assert!(Instant::now() < deadline, "{id}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_program_prints_the_subject_token_for_its_audience() {
    let google = Google::start().await;
    let seen = google.text_file("seen", "");
    let script = format!(
        "env | grep ^GOOGLE_EXTERNAL > {}; printf %s '{}'",
        seen.display(),
        answer(&google)
    );
    let file = file(&google, &script);
    let sidecar = started(&google, &file).await;
    assert_eq!(called_as(&sidecar).await, account(&google));
    let seen = std::fs::read_to_string(seen).unwrap();
    let target = google.directory().address("target");
    for line in [
        &format!("AUDIENCE={}", file["audience"].as_str().unwrap()),
        &format!("TOKEN_TYPE={JWT}"),
        "INTERACTIVE=0",
        "REVOKE=0",
        &format!("IMPERSONATED_EMAIL={target}"),
        "ALLOW_EXECUTABLES=1",
    ] {
        let line = format!("GOOGLE_EXTERNAL_ACCOUNT_{line}");
        assert!(seen.lines().any(|seen| seen == line), "{line}: {seen}");
    }
    assert!(!seen.contains("OUTPUT_FILE"), "{seen}");
}

#[tokio::test]
async fn the_command_is_not_passed_to_a_shell() {
    let google = Google::start().await;
    let program = google.program(
        "my token",
        &format!(
            "[ \"$1\" = '$HOME; exit 1 #' ] && printf %s '{}'",
            answer(&google)
        ),
    );
    let command = format!("'{}' \"\\$HOME; exit 1 #\"", program.display());
    let file = google.external_account(&Endpoints::default(), SubjectSource::Executable(&command));
    let sidecar = started(&google, &file).await;
    assert_eq!(called_as(&sidecar).await, account(&google));
}

#[tokio::test]
async fn an_output_file_with_a_valid_token_replaces_the_program() {
    let google = Google::start().await;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    for (expiration, runs) in [(Some(now + 600), 0), (Some(now - 1), 1), (None, 1)] {
        let mut cached = answer(&google);
        if let Some(expiration) = expiration {
            cached["expiration_time"] = expiration.into();
        }
        let output = google.file("output.json", &cached);
        let count = google.text_file("count", "");
        let script = format!(
            "echo run >> {}; printf %s '{}'",
            count.display(),
            answer(&google)
        );
        let mut file = file(&google, &script);
        file["credential_source"]["executable"]["output_file"] = output.to_str().unwrap().into();
        let sidecar = started(&google, &file).await;
        assert_eq!(
            called_as(&sidecar).await,
            account(&google),
            "{expiration:?}"
        );
        let ran = std::fs::read_to_string(count).unwrap();
        assert_eq!(ran.lines().count(), runs, "{expiration:?}");
    }
}

#[tokio::test]
async fn a_program_may_write_only_to_its_output_file() {
    let google = Google::start().await;
    let output = google.text_file("output.json", "");
    let script = format!(
        "printf %s '{}' > \"$GOOGLE_EXTERNAL_ACCOUNT_OUTPUT_FILE\"",
        answer(&google)
    );
    let mut file = file(&google, &script);
    file["credential_source"]["executable"]["output_file"] = output.to_str().unwrap().into();
    let sidecar = started(&google, &file).await;
    assert_eq!(called_as(&sidecar).await, account(&google));
}

#[tokio::test]
async fn a_program_that_prints_garbage_fails_the_call_and_is_not_quoted() {
    let google = Google::start().await;
    let detail = error(&google, "echo SECRET").await;
    assert!(detail.contains("not a JSON object"), "{detail}");
    assert!(!detail.contains("SECRET"), "{detail}");
}

#[tokio::test]
async fn a_program_with_endless_output_is_stopped() {
    let google = Google::start().await;
    let detail = error(&google, "while :; do echo junk; done").await;
    assert!(detail.contains("longer than 64 KiB"), "{detail}");
}

#[tokio::test]
async fn a_program_that_ends_with_status_1_fails_the_call() {
    let google = Google::start().await;
    let detail = error(&google, "exit 1").await;
    assert!(detail.contains("ended with status 1"), "{detail}");
}

#[tokio::test]
async fn a_program_that_reports_an_error_is_quoted_with_code_and_message() {
    let google = Google::start().await;
    for end in ["", "; exit 3"] {
        let detail = error(
            &google,
            &format!(r#"printf %s '{{"version":1,"success":false,"code":"401","message":"Log in first."}}'{end}"#),
        )
        .await;
        assert!(
            detail.contains(r#"code "401", message "Log in first.""#),
            "{detail}"
        );
    }
}

#[tokio::test]
async fn a_program_whose_token_is_expired_fails_the_call() {
    let google = Google::start().await;
    let mut expired = answer(&google);
    expired["expiration_time"] = 1.into();
    let detail = error(&google, &format!("printf %s '{expired}'")).await;
    assert!(detail.contains("expired"), "{detail}");
}

#[tokio::test]
async fn a_missing_program_fails_the_call() {
    let google = Google::start().await;
    let source = SubjectSource::Executable("/nonexistent/token --secret");
    let file = google.external_account(&Endpoints::default(), source);
    let sidecar = started(&google, &file).await;
    let detail = detail(&call(&sidecar, API).await);
    assert!(
        detail.contains("/nonexistent/token: it cannot be started"),
        "{detail}"
    );
    assert!(!detail.contains("--secret"), "{detail}");
}

#[tokio::test]
async fn a_program_that_hangs_is_killed_with_its_children() {
    let google = Google::start().await;
    let ids = google.text_file("ids", "");
    let script = format!("sleep 1000 & echo $$ $! > {}; wait", ids.display());
    // The fixture's file has the shortest timeout, 5 s.
    let detail = error(&google, &script).await;
    assert!(detail.contains("not ended within 5 s"), "{detail}");
    for id in std::fs::read_to_string(ids).unwrap().split_whitespace() {
        gone(id).await;
    }
}

#[tokio::test]
async fn a_running_program_does_not_outlive_the_sidecar() {
    let google = Google::start().await;
    let ids = google.text_file("ids", "");
    let folder = ids.parent().unwrap().join("started");
    let script = format!(
        "sleep 1000 & echo $$ $! > {}; touch {}; wait",
        ids.display(),
        folder.display()
    );
    let mut sidecar = started(&google, &file(&google, &script)).await;
    let proxy = sidecar.proxy();
    tokio::spawn(async move { crate::support::app::proxied(proxy, API, &[]).await });
    while !folder.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sidecar.signal("TERM");
    sidecar.signal("TERM");
    sidecar.ended().await;
    for id in std::fs::read_to_string(ids).unwrap().split_whitespace() {
        gone(id).await;
    }
}

#[tokio::test]
async fn a_program_that_has_ended_leaves_no_zombie() {
    let google = Google::start().await;
    google.always(
        Endpoint::StsExchange,
        Fault::edit(|json| json["expires_in"] = 10.into()),
    );
    let script = format!("sleep 0.01 & printf %s '{}'", answer(&google));
    let sidecar = started(&google, &without_account(file(&google, &script))).await;
    called_as(&sidecar).await;
    super::called_until(&sidecar, &google, Endpoint::StsExchange, 2).await;
    let children = format!("/proc/{0}/task/{0}/children", sidecar.pid());
    let deadline = Instant::now() + Duration::from_secs(20);
    while !std::fs::read_to_string(&children)
        .unwrap()
        .trim()
        .is_empty()
    {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_program_is_not_run_without_googles_variable() {
    let google = Google::start().await;
    let path = google.file("credentials.json", &file(&google, "exit 1"));
    let args = ["check", "--credentials", path.to_str().unwrap()];
    let ran =
        crate::command::sidentity(args, [] as [(std::ffi::OsString, std::ffi::OsString); 0]).await;
    assert_eq!(ran.status, Some(64), "{ran:?}");
    assert!(
        ran.err
            .contains("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1"),
        "{ran:?}"
    );
}
