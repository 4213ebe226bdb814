//! The credential's type, file, account, chain and project in every output.

use std::ffi::OsString;

use serde_json::{Value, json};

use crate::command::{sidentity, var};
use crate::federation::{file_sourced, without_account};
use crate::impersonation::Setup;
use crate::support::app::{self, json, proxied, text};
use crate::support::google::{Endpoint, Endpoints, Fault, Google};
use crate::support::metadata::{Answer, Kind};
use crate::{authorized_user, service_account};

const API: &str = "http://storage.googleapis.com/b";

/// A credential, flags, and the expected names in each output.
struct Case {
    name: &'static str,
    /// `None` means the metadata server.
    file: Option<fn(&Google) -> Value>,
    impersonates: Impersonates,
    /// `TARGET`, `DELEGATE`, `MAIN`, `POOL` and `FILE` are placeholders of the test's values.
    named: &'static [&'static str],
}

#[derive(Clone, Copy, PartialEq)]
enum Impersonates {
    Nothing,
    Globally,
    ByRule,
}

fn user_with_account(google: &Google) -> Value {
    let mut file = authorized_user(google);
    file["account"] = json!("jane@example.com");
    file["quota_project_id"] = json!("quota-1");
    file
}

fn nested(google: &Google) -> Value {
    let delegate = google.directory().address("delegate");
    google.impersonated(
        &Endpoints::default(),
        &service_account(google),
        &[&delegate],
    )
}

fn nested_user(google: &Google) -> Value {
    google.impersonated(&Endpoints::default(), &user_with_account(google), &[])
}

fn workforce(google: &Google) -> Value {
    google.external_account_authorized_user(&Endpoints::default())
}

fn federated(google: &Google) -> Value {
    file_sourced(google).0
}

fn federated_alone(google: &Google) -> Value {
    without_account(file_sourced(google).0)
}

const CASES: &[Case] = &[
    Case {
        name: "service_account",
        file: Some(service_account),
        impersonates: Impersonates::Nothing,
        named: &["service_account", "FILE", "MAIN", "project example-project"],
    },
    Case {
        name: "authorized_user",
        file: Some(user_with_account),
        impersonates: Impersonates::Nothing,
        named: &[
            "authorized_user",
            "FILE",
            "jane@example.com",
            "project quota-1",
        ],
    },
    Case {
        name: "impersonated_service_account",
        file: Some(nested),
        impersonates: Impersonates::Nothing,
        named: &[
            "impersonated_service_account",
            "FILE",
            "account TARGET",
            "impersonated by the service_account MAIN through DELEGATE",
            "project example-project",
        ],
    },
    Case {
        name: "impersonated_service_account of a login",
        file: Some(nested_user),
        impersonates: Impersonates::Nothing,
        named: &[
            "impersonated_service_account",
            "FILE",
            "account TARGET",
            "impersonated by the authorized_user jane@example.com",
            "project example-project",
        ],
    },
    Case {
        name: "external_account",
        file: Some(federated),
        impersonates: Impersonates::Nothing,
        named: &[
            "external_account",
            "FILE",
            "account TARGET",
            "impersonated by the federated principal of POOL",
            "project example-project",
        ],
    },
    Case {
        name: "external_account without an account",
        file: Some(federated_alone),
        impersonates: Impersonates::Nothing,
        named: &[
            "external_account",
            "FILE",
            "the federated principal of POOL",
        ],
    },
    Case {
        name: "external_account_authorized_user",
        file: Some(workforce),
        impersonates: Impersonates::Nothing,
        named: &["external_account_authorized_user", "FILE", "workforce pool"],
    },
    Case {
        name: "metadata server",
        file: None,
        impersonates: Impersonates::Nothing,
        named: &["metadata", "MAIN", "example-project"],
    },
    Case {
        name: "metadata server, globally",
        file: None,
        impersonates: Impersonates::Globally,
        named: &[
            "metadata",
            "MAIN",
            "TARGET",
            "through DELEGATE",
            "example-project",
        ],
    },
    Case {
        name: "metadata server, by rule",
        file: None,
        impersonates: Impersonates::ByRule,
        named: &[
            "metadata",
            "MAIN",
            "TARGET",
            "through DELEGATE",
            "example-project",
        ],
    },
    Case {
        name: "service_account, globally",
        file: Some(service_account),
        impersonates: Impersonates::Globally,
        named: &[
            "service_account",
            "FILE",
            "TARGET",
            "impersonated by MAIN through DELEGATE",
            "project example-project",
        ],
    },
    Case {
        name: "service_account, by rule",
        file: Some(service_account),
        impersonates: Impersonates::ByRule,
        named: &[
            "service_account",
            "FILE",
            "TARGET",
            "impersonated by MAIN through DELEGATE",
            "project example-project",
        ],
    },
    Case {
        name: "authorized_user, globally",
        file: Some(user_with_account),
        impersonates: Impersonates::Globally,
        named: &[
            "authorized_user",
            "FILE",
            "TARGET",
            "impersonated by jane@example.com through DELEGATE",
            "quota-1",
        ],
    },
];

