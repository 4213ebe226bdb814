//! Credential files of another universe: permitted endpoints, and the APIs that get their tokens.

use serde_json::{Value, json};

use super::command::{Ran, sidentity, var};
use super::federation::{call, sidecar};
use super::support::app::{get, json, text};
use super::support::google::{Endpoint, Endpoints, Google, SubjectSource, UNIVERSE};
use super::{STORAGE, authorized_user, service_account};

const SERVICE: &str = "http://billing.a.run.app/";
const VARIABLE: &str = "GOOGLE_CLOUD_UNIVERSE_DOMAIN";

/// A type of file, its content with these endpoints, and the first field with an endpoint.
type Kind = (&'static str, fn(&Google, &Endpoints) -> Value, &'static str);

/// Every type of file that exists in other universes.
const KINDS: [Kind; 4] = [
    (
        "service_account",
        |google, endpoints| google.service_account(endpoints).unwrap(),
        "token_uri",
    ),
    (
        "impersonated_service_account",
        |google, endpoints| {
            let source = google.service_account(endpoints).unwrap();
            google.impersonated(endpoints, &source, &[])
        },
        "source_credentials.token_uri",
    ),
    (
        "external_account",
        |google, endpoints| {
            let subject = google.text_file("subject", &google.subject());
            google.external_account(endpoints, SubjectSource::File(&subject))
        },
        "token_url",
    ),
    (
        "external_account_authorized_user",
        |google, endpoints| google.external_account_authorized_user(endpoints),
        "token_url",
    ),
];

fn other() -> Endpoints {
    Endpoints::Universe(UNIVERSE.to_owned())
}

/// Runs `check` with a file, further arguments, and the universe of the environment.
async fn check(google: &Google, file: &Value, args: &[&str], universe: Option<&str>) -> Ran {
    let path = google.file("universe.json", file);
    let start = ["check", "--credentials", path.to_str().unwrap()];
    let all: Vec<String> = start.iter().chain(args).map(ToString::to_string).collect();
    sidentity(all, universe.map(|universe| var(VARIABLE, universe))).await
}

#[tokio::test]
async fn the_endpoints_of_a_file_must_be_in_its_universe_or_trusted() {
    let google = Google::start().await;
    for (kind, file, field) in KINDS {
        let own = check(&google, &file(&google, &other()), &[], None).await;
        assert_eq!(own.status, Some(0), "{kind}: {own:?}");
        // Google's own hosts are foreign in another universe.
        let mut mixed = file(&google, &Endpoints::default());
        mixed["universe_domain"] = UNIVERSE.into();
        if let Some(source) = mixed.get_mut("source_credentials") {
            source["universe_domain"] = UNIVERSE.into();
        }
        let ran = check(&google, &mixed, &[], None).await;
        assert_eq!(ran.status, Some(64), "{kind}: {ran:?}");
        let said =
            format!("({kind}): {field}: an https URL of a host under {UNIVERSE} is expected");
        assert!(ran.err.contains(&said), "{ran:?}");
        let trusted = ["oauth2", "sts", "iamcredentials"]
            .map(|service| format!("--trust-credential-url=https://{service}.googleapis.com"));
        let trusted = trusted.each_ref().map(String::as_str);
        let ran = check(&google, &mixed, &trusted, None).await;
        assert_eq!(ran.status, Some(0), "{kind}: {ran:?}");
    }
}

