use proptest::prelude::*;

use super::*;
use crate::policy::{Options, Pattern, Rule, ServiceName, Settings};

mod readings;

fn options(all: &[(&str, &str)]) -> Options {
    let mut options = Options::default();
    for (name, value) in all {
        options.set(name, value).unwrap();
    }
    options
}

fn policy() -> Policy {
    let rules = [
        (
            "iap.test",
            &[
                ("credential", "id"),
                ("audience", "1-x.apps.googleusercontent.com"),
            ][..],
        ),
        ("port.test:443", &[("credential", "id")]),
        (
            "dev.test",
            &[
                ("credential", "id"),
                ("plaintext", "allow"),
                ("account", "a@b.c"),
            ],
        ),
        ("no.test", &[("credential", "deny")]),
        (
            "own.test",
            &[
                ("credential", "access"),
                ("scope", "b"),
                ("scope", "a"),
                ("header", "proxy-authorization"),
            ],
        ),
        ("https80.test", &[("credential", "id")]),
    ];
    let rules = rules
        .into_iter()
        .map(|(pattern, all)| Rule {
            pattern: Pattern::parse(pattern).unwrap(),
            options: options(all),
            name: format!("--rule {pattern}").into(),
        })
        .collect();
    Policy::new(rules, Settings::default())
}

fn route(name: &str, url: Option<&str>, upstream: &str, all: &[(&str, &str)]) -> RouteEntry {
    RouteEntry {
        name: name.into(),
        url: url.map(|url| Destination::parse(url).unwrap()),
        upstream: Destination::parse(upstream).unwrap(),
        service: None,
        options: options(all),
    }
}

fn entry_points() -> EntryPoints {
    EntryPoints {
        proxy: Some("127.0.0.1:3128".to_owned()),
        intercept: false,
        ca_dir: None,
        egress: None,
        routes: vec![
            route(
                "8081",
                Some("http://localhost:8081"),
                "https://billing.a.run.app/base/",
                &[],
            ),
            route(
                "8081/b",
                Some("http://localhost:8081/b"),
                "https://api.test",
                &[("credential", "id")],
            ),
            route(
                "unix:/run/x.sock",
                None,
                "https://gcr.io",
                &[("credential", "access")],
            ),
        ],
    }
}

fn said(url: &str) -> Explanation {
    explain(
        url,
        &policy(),
        "googleapis.com",
        &ServiceLocation::default(),
        &entry_points(),
    )
    .unwrap()
}

fn notes(url: &str) -> String {
    said(url).notes.join("\n")
}

#[test]
fn the_json_has_exactly_the_documented_keys() {
    let json = serde_json::to_value(said("https://canary---svc-1.us-central1.run.app/x")).unwrap();
    let keys: Vec<_> = json
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let mut expected = [
        "url",
        "destination",
        "credential",
        "audience",
        "scopes",
        "header",
        "rule",
        "how",
        "notes",
    ];
    expected.sort_unstable();
    let mut keys = keys;
    keys.sort_unstable();
    assert_eq!(keys, expected);
    assert_eq!(json["url"], "https://canary---svc-1.us-central1.run.app/x");
    assert_eq!(
        json["destination"],
        "https://canary---svc-1.us-central1.run.app"
    );
    assert_eq!(json["credential"], "id");
    assert_eq!(json["audience"], "https://svc-1.us-central1.run.app");
    assert_eq!(json["scopes"], serde_json::json!([]));
    assert_eq!(json["header"], "Authorization");
    assert_eq!(json["rule"], "built-in *.run.app");

    let json = serde_json::to_value(said("http://storage.googleapis.com/b")).unwrap();
    assert_eq!(json["destination"], "https://storage.googleapis.com");
    assert_eq!(json["credential"], "access");
    assert_eq!(json["audience"], serde_json::Value::Null);
    assert_eq!(json["scopes"], serde_json::json!([CLOUD_PLATFORM]));

    let json = serde_json::to_value(said("https://example.com/")).unwrap();
    assert_eq!(
        (&json["credential"], &json["header"]),
        (&"none".into(), &serde_json::Value::Null)
    );
}

#[test]
fn the_text_output_is_aligned() {
    let text = said("https://svc.a.run.app/").to_string();
    assert!(text.starts_with("url          https://svc.a.run.app/\ndestination  https://svc.a.run.app\ncredential   id\naudience     https://svc.a.run.app\nheader       Authorization\nrule         built-in *.run.app\nhow          Call "), "{text}");
    assert!(
        text.lines().all(|line| line.chars().nth(12) == Some(' ')),
        "{text}"
    );
    assert_eq!(
        said("https://own.test/")
            .to_string()
            .matches("\nscope        ")
            .count(),
        2
    );
}