impl Case {
    fn args(&self, setup: &Setup) -> Vec<String> {
        let mut args = Vec::new();
        if let Some(file) = self.file {
            let path = setup.google.file("credentials.json", &file(&setup.google));
            args.extend(["--credentials".to_owned(), path.display().to_string()]);
        }
        let [delegate, target] = ["delegate", "target"].map(|name| setup.address(name));
        match self.impersonates {
            Impersonates::Nothing => {}
            Impersonates::Globally => args.extend([
                "--impersonate-service-account".to_owned(),
                format!("{delegate},{target}"),
            ]),
            Impersonates::ByRule => args.extend([
                "--rule".to_owned(),
                format!("storage.googleapis.com=access,delegate={delegate},impersonate={target}"),
            ]),
        }
        args
    }

    #[track_caller]
    fn assert_named(&self, setup: &Setup, output: &str, said: &str) {
        for part in self.named {
            let part = part
                .replace("TARGET", &setup.address("target"))
                .replace("DELEGATE", &setup.address("delegate"))
                .replace("MAIN", setup.google.directory().main())
                .replace("POOL", &setup.google.directory().pool())
                .replace("FILE", "credentials.json");
            let said = said.replace("\\\"", "\"");
            assert!(
                said.contains(&part),
                "{}: {output} has no {part:?}: {said}",
                self.name
            );
        }
    }
}

