//! Every kind of credential with every fault of its endpoint. Each test is a row, each function of `COLUMNS` a column.
//!
//! A fault either passes unnoticed, or the call fails with a message that names the endpoint and shows no secret.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::command::{Ran, sidentity};
use crate::support::app::{proxied, text};
use crate::support::google::{
    AWS_REGION, AWS_ROLE, Endpoint, Endpoints, Fault, Google, SubjectSource,
};
use crate::support::metadata::Metadata;
use crate::support::sidecar::Sidecar;
use crate::{RUN_APP, STORAGE, authorized_user, service_account};

/// A kind of credential.
#[derive(Clone, Copy)]
struct Row {
    /// The destination of a call that needs a token of the endpoint.
    url: &'static str,
    /// The endpoint that fails, and a part of its name in messages.
    endpoint: (Endpoint, &'static str),
    /// A valid credential. Tokens of identity providers are issued at the server's time, this long before.
    credential: fn(&Google, Duration) -> Credential,
    /// Makes its key wrong, with the keys of another Google.
    wrong_key: fn(&Google, &mut Credential),
    /// The seconds by which the server's clock is behind ours if it refuses what the sidecar signs; 0 if nothing is
    /// signed.
    refused_skew: i64,
    /// Whether the credential has a subject token that expires.
    expires: bool,
}

/// A credential file, the environment that belongs to it, and its secrets.
struct Credential {
    file: Value,
    env: Vec<(&'static str, String)>,
    secrets: Vec<String>,
}

/// Now: as [`Row::credential`] takes it.
const NOW: Duration = Duration::ZERO;
/// Longer ago than any token is valid.
const LONG_AGO: Duration = Duration::from_secs(2 * 3_600);

const SERVICE_ACCOUNT: Row = Row {
    url: RUN_APP,
    endpoint: (Endpoint::Token, "https://oauth2.googleapis.com/token"),
    credential: |google, _| Credential::of(service_account(google), &["private_key"]),
    wrong_key: |other, credential| {
        credential.file["private_key"] = service_account(other)["private_key"].clone();
    },
    refused_skew: -600,
    expires: false,
};

const AUTHORIZED_USER: Row = Row {
    url: STORAGE,
    endpoint: (Endpoint::Token, "https://oauth2.googleapis.com/token"),
    credential: |google, _| {
        Credential::of(authorized_user(google), &["refresh_token", "client_secret"])
    },
    wrong_key: |_, credential| credential.file["client_secret"] = "WRONG-SECRET".into(),
    refused_skew: 0,
    expires: false,
};

const IMPERSONATED: Row = Row {
    url: STORAGE,
    endpoint: (
        Endpoint::GenerateAccessToken,
        "iamcredentials.googleapis.com",
    ),
    credential: |google, _| {
        let source = service_account(google);
        let file = google.impersonated(&Endpoints::default(), &source, &[]);
        let key = source["private_key"].as_str().unwrap().to_owned();
        Credential {
            secrets: vec![key],
            ..Credential::of(file, &[])
        }
    },
    wrong_key: |other, credential| {
        let key = service_account(other)["private_key"].clone();
        credential.file["source_credentials"]["private_key"] = key;
    },
    refused_skew: -600,
    expires: false,
};

const WORKFORCE_USER: Row = Row {
    url: STORAGE,
    endpoint: (Endpoint::StsRefresh, "https://sts.googleapis.com"),
    credential: |google, _| {
        let file = google.external_account_authorized_user(&Endpoints::default());
        Credential::of(file, &["refresh_token", "client_secret"])
    },
    wrong_key: |_, credential| credential.file["client_secret"] = "WRONG-SECRET".into(),
    refused_skew: 0,
    expires: false,
};

/// `external_account`, whatever gives the subject token.
const FEDERATED: Row = Row {
    url: STORAGE,
    endpoint: (Endpoint::StsExchange, "https://sts.googleapis.com/v1/token"),
    credential: |google, ago| {
        let subject = issued(google, ago);
        let path = google.text_file("subject", &subject);
        let file = google.external_account(&Endpoints::default(), SubjectSource::File(&path));
        Credential {
            secrets: vec![subject],
            ..Credential::of(file, &[])
        }
    },
    wrong_key: |other, credential| {
        let path = credential.file["credential_source"]["file"]
            .as_str()
            .unwrap();
        std::fs::write(path, other.subject()).unwrap();
    },
    refused_skew: 0,
    expires: true,
};

const URL: Row = Row {
    endpoint: (Endpoint::SubjectToken, "/actions/id-token"),
    credential: |google, _| {
        let base = google.base();
        let file = google.external_account(&Endpoints::default(), SubjectSource::Url(&base));
        let secret = file["credential_source"]["headers"]["Authorization"].clone();
        let secret = secret.as_str().unwrap().replace("Bearer ", "");
        Credential {
            secrets: vec![secret],
            ..Credential::of(file, &[])
        }
    },
    wrong_key: |_, credential| {
        let headers = json!({ "Authorization": "Bearer WRONG-SECRET" });
        credential.file["credential_source"]["headers"] = headers;
    },
    expires: false,
    ..FEDERATED
};

const EXECUTABLE: Row = Row {
    credential: |google, ago| {
        let subject = issued(google, ago);
        Credential {
            env: vec![
                ("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1".to_owned()),
                ("PATH", "/usr/bin:/bin".to_owned()),
            ],
            ..Credential::of(printing(google, &subject), &[])
        }
    },
    wrong_key: |other, credential| credential.file = printing(other, &other.subject()),
    ..FEDERATED
};

const AWS_ENVIRONMENT: Row = Row {
    credential: |google, _| {
        let keys = google.aws_environment();
        let env = [
            ("AWS_ACCESS_KEY_ID", keys.id),
            ("AWS_SECRET_ACCESS_KEY", keys.secret),
        ];
        aws(google, Some(AWS_REGION), &env)
    },
    wrong_key: |_, credential| credential.set("AWS_SECRET_ACCESS_KEY", "WRONG-SECRET"),
    // Beyond the 15 minutes of AWS.
    refused_skew: -1_200,
    expires: false,
    ..FEDERATED
};

const AWS_INSTANCE: Row = Row {
    endpoint: (Endpoint::AwsMetadata, "http://169.254.169.254/"),
    credential: |google, _| aws(google, None, &[]),
    // Its keys are not in the file: the metadata service returns wrong ones.
    wrong_key: |_, _| {},
    ..AWS_ENVIRONMENT
};

const AWS_CONTAINER: Row = Row {
    endpoint: (Endpoint::AwsContainer, "http://169.254.170.2/"),
    credential: |google, _| {
        let env = [
            (
                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                "/v2/credentials/x".to_owned(),
            ),
            (
                "AWS_CONTAINER_AUTHORIZATION_TOKEN",
                google.aws_container_authorization(),
            ),
        ];
        aws(google, Some(AWS_REGION), &env)
    },
    wrong_key: |_, credential| {
        credential.set("AWS_CONTAINER_AUTHORIZATION_TOKEN", "WRONG-SECRET");
    },
    ..AWS_ENVIRONMENT
};

const AWS_WEB_IDENTITY: Row = Row {
    endpoint: (Endpoint::AwsAssumeRole, "sts.us-east-1.amazonaws.com"),
    credential: |google, ago| {
        let token = google.web_identity_token(google.now() - ago, 3_600);
        let token = token.unwrap();
        let path = google.text_file("web-identity", &token);
        let env = [
            ("AWS_WEB_IDENTITY_TOKEN_FILE", path.display().to_string()),
            (
                "AWS_ROLE_ARN",
                format!("arn:aws:iam::123456789012:role/{AWS_ROLE}"),
            ),
        ];
        Credential {
            secrets: vec![token],
            ..aws(google, Some(AWS_REGION), &env)
        }
    },
    wrong_key: |other, credential| {
        let token = other.web_identity_token(other.now(), 3_600).unwrap();
        let path = other.text_file("web-identity", &token);
        credential.set("AWS_WEB_IDENTITY_TOKEN_FILE", &path.display().to_string());
    },
    expires: true,
    ..AWS_ENVIRONMENT
};

/// A fault, and what is checked with it. It begins with endpoints that work.
struct Column {
    name: &'static str,
    check: fn(Cell) -> Checked,
}

const COLUMNS: [Column; 13] = [
    Column::new("no fault", |cell| Box::pin(no_fault(cell))),
    Column::new("exec", |cell| Box::pin(private_service_by_exec(cell))),
    Column::new("wrong key", |cell| Box::pin(wrong_key(cell))),
    Column::new("clock skew", |cell| Box::pin(clock_skew(cell))),
    Column::new("400", |cell| Box::pin(refused(cell, 400))),
    Column::new("401", |cell| Box::pin(refused(cell, 401))),
    Column::new("403", |cell| Box::pin(refused(cell, 403))),
    Column::new("429 with Retry-After", |cell| Box::pin(rate_limited(cell))),
    Column::new("500", |cell| Box::pin(failing(cell))),
    Column::new("torn JSON, redirect", |cell| Box::pin(malformed(cell))),
    Column::new("slow answer", |cell| Box::pin(slow(cell))),
    Column::new("expired subject token", |cell| Box::pin(expired(cell))),
    Column::new("changed file", |cell| Box::pin(changed_file(cell))),
];

/// A row with its endpoints, and another Google.
#[derive(Clone)]
struct Cell {
    row: Row,
    google: Google,
    other: Google,
}

type Checked = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

async fn check(row: Row) {
    let cell = Cell {
        row,
        google: Google::start().await,
        other: Google::start().await,
    };
    for column in COLUMNS {
        println!("column: {}", column.name);
        cell.google.heal();
        cell.google.skew(0);
        (column.check)(cell.clone()).await;
    }
}

macro_rules! rows {
    ($($name:ident: $row:expr;)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                check($row).await;
            }
        )*
    };
}

