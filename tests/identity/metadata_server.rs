//! `metadata-server --credentials`: serves real tokens by the metadata protocol.

use std::net::SocketAddr;
use std::process::Stdio;

use bytes::Bytes;
use http::{Method, Request, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::client::CLOUD_PLATFORM;
use crate::command::{sidentity, var};
use crate::impersonation::Setup;
use crate::support::app::{json, send, text};
use crate::support::google::{Endpoint, Endpoints, Fault, Jwt};
use crate::support::metadata::{Answer, Kind};
use crate::{authorized_user, service_account};

mod errors;
mod options;
mod refused;

const FLAVOR: (&str, &str) = ("metadata-flavor", "Google");

const ROOT: &str = "/computeMetadata/v1";

const EMAIL: &str = "/computeMetadata/v1/instance/service-accounts/default/email";
const IDENTITY: &str = "/computeMetadata/v1/instance/service-accounts/default/identity";
const TOKEN: &str = "/computeMetadata/v1/instance/service-accounts/default/token";

/// A running server. It is killed at the end of the test.
pub(crate) struct Server {
    address: SocketAddr,
    greeting: String,
    child: Option<Child>,
    log: tokio::sync::Mutex<Option<tokio::io::Lines<BufReader<tokio::process::ChildStderr>>>>,
}

impl Server {
    /// Starts it with the tokens of the metadata server of `setup`, and waits until it listens.
    async fn start(setup: &Setup, args: &[&str]) -> Self {
        let host = setup.metadata.address().to_string();
        Self::start_with(setup, args, &[("GCE_METADATA_HOST", &host)]).await
    }

    /// Starts it with the tokens of `target`, which the account of the metadata server impersonates.
    async fn impersonating(setup: &Setup, target: &str) -> Self {
        let args = [
            "--credentials",
            "auto",
            "--impersonate-service-account",
            target,
        ];
        Self::start(setup, &args).await
    }

    /// Starts it with the tokens of a credential file, without a metadata server.
    pub(crate) async fn of_file(setup: &Setup, file: &Value) -> Self {
        let path = setup.google.file("credentials.json", file);
        let args = ["--credentials", path.to_str().unwrap()];
        Self::start_with(setup, &args, &[]).await
    }

    pub(crate) async fn start_with(setup: &Setup, args: &[&str], env: &[(&str, &str)]) -> Self {
        let flags = setup.google.flags();
        let args = flags.iter().map(String::as_str).chain(args.iter().copied());
        Self::run(args, env).await
    }

    /// Starts it without the flags that redirect to the emulated endpoints.
    async fn start_without_endpoints(args: &[&str]) -> Self {
        Self::run(args.iter().copied(), &[]).await
    }

    async fn run(args: impl Iterator<Item = &str>, env: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sidentity"))
            .args(["metadata-server", "--listen", "127.0.0.1:0"])
            .args(args)
            .env_clear()
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let server = Self::greeted(&mut child).await;
        let log = child
            .stderr
            .take()
            .map(|stderr| BufReader::new(stderr).lines());
        Self {
            child: Some(child),
            log: tokio::sync::Mutex::new(log),
            ..server
        }
    }

    /// Waits until a child of the caller listens.
    async fn greeted(child: &mut Child) -> Self {
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let greeting = lines.next_line().await.unwrap().expect("a greeting");
        let mut words = greeting.split_whitespace().skip_while(|word| *word != "on");
        let address = words.nth(1).unwrap();
        Self {
            address: address.trim_end_matches([':', ';']).parse().unwrap(),
            greeting,
            child: None,
            log: tokio::sync::Mutex::new(None),
        }
    }

    /// Sends SIGHUP.
    pub(crate) fn hang_up(&self) {
        let id = self.child.as_ref().unwrap().id().unwrap().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-HUP", &id])
            .status();
        assert!(sent.unwrap().success());
    }

    /// Waits for a line on standard error.
    pub(crate) async fn said(&self, words: &str) {
        let mut log = self.log.lock().await;
        let lines = log.as_mut().unwrap();
        let found = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.contains(words) {
                    return;
                }
            }
            panic!("it ended without {words:?}");
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), found)
            .await
            .expect(words);
    }

    pub(crate) async fn get(&self, path: &str) -> Response<Bytes> {
        self.get_with(path, &[FLAVOR]).await
    }

    async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
        let mut request = Request::get(path).header("host", self.address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(self.address, request.body(Bytes::new()).unwrap()).await
    }

    /// Returns an access token and its remaining seconds.
    pub(crate) async fn access(&self, query: &str) -> (String, u64) {
        let path = format!("{TOKEN}{query}");
        let response = self.get(&path).await;
        assert_eq!(response.status(), 200, "{}", text(&response));
        let answer = json(&response);
        assert_eq!(answer["token_type"], "Bearer");
        let token = answer["access_token"].as_str().unwrap();
        (token.to_owned(), answer["expires_in"].as_u64().unwrap())
    }

    /// Returns the member of its access token.
    async fn member(&self, setup: &Setup) -> String {
        let (token, _) = self.access("").await;
        let now = std::time::SystemTime::now();
        setup.google.verifier().access(&token, now).unwrap().member
    }
}