#[tokio::test]
async fn a_universe_that_only_the_file_names_is_warned_of() {
    let google = Google::start().await;
    let warning = |kind: &str, path: &str| {
        format!(
            "the {kind} file {path:?} names the universe {UNIVERSE}, and GOOGLE_CLOUD_UNIVERSE_DOMAIN does not: its token \
             endpoints under {UNIVERSE} get the credential, and every host under {UNIVERSE} gets tokens. If this is your \
             universe, set GOOGLE_CLOUD_UNIVERSE_DOMAIN={UNIVERSE}; otherwise do not use the file"
        )
    };
    for (kind, file, _) in KINDS {
        let path = google.file("universe.json", &file(&google, &other()));
        let warning = warning(kind, path.to_str().unwrap());
        for variable in [None, Some("googleapis.com")] {
            let ran = check(&google, &file(&google, &other()), &[], variable).await;
            assert!(ran.err.contains(&warning), "{kind}: {ran:?}");
        }
        for (file, variable) in [
            (file(&google, &other()), Some("Example-Universe.test")),
            (file(&google, &Endpoints::default()), None),
            (file(&google, &Endpoints::default()), Some(UNIVERSE)),
        ] {
            let ran = check(&google, &file, &[], variable).await;
            assert_eq!(ran.err, "", "{kind} {variable:?}");
        }
    }
    let (kind, file, _) = KINDS[0];
    let sidecar = sidecar(&google, &file(&google, &other()), &[]).await;
    let status = json(&get(sidecar.admin(), "/status").await);
    let warnings = status["warnings"].to_string();
    let says = format!("names the universe {UNIVERSE}");
    assert!(warnings.contains(&says), "{kind}: {warnings}");
    let warned = |line: &Value| line["message"].to_string().contains(&says);
    let line = sidecar.logged(warned).await;
    assert_eq!(line["severity"], "WARNING", "{kind}: {line}");
}

#[tokio::test]
async fn a_file_without_a_universe_uses_that_of_the_environment() {
    let google = Google::start().await;
    for (kind, file, _) in KINDS {
        let mut silent = file(&google, &other());
        silent.as_object_mut().unwrap().remove("universe_domain");
        if let Some(source) = silent.get_mut("source_credentials") {
            source.as_object_mut().unwrap().remove("universe_domain");
        }
        let ran = check(&google, &silent, &[], Some(UNIVERSE)).await;
        assert_eq!(ran.status, Some(0), "{kind}: {ran:?}");
        let ran = check(&google, &silent, &[], None).await;
        assert_eq!(ran.status, Some(64), "{kind}: {ran:?}");
        assert!(
            ran.err.contains("a host under googleapis.com is expected"),
            "{ran:?}"
        );
        let loud = file(&google, &Endpoints::default());
        let ran = check(&google, &loud, &[], Some(UNIVERSE)).await;
        assert_eq!(ran.status, Some(0), "{kind}: {ran:?}");
    }
}

#[tokio::test]
async fn a_login_exists_in_the_universe_googleapis_com_only() {
    let google = Google::start().await;
    let file = authorized_user(&google);
    let mut silent = file.clone();
    silent.as_object_mut().unwrap().remove("universe_domain");
    let mut elsewhere = file.clone();
    elsewhere["universe_domain"] = UNIVERSE.into();
    let mut token_uri = file.clone();
    token_uri["token_uri"] = format!("https://oauth2.{UNIVERSE}/token").into();
    for (file, universe, refused) in [
        (&file, None, None),
        (&file, Some(UNIVERSE), None),
        (&silent, None, None),
        (
            &silent,
            Some(UNIVERSE),
            Some("universe_domain: googleapis.com"),
        ),
        (&elsewhere, None, Some("universe_domain: googleapis.com")),
        (
            &token_uri,
            None,
            Some("token_uri: an https URL of a host under googleapis.com"),
        ),
    ] {
        let ran = check(&google, file, &[], universe).await;
        let status = if refused.is_some() { 64 } else { 0 };
        assert_eq!(
            ran.status,
            Some(status),
            "{universe:?} {refused:?}: {ran:?}"
        );
        assert!(ran.err.contains(refused.unwrap_or_default()), "{ran:?}");
    }
}