/// Each kind of credential is tested with every fault of its endpoint.
mod a_fault_passes_or_is_explained_with {
    use super::*;

    rows! {
        a_service_account_key: SERVICE_ACCOUNT;
        an_authorized_user: AUTHORIZED_USER;
        an_impersonated_service_account: IMPERSONATED;
        an_external_account_authorized_user: WORKFORCE_USER;
        an_external_account_from_a_file: FEDERATED;
        an_external_account_from_a_url: URL;
        an_external_account_from_an_executable: EXECUTABLE;
        an_external_account_from_the_aws_environment: AWS_ENVIRONMENT;
        an_external_account_from_an_aws_instance: AWS_INSTANCE;
        an_external_account_from_an_aws_container: AWS_CONTAINER;
        an_external_account_from_an_aws_web_identity: AWS_WEB_IDENTITY;
    }
}

async fn no_fault(cell: Cell) {
    cell.succeeds().await;
}

/// `exec -- curl` of a private service succeeds, or says why Google issues no ID token to a workforce user.
async fn private_service_by_exec(cell: Cell) {
    let curl = ["--", "curl", "-sS", RUN_APP];
    let ran = cell.command("exec", &cell.credential(), &curl).await;
    assert_eq!(ran.status, Some(0), "{ran:?}");
    let part = match cell.row.endpoint.0 {
        Endpoint::StsRefresh => "has no ID tokens of its own: impersonate a service account",
        _ => "\"id_token\":{\"aud\":",
    };
    assert!(ran.out.contains(part), "{ran:?}");
}