#[test]
fn how_to_call_shows_the_exact_url_and_flag() {
    let how = said("https://svc.a.run.app/x?y=1").how;
    assert!(
        how.contains("Call http://svc.a.run.app/x?y=1 with HTTP_PROXY=http://127.0.0.1:3128"),
        "{how}"
    );
    assert!(
        how.contains(
            "blind tunnel, into which nothing can be put without --intercept and --ca-dir DIR;"
        ),
        "{how}"
    );
    assert!(
        how.contains("--route 8082=https://svc.a.run.app, and call http://localhost:8082/x?y=1."),
        "{how}"
    );

    let how = said("https://iap.test:8443/x").how;
    assert!(how.contains("Call http://iap.test:8443/x with"), "{how}");
    // http://https80.test:80 would become port 443.
    let how = said("https://https80.test:80/").how;
    assert!(
        how.starts_with("Add a route: --route 8082=https://https80.test:80"),
        "{how}"
    );

    let how = explain(
        "https://svc.a.run.app/",
        &policy(),
        "googleapis.com",
        &ServiceLocation::default(),
        &EntryPoints::default(),
    )
    .unwrap()
    .how;
    assert_eq!(
        how,
        "Add a route: --route 8081=https://svc.a.run.app, and call http://localhost:8081/."
    );

    assert!(said("https://no.test/").how.contains("403"));
    assert!(said("https://example.com/").how.contains("adds nothing"));
}

#[test]
fn a_url_that_a_route_covers_is_explained_as_called_through_it() {
    for (url, how, rule) in [
        (
            "http://127.0.0.1:8081/x?y",
            "Call http://localhost:8081/x?y:",
            "built-in *.run.app",
        ),
        (
            "https://billing.a.run.app/base/x?y",
            "Call http://localhost:8081/x?y:",
            "built-in *.run.app",
        ),
        (
            "http://localhost:8081/b/x",
            "Call http://localhost:8081/b/x:",
            "route 8081/b",
        ),
        (
            "http://localhost:8081/bx",
            "Call http://localhost:8081/bx:",
            "built-in *.run.app",
        ),
        (
            "http://api.test/x",
            "Call http://localhost:8081/b/x:",
            "route 8081/b",
        ),
        (
            "https://gcr.io/v2/",
            "Call /v2/ on the socket of the route unix:/run/x.sock",
            "route unix:/run/x.sock",
        ),
        (
            "https://billing.a.run.app/other",
            "Call http://billing.a.run.app/other with HTTP_PROXY",
            "built-in *.run.app",
        ),
    ] {
        let said = said(url);
        assert!(said.how.starts_with(how), "{url}: {}", said.how);
        assert_eq!(said.rule, rule, "{url}");
    }
    assert_eq!(
        said("http://localhost:8081/x").destination,
        "https://billing.a.run.app"
    );
    assert_eq!(said("http://localhost:9999/x").rule, "built-in loopback");
    assert!(
        notes("https://api.test/x")
            .contains("through the forward proxy it would get no token (no rule)")
    );
}

#[test]
fn a_key_or_signature_in_the_url_is_explained_as_no_token() {
    for (query, reason) in [
        ("key=x", "API key"),
        ("X-Goog-Signature=x", "signed"),
        ("upload_id=x", "resumable upload"),
    ] {
        let said = said(&format!("https://storage.googleapis.com/b?{query}"));
        assert_eq!((said.credential, said.header), (Credential::None, None));
        assert!(said.scopes.is_empty());
        assert!(said.notes[0].contains(reason), "{:?}", said.notes);
    }
}

#[test]
fn notes_explain_special_cases() {
    let run = notes("https://t---svc.a.run.app/");
    for part in [
        "X-Serverless-Authorization",
        "without the tag \"t\"",
        "if IAP guards",
        "roles/run.invoker",
    ] {
        assert!(run.contains(part), "{part}: {run}");
    }
    assert!(!notes("https://svc.a.run.app/").contains("tag"));
    assert!(notes("https://r-p.cloudfunctions.net/").contains("function's name"));
    assert!(notes("https://r-p.cloudfunctions.net/fn").contains("cloudfunctions.invoker"));
    assert!(notes("https://storage.googleapis.com/").contains("no token is added"));
    let iap = notes("https://iap.test/");
    assert!(
        iap.contains("Proxy-Authorization") && iap.contains("roles/iap.httpsResourceAccessor"),
        "{iap}"
    );
    assert!(notes("https://own.test/").contains("beside the token"));
    assert!(notes("https://dev.test/").contains("a@b.c"));
    assert!(
        notes("http://port.test:8080/")
            .contains("`--rule port.test:443` is for port 443, this URL for port 8080")
    );
    assert!(notes("https://storage.googleapis.com:8443/").contains("not for 8443"));
    assert!(notes("https://u@svc.a.run.app/").contains("user-info"));
    assert!(notes("https://10.0.0.1/").contains("address"));
    assert!(
        notes("https://eu-docker.pkg.dev/")
            .contains("--rule eu-docker.pkg.dev=access,scheme=basic")
    );
    assert!(notes("https://example.com/").contains("--rule example.com=id"));
    assert!(notes("https://oauth2.googleapis.com/token").contains("OAuth plumbing"));
    let other = explain(
        "https://storage.googleapis.com/",
        &policy(),
        "s3nsapis.fr",
        &ServiceLocation::default(),
        &entry_points(),
    )
    .unwrap();
    assert!(
        other
            .notes
            .iter()
            .any(|note| note.contains("the universe is s3nsapis.fr"))
    );
}

