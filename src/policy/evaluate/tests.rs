use proptest::prelude::*;

use super::*;
use crate::policy::{
    AuthScheme, Credential, CredentialGrant, Existing, HeaderMode, Impersonation, TokenKey,
    TokenKind,
};

mod metadata;
mod properties;
mod routes;

const UNIVERSE: &str = "googleapis.com";

fn at(url: &str) -> Destination {
    Destination::parse(url).unwrap()
}

fn options(text: &str) -> RuleOptions {
    let mut options = RuleOptions::default();
    for option in text.split(',').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or(("credential", option));
        options.set(name, value).unwrap();
    }
    options
}

/// `PATTERN=CREDENTIAL[,OPTION…]`.
fn rule(text: &str) -> Rule {
    let (pattern, rest) = text.split_once('=').unwrap();
    Rule {
        pattern: Pattern::parse(pattern).unwrap(),
        options: options(rest),
        name: format!("--rule {text}").into(),
    }
}

fn policy(rules: &[&str]) -> Policy {
    Policy::new(
        rules.iter().map(|text| rule(text)).collect(),
        Settings::default(),
    )
}

/// Returns the decision as text: `id https://… by RULE`.
fn say(decision: &Decision) -> String {
    let grant = match &decision.grant {
        CredentialGrant::Token(TokenKey {
            kind: TokenKind::Id { audience },
            ..
        }) => format!("id {audience}"),
        CredentialGrant::Token(TokenKey {
            kind: TokenKind::Access { scopes },
            ..
        }) => format!("access [{}]", scopes.join(" ")),
        CredentialGrant::Token(TokenKey {
            kind: TokenKind::Jwt { audience },
            ..
        }) => format!("jwt {audience}"),
        CredentialGrant::None(_) => "none".to_owned(),
        CredentialGrant::Deny(_) => "deny".to_owned(),
    };
    format!("{grant} by {}", decision.rule)
}

fn decide(rules: &[&str], url: &str) -> String {
    say(&policy(rules).decide(&at(url), UNIVERSE))
}

fn route(rules: &[&str], own: &str, url: &str) -> Decision {
    policy(rules).decide_route("8081", &options(own), &at(url), UNIVERSE)
}

#[test]
fn a_rule_for_port_443_covers_requests_upgraded_to_tls() {
    let names = |rule: &str, url: &str| decide(&[rule], url).contains("--rule");
    assert!(names("h.test:443=id", "https://h.test/"));
    assert!(names("h.test:443=id", "http://h.test/"));
    assert!(names("h.test:80=id", "http://h.test/"));
    assert!(!names("h.test:80=id", "https://h.test/"));
    assert!(!names("h.test:443=id", "http://h.test:8080/"));
    // In cleartext nothing is upgraded.
    assert!(!names("h.test:443=id,plaintext=allow", "http://h.test/"));
}

#[test]
fn the_built_in_table_decides_if_no_rule_matches() {
    for (url, expected) in [
        (
            "http://storage.googleapis.com/b",
            "access [] by built-in *.googleapis.com",
        ),
        (
            "http://svc-abc-uc.a.run.app/p",
            "id https://svc-abc-uc.a.run.app by built-in *.run.app",
        ),
        (
            "https://canary---svc-1.us-central1.run.app/",
            "id https://svc-1.us-central1.run.app by built-in *.run.app",
        ),
        (
            "https://us-central1-p.cloudfunctions.net/fn/sub",
            "id https://us-central1-p.cloudfunctions.net/fn by built-in *.cloudfunctions.net",
        ),
        (
            "https://us-central1-p.cloudfunctions.net/",
            "none by built-in *.cloudfunctions.net",
        ),
        (
            "https://oauth2.googleapis.com/token",
            "none by built-in oauth2.googleapis.com",
        ),
        ("http://localhost:3000/", "none by built-in loopback"),
        (
            "http://metadata.google.internal/",
            "none by built-in metadata server",
        ),
        ("https://example.com/", "none by no rule"),
        ("https://10.0.0.1/", "none by no rule"),
    ] {
        assert_eq!(decide(&[], url), expected, "{url}");
    }
    let s3ns = policy(&[]).decide(&at("https://bigquery.s3nsapis.fr/"), "s3nsapis.fr");
    assert_eq!(say(&s3ns), "access [] by built-in *.s3nsapis.fr");
    assert!(s3ns.google_api);
}

#[test]
fn a_missing_function_name_is_reported() {
    let decision = policy(&[]).decide(&at("https://r-p.cloudfunctions.net/"), UNIVERSE);
    assert!(matches!(decision.grant, CredentialGrant::None(why) if why.contains("first segment")));
}