async fn wrong_key(cell: Cell) {
    let mut credential = cell.credential();
    (cell.row.wrong_key)(&cell.other, &mut credential);
    if matches!(cell.row.endpoint.0, Endpoint::AwsMetadata) {
        let wrong = Fault::edit(|json| json["SecretAccessKey"] = "WRONG-SECRET".into());
        cell.google.always(Endpoint::AwsMetadata, wrong);
    }
    let ran = cell.run(&credential).await;
    cell.is_explained(&credential, &ran, &[]);
}

async fn clock_skew(cell: Cell) {
    for skew in [600, -600] {
        cell.google.skew(skew);
        if skew != cell.row.refused_skew {
            cell.succeeds().await;
        }
    }
    if cell.row.refused_skew != 0 {
        cell.google.skew(cell.row.refused_skew);
        let credential = cell.credential();
        let ran = cell.run(&credential).await;
        cell.is_explained(&credential, &ran, &["this machine's clock is", "ahead of"]);
    }
}

async fn refused(cell: Cell, status: u16) {
    let body = json!({"error": "refused_by_test", "error_description": "in its words"});
    let fault = Fault::status(status, body.to_string());
    cell.google.always(cell.row.endpoint.0, fault);
    let before = cell.requests();
    let credential = cell.credential();
    let ran = cell.run(&credential).await;
    cell.explains(&credential, &ran, &[&status.to_string()]);
    // A caller's token that the IAM Credentials API rejects is replaced once.
    let most = match (status, cell.row.endpoint.0) {
        (401, Endpoint::GenerateAccessToken) => 2,
        _ => 1,
    };
    assert!(cell.requests() - before <= most, "{ran:?}");
}

