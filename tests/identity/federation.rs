//! Tokens of workload and workforce identity federation, with the strict endpoints.

mod aws;
mod executable;
mod faults;
mod sandbox;
mod slow;
mod workforce;

use std::ffi::OsString;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};

use crate::command::sidentity;
use crate::support::app::{json, proxied, text};
use crate::support::google::{Endpoint, Endpoints, Fault, Google, Role, SubjectSource, UNIVERSE};
use crate::support::metadata::Metadata;
use crate::support::proxy::Proxy;
use crate::support::sidecar::Sidecar;

const API: &str = "http://storage.googleapis.com/b";
const SERVICE: &str = "http://billing.a.run.app/";
const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";

const NO_ENV: [(OsString, OsString); 0] = [];

/// Starts a sidecar with this credential file.
pub(crate) async fn sidecar(google: &Google, file: &Value, args: &[&str]) -> Sidecar {
    sidecar_with(google, file, args, &[]).await
}

async fn sidecar_with(
    google: &Google,
    file: &Value,
    args: &[&str],
    env: &[(&str, &str)],
) -> Sidecar {
    let metadata = Metadata::start().await;
    let path = google.file("credentials.json", file);
    let flags = google.flags_for_all();
    let credentials = ["--credentials", path.to_str().unwrap()];
    let flags = flags.iter().map(String::as_str).chain(credentials);
    let all: Vec<&str> = flags.chain(args.iter().copied()).collect();
    Sidecar::start_with(&metadata, &all, env).await
}

/// Returns a file whose subject token is in a file, and that token.
pub(crate) fn file_sourced(google: &Google) -> (Value, String) {
    let subject = google.subject();
    let path = google.text_file("subject", &subject);
    let source = SubjectSource::File(&path);
    (
        google.external_account(&Endpoints::default(), source),
        subject,
    )
}

/// Returns the file without its service account.
pub(crate) fn without_account(mut file: Value) -> Value {
    file.as_object_mut()
        .unwrap()
        .remove("service_account_impersonation_url");
    file
}

pub(crate) async fn call(sidecar: &Sidecar, url: &str) -> Response<Bytes> {
    proxied(sidecar.proxy(), url, &[]).await
}

/// Returns the member and the scopes of a call to an API.
pub(crate) async fn called_as(sidecar: &Sidecar) -> Value {
    let response = call(sidecar, API).await;
    assert_eq!(response.status(), 200, "{}", text(&response));
    json(&response)["member"].clone()
}

