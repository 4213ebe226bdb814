//! The search for credentials (ADC), and its messages.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::TcpListener;

use super::command::{Ran, sidentity, var};
use super::support::metadata::{Kind, Metadata};

const URL: &str = "https://storage.googleapis.com/";
/// What `check` says if tokens certainly come from the metadata server.
const METADATA: &str = "the metadata server (account and project: sidentity explain URL)";
const FILE: &str = "application_default_credentials.json";

/// Returns the content of a person's login, without a quota project.
fn user() -> String {
    r#"{"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}"#
        .to_owned()
}

/// Creates a directory with gcloud's file in it, if `content` is given.
fn gcloud(content: Option<&str>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    if let Some(content) = content {
        write(&path, content);
    }
    (folder, path)
}

/// Writes a file that only the owner can read.
fn write(path: &Path, content: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

async fn check(args: &[&str], env: &[(&str, &Path)]) -> Ran {
    let args = [&["check"], args].concat();
    let env = env.iter().map(|(name, value)| var(name, *value));
    sidentity(args, env).await
}

fn comes_from(ran: &Ran) -> Option<&str> {
    assert_eq!(ran.status, Some(0), "{ran:?}");
    let lines = ran.out.lines();
    lines
        .filter_map(|line| line.strip_prefix("# tokens come from "))
        .next()
}

/// Returns an address without a listener.
async fn closed() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test]
async fn the_variable_takes_precedence_over_gclouds_file_and_metadata_server() {
    let (folder, file) = gcloud(Some(&user()));
    let named = folder.path().join("named.json");
    write(&named, &user());
    for metadata in ["GCE_METADATA_HOST", "K_SERVICE", "UNSET"] {
        let env = [
            ("GOOGLE_APPLICATION_CREDENTIALS", &*named),
            ("CLOUDSDK_CONFIG", folder.path()),
            (metadata, Path::new("127.0.0.1")),
        ];
        let found = format!("the authorized_user file {named:?}");
        assert_eq!(comes_from(&check(&[], &env).await), Some(&*found));
    }
    // An empty variable counts as unset.
    let env = [
        ("GOOGLE_APPLICATION_CREDENTIALS", Path::new("")),
        ("CLOUDSDK_CONFIG", folder.path()),
    ];
    let found = format!("the authorized_user file {file:?}");
    assert_eq!(comes_from(&check(&[], &env).await), Some(&*found));
}

#[tokio::test]
async fn gclouds_file_is_ignored_if_a_variable_names_a_metadata_server() {
    let (folder, _) = gcloud(Some(&user()));
    for variable in [
        "K_SERVICE",
        "CLOUD_RUN_JOB",
        "CLOUD_RUN_WORKER_POOL",
        "GCE_METADATA_HOST",
    ] {
        let env = [
            ("CLOUDSDK_CONFIG", folder.path()),
            (variable, Path::new("x")),
        ];
        let found = check(&[], &env).await;
        assert_eq!(comes_from(&found), Some(METADATA), "{variable}");
        let adc = check(&["--credentials", "adc"], &env).await;
        assert_ne!(comes_from(&adc), Some(METADATA), "{variable}");
    }
    let env = [("CLOUDSDK_CONFIG", folder.path())];
    let metadata = check(&["--credentials", "metadata"], &env).await;
    assert_eq!(comes_from(&metadata), Some(METADATA));
}

#[tokio::test]
async fn check_says_that_tokens_come_from_the_metadata_server_and_who_names_the_account() {
    let ran = check(&[], &[("HOME", Path::new("/nonexistent"))]).await;
    let probed = "the metadata server, if one answers (account and project: sidentity explain URL)";
    assert_eq!(comes_from(&ran), Some(probed));
    let ran = check(&["--credentials", "metadata"], &[]).await;
    assert_eq!(comes_from(&ran), Some(METADATA));
    let off = [
        ("HOME", Path::new("/nonexistent")),
        ("NO_GCE_CHECK", Path::new("true")),
    ];
    assert_eq!(comes_from(&check(&[], &off).await), None);
}

