use proptest::prelude::*;

use super::*;
use crate::destination::Destination;
use crate::policy::{Pattern, Policy, Rule, RuleOptions, Settings};

const TOKEN: &str = "Bearer ours";

/// Returns the decision of the built-in table for `url`, or of a rule with these options.
fn decision(url: &str, options: &[(&str, &str)]) -> Decision {
    let destination = Destination::parse(url).unwrap();
    let mut rules = Vec::new();
    if !options.is_empty() {
        let mut all = RuleOptions::default();
        for (name, value) in options {
            all.set(name, value).unwrap();
        }
        rules.push(Rule {
            pattern: Pattern::parse(&destination.origin.host.to_string()).unwrap(),
            options: all,
            name: "test".into(),
        });
    }
    Policy::new(rules, Settings::default()).decide(&destination, "googleapis.com")
}

fn headers(all: &[(&str, &str)]) -> HeaderMap {
    all.iter()
        .map(|(name, value)| {
            (
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_str(value).unwrap(),
            )
        })
        .collect()
}

/// Returns the headers that arrive upstream as `name: value` lines, or the reason that no token was injected.
fn sent_upstream(decision: &Decision, app: &[(&str, &str)]) -> String {
    let mut headers = headers(app);
    strip_redacted(&mut headers);
    match select_header(decision, &headers, None) {
        None => return "no token".to_owned(),
        Some(Placement::Skip(reason)) => return format!("skip {}", reason.as_str()),
        Some(Placement::Inject(header)) => {
            inject(
                decision,
                &mut headers,
                header,
                HeaderValue::from_static(TOKEN),
            );
        }
    }
    let mut lines: Vec<_> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    lines.join("\n")
}

const RUN: &str = "https://svc.a.run.app/";
const FUNCTION: &str = "https://r-p.cloudfunctions.net/fn";
const API: &str = "https://storage.googleapis.com/b";
const USER: (&str, &str) = ("authorization", "Bearer user");
const AUTH_OURS: &str = "authorization: Bearer ours";
const XSA_OURS: &str = "x-serverless-authorization: Bearer ours";
const DEAD_XSA: (&str, &str) = (
    "x-serverless-authorization",
    "Bearer h.p.SIGNATURE_REMOVED_BY_GOOGLE",
);
const DEAD_AUTH: (&str, &str) = ("authorization", "Bearer h.p.SIGNATURE_REMOVED_BY_GOOGLE");
const LIVE_XSA: (&str, &str) = ("x-serverless-authorization", "Bearer h.p.s");

#[test]
fn without_an_app_credential_the_token_is_in_authorization() {
    let iap = [
        ("credential", "id"),
        ("audience", "1-x.apps.googleusercontent.com"),
    ];
    for decision in [
        decision(RUN, &[]),
        decision(FUNCTION, &[]),
        decision(API, &[]),
        decision("https://iap.test/", &iap),
        decision("https://own.test/", &[("credential", "id")]),
        decision("https://gcr.io/", &[("credential", "access")]),
    ] {
        assert_eq!(sent_upstream(&decision, &[]), AUTH_OURS);
        assert_eq!(
            sent_upstream(&decision, &[("authorization", "")]),
            AUTH_OURS
        );
        assert_eq!(
            sent_upstream(&decision, &[("authorization", " ")]),
            AUTH_OURS
        );
        assert_eq!(sent_upstream(&decision, &[DEAD_AUTH]), AUTH_OURS);
        assert_eq!(sent_upstream(&decision, &[DEAD_AUTH, DEAD_XSA]), AUTH_OURS);
    }
}

