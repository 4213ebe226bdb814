use std::path::{Component, Path};

use percent_encoding::percent_decode_str;
use proptest::prelude::*;

use super::*;
use crate::policy::{Pattern, Rule, RuleOptions, Settings, TokenKey, TokenKind};

const UNIVERSE: &str = "googleapis.com";
const FUNCTIONS: &str = "https://us-p.cloudfunctions.net";

fn policy_with(rules: &[&str], settings: Settings) -> Policy {
    let rules = rules
        .iter()
        .map(|text| {
            let (pattern, rest) = text.split_once('=').unwrap();
            let mut options = RuleOptions::default();
            for option in rest.split(',') {
                let (name, value) = option.split_once('=').unwrap_or(("credential", option));
                options.set(name, value).unwrap();
            }
            Rule {
                pattern: Pattern::parse(pattern).unwrap(),
                options,
                name: format!("--rule {text}").into(),
            }
        })
        .collect();
    Policy::new(rules, settings)
}

fn policy(rules: &[&str]) -> Policy {
    policy_with(rules, Settings::default())
}

fn said(decision: &Decision) -> String {
    match &decision.grant {
        CredentialGrant::Token(TokenKey {
            kind: TokenKind::Id { audience },
            ..
        }) => format!("id {audience}"),
        CredentialGrant::Token(_) => "access".to_owned(),
        CredentialGrant::None(_) => "none".to_owned(),
        CredentialGrant::Deny(_) => "deny".to_owned(),
    }
}

/// Returns the decision of a call as text.
#[track_caller]
fn decided(policy: &Policy, url: &str) -> String {
    said(&policy.decide(&Destination::parse(url).unwrap(), UNIVERSE))
}

#[track_caller]
fn gets(rules: &[&str], expected: &str, paths: &[&str]) {
    let policy = policy(rules);
    for path in paths {
        let url = format!("https://a.example{path}");
        assert_eq!(decided(&policy, &url), expected, "{path} with {rules:?}");
    }
}

/// Spellings that some server takes for `/admin` or a path below it.
const ADMIN: [&str; 24] = [
    "/admin",
    "/admin/",
    "/admin%2fx",
    "/admin%2Fx",
    "/%2fadmin",
    "/%2Fadmin/x",
    "//admin",
    "/admin;x",
    "/admin;x=1/y",
    "/admin;/y",
    "/;/admin",
    "/;x/admin",
    "/%61dmin%2f",
    "/pub/../admin",
    "/pub/..;/admin",
    "/pub/%2e%2e/admin",
    "/pub/.%2E/admin",
    "/pub%2f..%2fadmin",
    "/pub/..%5cadmin",
    "/pub\\..\\admin",
    "/pub/%252e%252e/admin",
    "/admin%252fx",
    "/%5Cadmin",
    "/x/..;y=/%61dmin%3bz",
];

#[test]
fn a_deny_covers_every_spelling_that_a_server_may_map_to_its_path() {
    gets(&["a.example/admin=deny"], "deny", &ADMIN);
    gets(
        &["a.example/admin=deny", "a.example=access"],
        "deny",
        &ADMIN,
    );
    gets(
        &["a.example/admin=none", "a.example=access"],
        "none",
        &ADMIN,
    );
    gets(
        &["a.example/admin=deny", "a.example=access"],
        "access",
        &[
            "/",
            "/Admin",
            "/adminx",
            "/pub/x;y",
            "/pub//x",
            "/x%2fadmin",
        ],
    );
}

#[test]
fn a_grant_applies_only_if_every_reading_is_below_its_path() {
    let rules = ["a.example/pub=access"];
    gets(
        &rules,
        "access",
        &[
            "/pub",
            "/pub/x",
            "/pub/x%2fy",
            "/pub/a;b",
            "/pub//x",
            "/pub/./x",
            "/pub/x/../y",
            "/p%75b/x",
            "/pub/100%25",
        ],
    );
    gets(
        &rules,
        "none",
        &[
            "/pub/..;",
            "/x\\../pub",
            "/pub/../x",
            "/x/../pub",
            "/pub/..%2fx",
            "/pub/%2e%2e/x",
            "/pub/%2e%2e%2fx",
            "/pub\\..\\x",
            "/pub/%252e%252e/x",
            "/pub%2fx",
            "/pub;x",
            "//pub",
            "/pub/x/../..",
            "/Pub",
        ],
    );
}