#[tokio::test]
async fn a_key_beside_a_metadata_server_gets_a_warning_about_that_server() {
    let google = crate::support::google::Google::start().await;
    let key = google.file("key.json", &crate::service_account(&google));
    let platform = "there is a metadata server here: attach the service account instead";
    let emulator = "GCE_METADATA_HOST names a metadata server. If that is Google Cloud's, attach the service account, which \
                    needs no key; if it is another, such as an emulator, --credentials metadata uses it";
    for (variables, warning) in [
        (&["K_SERVICE"][..], Some(platform)),
        (&["K_SERVICE", "GCE_METADATA_HOST"], Some(platform)),
        (&["GCE_METADATA_HOST"], Some(emulator)),
        (&[], None),
    ] {
        let env: Vec<_> = variables
            .iter()
            .map(|name| (*name, Path::new("x")))
            .collect();
        let ran = check(&["--credentials", key.to_str().unwrap()], &env).await;
        assert_eq!(ran.status, Some(0), "{ran:?}");
        assert_eq!(ran.err.is_empty(), warning.is_none(), "{ran:?}");
        assert!(ran.err.contains(warning.unwrap_or_default()), "{ran:?}");
    }
}

#[tokio::test]
async fn gclouds_file_is_found_below_home() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".config/gcloud");
    std::fs::create_dir_all(&folder).unwrap();
    write(&folder.join(FILE), &user());
    let ran = check(&[], &[("HOME", home.path())]).await;
    let found = format!("the authorized_user file {:?}", folder.join(FILE));
    assert_eq!(comes_from(&ran), Some(&*found));
    let quota = "has no quota project, without which many Google APIs answer 403";
    assert!(ran.err.contains(quota), "{ran:?}");
}

#[tokio::test]
async fn a_missing_file_is_an_error_without_fallback() {
    let (folder, _) = gcloud(Some(&user()));
    let missing = folder.path().join("missing.json");
    let env = [
        ("GOOGLE_APPLICATION_CREDENTIALS", &*missing),
        ("CLOUDSDK_CONFIG", folder.path()),
        ("GCE_METADATA_HOST", Path::new("127.0.0.1")),
    ];
    let ran = check(&[], &env).await;
    assert_eq!(ran.status, Some(64), "{ran:?}");
    assert_eq!(
        ran.err,
        format!(
            "sidentity: environment GOOGLE_APPLICATION_CREDENTIALS: {missing:?} does not exist\n"
        )
    );
    let ran = check(&["--credentials", "metdata"], &[]).await;
    assert_eq!(
        ran.err,
        "sidentity: flag --credentials: \"metdata\" does not exist: write auto, metadata, adc or the path of a file\n"
    );
}

#[tokio::test]
async fn an_unusable_file_is_a_configuration_error() {
    for content in [
        "",
        "{\"type\": \"authorized_user\"}",
        "[]",
        "{\"type\": \"gdch_service_account\"}",
    ] {
        let (folder, file) = gcloud(Some(content));
        let env = [("CLOUDSDK_CONFIG", folder.path())];
        let ran = check(&[], &env).await;
        assert_eq!(ran.status, Some(64), "{ran:?}");
        let start = format!("sidentity: gcloud's directory: {file:?} ");
        assert!(ran.err.starts_with(&start), "{ran:?}");
        let path = file.to_str().unwrap();
        let ran = check(&["--credentials", path], &[]).await;
        let start = format!("sidentity: flag --credentials: {file:?} ");
        assert!(ran.err.starts_with(&start), "{ran:?}");
    }
}

#[tokio::test]
async fn a_failed_search_lists_every_searched_place_within_a_second() {
    let (folder, file) = gcloud(None);
    let address = closed().await;
    let env = || {
        [
            var("CLOUDSDK_CONFIG", folder.path()),
            var("GCE_METADATA_IP", &address),
        ]
    };
    let began = Instant::now();
    let ran = sidentity(["token", URL], env()).await;
    let took = began.elapsed();
    assert_eq!(ran.status, Some(1), "{ran:?}");
    let all = format!(
        "no credentials were found: GOOGLE_APPLICATION_CREDENTIALS is not set; {file:?} does not exist; the metadata server \
         at http://{address}: cannot connect"
    );
    assert!(ran.err.contains(&all), "{ran:?}");
    assert!(
        ran.err.contains("gcloud auth application-default login"),
        "{ran:?}"
    );
    assert!(took < Duration::from_millis(2500), "{took:?}");
    let ran = sidentity(["token", "--credentials", "adc", URL], env()).await;
    assert_eq!(ran.status, Some(64), "{ran:?}");
    assert!(
        ran.err.contains(&format!("{file:?} does not exist")),
        "{ran:?}"
    );
    assert!(!ran.err.contains("metadata server"), "{ran:?}");
}