#[test]
fn the_token_is_added_beside_the_apps_own_authorization() {
    let beside = format!("authorization: Bearer user\n{XSA_OURS}");
    assert_eq!(sent_upstream(&decision(RUN, &[]), &[USER]), beside);
    assert_eq!(
        sent_upstream(&decision(RUN, &[]), &[USER, DEAD_XSA]),
        beside
    );
    assert_eq!(
        sent_upstream(&decision(RUN, &[]), &[USER, LIVE_XSA]),
        beside
    );
    assert_eq!(
        sent_upstream(&decision(RUN, &[]), &[USER, DEAD_AUTH]),
        beside
    );
    assert_eq!(sent_upstream(&decision(FUNCTION, &[]), &[USER]), beside);
    let own = decision("https://own.test/", &[("credential", "id")]);
    assert_eq!(sent_upstream(&own, &[USER]), beside);
    let iap = decision(
        "https://iap.test/",
        &[
            ("audience", "1-x.apps.googleusercontent.com"),
            ("credential", "id"),
        ],
    );
    assert_eq!(
        sent_upstream(&iap, &[USER, ("proxy-authorization", "Basic junk")]),
        "authorization: Bearer user\nproxy-authorization: Bearer ours"
    );
    assert_eq!(sent_upstream(&decision(API, &[]), &[USER]), "skip existing");
    let registry = decision("https://gcr.io/", &[("credential", "access")]);
    assert_eq!(sent_upstream(&registry, &[USER]), "skip existing");
}

#[test]
fn an_apps_serverless_token_never_reaches_cloud_run() {
    assert_eq!(sent_upstream(&decision(RUN, &[]), &[LIVE_XSA]), XSA_OURS);
    for options in [
        [("credential", "id"), ("header", "authorization")],
        [("credential", "id"), ("existing", "replace")],
    ] {
        assert_eq!(
            sent_upstream(&decision(RUN, &options), &[LIVE_XSA]),
            AUTH_OURS
        );
    }
    let proxy = decision(
        RUN,
        &[("credential", "id"), ("header", "proxy-authorization")],
    );
    assert_eq!(
        sent_upstream(&proxy, &[LIVE_XSA]),
        "proxy-authorization: Bearer ours"
    );
    // IAP in front of Cloud Run does not read that header.
    let iap = decision(
        RUN,
        &[
            ("credential", "id"),
            ("audience", "1-x.apps.googleusercontent.com"),
        ],
    );
    assert_eq!(sent_upstream(&iap, &[LIVE_XSA]), AUTH_OURS);
    assert_eq!(
        sent_upstream(&iap, &[USER, LIVE_XSA]),
        "authorization: Bearer user\nproxy-authorization: Bearer ours"
    );
    // An access token is for the service's own code, and does not conflict with an ID token of the app.
    let access = decision(RUN, &[("credential", "access")]);
    assert_eq!(
        sent_upstream(&access, &[LIVE_XSA]),
        format!("{AUTH_OURS}\nx-serverless-authorization: Bearer h.p.s")
    );
}

#[test]
fn the_user_may_choose_the_header() {
    let with = |header, existing| {
        decision(
            RUN,
            &[
                ("credential", "id"),
                ("header", header),
                ("existing", existing),
            ],
        )
    };
    assert_eq!(
        sent_upstream(&with("authorization", "keep"), &[USER]),
        "skip existing"
    );
    assert_eq!(
        sent_upstream(&with("authorization", "replace"), &[USER]),
        AUTH_OURS
    );
    assert_eq!(
        sent_upstream(&with("auto", "replace"), &[USER, LIVE_XSA]),
        AUTH_OURS
    );
    assert_eq!(
        sent_upstream(&with("x-serverless-authorization", "keep"), &[]),
        XSA_OURS
    );
    assert_eq!(
        sent_upstream(&with("x-serverless-authorization", "replace"), &[USER]),
        format!("authorization: Bearer user\n{XSA_OURS}")
    );
    assert_eq!(
        sent_upstream(
            &with("proxy-authorization", "keep"),
            &[("proxy-authorization", "Basic x")]
        ),
        "proxy-authorization: Bearer ours"
    );
    let api = decision(API, &[("credential", "access"), ("existing", "replace")]);
    assert_eq!(
        sent_upstream(&api, &[USER, ("authorization", "two")]),
        AUTH_OURS
    );
}

