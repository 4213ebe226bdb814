//! `metadata-server --credentials`: real tokens by the metadata protocol.

use std::net::SocketAddr;
use std::process::Stdio;

use bytes::Bytes;
use http::{Method, Request, Response};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::client::CLOUD_PLATFORM;
use crate::command::{sidentity, var};
use crate::impersonation::Setup;
use crate::support::app::{json, send, text};
use crate::support::google::{Endpoint, Fault, Jwt};
use crate::support::metadata::{Answer, Kind};
use crate::{authorized_user, service_account};

const FLAVOR: (&str, &str) = ("metadata-flavor", "Google");
const ROOT: &str = "/computeMetadata/v1";

/// A running server; it is killed with the test.
pub(crate) struct Server {
    address: SocketAddr,
    greeting: String,
    _child: Child,
}

impl Server {
    /// Starts it with the tokens of the metadata server of `setup`, and waits until it listens.
    async fn start(setup: &Setup, args: &[&str]) -> Self {
        let host = setup.metadata.address().to_string();
        Self::start_with(setup, args, &[("GCE_METADATA_HOST", &host)]).await
    }

    pub(crate) async fn start_with(setup: &Setup, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sidentity"))
            .args(["metadata-server", "--listen", "127.0.0.1:0"])
            .args(setup.google.flags())
            .args(args)
            .env_clear()
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let greeting = lines.next_line().await.unwrap().expect("a greeting");
        let address = greeting.split_whitespace().nth(3).unwrap();
        Self {
            address: address.trim_end_matches(':').parse().unwrap(),
            greeting,
            _child: child,
        }
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

    /// An access token, with the seconds that it has left.
    pub(crate) async fn access(&self, query: &str) -> (String, u64) {
        let path = format!("{ROOT}/instance/service-accounts/default/token{query}");
        let response = self.get(&path).await;
        assert_eq!(response.status(), 200, "{}", text(&response));
        let answer = json(&response);
        assert_eq!(answer["token_type"], "Bearer");
        let token = answer["access_token"].as_str().unwrap();
        (token.to_owned(), answer["expires_in"].as_u64().unwrap())
    }
}

#[tokio::test]
async fn an_access_token_is_real_and_says_how_long_it_is_valid() {
    let setup = Setup::new().await;
    let target = setup.address("target");
    let args = [
        "--credentials",
        "auto",
        "--impersonate-service-account",
        &target,
    ];
    let server = Server::start(&setup, &args).await;
    let (token, left) = server.access("").await;
    assert!((3590..=3600).contains(&left), "{left}");
    let access = setup
        .google
        .verifier()
        .access(&token, std::time::SystemTime::now())
        .unwrap();
    assert_eq!(access.member, format!("serviceAccount:{target}"));
    assert_eq!(access.scopes, [CLOUD_PLATFORM]);
    // Cached, and by either name of the account.
    let named = server
        .get(&format!("{ROOT}/instance/service-accounts/{target}/token"))
        .await;
    assert_eq!(json(&named)["access_token"], token);
    assert_eq!(setup.google.count(Endpoint::GenerateAccessToken), 1);
}

#[tokio::test]
async fn scopes_are_those_that_the_library_asks_for() {
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
async fn an_id_token_is_for_the_audience_that_the_library_asks_for() {
    let setup = Setup::new().await;
    let target = setup.address("target");
    let args = [
        "--credentials",
        "auto",
        "--impersonate-service-account",
        &target,
    ];
    let server = Server::start(&setup, &args).await;
    let identity = format!("{ROOT}/instance/service-accounts/default/identity");
    let response = server
        .get(&format!(
            "{identity}?audience=https%3A%2F%2Fa.example&format=full"
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
        let response = server.get(&format!("{identity}{query}")).await;
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
    let args = [
        "--credentials",
        "auto",
        "--impersonate-service-account",
        &target,
    ];
    let server = Server::start(&setup, &args).await;
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

#[tokio::test]
async fn what_a_page_or_a_proxy_could_forge_is_refused() {
    let setup = Setup::new().await;
    let server = Server::start(&setup, &["--credentials", "auto"]).await;
    let token = format!("{ROOT}/instance/service-accounts/default/token");
    for headers in [
        &[][..],
        &[("metadata-flavor", "google")],
        &[FLAVOR, ("x-forwarded-for", "10.0.0.1")],
    ] {
        let response = server.get_with(&token, headers).await;
        assert_eq!(response.status(), 403, "{headers:?}");
    }
    let post = Request::builder()
        .method(Method::POST)
        .uri(&token)
        .header("host", "x")
        .header(FLAVOR.0, FLAVOR.1)
        .body(Bytes::new());
    assert_eq!(send(server.address, post.unwrap()).await.status(), 405);
    assert_eq!(setup.metadata.count(Kind::Access), 0);
    // Nothing of the emulator is here.
    for path in [
        "/oauth2/v3/certs",
        "/token",
        "/.well-known/openid-configuration",
    ] {
        assert_eq!(server.get(path).await.status(), 404, "{path}");
    }
    let probe = server.get_with("/", &[]).await;
    assert_eq!(probe.headers()["metadata-flavor"], "Google");
}

#[tokio::test]
async fn an_error_of_the_source_is_the_servers_with_its_words() {
    for (fault, status, words) in [
        (
            Fault::api(403, "PERMISSION_DENIED", "no"),
            403,
            "roles/iam.serviceAccountTokenCreator",
        ),
        (
            Fault::api(404, "NOT_FOUND", "no"),
            403,
            "is there a service account",
        ),
        (Fault::rate_limited(20), 429, "Quota exceeded"),
        (Fault::torn_json(), 502, "not a JSON object"),
        (
            Fault::api(400, "INVALID_ARGUMENT", "bad scope"),
            400,
            "bad scope",
        ),
    ] {
        let setup = Setup::new().await;
        setup.google.always(Endpoint::GenerateAccessToken, fault);
        let target = setup.address("target");
        let args = [
            "--credentials",
            "auto",
            "--impersonate-service-account",
            &target,
        ];
        let server = Server::start(&setup, &args).await;
        let path = format!("{ROOT}/instance/service-accounts/default/token");
        let response = server.get(&path).await;
        assert_eq!(response.status(), status, "{}", text(&response));
        assert!(text(&response).contains(words), "{}", text(&response));
        assert!(status != 429 || response.headers().contains_key("retry-after"));
    }
}

#[tokio::test]
async fn only_loopback_is_listened_on_unless_allowed() {
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
async fn options_of_real_tokens_need_credentials_and_exclude_those_of_the_emulator() {
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
async fn it_does_not_ask_itself_for_tokens() {
    let args = [
        "metadata-server",
        "--credentials",
        "auto",
        "--listen",
        "127.0.0.1:8999",
    ];
    let ran = sidentity(args, [var("GCE_METADATA_HOST", "localhost:8999")]).await;
    assert_eq!(ran.status, Some(64), "{ran:?}");
    assert!(ran.err.contains("is this server itself"), "{ran:?}");
}

#[tokio::test]
async fn a_credential_file_is_served_with_its_account_and_what_it_cannot_give_is_said() {
    let setup = Setup::new().await;
    let identity =
        format!("{ROOT}/instance/service-accounts/default/identity?audience=https://a.example");
    let key = setup
        .google
        .file("key.json", &service_account(&setup.google));
    let key = key.display().to_string();
    let server = Server::start_with(&setup, &["--credentials", &key], &[]).await;
    let main = setup.google.directory().main().to_owned();
    let email = server
        .get(&format!("{ROOT}/instance/service-accounts/default/email"))
        .await;
    assert_eq!(text(&email), main);
    let project = server.get(&format!("{ROOT}/project/project-id")).await;
    assert_eq!(text(&project), setup.google.directory().project_id());
    assert_eq!(
        Jwt::read(text(&server.get(&identity).await)).claims["aud"],
        "https://a.example"
    );
    let login = setup
        .google
        .file("login.json", &authorized_user(&setup.google));
    let login = login.display().to_string();
    let server = Server::start_with(&setup, &["--credentials", &login], &[]).await;
    let (token, _) = server.access("").await;
    let access = setup
        .google
        .verifier()
        .access(&token, std::time::SystemTime::now())
        .unwrap();
    assert_eq!(
        access.member,
        format!("user:{}", setup.google.directory().user())
    );
    let refused = server.get(&identity).await;
    assert_eq!(refused.status(), 400, "{}", text(&refused));
    assert!(
        text(&refused).contains("--impersonate-service-account"),
        "{}",
        text(&refused)
    );
}