async fn command(setup: &Setup, command: &[&str], args: &[String]) -> String {
    let mut all: Vec<OsString> = vec![command[0].into()];
    all.extend(setup.google.flags_for_all().into_iter().map(Into::into));
    all.extend(args.iter().map(Into::into));
    all.extend(command[1..].iter().map(Into::into));
    let host = setup.metadata.address().to_string();
    let ran = sidentity(all, [var("GCE_METADATA_HOST", host)]).await;
    assert_eq!(ran.status, Some(0), "{command:?}: {ran:?}");
    ran.out
        .split_whitespace()
        .chain(ran.err.split_whitespace())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The main account, its project, and tokens.
async fn setup() -> Setup {
    let setup = Setup::new().await;
    let project = setup.google.directory().project_id().to_owned();
    setup
        .metadata
        .script(Kind::ProjectId, [Answer::ok(project)]);
    setup
}

#[tokio::test]
async fn commands_name_kind_file_account_chain_and_project() {
    for case in CASES {
        let setup = setup().await;
        let args = case.args(&setup);
        let of_metadata = case.file.is_none();
        // Without a fetch, the account of the metadata server is unknown.
        if !of_metadata {
            let said = command(&setup, &["check"], &args).await;
            case.assert_named(&setup, "check", &said);
        }
        for asked in [
            &["explain", API] as &[&str],
            &["explain", "--json", API],
            &["token", API],
        ] {
            let said = command(&setup, asked, &args).await;
            case.assert_named(&setup, asked[0], &said);
        }
    }
}

#[tokio::test]
async fn a_sidecar_names_kind_file_account_chain_and_project() {
    for case in CASES {
        let setup = setup().await;
        setup.google.always(Endpoint::Api, Fault::status(403, "no"));
        let args = case.args(&setup);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let sidecar = setup.sidecar(&args).await;
        let response = proxied(sidecar.proxy(), API, &[]).await;
        assert_eq!(response.status(), 403, "{}: {}", case.name, text(&response));

        let status = json(&app::get(sidecar.admin(), "/status").await);
        let mut said = status["identity"].to_string();
        if case.impersonates == Impersonates::ByRule {
            said += &status["rules"].to_string();
            said = said.replace("the base credential", setup.google.directory().main());
        }
        case.assert_named(&setup, "status", &said);

        let rejected = sidecar.logged(|line| line["status"] == 403).await;
        case.assert_named(&setup, "the log of a 403", &rejected.to_string());

        let start = sidecar.log();
        let start: Vec<String> = start
            .iter()
            .filter(|line| line["status"].is_null())
            .map(|line| line["message"].to_string())
            .collect();
        case.assert_named(&setup, "start-up log", &start.join("\n"));

        let admin = sidecar.admin().to_string();
        let ran = sidentity(["health", "--admin", &admin], [var("X", "x")]).await;
        assert_eq!(ran.status, Some(0), "{ran:?}");
        if case.impersonates != Impersonates::ByRule {
            case.assert_named(&setup, "health", &ran.out);
        }
    }
}

#[tokio::test]
async fn explain_names_the_roles_of_a_chain_in_a_file() {
    const CREATOR: &str = "roles/iam.serviceAccountTokenCreator";
    let google = Google::start().await;
    let directory = google.directory();
    let main = directory.main();
    let (delegate, target) = (directory.address("delegate"), directory.address("target"));
    let audience = federated(&google)["audience"].clone();
    let principal = format!("the federated principal of {}", audience.as_str().unwrap());
    let iap = "--rule=iap.example=id,token=jwt";
    for (file, args, expected) in [
        (
            nested(&google),
            vec![API],
            vec![
                format!("{main} needs {CREATOR} on {delegate}"),
                format!("{delegate} needs {CREATOR} on {target}"),
            ],
        ),
        (
            nested_user(&google),
            vec![API],
            vec![format!("jane@example.com needs {CREATOR} on {target}")],
        ),
        (
            federated(&google),
            vec![API],
            vec![format!(
                "{principal} needs roles/iam.workloadIdentityUser on {target}"
            )],
        ),
        (
            federated(&google),
            vec![iap, "https://iap.example/"],
            vec![
                format!("{principal} needs roles/iam.workloadIdentityUser on {target}"),
                format!("{target} needs {CREATOR} on itself, to sign"),
            ],
        ),
        (
            federated(&google),
            vec!["--impersonate-service-account=x@p.example", API],
            vec![
                format!("{principal} needs roles/iam.workloadIdentityUser on {target}"),
                format!("{target} needs {CREATOR} on x@p.example"),
            ],
        ),
        (
            federated(&google),
            vec!["--impersonate-service-account=TARGET", API],
            vec![format!(
                "{principal} needs roles/iam.workloadIdentityUser on {target}"
            )],
        ),
        (service_account(&google), vec![API], vec![]),
    ] {
        let args: Vec<String> = args
            .iter()
            .map(|arg| arg.replace("TARGET", &target))
            .collect();
        let args: Vec<&str> = ["explain", "--json"]
            .into_iter()
            .chain(args.iter().map(String::as_str))
            .collect();
        let ran = crate::run_with(&google, &file, &args).await;
        let explained: Value = serde_json::from_str(&ran.out).unwrap();
        let notes = explained["notes"].as_array().unwrap().iter();
        let roles: Vec<&str> = notes
            .filter_map(Value::as_str)
            .filter(|note| note.contains(" needs roles/iam."))
            .collect();
        assert_eq!(roles, expected, "{args:?}");
    }
}