#[test]
fn rules_precede_the_table_and_specific_rules_precede_general_ones() {
    let rules = [
        "*.example.com=none",
        "api.example.com=id",
        "api.example.com/admin=deny",
        "*.internal.example.com=id,audience=shared",
        "storage.googleapis.com=none",
        "identitytoolkit.googleapis.com=access,scope=b,scope=a,scope=b",
        "localhost:9000=id,audience=dev,plaintext=allow",
    ];
    for (url, expected) in [
        (
            "https://api.example.com/",
            "id https://api.example.com by --rule api.example.com=id",
        ),
        (
            "https://api.example.com:8443/",
            "id https://api.example.com by --rule api.example.com=id",
        ),
        (
            "https://api.example.com/admin/x",
            "deny by --rule api.example.com/admin=deny",
        ),
        (
            "https://api.example.com/x/..//%61dmin",
            "deny by --rule api.example.com/admin=deny",
        ),
        (
            "https://www.example.com/",
            "none by --rule *.example.com=none",
        ),
        (
            "https://a.internal.example.com/",
            "id shared by --rule *.internal.example.com=id,audience=shared",
        ),
        (
            "https://storage.googleapis.com/",
            "none by --rule storage.googleapis.com=none",
        ),
        (
            "https://identitytoolkit.googleapis.com/",
            "access [a b] by --rule identitytoolkit.googleapis.com=access,scope=b,scope=a,scope=b",
        ),
        (
            "http://localhost:9000/",
            "id dev by --rule localhost:9000=id,audience=dev,plaintext=allow",
        ),
        ("http://localhost:9001/", "none by built-in loopback"),
    ] {
        assert_eq!(decide(&rules, url), expected, "{url}");
    }
}

#[test]
fn the_first_of_two_rules_for_one_pattern_applies() {
    assert_eq!(
        decide(&["a.test=id", "A.test.=access"], "https://a.test/"),
        "id https://a.test by --rule a.test=id"
    );
}

#[test]
fn every_option_of_a_rule_is_in_the_decision() {
    let text = "gcr.io=access,scheme=basic,header=authorization,existing=replace,account=a@b.c,quota-project=bill,plaintext=allow";
    let decision = policy(&[text]).decide(&at("https://gcr.io/v2/"), UNIVERSE);
    assert_eq!(decision.header, HeaderMode::Authorization);
    assert_eq!(decision.existing, Existing::Replace);
    assert_eq!(decision.scheme, AuthScheme::Basic);
    assert_eq!(
        decision.quota_project,
        Some(HeaderValue::from_static("bill"))
    );
    assert!(decision.plaintext);
    assert!(!decision.google_api);
    assert!(
        matches!(&decision.grant, CredentialGrant::Token(key) if key.principal.account() == Some("a@b.c"))
    );
}

#[test]
fn the_quota_project_of_a_rule_takes_precedence_for_access_tokens() {
    let settings = Settings {
        quota_project: Some(HeaderValue::from_static("default")),
        ..Settings::default()
    };
    let policy = Policy::new(
        vec![rule("pubsub.googleapis.com=access,quota-project=own")],
        settings,
    );
    let quota = |url| policy.decide(&at(url), UNIVERSE).quota_project;
    assert_eq!(
        quota("https://storage.googleapis.com/"),
        Some(HeaderValue::from_static("default"))
    );
    assert_eq!(
        quota("https://pubsub.googleapis.com/"),
        Some(HeaderValue::from_static("own"))
    );
    assert_eq!(quota("https://svc.a.run.app/"), None);
    assert_eq!(quota("https://example.com/"), None);
}

#[test]
fn the_account_default_is_the_same_token_as_no_account() {
    let by_table = policy(&[]).decide(&at("https://storage.googleapis.com/"), UNIVERSE);
    let by_rule = policy(&["storage.googleapis.com=access,account=default"])
        .decide(&at("https://storage.googleapis.com/"), UNIVERSE);
    assert_eq!(by_rule.grant, by_table.grant);
    assert!(by_rule.google_api);
}

#[test]
fn unmatched_deny_refuses_only_unmatched_destinations() {
    let settings = Settings {
        unmatched_denied: true,
        ..Settings::default()
    };
    let policy = Policy::new(vec![rule("ok.test=none")], settings);
    for url in [
        "https://ok.test/",
        "http://localhost:1/",
        "http://metadata.google.internal/",
        "https://oauth2.googleapis.com/",
        "https://storage.googleapis.com/",
        "https://svc.a.run.app/",
        "https://r-p.cloudfunctions.net/",
    ] {
        assert_ne!(
            policy.decide(&at(url), UNIVERSE).credential(),
            Credential::Deny,
            "{url}"
        );
    }
    for url in [
        "https://example.com/",
        "https://storage.googleapis.com:8443/",
        "https://10.0.0.1/",
        "https://u@svc.a.run.app/",
    ] {
        assert_eq!(
            say(&policy.decide(&at(url), UNIVERSE)),
            "deny by --unmatched deny",
            "{url}"
        );
    }
    let routed = policy.decide_route(
        "8081",
        &RuleOptions::default(),
        &at("https://example.com/"),
        UNIVERSE,
    );
    assert_eq!(say(&routed), "none by no rule");
}