#[test]
fn a_credential_in_the_query_is_the_apps_own() {
    use Placement::{Inject, Skip};
    use SkipReason::{Existing, SignedUrl};
    let placed = |decision: &Decision, query| {
        select_header(decision, &HeaderMap::new(), Some(query)).unwrap()
    };
    let keep = [
        decision(API, &[]),
        decision("https://gcr.io/", &[("credential", "access")]),
        decision(
            "https://gcr.io/",
            &[("credential", "access"), ("existing", "replace")],
        ),
    ];
    for (query, reason) in [
        ("access_token=x", Some(Existing)),
        ("a=b&oauth_token=x", Some(Existing)),
        ("access%5ftoken=x", Some(Existing)),
        ("%61ccess_token=x", Some(Existing)),
        ("AWSAccessKeyId=a&Signature=b", Some(SignedUrl)),
        ("signature=b&x=y&awsaccesskeyid=a", Some(SignedUrl)),
        ("AWSAccessKeyId=a", None),
        ("Signature=b", None),
        ("access_token=", None),
        ("access_token", None),
        ("Access_Token=x", None),
        ("my_access_token=x", None),
        ("q=access_token%3Dx", None),
    ] {
        let expected = reason.map_or(Inject(AUTHORIZATION), Skip);
        for decision in &keep {
            assert_eq!(placed(decision, query), expected, "{query}");
        }
        let beside = match reason {
            Some(_) => X_SERVERLESS_AUTHORIZATION,
            None => AUTHORIZATION,
        };
        assert_eq!(
            placed(&decision(RUN, &[]), query),
            Inject(beside),
            "{query}"
        );
    }
    let replace = decision(RUN, &[("credential", "id"), ("existing", "replace")]);
    assert_eq!(placed(&replace, "access_token=x"), Inject(AUTHORIZATION));
    assert_eq!(placed(&keep[0], "bearer_token=x"), Skip(Existing));
}

#[test]
fn keys_signatures_and_sessions_replace_a_token_at_google_apis_only() {
    use SkipReason::{ApiKey, SignedUrl, UploadSession};
    let api = decision(API, &[]);
    for (query, reason) in [
        ("key=AIza", Some(ApiKey)),
        ("alt=json&key=AIza", Some(ApiKey)),
        ("%6Bey=AIza", Some(ApiKey)),
        ("key=", None),
        ("key", None),
        ("Key=x", None),
        ("monkey=x", None),
        ("X-Goog-Signature=ab", Some(SignedUrl)),
        ("x-goog-signature=ab", Some(SignedUrl)),
        ("X%2DGoog%2DSignature=ab", Some(SignedUrl)),
        ("X-Amz-Signature=ab", Some(SignedUrl)),
        ("GoogleAccessId=a&Expires=1&Signature=b", Some(SignedUrl)),
        ("signature=b&googleaccessid=a", Some(SignedUrl)),
        ("Signature=b", None),
        ("GoogleAccessId=b", None),
        ("uploadType=resumable&upload_id=xyz", Some(UploadSession)),
        ("prefix=key%3Dx&x=upload_id", None),
        ("", None),
        ("&&=&%&%zz", None),
    ] {
        let expected = reason.map_or(Placement::Inject(AUTHORIZATION), Placement::Skip);
        assert_eq!(
            select_header(&api, &HeaderMap::new(), Some(query)),
            Some(expected),
            "{query}"
        );
        for other in [
            decision(RUN, &[]),
            decision("https://gcr.io/", &[("credential", "access")]),
        ] {
            assert_eq!(
                select_header(&other, &HeaderMap::new(), Some(query)),
                Some(Placement::Inject(AUTHORIZATION)),
                "{query}"
            );
        }
    }
    assert_eq!(
        sent_upstream(&api, &[("x-goog-api-key", "AIza")]),
        "skip api_key"
    );
    assert_eq!(
        sent_upstream(&api, &[("x-goog-api-key", "")]),
        "authorization: Bearer ours\nx-goog-api-key: "
    );
    let by_rule = decision(API, &[("credential", "access"), ("existing", "replace")]);
    assert_eq!(
        sent_upstream(&by_rule, &[("x-goog-api-key", "AIza")]),
        "skip api_key"
    );
}

#[test]
fn without_a_token_no_header_is_set() {
    for url in [
        "https://example.com/",
        "https://oauth2.googleapis.com/",
        "http://localhost/",
    ] {
        assert_eq!(sent_upstream(&decision(url, &[]), &[USER]), "no token");
    }
}

#[test]
fn only_the_redacted_value_of_several_is_removed() {
    let mut all = headers(&[
        USER,
        DEAD_AUTH,
        ("authorization", "Bearer b"),
        DEAD_XSA,
        ("x-other", "a.SIGNATURE_REMOVED_BY_GOOGLE"),
    ]);
    strip_redacted(&mut all);
    let left: Vec<_> = all.get_all(AUTHORIZATION).iter().collect();
    assert_eq!(left, ["Bearer user", "Bearer b"]);
    assert!(!all.contains_key(X_SERVERLESS_AUTHORIZATION));
    assert!(all.contains_key("x-other"));
}