async fn rate_limited(cell: Cell) {
    let fault = Fault::rate_limited(1);
    cell.google.script(cell.row.endpoint.0, [fault]);
    let start = Instant::now();
    cell.succeeds().await;
    assert!(start.elapsed() >= Duration::from_secs(1));
}

async fn failing(cell: Cell) {
    cell.google
        .script(cell.row.endpoint.0, [Fault::status(500, "oops")]);
    cell.succeeds().await;
}

async fn malformed(cell: Cell) {
    let redirect = Fault::redirect("https://evil.example/");
    for (fault, part) in [(Fault::torn_json(), "the response"), (redirect, "302")] {
        cell.google.always(cell.row.endpoint.0, fault);
        let credential = cell.credential();
        let ran = cell.run(&credential).await;
        cell.explains(&credential, &ran, &[part]);
        let all = cell.google.all_requests();
        assert!(all.iter().all(|request| request.host != "evil.example"));
    }
}

async fn slow(cell: Cell) {
    let late = Fault::none().after(Duration::from_secs(1));
    cell.google.script(cell.row.endpoint.0, [late]);
    cell.succeeds().await;
    cell.google.always(cell.row.endpoint.0, Fault::never());
    let credential = cell.credential();
    let ran = cell.run(&credential).await;
    cell.explains(&credential, &ran, &["no response within"]);
}

async fn expired(cell: Cell) {
    if cell.row.expires {
        let credential = (cell.row.credential)(&cell.google, LONG_AGO);
        let ran = cell.run(&credential).await;
        cell.explains(&credential, &ran, &["400"]);
        assert!(
            ran.err.contains("stale") || ran.err.contains("expired"),
            "{ran:?}"
        );
    }
}