#[test]
fn dependence_on_the_path_is_reported() {
    let origin = |url| at(url).origin;
    let plain = policy(&[]);
    for url in [
        "https://storage.googleapis.com",
        "https://svc.a.run.app",
        "https://own.test",
        "http://metadata",
    ] {
        assert!(!plain.depends_on_path(&origin(url), UNIVERSE), "{url}");
    }
    for url in [
        "https://r-p.cloudfunctions.net",
        "https://www.googleapis.com",
    ] {
        assert!(plain.depends_on_path(&origin(url), UNIVERSE), "{url}");
    }
    assert!(plain.depends_on_path(&origin("https://www.s3nsapis.fr"), "s3nsapis.fr"));
    let ruled = policy(&["a.test/x=deny", "b.test=id", "*.test/y=deny"]);
    assert!(ruled.depends_on_path(&origin("https://a.test"), UNIVERSE));
    assert!(!ruled.depends_on_path(&origin("https://b.test"), UNIVERSE));
    assert!(ruled.depends_on_path(&origin("https://c.test"), UNIVERSE));
}

#[test]
fn the_universe_is_needed_only_if_no_other_row_decides() {
    let policy = policy(&["ruled.test=access"]);
    for (url, needed) in [
        ("https://storage.googleapis.com/", true),
        ("https://example.com/", true),
        ("https://www.googleapis.com/storage", true),
        ("https://www.googleapis.com/oauth2/v3", false),
        ("https://oauth2.googleapis.com/", false),
        ("https://svc.a.run.app/", false),
        ("https://r-p.cloudfunctions.net/fn", false),
        ("https://ruled.test/", false),
        ("http://localhost/", false),
        ("http://metadata/", false),
        ("https://10.0.0.1/", false),
        ("https://example.com:8443/", false),
        ("https://u@example.com/", false),
    ] {
        assert_eq!(policy.needs_universe(&at(url)), needed, "{url}");
    }
}

/// Returns the holder of the token.
fn whose(decision: &Decision) -> String {
    match &decision.grant {
        CredentialGrant::Token(key) => key.principal.to_string(),
        grant => format!("{grant:?}"),
    }
}

#[test]
fn a_rule_overrides_the_global_impersonation() {
    let settings = Settings {
        impersonate: Some(Impersonation::parse("a@p.example,t@p.example").unwrap()),
        ..Settings::default()
    };
    let rules = ["iap.example=id,impersonate=r@p.example", "b.example=id"];
    let policy = Policy::new(rules.iter().map(|text| rule(text)).collect(), settings);
    let whose_at = |url| whose(&policy.decide(&at(url), UNIVERSE));
    let global = "t@p.example, impersonated by the base credential through a@p.example";
    assert_eq!(whose_at("https://storage.googleapis.com/"), global);
    assert_eq!(whose_at("https://a.run.app/"), global);
    assert_eq!(whose_at("https://b.example/"), global);
    assert_eq!(
        whose_at("https://iap.example/"),
        "r@p.example, impersonated by the base credential"
    );
    let of_route = |own| {
        whose(&policy.decide_route("1", &options(own), &at("https://iap.example/"), UNIVERSE))
    };
    assert_eq!(
        of_route(""),
        "r@p.example, impersonated by the base credential"
    );
    assert_eq!(of_route("credential=access"), global);
    assert_eq!(
        of_route("impersonate=o@p.example"),
        "o@p.example, impersonated by the base credential"
    );
}

#[test]
fn a_signed_jwt_covers_every_path_unless_an_audience_is_given() {
    let url = "https://iap.example:8443/a/b?c";
    assert_eq!(
        decide(&["iap.example:8443=id,token=jwt"], url),
        "jwt https://iap.example/* by --rule iap.example:8443=id,token=jwt"
    );
    assert_eq!(
        decide(&["iap.example:8443=id,token=jwt,audience=https://x/y"], url),
        "jwt https://x/y by --rule iap.example:8443=id,token=jwt,audience=https://x/y"
    );
    // The audience has neither the function's path nor the traffic tag.
    assert_eq!(
        say(&route(&[], "token=jwt", "https://t---s.a.run.app/f")),
        "jwt https://t---s.a.run.app/* by route 8081"
    );
}