#[test]
fn the_injected_value_is_not_in_debug_output() {
    let mut all = HeaderMap::new();
    inject(
        &decision(RUN, &[]),
        &mut all,
        AUTHORIZATION,
        HeaderValue::from_static(TOKEN),
    );
    assert!(!format!("{all:?}").contains("ours"));
}

fn any_decision() -> impl Strategy<Value = Decision> {
    (
        prop::sample::select(vec![
            RUN,
            FUNCTION,
            API,
            "https://own.test/",
            "https://gcr.io/",
        ]),
        prop::sample::select(vec!["access", "id"]),
        prop::sample::select(vec![
            "auto",
            "authorization",
            "x-serverless-authorization",
            "proxy-authorization",
        ]),
        prop::sample::select(vec!["keep", "replace"]),
        any::<bool>(),
    )
        .prop_map(|(url, credential, header, existing, iap)| {
            let mut options = vec![
                ("credential", credential),
                ("header", header),
                ("existing", existing),
            ];
            if iap && credential == "id" {
                options.push(("audience", "1-x.apps.googleusercontent.com"));
            }
            decision(url, &options)
        })
}

fn any_headers() -> impl Strategy<Value = HeaderMap> {
    let name = prop::sample::select(vec![
        "authorization",
        "x-serverless-authorization",
        "proxy-authorization",
        "x-goog-api-key",
        "x-other",
    ]);
    let value = prop::sample::select(vec![
        "",
        " ",
        "Bearer user",
        "Bearer h.p.SIGNATURE_REMOVED_BY_GOOGLE",
        "h.p.SIGNATURE_REMOVED_BY_GOOGLE \t",
        "\u{fe}",
    ]);
    prop::collection::vec((name, value), 0..8).prop_map(|all| {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    })
}

proptest! {
    #[test]
    fn exactly_one_header_carries_the_token(decision in any_decision(), mut headers in any_headers()) {
        strip_redacted(&mut headers);
        let before = headers.clone();
        if let Some(Placement::Inject(header)) = select_header(&decision, &headers, None) {
            let live = headers.get_all(AUTHORIZATION).iter().any(|value| !value.as_bytes().trim_ascii().is_empty());
            prop_assert!(header != AUTHORIZATION || !live || decision.existing == Existing::Replace);
            inject(&decision, &mut headers, header.clone(), HeaderValue::from_static(TOKEN));
            prop_assert_eq!(headers.values().filter(|value| *value == TOKEN).count(), 1);
            prop_assert_eq!(headers.get_all(&header).iter().count(), 1);
            if decision.cloud_run && header != X_SERVERLESS_AUTHORIZATION {
                prop_assert!(!headers.contains_key(X_SERVERLESS_AUTHORIZATION));
            }
        } else {
            prop_assert_eq!(headers, before);
        }
    }

    #[test]
    fn redacted_values_are_removed_and_never_decide(decision in any_decision(), mut headers in any_headers()) {
        let placed = select_header(&decision, &headers, None);
        strip_redacted(&mut headers);
        for name in [AUTHORIZATION, X_SERVERLESS_AUTHORIZATION] {
            prop_assert!(!headers.get_all(&name).iter().any(is_redacted));
        }
        prop_assert_eq!(select_header(&decision, &headers, None), placed);
    }

    #[test]
    fn no_query_makes_the_parser_panic(decision in any_decision(), query in "\\PC{0,60}|([a-zA-Z_%&=-]{0,8}){0,6}") {
        let _ = select_header(&decision, &HeaderMap::new(), Some(&query));
    }
}

#[test]
fn a_signed_jwt_is_sent_beside_the_apps_authorization_for_iap() {
    let iap = decision("https://iap.test/", &[("token", "jwt")]);
    assert_eq!(sent_upstream(&iap, &[]), AUTH_OURS);
    assert_eq!(
        sent_upstream(&iap, &[USER]),
        "authorization: Bearer user\nproxy-authorization: Bearer ours"
    );
    let replaced = decision(
        "https://iap.test/",
        &[("token", "jwt"), ("existing", "replace")],
    );
    assert_eq!(sent_upstream(&replaced, &[USER]), AUTH_OURS);
}