/// The credential file is replaced while it is in use: it counts from SIGHUP on, and only if it is valid.
async fn changed_file(cell: Cell) {
    let credential = cell.credential();
    let path = cell.google.file("credentials.json", &credential.file);
    let metadata = Metadata::start().await;
    let mut args = cell.google.flags_for_all();
    args.extend(cell.trusted());
    args.extend(["--credentials".to_owned(), path.display().to_string()]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let env: Vec<(&str, &str)> = credential
        .env
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let sidecar = Sidecar::start_with(&metadata, &args, &env).await;
    let works = async |url: &str| {
        let response = proxied(sidecar.proxy(), &url.replace("https:", "http:"), &[]).await;
        assert_eq!(response.status(), 200, "{url}: {}", text(&response));
    };
    works(cell.row.url).await;
    cell.google.text_file("credentials.json", "{\"type\": TORN");
    works(cell.row.url).await;
    let before = sidecar.log().len();
    sidecar.signal("HUP");
    let line = sidecar
        .logged_since(before, |line| line["severity"] == "ERROR")
        .await;
    assert!(line.to_string().contains("is not JSON"), "{line}");
    assert!(!line.to_string().contains("TORN"), "{line}");
    works(cell.row.url).await;
    let mut file = credential.file.clone();
    file["quota_project_id"] = "another-project".into();
    cell.google.file("credentials.json", &file);
    let before = sidecar.log().len();
    sidecar.signal("HUP");
    let reloaded = |line: &Value| line.to_string().contains("reloaded:");
    sidecar.logged_since(before, reloaded).await;
    let fetched = cell.requests();
    works(cell.row.url).await;
    assert!(cell.requests() > fetched, "its tokens are new");
}

/// A subject token that was issued this long ago.
fn issued(google: &Google, ago: Duration) -> String {
    google.subject_token(google.now() - ago, 3_600).unwrap()
}

/// A file whose subject token a program prints.
fn printing(google: &Google, subject: &str) -> Value {
    let answer = json!({
        "version": 1,
        "success": true,
        "token_type": "urn:ietf:params:oauth:token-type:jwt",
        "id_token": subject,
    });
    let program = google.program("print-token", &format!("printf %s '{answer}'"));
    let source = SubjectSource::Executable(program.to_str().unwrap());
    google.external_account(&Endpoints::default(), source)
}

fn aws<const N: usize>(
    google: &Google,
    region: Option<&str>,
    env: &[(&'static str, String); N],
) -> Credential {
    let file = google.external_account(&Endpoints::default(), SubjectSource::Aws);
    let mut credential = Credential::of(file, &[]);
    credential.env = env.to_vec();
    if let Some(region) = region {
        credential.set("AWS_REGION", region);
    }
    let secret = |(name, _): &&(&str, String)| name.contains("SECRET") || name.contains("_TOKEN");
    let secrets = credential.env.iter().filter(secret);
    let secrets = secrets.filter(|(name, _)| !name.ends_with("_FILE"));
    credential.secrets = secrets.map(|(_, value)| value.clone()).collect();
    credential
}

// === impl Column ===

impl Column {
    const fn new(name: &'static str, check: fn(Cell) -> Checked) -> Self {
        Self { name, check }
    }
}

// === impl Credential ===

impl Credential {
    fn of(file: Value, secrets: &[&str]) -> Self {
        let text = |name: &&str| file[*name].as_str().unwrap().to_owned();
        Self {
            secrets: secrets.iter().map(text).collect(),
            env: Vec::new(),
            file,
        }
    }

    fn set(&mut self, name: &'static str, value: &str) {
        self.env.retain(|(known, _)| *known != name);
        self.env.push((name, value.to_owned()));
    }
}

// === impl Cell ===

impl Cell {
    fn credential(&self) -> Credential {
        (self.row.credential)(&self.google, NOW)
    }

    fn requests(&self) -> usize {
        self.google.count(self.row.endpoint.0)
    }

    /// The flags that accept the URL of a subject token on loopback.
    fn trusted(&self) -> Vec<String> {
        ["--trust-credential-url".to_owned(), self.google.base()].into()
    }

    /// Asks for a token.
    async fn run(&self, credential: &Credential) -> Ran {
        self.command("token", credential, &[self.row.url]).await
    }

    /// Runs a command with a credential, and with these arguments after the flags.
    async fn command(&self, name: &str, credential: &Credential, arguments: &[&str]) -> Ran {
        let path = self.google.file("credentials.json", &credential.file);
        let path = path.display().to_string();
        let mut args = [name, "--token-timeout=4s", "--credentials", &path]
            .map(str::to_owned)
            .to_vec();
        args.extend(self.google.flags_for_all());
        args.extend(self.trusted());
        args.extend(arguments.iter().map(ToString::to_string));
        let env = credential.env.iter();
        let env = env.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        sidentity(args, env.collect::<Vec<_>>()).await
    }

    async fn succeeds(&self) {
        let before = self.requests();
        let ran = self.run(&self.credential()).await;
        assert_eq!(ran.status, Some(0), "{ran:?}");
        assert!(self.requests() > before, "{ran:?}");
    }

    /// The message names the endpoint and these parts, and shows no secret.
    #[track_caller]
    fn explains(&self, credential: &Credential, ran: &Ran, parts: &[&str]) {
        assert!(ran.err.contains(self.row.endpoint.1), "{ran:?}");
        self.is_explained(credential, ran, parts);
    }

    /// The same, where the endpoint passes what is wrong on to the Security Token Service.
    #[track_caller]
    fn is_explained(&self, credential: &Credential, ran: &Ran, parts: &[&str]) {
        assert_eq!(ran.status, Some(1), "{ran:?}");
        assert_eq!(ran.out, "", "{ran:?}");
        let names = [self.row.endpoint.1, "https://sts.googleapis.com"];
        assert!(names.iter().any(|name| ran.err.contains(name)), "{ran:?}");
        for part in parts {
            assert!(ran.err.contains(part), "{part}: {ran:?}");
        }
        let wrong = ["WRONG-SECRET".to_owned()];
        for secret in credential.secrets.iter().chain(&wrong) {
            assert!(!ran.err.contains(&**secret), "{ran:?}");
        }
    }
}