#[tokio::test]
async fn an_access_token_is_real_and_has_its_lifetime() {
    let setup = Setup::new().await;
    let target = setup.address("target");
    let server = Server::impersonating(&setup, &target).await;
    let (token, left) = server.access("").await;
    assert!((3590..=3600).contains(&left), "{left}");
    let access = setup
        .google
        .verifier()
        .access(&token, std::time::SystemTime::now())
        .unwrap();
    assert_eq!(access.member, format!("serviceAccount:{target}"));
    assert_eq!(access.scopes, [CLOUD_PLATFORM]);
    // Cached, by both names of the account.
    let named = server
        .get(&format!("{ROOT}/instance/service-accounts/{target}/token"))
        .await;
    assert_eq!(json(&named)["access_token"], token);
    assert_eq!(setup.google.count(Endpoint::GenerateAccessToken), 1);
}

#[tokio::test]
async fn scopes_are_those_that_the_library_requests() {
    let setup = Setup::new().await;
    let target = setup.address("target");
    let args = [
        "--credentials",
        "metadata",
        "--impersonate-service-account",
        &target,
    ];
    let server = Server::start(&setup, &args).await;
    server
        .access("?scopes=https://b.example/b,https://a.example/a")
        .await;
    let asked = setup.google.only(Endpoint::GenerateAccessToken).json();
    assert_eq!(
        asked["scope"],
        json!(["https://a.example/a", "https://b.example/b"])
    );
}

#[tokio::test]
async fn an_id_token_is_for_the_audience_that_the_library_requests() {
    let setup = Setup::new().await;
    let target = setup.address("target");
    let server = Server::impersonating(&setup, &target).await;
    let response = server
        .get(&format!(
            "{IDENTITY}?audience=https%3A%2F%2Fa.example&format=full"
        ))
        .await;
    assert_eq!(response.status(), 200, "{}", text(&response));
    assert_eq!(response.headers()["metadata-flavor"], "Google");
    let claims = Jwt::read(text(&response)).claims;
    assert_eq!(claims["aud"], "https://a.example");
    assert_eq!(claims["email"], target);
    for (query, words) in [
        ("", "non-empty audience parameter required"),
        ("?audience=", "non-empty audience parameter required"),
        ("?audience=a&format=short", "format parameter"),
        ("?audience=a%20b", "visible ASCII"),
    ] {
        let response = server.get(&format!("{IDENTITY}{query}")).await;
        assert_eq!(response.status(), 400, "{query}");
        assert!(text(&response).contains(words), "{}", text(&response));
    }
}