#[test]
fn the_strictest_rule_decides() {
    let rules = [
        "a.example/a=id,audience=A",
        "a.example/b=id,audience=B",
        "a.example/c=id,audience=A",
        "a.example/d=none",
        "a.example/e=deny",
    ];
    gets(
        &rules,
        "none",
        &["/a/../b", "/a/../d", "/a/..;/b", "/d/../a"],
    );
    gets(
        &rules,
        "deny",
        &["/a/../e", "/e/../a", "/e/../d", "/d/..%2fe"],
    );
    // This is another rule with the same token.
    gets(&rules, "id A", &["/a/../c", "/a/%2e%2e/c/x"]);
    // A more specific rule shadows the other one in every reading.
    let inner = ["a.example/admin=deny", "a.example/admin/pub=access"];
    gets(&inner, "access", &["/admin/pub/x%2fy"]);
    gets(&inner, "deny", &["/admin/pub/..%2fy", "/admin/pub%2fx"]);
}

#[test]
fn a_path_that_some_reading_leaves_unmatched_is_denied_by_unmatched_deny() {
    let settings = Settings {
        unmatched_denied: true,
        ..Settings::default()
    };
    let policy = policy_with(&["a.example/pub=access"], settings);
    assert_eq!(decided(&policy, "https://a.example/pub/x;y"), "access");
    assert_eq!(decided(&policy, "https://a.example/pub/..;/x"), "deny");
    assert_eq!(decided(&policy, "https://a.example/pub%2fx"), "deny");
}

#[test]
fn a_function_gets_a_token_only_if_every_reading_starts_with_its_name() {
    let policy = policy(&[]);
    for path in ["/fn1", "/fn1/a%2fb", "/fn1/x;y", "/fn1//x", "/fn1/x/../y"] {
        assert_eq!(
            decided(&policy, &format!("{FUNCTIONS}{path}")),
            "id https://us-p.cloudfunctions.net/fn1",
            "{path}"
        );
    }
    for path in [
        "/fn1/../fn2",
        "/fn1/..",
        "/fn1/..;/fn2",
        "/fn1/%2e%2e/fn2",
        "/fn1/..%2ffn2",
        "/fn1\\..\\fn2",
        "/fn1;x",
        "/fn1%2fx",
        "//fn1",
        "/./fn1",
        "/%2ffn1",
        "/%66n1/x;y",
    ] {
        let url = format!("{FUNCTIONS}{path}");
        assert_eq!(decided(&policy, &url), "none", "{path}");
    }
}

#[test]
fn oauth_endpoints_get_no_token_in_any_reading() {
    let policy = policy(&[]);
    for path in [
        "/oauth2%2fv1",
        "/x/..;/oauth2",
        "/oauth2;x/v1",
        "//oauth2",
        "/%2foauth2",
    ] {
        let url = format!("https://www.googleapis.com{path}");
        assert_eq!(decided(&policy, &url), "none", "{path}");
    }
    let url = "https://www.googleapis.com/drive/v3/files/a%2fb;c";
    assert_eq!(decided(&policy, url), "access");
    let url = "https://storage.googleapis.com/storage/v1/b/x/o/a%2f..%2foauth2";
    assert_eq!(decided(&policy, url), "access");
}

#[test]
fn a_path_with_too_many_readings_gets_no_token_that_depends_on_it() {
    let path = format!("/pub/%{}2e", "25".repeat(200));
    let url = format!("https://a.example{path}");
    for (rules, expected) in [
        (&["a.example/pub=access"][..], "none"),
        (&["a.example/pub=access", "a.example/x=deny"], "deny"),
        (&["a.example=access"], "access"),
        (&["a.example/pub=none", "a.example=access"], "none"),
    ] {
        assert_eq!(decided(&policy(rules), &url), expected, "{rules:?}");
    }
    assert_eq!(decided(&policy(&[]), &format!("{FUNCTIONS}{path}")), "none");
}

#[test]
fn an_ambiguous_prefix_denies_every_reading_and_grants_its_spelling() {
    gets(
        &["a.example/o/a%2fb=deny"],
        "deny",
        &["/o/a%2Fb/x", "/o/a/b"],
    );
    gets(&["a.example/o/a%2fb=access"], "access", &["/o/a%2Fb/x"]);
    gets(
        &["a.example/o/a%2fb=access"],
        "none",
        &["/o/a/b", "/o/a/b//x"],
    );
}

