//! Slow or silent sources of subject tokens.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{API, account, call, called_as, detail, file_sourced, sidecar_with};
use crate::authorized_user;
use crate::support::google::{
    AWS_REGION, AWS_ROLE, Endpoint, Endpoints, Fault, Google, SubjectSource,
};

const EXECUTABLES: [(&str, &str); 2] = [
    ("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1"),
    ("PATH", "/usr/bin:/bin"),
];

/// Creates a named pipe without a writer.
fn pipe(google: &Google) -> PathBuf {
    let pipe = google.ca().with_file_name("pipe");
    if !pipe.exists() {
        assert!(
            Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .unwrap()
                .success()
        );
    }
    pipe
}

/// Returns a file whose subject token is printed by a shell script, with a timeout of 5 s.
fn executable(google: &Google, script: &str) -> Value {
    let program = google.program("token", script);
    let source = SubjectSource::Executable(program.to_str().unwrap());
    google.external_account(&Endpoints::default(), source)
}

fn printing(google: &Google) -> String {
    let answer = json!({
        "version": 1,
        "success": true,
        "token_type": "urn:ietf:params:oauth:token-type:jwt",
        "id_token": google.subject(),
    });
    format!("printf %s '{answer}'")
}

/// Runs `token` for an API, and returns its status, output and error.
async fn token(
    google: &Google,
    file: &Value,
    args: &[&str],
    env: &[(&str, &str)],
) -> crate::command::Ran {
    let path = google.file("credentials.json", file).display().to_string();
    let mut all = vec!["token".to_owned(), "--credentials".to_owned(), path];
    all.extend(google.flags_for_all());
    all.extend(args.iter().map(ToString::to_string));
    all.push("https://storage.googleapis.com/b".to_owned());
    let env: Vec<_> = env
        .iter()
        .map(|&(name, value)| crate::command::var(name, value))
        .collect();
    crate::command::sidentity(all, env).await
}

#[tokio::test]
async fn a_subject_token_file_that_is_a_named_pipe_is_refused_at_once() {
    let google = Google::start().await;
    let pipe = pipe(&google);
    let file = google.external_account(&Endpoints::default(), SubjectSource::File(&pipe));
    let begun = Instant::now();
    let ran = tokio::time::timeout(Duration::from_secs(8), token(&google, &file, &[], &[])).await;
    // The command would wait for a writer forever.
    if ran.is_err() {
        std::fs::write(&pipe, "").unwrap();
    }
    let ran = ran.expect("the command does not end");
    assert_eq!(ran.status, Some(1), "{ran:?}");
    let expected = format!(
        "the file {:?}: it is not a regular file",
        pipe.display().to_string()
    );
    assert!(ran.err.contains(&expected), "{ran:?}");
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn token_files_of_aws_that_are_named_pipes_are_refused() {
    let google = Google::start().await;
    let pipe = pipe(&google);
    let file = google.external_account(&Endpoints::default(), SubjectSource::Aws);
    let role = format!("arn:aws:iam::123456789012:role/{AWS_ROLE}");
    let web_identity = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", pipe.to_str().unwrap()),
        ("AWS_ROLE_ARN", &role),
        ("AWS_REGION", AWS_REGION),
    ];
    let container = [
        (
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            pipe.to_str().unwrap(),
        ),
        (
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "/v2/credentials/x",
        ),
        ("AWS_REGION", AWS_REGION),
    ];
    for env in [web_identity, container] {
        let sidecar = sidecar_with(&google, &file, &[], &env).await;
        let said = detail(&call(&sidecar, API).await);
        assert!(said.contains("it is not a regular file"), "{said}");
        assert!(said.contains(env[0].0), "{said}");
    }
}

#[tokio::test]
async fn an_output_file_that_is_a_named_pipe_is_no_cache() {
    let google = Google::start().await;
    let pipe = pipe(&google);
    for (script, expected) in [(printing(&google), None), ("true".to_owned(), Some(&pipe))] {
        let mut file = executable(&google, &script);
        file["credential_source"]["executable"]["output_file"] = pipe.to_str().unwrap().into();
        let sidecar = sidecar_with(&google, &file, &[], &EXECUTABLES).await;
        let Some(path) = expected else {
            assert_eq!(called_as(&sidecar).await, account(&google));
            continue;
        };
        let said = detail(&call(&sidecar, API).await);
        let why = format!(
            "the output_file {:?}: it is not a regular file",
            path.display()
        );
        assert!(said.contains(&why), "{said}");
    }
}

#[tokio::test]
async fn a_slow_source_of_an_impersonated_account_is_named() {
    let google = Google::start().await;
    let endpoints = Endpoints::default();
    let target = google.directory().address("target");
    let global = ["--impersonate-service-account", &*target];
    let base = google.base();
    let by_url = google.external_account(&endpoints, SubjectSource::Url(&base));
    let by_aws = google.external_account(&endpoints, SubjectSource::Aws);
    let user = authorized_user(&google);
    let by_user = google.impersonated(&endpoints, &user, &[]);
    let no_answer = "no response within";
    for (endpoint, file, args, expected) in [
        (
            Endpoint::StsExchange,
            file_sourced(&google).0,
            &[][..],
            "sts.googleapis.com",
        ),
        (
            Endpoint::StsExchange,
            file_sourced(&google).0,
            &global,
            "sts.googleapis.com",
        ),
        (Endpoint::Token, by_user, &[], "oauth2.googleapis.com"),
        (Endpoint::Token, user, &global, "oauth2.googleapis.com"),
        (Endpoint::SubjectToken, by_url, &[], "/actions/id-token"),
        (Endpoint::AwsSession, by_aws, &[], "169.254.169.254"),
        (
            Endpoint::Api,
            executable(&google, "sleep 100"),
            &[],
            "5 s (timeout_millis)",
        ),
    ] {
        google.heal();
        google.always(endpoint, Fault::never());
        let args = [args, &["--token-timeout", "2s"]].concat();
        let env = [&EXECUTABLES[..], &[("AWS_REGION", AWS_REGION)]].concat();
        let sidecar = sidecar_with(&google, &file, &args, &env).await;
        let said = detail(&call(&sidecar, API).await);
        assert!(said.contains(expected), "{endpoint:?}: {said}");
        assert!(
            endpoint == Endpoint::Api || said.contains(no_answer),
            "{endpoint:?}: {said}"
        );
    }
}

#[tokio::test]
async fn a_programs_own_timeout_may_exceed_the_token_timeout() {
    let google = Google::start().await;
    let file = executable(&google, &format!("sleep 3; {}", printing(&google)));
    let args = ["--token-timeout", "1s"];
    let (ran, sidecar) = tokio::join!(
        token(&google, &file, &args, &EXECUTABLES),
        sidecar_with(&google, &file, &args, &EXECUTABLES),
    );
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert_eq!(called_as(&sidecar).await, account(&google));
}