/// Otherwise a person's token would be sent to the other universe's operator.
#[tokio::test]
async fn a_nested_file_must_be_of_the_same_universe() {
    let google = Google::start().await;
    let ours = Endpoints::default();
    let login = authorized_user(&google);
    let key = service_account(&google);
    let their_key = google.service_account(&other()).unwrap();
    for (outer, source) in [(&other(), &login), (&other(), &key), (&ours, &their_key)] {
        let file = google.impersonated(outer, source, &[]);
        let ran = check(&google, &file, &[], None).await;
        assert_eq!(ran.status, Some(64), "{outer:?}: {ran:?}");
        for field in ["universe_domain: ", "source_credentials"] {
            assert!(ran.err.contains(field), "{ran:?}");
        }
    }
    assert!(google.called().is_empty());
}

#[tokio::test]
async fn the_universe_of_the_file_decides_which_apis_get_its_tokens() {
    let google = Google::start().await;
    let theirs = format!("https://storage.{UNIVERSE}/");
    let path = google.file("ours.json", &service_account(&google));
    let ran = |url: &str| {
        let args = ["token", "--credentials", path.to_str().unwrap(), url];
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        sidentity(args, [var(VARIABLE, UNIVERSE)])
    };
    let own = ran(STORAGE).await;
    assert_eq!(own.status, Some(0), "{own:?}");
    let foreign = ran(&theirs).await;
    assert_eq!(foreign.status, Some(1), "{foreign:?}");
    assert_eq!(foreign.out, "", "{foreign:?}");
}

#[tokio::test]
async fn tokens_of_another_universe_come_from_its_endpoints() {
    for (kind, file, _) in KINDS {
        let google = Google::start().await;
        let args = ["--unmatched", "deny"];
        let sidecar = sidecar(&google, &file(&google, &other()), &args).await;
        let own = call(&sidecar, &format!("http://storage.{UNIVERSE}/b")).await;
        assert_eq!(own.status(), 200, "{kind}: {}", text(&own));
        let member = json(&own)["member"].clone();
        assert!(member.is_string(), "{kind}: {}", text(&own));
        assert!(google.only(Endpoint::Api).bearer().is_some(), "{kind}");
        // No built-in rule is for Google's own APIs.
        let foreign = call(&sidecar, "http://storage.googleapis.com/b").await;
        assert_eq!(foreign.status(), 403, "{kind}: {}", text(&foreign));
        let asked = google.all_requests();
        let asked = asked
            .iter()
            .filter(|asked| asked.endpoint != Some(Endpoint::Api));
        for asked in asked {
            assert!(asked.host.ends_with(UNIVERSE), "{kind}: {}", asked.host);
        }
    }
}

#[tokio::test]
async fn id_tokens_of_another_universe_are_issued_by_its_iam_credentials_api() {
    for (kind, file, _) in &KINDS[1..3] {
        let google = Google::start().await;
        let sidecar = sidecar(&google, &file(&google, &other()), &[]).await;
        let answer = json(&call(&sidecar, SERVICE).await);
        let target = google.directory().address("target");
        assert_eq!(answer["id_token"]["email"], target, "{kind}: {answer}");
        let asked = google.only(Endpoint::GenerateIdToken);
        assert_eq!(asked.host, format!("iamcredentials.{UNIVERSE}"), "{kind}");
        assert_eq!(
            asked.json(),
            json!({"audience": "https://billing.a.run.app", "delegates": [], "includeEmail": true})
        );
        // The caller's own token authorizes the call, so no token is issued for the account.
        assert_eq!(google.count(Endpoint::GenerateAccessToken), 0, "{kind}");
    }
}

#[tokio::test]
async fn the_advice_for_a_login_works_in_another_universe() {
    let google = Google::start().await;
    let target = google.directory().address("target");
    let file = google.external_account_authorized_user(&other());
    let args = ["--impersonate-service-account", &target];
    let sidecar = sidecar(&google, &file, &args).await;
    let answer = json(&call(&sidecar, SERVICE).await);
    assert_eq!(answer["id_token"]["email"], target, "{answer}");
    let asked = google.only(Endpoint::GenerateIdToken);
    assert_eq!(asked.host, format!("iamcredentials.{UNIVERSE}"));
}