#[tokio::test]
async fn a_start_without_credentials_says_so_once_and_names_no_source_of_tokens() {
    use std::io::{BufRead, BufReader};
    let (folder, _) = gcloud(None);
    let mut sidecar = std::process::Command::new(env!("CARGO_BIN_EXE_sidentity"))
        .args(["run", "--proxy", "127.0.0.1:0", "--admin", "off"])
        .args(["--route", "127.0.0.1:0=https://svc.a.run.app"])
        .args(["--route", "127.0.0.1:0/v1=https://storage.googleapis.com"])
        .env_clear()
        .env("CLOUDSDK_CONFIG", folder.path())
        .env("GCE_METADATA_IP", closed().await)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (mut log, mut told) = (String::new(), false);
    for line in BufReader::new(sidecar.stderr.take().unwrap()).lines() {
        log += &line.unwrap();
        log.push('\n');
        if !told && log.contains("no credentials were found") {
            // The drain takes a second, in which the other fetches fail too.
            told = true;
            let pid = rustix::process::Pid::from_child(&sidecar);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        }
    }
    sidecar.wait().unwrap();
    assert_eq!(log.matches("no credentials were found").count(), 1, "{log}");
    assert!(!log.contains("tokens come from"), "{log}");
}

/// `GCE_METADATA_HOST` would have no effect.
#[tokio::test]
async fn with_no_gce_check_the_advice_is_to_unset_it() {
    let advice = "Unset NO_GCE_CHECK if there is one; otherwise run `gcloud auth";
    for args in [&["check"][..], &["token", URL]] {
        let set = [var("HOME", "/nonexistent"), var("NO_GCE_CHECK", "true")];
        let ran = sidentity(args, set).await;
        assert!(ran.err.contains(advice), "{ran:?}");
        assert!(!ran.err.contains("GCE_METADATA_HOST"), "{ran:?}");
    }
}

#[tokio::test]
async fn a_silent_metadata_server_delays_the_search_by_one_second() {
    // Accepts connections and never responds.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let began = Instant::now();
    let ran = sidentity(["token", URL], [var("GCE_METADATA_IP", &address)]).await;
    let took = began.elapsed();
    assert!(ran.err.contains("no credentials were found"), "{ran:?}");
    assert!(took < Duration::from_millis(2500), "{took:?}");
}

#[tokio::test]
async fn a_metadata_server_is_found_by_one_probe() {
    let server = Metadata::start().await;
    let address = server.address().to_string();
    let ran = sidentity(["token", URL], [var("GCE_METADATA_IP", &address)]).await;
    assert_eq!(ran.out, "test-access-token\n", "{ran:?}");
    let paths: Vec<String> = server.all_requests().into_iter().map(|r| r.path).collect();
    assert_eq!(
        paths.iter().filter(|path| *path == "/").count(),
        1,
        "{paths:?}"
    );
    assert_eq!(server.count(Kind::Access), 1);
}

#[tokio::test]
async fn a_metadata_server_named_by_a_variable_is_not_probed() {
    let server = Metadata::start().await;
    let address = server.address().to_string();
    let ran = sidentity(["token", URL], [var("GCE_METADATA_HOST", &address)]).await;
    assert_eq!(ran.out, "test-access-token\n", "{ran:?}");
    let requests = server.all_requests();
    assert!(
        requests.iter().all(|request| request.path != "/"),
        "{requests:?}"
    );
}

#[tokio::test]
async fn a_metadata_server_account_beside_a_credential_file_is_an_error() {
    let (folder, file) = gcloud(Some(&user()));
    let rule = "--rule=a.example=access,account=a@p.iam.gserviceaccount.com";
    let ran = check(&[rule], &[("CLOUDSDK_CONFIG", folder.path())]).await;
    assert_eq!(ran.status, Some(64), "{ran:?}");
    let expected = format!(
        "account=a@p.iam.gserviceaccount.com names an account of the metadata server, but tokens come from the \
         authorized_user file {file:?}: write impersonate=a@p.iam.gserviceaccount.com"
    );
    assert!(ran.err.contains(&expected), "{ran:?}");
}