#[test]
fn lookalike_hosts_are_named_as_such() {
    for (url, domain) in [
        ("https://googleapis.com.evil.test/", "googleapis.com"),
        ("https://evilgoogleapis.com/", "googleapis.com"),
        ("https://svc.a.run.app.evil.test/", "run.app"),
        ("https://myrun.app/", "run.app"),
        ("https://x-cloudfunctions.net/", "cloudfunctions.net"),
    ] {
        assert!(
            notes(url).contains(&format!("only looks like a host under {domain}")),
            "{url}"
        );
    }
    let denied = Policy::new(
        Vec::new(),
        Settings {
            unmatched_denied: true,
            ..Settings::default()
        },
    );
    let said = explain(
        "https://evilrun.app/",
        &denied,
        "googleapis.com",
        &ServiceLocation::default(),
        &entry_points(),
    )
    .unwrap();
    assert_eq!(said.credential, Credential::Deny);
    assert!(
        said.notes
            .iter()
            .any(|note| note.contains("only looks like"))
    );
}

#[test]
fn cleartext_is_mentioned_if_the_user_allowed_it() {
    let said = said("http://dev.test:8080/");
    assert_eq!(said.destination, "http://dev.test:8080");
    assert!(said.how.contains("cleartext"), "{}", said.how);
    assert!(said.notes.iter().any(|note| note.contains("cleartext")));
    assert!(!notes("https://dev.test/").contains("cleartext"));
}

#[test]
fn a_text_that_is_not_a_url_is_an_error() {
    for url in [
        "",
        "/path",
        "ftp://x/",
        "http://",
        "http://a b/",
        "a b",
        "mailto:jane@example.com",
        "wss://",
    ] {
        assert!(
            explain(
                url,
                &policy(),
                "googleapis.com",
                &ServiceLocation::default(),
                &entry_points()
            )
            .is_err(),
            "{url:?}"
        );
    }
    assert!(
        !said("https://example.com/#\u{1b}[31m")
            .to_string()
            .contains('\u{1b}')
    );
}

proptest! {
    #[test]
    fn nothing_panics_and_no_control_character_comes_back(url in "https?://[a-z.]{1,20}(:[0-9]{1,5})?(/\\PC{0,20})?(#[\\x00-\\x7f]{0,9})?", universe in "\\PC{0,12}") {
        if let Ok(said) = explain(&url, &policy(), &universe, &ServiceLocation::default(), &entry_points()) {
            prop_assert!(!said.url.contains(char::is_control));
            prop_assert_eq!(said.header.is_some(), matches!(said.credential, Credential::Access | Credential::Id));
        }
    }
}

fn named(
    url: &str,
    discover: bool,
    rules: &[&str],
    home: &ServiceLocation,
) -> Result<Explanation, ExplainError> {
    let rules = rules
        .iter()
        .map(|pattern| Rule {
            pattern: Pattern::parse(pattern).unwrap(),
            options: options(&[("credential", "none")]),
            name: format!("--rule {pattern}=none").into(),
        })
        .collect();
    let settings = Settings {
        discover,
        ..Settings::default()
    };
    let mut entry_points = entry_points();
    let mut route = route(
        "9000",
        Some("http://localhost:9000"),
        "https://mail/v1",
        &[],
    );
    route.service = Some(ServiceName::parse("mail").unwrap());
    entry_points.routes.push(route);
    explain(
        url,
        &Policy::new(rules, settings),
        "googleapis.com",
        home,
        &entry_points,
    )
}