#[test]
fn a_route_with_its_own_path_is_decided_by_the_whole_path() {
    let policy = policy(&["a.example/base=access", "a.example/admin=deny"]);
    let mut route = RuleOptions::default();
    let route_to = |options: &RuleOptions, url: &str| {
        let destination = Destination::parse(url).unwrap();
        said(&policy.decide_route("8081", options, &destination, UNIVERSE))
    };
    let climbed = "https://a.example/base/../admin";
    assert_eq!(route_to(&route, "https://a.example/base/x"), "access");
    assert_eq!(route_to(&route, climbed), "deny");
    // The route's own credential applies to every path.
    route.set("credential", "access").unwrap();
    assert_eq!(route_to(&route, climbed), "access");
}

// === Interpretations of a path by other servers, independent of those in `path` ===

fn decoded(path: &str) -> String {
    percent_decode_str(path).decode_utf8_lossy().into_owned()
}

/// The reading of the standard library on Unix: slashes merged, dots resolved.
fn resolved(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => names.push(name.to_str().unwrap()),
            Component::ParentDir => {
                names.pop();
            }
            _ => {}
        }
    }
    format!("/{}", names.join("/"))
}

fn without_parameters(path: &str) -> String {
    let mut text = String::new();
    let mut inside = false;
    for c in path.chars() {
        inside = c != '/' && (inside || c == ';');
        if !inside {
            text.push(c);
        }
    }
    text
}

type Read = fn(&str) -> String;

fn servers() -> Vec<(&'static str, Read)> {
    vec![
        // Every server decodes the characters that need no encoding (RFC 3986, 6.2.2.2).
        ("literal", |path| {
            path.replace("%61", "a").replace("%75", "u")
        }),
        ("decoding", decoded),
        ("nginx", |path| resolved(&decoded(path))),
        ("resolving, then decoding", |path| decoded(&resolved(path))),
        ("tomcat", |path| {
            resolved(&decoded(&without_parameters(path)))
        }),
        ("tomcat behind nginx", |path| {
            resolved(&decoded(&without_parameters(&resolved(&decoded(path)))))
        }),
        ("iis", |path| resolved(&decoded(path).replace('\\', "/"))),
        ("decoding twice", |path| resolved(&decoded(&decoded(path)))),
        ("all at once", |path| {
            resolved(&without_parameters(
                &decoded(&decoded(path)).replace('\\', "/"),
            ))
        }),
    ]
}

fn is_in(path: &str, folder: &str) -> bool {
    path == folder || path.starts_with(&format!("{folder}/"))
}

fn nasty_path() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "/",
        "/",
        "/",
        "//",
        "\\",
        "%2f",
        "%2F",
        "%5c",
        "%252f",
        "%255C",
        "admin",
        "admin",
        "pub",
        "pub",
        "fn1",
        "fn2",
        "x",
        "a.b",
        ".",
        "..",
        "..",
        "%2e",
        "%2E%2e",
        ".%2e",
        "%252e%252e",
        ";",
        ";x=1",
        ";..",
        "%3b",
        "%61dmin",
        "p%75b",
        "%25",
        "%2",
        "%",
    ]);
    prop::collection::vec(part, 0..9).prop_map(|parts| format!("/{}", parts.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_path_decided_is_the_path_sent(path in nasty_path()) {
        let Ok(destination) = Destination::parse(&format!("https://a.example{path}")) else {
            return Ok(());
        };
        let function = Destination::parse(&format!("{FUNCTIONS}{path}")).unwrap();
        let deny = policy(&["a.example/admin=deny", "a.example=access"]).decide(&destination, UNIVERSE);
        let none = policy(&["a.example/admin=none", "a.example=access"]).decide(&destination, UNIVERSE);
        let grant = policy(&["a.example/pub=access"]).decide(&destination, UNIVERSE);
        let function = said(&policy(&[]).decide(&function, UNIVERSE));
        for (server, read) in servers() {
            let read = read(&path);
            if is_in(&read, "/admin") {
                prop_assert_eq!(said(&deny), "deny", "{} as {} reads it: {}", &path, server, &read);
                prop_assert_eq!(said(&none), "none", "{} as {} reads it: {}", &path, server, &read);
            }
            if said(&grant) == "access" {
                prop_assert!(is_in(&read, "/pub"), "{} as {server} reads it: {read}", path);
            }
            if let Some((_, name)) = function.rsplit_once('/') {
                let first = read.trim_start_matches('/').split('/').next();
                prop_assert_eq!(first, Some(name), "{} as {} reads it: {}", &path, server, &read);
            }
        }
    }

    #[test]
    fn a_plain_path_has_the_ordinary_decision(path in "(/[a-z.]{1,8}x){0,4}") {
        let url = format!("https://a.example/pub{path}");
        prop_assert_eq!(decided(&policy(&["a.example/pub=access"]), &url), "access");
    }
}