/// Returns the warnings about readers of a file with this mode, and with this owner if given.
async fn warned_of_readers(mode: u32, owner: Option<u32>) -> Vec<String> {
    warned_of(mode, owner, "can be read").await
}

/// Returns the warnings with these words.
async fn warned_of(mode: u32, owner: Option<u32>, words: &str) -> Vec<String> {
    use std::os::unix::fs::{PermissionsExt, chown};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.json");
    write(&path, &user());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    chown(&path, owner, owner).unwrap();
    let ran = check(&["--credentials", path.to_str().unwrap()], &[]).await;
    assert_eq!(ran.status, Some(0), "{mode:o}: {ran:?}");
    let lines = ran.err.lines();
    lines
        .filter(|line| line.contains(words))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn a_file_that_its_group_or_everyone_can_read_gets_a_warning() {
    for mode in [0o600, 0o400, 0o700, 0o620] {
        assert_eq!(warned_of_readers(mode, None).await, [""; 0], "{mode:o}");
    }
    for mode in [
        0o640, 0o660, 0o440, 0o604, 0o606, 0o644, 0o664, 0o444, 0o777,
    ] {
        let warned = warned_of_readers(mode, None).await;
        assert_eq!(warned.len(), 1, "{mode:o}: {warned:?}");
        let whom = if mode & 0o004 == 0 {
            "its group"
        } else {
            "every user"
        };
        for part in [whom, &format!("mode {mode:04o}"), "chmod 600"] {
            assert!(warned[0].contains(part), "{part}: {warned:?}");
        }
    }
}

#[tokio::test]
async fn a_credential_file_that_others_can_change_gets_a_warning() {
    for mode in [0o602, 0o620, 0o622, 0o660, 0o666] {
        let warned = warned_of(mode, None, "changed by").await;
        assert_eq!(warned.len(), 1, "{mode:o}: {warned:?}");
        assert!(
            warned[0].contains(&format!("mode {mode:04o}")),
            "{warned:?}"
        );
        assert!(warned[0].contains("chmod 600"), "{warned:?}");
    }
    assert_eq!(warned_of(0o600, None, "can be").await, [""; 0]);
}

/// A volume of Kubernetes belongs to root and to the group of the pod (`fsGroup`).
#[tokio::test]
async fn a_file_of_another_owner_may_be_read_by_its_group() {
    use std::os::unix::fs::MetadataExt;
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return; // only root can give a file away
    }
    for mode in [0o640, 0o440, 0o660] {
        assert_eq!(
            warned_of_readers(mode, Some(4242)).await,
            [""; 0],
            "{mode:o}"
        );
    }
    let owner = warned_of(0o600, Some(4242), "changed by its owner, the user id 4242").await;
    assert_eq!(owner.len(), 1, "{owner:?}");
    for mode in [0o644, 0o604] {
        assert_eq!(
            warned_of_readers(mode, Some(4242)).await.len(),
            1,
            "{mode:o}"
        );
    }
}

/// `GOOGLE_APPLICATION_CREDENTIALS="$(cat key.json)"`, and the same with other settings.
#[tokio::test]
async fn the_content_of_a_credential_in_the_place_of_its_path_is_never_shown() {
    let key = "{\"type\": \"service_account\", \"private_key\": \"-----BEGIN PRIVATE KEY-----\\nS3CRET\"}";
    let base64 = "eyJ0eXBlIjoiUzNDUkVUIn0=";
    for content in [key, base64, "-----BEGIN PRIVATE KEY-----\nS3CRET\n"] {
        let variable = |name: &'static str| vec![(name, Path::new(content))];
        for (args, env) in [
            (vec![], variable("GOOGLE_APPLICATION_CREDENTIALS")),
            (vec![], variable("SIDENTITY_CREDENTIALS")),
            (vec!["--credentials", content], vec![]),
            (vec!["--credentials", "adc"], variable("CLOUDSDK_CONFIG")),
            (vec!["--upstream-ca", content], vec![]),
            (vec!["--config", content], vec![]),
        ] {
            let ran = check(&args, &env).await;
            assert_eq!(ran.status, Some(64), "{ran:?}");
            let said = ran.err + &ran.out;
            for part in ["S3CRET", "PRIVATE KEY", "UzNDUkVU"] {
                assert!(!said.contains(part), "{args:?}: {said}");
            }
        }
    }
}