#[tokio::test]
async fn account_project_and_universe_are_those_of_the_credential() {
    let setup = Setup::new().await;
    setup
        .metadata
        .script(Kind::ProjectId, [Answer::ok("shop-1")]);
    let target = setup.address("target");
    let server = Server::impersonating(&setup, &target).await;
    for (path, expected) in [
        ("/instance/service-accounts/default/email", &*target),
        ("/project/project-id", "shop-1"),
        ("/universe/universe-domain", "googleapis.com"),
    ] {
        assert_eq!(
            text(&server.get(&format!("{ROOT}{path}")).await),
            expected,
            "{path}"
        );
    }
    let account = server
        .get(&format!(
            "{ROOT}/instance/service-accounts/default/?recursive=true"
        ))
        .await;
    assert_eq!(
        json(&account),
        json!({"aliases": ["default"], "email": target, "scopes": [CLOUD_PLATFORM]})
    );
    assert!(server.greeting.contains(&target), "{}", server.greeting);
    assert!(server.greeting.contains("shop-1"), "{}", server.greeting);
}

/// A shell may name another metadata server, such as an emulator. Its project is not that of the file.
#[tokio::test]
async fn facts_of_a_file_never_come_from_another_metadata_server() {
    let setup = Setup::new().await;
    for (path, value) in [
        ("/project/numeric-project-id", "4711"),
        ("/instance/region", "projects/4711/regions/us-central1"),
    ] {
        setup
            .metadata
            .script_path(&format!("{ROOT}{path}"), [Answer::ok(value)]);
    }
    let host = setup.metadata.address().to_string();
    let path = setup
        .google
        .file("credentials.json", &service_account(&setup.google));
    let args = ["--credentials", path.to_str().unwrap()];
    let server = Server::start_with(&setup, &args, &[("GCE_METADATA_HOST", &host)]).await;
    for path in ["/instance/region", "/instance/zone"] {
        let unknown = server.get(&format!("{ROOT}{path}")).await;
        assert_eq!(unknown.status(), 404, "{path}: {}", text(&unknown));
    }
    let number = format!("{ROOT}/project/numeric-project-id");
    let unknown = server.get(&number).await;
    assert_eq!(unknown.status(), 404, "{}", text(&unknown));
    let words = text(&unknown);
    assert!(words.contains("--project-number"), "{words}");
    assert!(setup.metadata.all_requests().is_empty());
}

/// gcloud takes a server for a metadata server if this value has digits only.
#[tokio::test]
async fn the_number_of_a_files_project_is_that_of_the_option() {
    let setup = Setup::new().await;
    let path = setup
        .google
        .file("credentials.json", &service_account(&setup.google));
    let file = path.to_str().unwrap();
    let args = ["--credentials", file, "--project-number", "4711"];
    let server = Server::start_with(&setup, &args, &[]).await;
    let number = format!("{ROOT}/project/numeric-project-id");
    assert_eq!(text(&server.get(&number).await), "4711");
    server.hang_up();
    server.said("real tokens of").await;
    assert_eq!(text(&server.get(&number).await), "4711");
}

#[tokio::test]
async fn sighup_reloads_the_credential_file_unless_it_is_invalid() {
    let setup = Setup::new().await;
    let server = Server::of_file(&setup, &authorized_user(&setup.google)).await;
    let user = format!("user:{}", setup.google.directory().user());
    assert_eq!(server.member(&setup).await, user);
    // An invalid file.
    setup.google.text_file("credentials.json", "{");
    server.hang_up();
    server.said("is not JSON").await;
    assert_eq!(server.member(&setup).await, user);
    // A file of another type.
    setup
        .google
        .file("credentials.json", &service_account(&setup.google));
    server.hang_up();
    server.said("real tokens of").await;
    let main = setup.google.directory().main().to_owned();
    // The account itself signs it.
    assert!(server.access("").await.0.starts_with("eyJ"));
    let email = server.get(EMAIL).await;
    assert_eq!(text(&email), main);
}