/// Calls until an endpoint has received this number of requests. A token that has nearly expired is fetched again after
/// a moment.
pub(crate) async fn called_until(
    sidecar: &Sidecar,
    google: &Google,
    endpoint: Endpoint,
    count: usize,
) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while google.count(endpoint) < count {
        assert!(Instant::now() < deadline, "{:?}", google.called());
        assert_eq!(call(sidecar, API).await.status(), 200);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Returns the detail of the sidecar's own error.
#[track_caller]
pub(crate) fn detail(response: &Response<Bytes>) -> String {
    assert!(response.status().is_server_error(), "{}", text(response));
    json(response)["detail"].as_str().unwrap().to_owned()
}

fn account(google: &Google) -> String {
    format!("serviceAccount:{}", google.directory().address("target"))
}

fn principal(google: &Google) -> String {
    let pool = google.directory().pool();
    format!("principal:{pool}/subject/repo:example/shop")
}

#[tokio::test]
async fn a_subject_token_file_obtains_the_accounts_access_token() {
    let google = Google::start().await;
    let (mut file, subject) = file_sourced(&google);
    file["service_account_impersonation"] = json!({ "token_lifetime_seconds": 1200 });
    let sidecar = sidecar(&google, &file, &[]).await;
    assert_eq!(called_as(&sidecar).await, account(&google));
    let exchange = google.only(Endpoint::StsExchange);
    assert_eq!(exchange.host, "sts.googleapis.com");
    assert_eq!(exchange.path, "/v1/token");
    assert_eq!(exchange.header("authorization"), None);
    let audience = file["audience"].as_str().unwrap();
    let form: Value = exchange.form().into_iter().collect();
    assert_eq!(
        form,
        json!({
            "audience": audience,
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "scope": CLOUD_PLATFORM,
            "subject_token": subject,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        })
    );
    let asked = google.only(Endpoint::GenerateAccessToken);
    assert_eq!(
        asked.json(),
        json!({ "delegates": [], "lifetime": "1200s", "scope": [CLOUD_PLATFORM] })
    );
}

#[tokio::test]
async fn an_id_token_is_obtained_with_the_federated_token_directly() {
    let google = Google::start().await;
    let (file, _) = file_sourced(&google);
    let sidecar = sidecar(&google, &file, &[]).await;
    let answer = json(&call(&sidecar, SERVICE).await);
    assert_eq!(
        answer["id_token"]["email"],
        google.directory().address("target")
    );
    assert_eq!(answer["id_token"]["aud"], "https://billing.a.run.app");
    assert_eq!(
        google.called()[..2],
        [Endpoint::StsExchange, Endpoint::GenerateIdToken]
    );
    // One federated token serves for both an access token and an ID token.
    called_as(&sidecar).await;
    assert_eq!(google.count(Endpoint::StsExchange), 1);
    let id = google.only(Endpoint::GenerateIdToken);
    let access = google.only(Endpoint::GenerateAccessToken);
    assert_eq!(id.bearer(), access.bearer());
    assert_eq!(
        id.json(),
        json!({ "audience": "https://billing.a.run.app", "delegates": [], "includeEmail": true })
    );
}

#[tokio::test]
async fn without_an_account_the_federated_token_itself_is_sent() {
    let google = Google::start().await;
    let file = without_account(file_sourced(&google).0);
    let rule = "storage.googleapis.com=access,scope=s2,scope=s1";
    let sidecar = sidecar(&google, &file, &["--rule", rule]).await;
    let answer = json(&call(&sidecar, API).await);
    assert_eq!(answer["member"], principal(&google));
    assert_eq!(answer["scopes"], json!(["s1", "s2"]));
    assert_eq!(google.only(Endpoint::StsExchange).field("scope"), "s1 s2");
}

#[tokio::test]
async fn without_an_account_an_id_token_is_an_error_with_advice() {
    let google = Google::start().await;
    let file = without_account(file_sourced(&google).0);
    let sidecar = sidecar(&google, &file, &[]).await;
    let response = call(&sidecar, SERVICE).await;
    let detail = detail(&response);
    assert!(detail.contains("--impersonate-service-account"), "{detail}");
    assert!(detail.contains("https://billing.a.run.app"), "{detail}");
    assert!(google.called().is_empty(), "{:?}", google.called());
}

#[tokio::test]
async fn a_subject_token_comes_from_a_url_with_headers_and_a_json_field() {
    let google = Google::start().await;
    let base = google.base();
    let file = google.external_account(&Endpoints::default(), SubjectSource::Url(&base));
    let sidecar = sidecar(&google, &file, &[]).await;
    assert_eq!(called_as(&sidecar).await, account(&google));
    let asked = google.only(Endpoint::SubjectToken);
    assert!(
        asked
            .header("authorization")
            .unwrap()
            .starts_with("Bearer ")
    );
    assert_eq!(asked.method, "GET");
}

#[tokio::test]
async fn a_subject_token_file_is_read_at_every_exchange() {
    let google = Google::start().await;
    let (file, first) = file_sourced(&google);
    google.always(
        Endpoint::StsExchange,
        Fault::edit(|json| json["expires_in"] = 10.into()),
    );
    let sidecar = sidecar(&google, &without_account(file), &[]).await;
    called_as(&sidecar).await;
    google.skew(-30);
    let second = google.subject();
    google.text_file("subject", &second);
    google.skew(0);
    called_until(&sidecar, &google, Endpoint::StsExchange, 2).await;
    let exchanged = google.requests(Endpoint::StsExchange);
    assert_ne!(first, second);
    assert_eq!(exchanged[0].field("subject_token"), first);
    assert_eq!(exchanged[1].field("subject_token"), second);
}

#[tokio::test]
async fn another_account_is_impersonated_after_federation() {
    let google = Google::start().await;
    let (file, _) = file_sourced(&google);
    let last = google.directory().address("last");
    google.grant(&account(&google), &last, Role::TokenCreator);
    let sidecar = sidecar(&google, &file, &["--impersonate-service-account", &last]).await;
    assert_eq!(called_as(&sidecar).await, format!("serviceAccount:{last}"));
    let answer = json(&call(&sidecar, SERVICE).await);
    assert_eq!(answer["id_token"]["email"], last);
}

/// The federated principal has the role. The account needs no role on itself.
#[tokio::test]
async fn the_account_of_the_file_is_not_impersonated_twice() {
    let google = Google::start().await;
    let (file, _) = file_sourced(&google);
    let own = google.directory().address("target");
    let rules = [
        format!("storage.googleapis.com=access,impersonate={own}"),
        format!("billing.a.run.app=id,impersonate={own}"),
    ];
    for args in [
        vec!["--impersonate-service-account", &own],
        vec!["--rule", &rules[0], "--rule", &rules[1]],
    ] {
        let sidecar = sidecar(&google, &file, &args).await;
        assert_eq!(called_as(&sidecar).await, account(&google));
        let answer = json(&call(&sidecar, SERVICE).await);
        assert_eq!(answer["id_token"]["email"], own, "{answer}");
    }
    let asked = google.requests(Endpoint::GenerateAccessToken);
    assert_eq!(asked.len(), 2);
    for id in google.requests(Endpoint::GenerateIdToken) {
        assert!(asked.iter().any(|access| access.bearer() == id.bearer()));
    }
}

#[tokio::test]
async fn another_universe_has_its_own_endpoints() {
    let google = Google::start().await;
    let subject = google.text_file("subject", &google.subject());
    let endpoints = Endpoints::Universe(UNIVERSE.to_owned());
    let file = google.external_account(&endpoints, SubjectSource::File(&subject));
    let sidecar = sidecar(&google, &file, &[]).await;
    let response = call(&sidecar, &format!("http://storage.{UNIVERSE}/b")).await;
    assert_eq!(
        json(&response)["member"],
        account(&google),
        "{}",
        text(&response)
    );
    assert_eq!(
        google.only(Endpoint::StsExchange).host,
        format!("sts.{UNIVERSE}")
    );
}

#[tokio::test]
async fn endpoints_elsewhere_are_used_only_if_they_are_trusted() {
    let google = Google::start().await;
    let subject = google.text_file("subject", &google.subject());
    let endpoints = Endpoints::Base(google.base());
    let file = google.external_account(&endpoints, SubjectSource::File(&subject));
    let trust = ["--trust-credential-url", &google.base()];
    let sidecar = sidecar(&google, &file, &trust).await;
    assert_eq!(called_as(&sidecar).await, account(&google));
    assert!(!google.only(Endpoint::StsExchange).tls);
}

#[tokio::test]
async fn a_subject_token_url_of_this_machine_is_called_without_the_proxy() {
    let google = Google::start().await;
    let proxy = Proxy::to(google.tls_address()).await;
    let base = google.base();
    let file = google.external_account(&Endpoints::default(), SubjectSource::Url(&base));
    let path = google.file("credentials.json", &file);
    let (ca, url) = (google.ca(), format!("http://{}", proxy.address));
    let args = [
        "--credentials",
        path.to_str().unwrap(),
        "--upstream-ca",
        ca.to_str().unwrap(),
        "--upstream-proxy",
        &url,
    ];
    let sidecar = Sidecar::start(&Metadata::start().await, &args).await;
    assert_eq!(called_as(&sidecar).await, account(&google));
    let asked: Vec<_> = proxy
        .asked()
        .into_iter()
        .map(|asked| asked.target)
        .collect();
    for host in ["sts", "iamcredentials", "storage"] {
        let target = format!("{host}.googleapis.com:443");
        assert!(asked.contains(&target), "{asked:?}");
    }
    assert!(
        !asked.iter().any(|target| target.contains("127.0.0.1")),
        "{asked:?}"
    );
    assert_eq!(google.count(Endpoint::SubjectToken), 1);
}

#[tokio::test]
async fn an_id_token_without_an_account_is_a_configuration_error() {
    let google = Google::start().await;
    let federated = without_account(file_sourced(&google).0);
    let login = google.external_account_authorized_user(&Endpoints::default());
    let target = google.directory().address("target");
    for (name, file) in [("federated.json", &federated), ("login.json", &login)] {
        let path = google.file(name, file);
        let checked = |args: &[&str]| {
            let start = ["check", "--credentials", path.to_str().unwrap()];
            let args: Vec<String> = start
                .iter()
                .chain(args)
                .map(|arg| (*arg).to_owned())
                .collect();
            sidentity(args, NO_ENV)
        };
        for args in [
            ["--rule", "iap.example.com=id"],
            ["--rule", "*.run.app=id"],
            ["--route", "8081=https://billing.a.run.app"],
        ] {
            let ran = checked(&args).await;
            assert_eq!(ran.status, Some(64), "{args:?}: {ran:?}");
            assert!(ran.err.contains("--impersonate-service-account"), "{ran:?}");
            let remedied = [&args[..], &["--impersonate-service-account", &target]].concat();
            let ran = checked(&remedied).await;
            assert_eq!(ran.status, Some(0), "{args:?}: {ran:?}");
        }
        let ran = checked(&["--rule", "storage.googleapis.com=access"]).await;
        assert_eq!(ran.status, Some(0), "{ran:?}");
        let explain = [
            "explain",
            "--credentials",
            path.to_str().unwrap(),
            "https://billing.a.run.app",
        ];
        let ran = sidentity(explain, NO_ENV).await;
        assert_eq!(ran.status, Some(0), "{ran:?}");
        assert!(ran.out.contains("this token cannot be obtained"), "{ran:?}");
    }
}

#[tokio::test]
async fn fetches_are_counted_by_their_source() {
    let google = Google::start().await;
    let sidecar = sidecar(&google, &file_sourced(&google).0, &[]).await;
    called_as(&sidecar).await;
    let fetched = |source: &str| {
        format!(
            r#"sidentity_token_fetches_total{{credential="access",outcome="ok",source="{source}"}} 1"#
        )
    };
    sidecar.counted(&fetched("sts")).await;
    sidecar.counted(&fetched("impersonation")).await;
}

#[tokio::test]
async fn an_ambiguous_file_is_an_error() {
    let google = Google::start().await;
    let (mut file, _) = file_sourced(&google);
    file["quota_project_id"] = "example.com:shop".into();
    let secret = "https://user:secret@example.com/";
    let long = "p".repeat(200);
    let aws = google.external_account(&Endpoints::default(), SubjectSource::Aws);
    let url = google.external_account(&Endpoints::default(), SubjectSource::Url(&google.base()));
    let changed = |file: &Value, pointer: &str, value: Value| {
        let mut file = file.clone();
        let (object, name) = pointer.rsplit_once('/').unwrap();
        file.pointer_mut(object).unwrap()[name] = value;
        file
    };
    let check = async |file: &Value| {
        let path = google.file("meant.json", file).display().to_string();
        let base = google.base();
        let trust = ["--trust-credential-url", &base];
        let args = [&["check", "--credentials", &*path], &trust[..]].concat();
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        sidentity(args, NO_ENV).await
    };
    for file in [&file, &url] {
        let ran = check(file).await;
        assert_eq!(ran.status, Some(0), "{ran:?}");
    }
    let headers = "/credential_source/headers";
    for (field, file) in [
        (
            "credential_source.environment_id is missing",
            changed(&aws, "/credential_source/environment_id", Value::Null),
        ),
        (
            "quota_project_id",
            changed(&file, "/quota_project_id", secret.into()),
        ),
        (
            "quota_project_id",
            changed(&file, "/quota_project_id", long.into()),
        ),
        ("audience", changed(&file, "/audience", secret.into())),
        (
            "subject_token_type",
            changed(&file, "/subject_token_type", secret.into()),
        ),
        (
            "credential_source.headers",
            changed(&url, headers, json!({"Host": "x"})),
        ),
        (
            "credential_source.headers",
            changed(&url, headers, json!({"content-length": "0"})),
        ),
        (
            "credential_source.headers",
            changed(&url, headers, json!({"Transfer-Encoding": "x"})),
        ),
        (
            "credential_source.headers",
            changed(&url, headers, json!({"Connection": "close"})),
        ),
    ] {
        let ran = check(&file).await;
        assert_eq!(ran.status, Some(64), "{field}: {ran:?}");
        assert!(
            ran.err.contains(&format!("(external_account): {field}")),
            "{ran:?}"
        );
        assert!(!ran.err.contains("secret"), "{ran:?}");
    }
}
