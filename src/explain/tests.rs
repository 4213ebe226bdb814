use proptest::prelude::*;

use super::*;
use crate::policy::{CLOUD_PLATFORM, Pattern, Rule, RuleOptions, ServiceName, Settings};

mod identity;
mod notes;
mod readings;
mod service_names;

fn options(all: &[(&str, &str)]) -> RuleOptions {
    let mut options = RuleOptions::default();
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
        prefix: url
            .and_then(|url| {
                Some(
                    Destination::parse(url)
                        .ok()?
                        .path()
                        .trim_end_matches('/')
                        .to_owned(),
                )
            })
            .unwrap_or_default(),
        upstream: Destination::parse(upstream).unwrap(),
        service: None,
        options: options(all),
    }
}

fn entry_points() -> EntryPoints {
    EntryPoints {
        proxy: Some("127.0.0.1:3128".to_owned()),
        intercept: Intercept::default(),
        ca_dir: None,
        egress: None,
        own: own(),
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

/// The proxy, the routes and the admin port.
fn own() -> OwnListeners {
    OwnListeners::new(|origin| {
        origin.host.is_loopback() && [3128, 8081, 9090].contains(&origin.port)
    })
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
        how.contains("blind tunnel without a token, unless --intercept and --ca-dir DIR are set;"),
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
    assert!(said("https://example.com/").how.contains("adds no token"));
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
fn a_url_that_is_exactly_the_prefix_of_a_route_is_explained_as_a_call_to_that_route() {
    let routes = [
        ("8081", "https://a.run.app"),
        ("8081/v1", "https://b.run.app"),
        ("8081/v1/x", "https://c.run.app/base"),
        ("8081/v%31", "https://d.run.app"),
    ];
    let routes = routes.map(|(name, upstream)| {
        route(
            name,
            Some(&format!("http://127.0.0.1:{name}")),
            upstream,
            &[],
        )
    });
    let entry_points = EntryPoints {
        routes: routes.into(),
        ..EntryPoints::default()
    };
    for (path, upstream) in [
        ("", "https://a.run.app/"),
        ("/", "https://a.run.app/"),
        ("/?q", "https://a.run.app/?q"),
        ("/v1", "https://b.run.app/"),
        ("/v1/", "https://b.run.app/"),
        ("/v1?q", "https://b.run.app/?q"),
        ("/v1/x", "https://c.run.app/base"),
        ("/v1/x/", "https://c.run.app/base/"),
        ("/v1/x?q", "https://c.run.app/base?q"),
        ("/v1/x/y", "https://c.run.app/base/y"),
        ("/v1x", "https://a.run.app/v1x"),
        ("/v1/xy", "https://b.run.app/xy"),
        ("/v%31", "https://d.run.app/"),
        ("/%761", "https://a.run.app/%761"),
    ] {
        for host in ["127.0.0.1", "localhost", "[::1]", "0.0.0.0"] {
            let url = Destination::parse(&format!("http://{host}:8081{path}")).unwrap();
            let (_, destination) = entry_points.find(&url).unwrap();
            assert_eq!(destination.to_string(), upstream, "{url}");
        }
    }
}

#[test]
fn a_route_on_exactly_the_address_of_the_url_is_the_one_that_is_explained() {
    let entry_points = EntryPoints {
        routes: vec![
            route(
                "127.0.0.1:8081/long",
                Some("http://127.0.0.1:8081/long"),
                "https://a.run.app",
                &[],
            ),
            route(
                "[::1]:8081",
                Some("http://[::1]:8081"),
                "https://b.run.app",
                &[],
            ),
            route(
                "0.0.0.0:8082",
                Some("http://0.0.0.0:8082"),
                "https://c.run.app",
                &[],
            ),
        ],
        ..EntryPoints::default()
    };
    for (url, upstream) in [
        ("http://127.0.0.1:8081/long", "https://a.run.app"),
        ("http://[::1]:8081/long", "https://b.run.app"),
        ("http://localhost:8082/x", "https://c.run.app"),
    ] {
        let (_, destination) = entry_points
            .find(&Destination::parse(url).unwrap())
            .unwrap();
        assert_eq!(destination.origin.to_string(), upstream, "{url}");
    }
}

#[test]
fn a_call_to_a_listener_of_the_sidecar_is_said_to_be_refused() {
    let rule = Rule {
        pattern: Pattern::parse("localhost").unwrap(),
        options: options(&[("credential", "id"), ("plaintext", "allow")]),
        name: "--rule localhost=id".into(),
    };
    let deny = Rule {
        pattern: Pattern::parse("127.0.0.1").unwrap(),
        options: options(&[("credential", "deny")]),
        name: "--rule 127.0.0.1=deny".into(),
    };
    let policy = Policy::new(vec![rule, deny], Settings::default());
    let routes = vec![
        route(
            "8081/v1",
            Some("http://127.0.0.1:8081/v1"),
            "https://a.run.app",
            &[],
        ),
        route(
            "8082",
            Some("http://127.0.0.1:8082"),
            "http://localhost:9090",
            &[],
        ),
    ];
    let entry_points = EntryPoints {
        routes,
        ..entry_points()
    };
    let said = |url: &str| {
        let home = ServiceLocation::default();
        explain(url, &policy, "googleapis.com", &home, &entry_points).unwrap()
    };
    let refused = "The sidecar rejects this call with 508: ";
    for url in [
        "http://[::1]:3128/",
        "http://localhost:3128/",
        "https://localhost:9090/status",
        "localhost:9090",
        "http://localhost:8081/v2",
        "http://localhost:8082/x",
    ] {
        let said = said(url);
        assert!(said.how.starts_with(refused), "{url}: {}", said.how);
        assert_eq!(said.credential, Credential::None, "{url}");
        assert_eq!((said.header, said.audience), (None, None), "{url}");
        let notes = said.notes.join("\n");
        assert_eq!(
            notes.contains("gets 404: no route has the path \"/v2\""),
            url.contains("8081"),
            "{url}: {notes}"
        );
    }
    assert!(
        said("http://localhost:8082/x")
            .how
            .contains("of the route 8082")
    );
    assert!(said("http://127.0.0.1:3128/").how.contains("403"));
    assert_eq!(said("http://localhost:3129/").credential, Credential::Id);
    let route = said("http://localhost:8081/v1/x");
    assert!(
        route.how.starts_with("Call http://127.0.0.1:8081/v1/x:"),
        "{}",
        route.how
    );
    assert!(
        route
            .notes
            .join("\n")
            .contains("the forward proxy rejects this URL with 508"),
        "{:?}",
        route.notes
    );
}

/// The page of an explanation is often shared.
#[test]
fn a_password_in_the_url_is_not_shown() {
    let said = said("https://u:SECRETPW@storage.googleapis.com/a@b").to_string();
    assert!(
        said.contains("https://USER@storage.googleapis.com/a@b"),
        "{said}"
    );
    assert!(!said.contains("SECRETPW"), "{said}");
    for url in ["u:SECRETPW@a.example", "https://u:SECRETPW@[a.example/"] {
        let location = ServiceLocation::default();
        let error = explain(url, &policy(), "googleapis.com", &location, &entry_points());
        let error = error.err().map(|error| error.to_string());
        let error = error.unwrap_or_else(|| panic!("{url} is no error"));
        assert!(!error.contains("SECRETPW"), "{error}");
    }
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
    fn no_input_panics_or_returns_a_control_character(url in "https?://[a-z.]{1,20}(:[0-9]{1,5})?(/\\PC{0,20})?(#[\\x00-\\x7f]{0,9})?", universe in "\\PC{0,12}") {
        if let Ok(said) = explain(&url, &policy(), &universe, &ServiceLocation::default(), &entry_points()) {
            prop_assert!(!said.url.contains(char::is_control));
            prop_assert_eq!(said.header.is_some(), matches!(said.credential, Credential::Access | Credential::Id));
        }
    }
}

/// The rules of a host with a denied path.
fn with_denied_paths(url: &str, entry_points: &EntryPoints) -> Explanation {
    let rule = |pattern: &str, credential: &str| Rule {
        name: format!("--rule {pattern}={credential}").into(),
        pattern: Pattern::parse(pattern).unwrap(),
        options: options(&[("credential", credential)]),
    };
    let rules = vec![
        rule("plain.test/adm", "deny"),
        rule("plain.test", "none"),
        rule("private.test/adm", "deny"),
        rule("private.test", "id"),
    ];
    let policy = Policy::new(rules, Settings::default());
    let home = ServiceLocation::default();
    explain(url, &policy, "googleapis.com", &home, entry_points).unwrap()
}

#[test]
fn an_https_url_of_a_host_with_a_denied_path_is_explained_as_connect_treats_it() {
    let blind = entry_points();
    let intercepted = EntryPoints {
        intercept: Intercept::at_start(),
        ..entry_points()
    };
    let rejected =
        "A tunnel to this host (an https:// URL through HTTPS_PROXY) is rejected with 403";
    for (url, entry_points, is_rejected) in [
        ("https://plain.test/x", &blind, true),
        ("https://plain.test/x", &intercepted, true),
        ("https://private.test/x", &blind, true),
        ("https://private.test/x", &intercepted, false),
        ("http://plain.test/x", &blind, false),
        ("https://other.test/x", &blind, false),
    ] {
        let how = with_denied_paths(url, entry_points).how;
        assert_eq!(how.contains(rejected), is_rejected, "{url}: {how}");
    }
    let how = with_denied_paths("https://plain.test/x", &blind).how;
    assert!(
        how.starts_with(
            "Add a route: --route 8082=https://plain.test, and call http://localhost:8082/x."
        ),
        "{how}"
    );
}

#[test]
fn a_proposed_route_takes_a_port_that_no_listener_has() {
    let entry_points = EntryPoints {
        own: OwnListeners::new(|origin| [8081, 8082].contains(&origin.port)),
        routes: Vec::new(),
        ..entry_points()
    };
    let home = ServiceLocation::default();
    let url = "https://svc-1.a.run.app/";
    let said = explain(url, &policy(), "googleapis.com", &home, &entry_points).unwrap();
    assert!(said.how.contains("--route 8083="), "{}", said.how);
}