#[tokio::test]
async fn a_credential_file_is_served_and_its_limits_are_reported() {
    let setup = Setup::new().await;
    let identity = format!("{IDENTITY}?audience=https://a.example");
    let server = Server::of_file(&setup, &service_account(&setup.google)).await;
    let main = setup.google.directory().main().to_owned();
    let email = server.get(EMAIL).await;
    assert_eq!(text(&email), main);
    let project = server.get(&format!("{ROOT}/project/project-id")).await;
    assert_eq!(text(&project), setup.google.directory().project_id());
    assert_eq!(
        Jwt::read(text(&server.get(&identity).await)).claims["aud"],
        "https://a.example"
    );
    let server = Server::of_file(&setup, &authorized_user(&setup.google)).await;
    let user = format!("user:{}", setup.google.directory().user());
    assert_eq!(server.member(&setup).await, user);
    let refused = server.get(&identity).await;
    assert_eq!(refused.status(), 400, "{}", text(&refused));
    assert!(
        text(&refused).contains("--impersonate-service-account"),
        "{}",
        text(&refused)
    );
}

#[tokio::test]
async fn the_quota_project_of_a_login_is_not_served_as_its_project() {
    let setup = Setup::new().await;
    let google = &setup.google;
    for mut login in [
        authorized_user(google),
        google.external_account_authorized_user(&Endpoints::default()),
    ] {
        login["quota_project_id"] = json!("quota-1");
        let server = Server::of_file(&setup, &login).await;
        let project = server.get(&format!("{ROOT}/project/project-id")).await;
        assert_eq!(project.status(), 404, "{login}: {}", text(&project));
        assert!(
            !server.greeting.contains(", project "),
            "{}",
            server.greeting
        );
    }
}

#[tokio::test]
async fn the_scopes_of_the_account_are_those_of_a_token_without_requested_scopes() {
    let setup = Setup::new().await;
    let google = &setup.google;
    let mut with_scopes = google.impersonated(&Endpoints::default(), &service_account(google), &[]);
    with_scopes["scopes"] = json!(["https://b.example/b"]);
    let account = format!("{ROOT}/instance/service-accounts/default");
    for (file, scopes) in [
        (service_account(google), &[CLOUD_PLATFORM] as &[&str]),
        (with_scopes, &["https://b.example/b"]),
        // The file of a login does not name its scopes. Google's library for Python requires the field.
        (authorized_user(google), &[]),
        (
            google.external_account_authorized_user(&Endpoints::default()),
            &[],
        ),
    ] {
        let server = Server::of_file(&setup, &file).await;
        let listed = server.get(&format!("{account}/scopes")).await;
        assert_eq!(listed.status(), 200, "{file}");
        assert_eq!(text(&listed).lines().collect::<Vec<_>>(), scopes, "{file}");
        let all = server.get(&format!("{account}/?recursive=true")).await;
        assert_eq!(json(&all)["scopes"], json!(scopes), "{file}");
    }
}

/// With a login of gcloud, Google's library in the app requests the ID token of a service.
#[tokio::test]
async fn a_login_is_served_as_id_tokens_for_cloud_run_and_functions_only() {
    let setup = Setup::new().await;
    let login = authorized_user(&setup.google);
    let server = Server::of_file(&setup, &login).await;
    for service in [
        "https://private-424242.us-central1.run.app",
        "https://us-central1-example-project.cloudfunctions.net/hello",
    ] {
        let response = server.get(&format!("{IDENTITY}?audience={service}")).await;
        assert_eq!(response.status(), 200, "{service}: {}", text(&response));
        let claims = Jwt::read(text(&response)).claims;
        assert_eq!(claims["aud"], login["client_id"], "{service}");
    }
    for other in [
        "https://iap.example",
        "http://private-424242.us-central1.run.app",
        "https://private-424242.us-central1.run.app:8443",
        "https://run.app.evil.example",
        "424242-x.apps.googleusercontent.com",
    ] {
        let response = server.get(&format!("{IDENTITY}?audience={other}")).await;
        assert_eq!(response.status(), 400, "{other}: {}", text(&response));
        let why = text(&response);
        assert!(why.contains("--impersonate-service-account"), "{why}");
    }
}