#[test]
fn a_service_name_is_explained_without_resolving_it() {
    let said = named(
        "http://billing/v1?a=b",
        true,
        &[],
        &ServiceLocation::default(),
    )
    .unwrap();
    assert_eq!(
        said.destination,
        "https://billing-PROJECTNUMBER.REGION.run.app"
    );
    assert_eq!(said.credential, Credential::Id);
    assert_eq!(
        said.audience.as_deref(),
        Some("https://billing-PROJECTNUMBER.REGION.run.app")
    );
    assert_eq!(said.rule, "built-in *.run.app");
    assert!(
        said.how
            .starts_with("Call http://billing/v1?a=b with HTTP_PROXY=http://127.0.0.1:3128: "),
        "{}",
        said.how
    );
    assert!(
        said.how
            .contains("run://billing, and call http://localhost:"),
        "{}",
        said.how
    );
    let notes = said.notes.concat();
    assert!(
        notes.contains("what the metadata server says when it is first called"),
        "{notes}"
    );

    let home = ServiceLocation {
        project_number: Some("42".into()),
        region: Some("us-east1".into()),
    };
    let said = named("https://billing.europe-west1/", true, &[], &home).unwrap();
    assert_eq!(said.destination, "https://billing-42.europe-west1.run.app");
    assert!(
        said.how
            .starts_with("Call http://billing.europe-west1/ with"),
        "{}",
        said.how
    );
    assert!(
        said.how
            .contains("Write http://, for no certificate is for billing.europe-west1")
    );
}

#[test]
fn a_route_to_a_service_name_is_explained_without_discover() {
    for url in ["http://localhost:9000/x", "http://mail/v1/x"] {
        let said = named(url, false, &[], &ServiceLocation::default()).unwrap();
        assert_eq!(
            said.destination, "https://mail-PROJECTNUMBER.REGION.run.app",
            "{url}"
        );
        assert_eq!(said.credential, Credential::Id, "{url}");
        assert_eq!(
            said.how,
            "Call http://localhost:9000/x: the route 9000 adds the token and sends it over TLS."
        );
    }
}

#[test]
fn an_invalid_service_name_is_explained() {
    let notes = |url: &str, discover, rules: &[&str]| {
        let said = named(url, discover, rules, &ServiceLocation::default()).unwrap();
        assert_eq!(said.credential, Credential::None, "{url}");
        said.notes.concat()
    };
    assert!(
        notes("http://billing/", false, &[]).contains(
            "with --discover on it is the name of a Cloud Run service: https://billing-PROJECTNUMBER.REGION.run.app"
        )
    );
    assert!(
        notes("http://billing/", true, &["billing"]).contains("your rule names billing itself")
    );
    assert!(
        notes("http://billing:8080/", true, &[]).contains("with port 8080: write http://billing/")
    );
    for url in [
        "http://metadata/",
        "http://localhost/",
        "http://example.com/",
    ] {
        let notes = notes(url, true, &[]);
        assert!(!notes.contains("PROJECTNUMBER"), "{url}: {notes}");
    }
    for url in ["http://my_service/", "http://metadata.us-east1/"] {
        let error = named(url, true, &[], &ServiceLocation::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("is not the name of a Cloud Run service"),
            "{error}"
        );
    }
}

/// Explains a call to `x.test` under one rule with these options.
fn explained(all: &[(&str, &str)]) -> Explanation {
    let rule = Rule {
        pattern: Pattern::parse("x.test").unwrap(),
        options: options(all),
        name: "rule".into(),
    };
    let policy = Policy::new(vec![rule], Settings::default());
    explain(
        "https://x.test/a",
        &policy,
        "googleapis.com",
        &ServiceLocation::default(),
        &EntryPoints::default(),
    )
    .unwrap()
}

#[test]
fn an_impersonation_chain_is_explained_with_its_roles() {
    let explanation = explained(&[
        ("credential", "id"),
        ("impersonate", "t@p.example"),
        ("delegate", "a@p.example"),
    ]);
    for note in [
        "the token is the one of t@p.example, impersonated by the base credential through a@p.example",
        "the base credential needs roles/iam.serviceAccountTokenCreator on a@p.example",
        "a@p.example needs roles/iam.serviceAccountTokenCreator on t@p.example",
    ] {
        assert!(
            explanation.notes.iter().any(|other| other == note),
            "{explanation}"
        );
    }
    assert!(explanation.needs_account());
}

#[test]
fn delegation_is_explained_with_its_user_and_what_to_authorise() {
    let explanation = explained(&[
        ("credential", "access"),
        ("scope", "s"),
        ("subject", "jane@d.example"),
    ]);
    assert!(explanation.notes.iter().any(|note| note
        == "the token is the one of jane@d.example, on whose behalf the base credential acts"));
    assert!(
        explanation.to_string().contains("domain-wide delegation"),
        "{explanation}"
    );
}

#[test]
fn a_signed_jwt_is_explained_as_a_credential_for_iap() {
    let explanation = explained(&[("token", "jwt")]);
    assert_eq!(explanation.credential, Credential::Id);
    assert_eq!(explanation.audience.as_deref(), Some("https://x.test/*"));
    let text = explanation.notes.join("\n");
    assert!(
        text.contains("a JWT that the account signs itself"),
        "{text}"
    );
    assert!(text.contains("roles/iap.httpsResourceAccessor"), "{text}");
    assert!(text.contains("goes into Proxy-Authorization"), "{text}");
}
