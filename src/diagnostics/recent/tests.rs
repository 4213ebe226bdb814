use http::{StatusCode, header};

use super::error::SHOWN;
use super::*;
use crate::destination::Destination;
use crate::error::{SourceKind, TokenFault};
use crate::policy::{CredentialName, Principal, TokenKind};

fn origin(url: &str) -> Origin {
    Destination::parse(url).unwrap().origin
}

fn fail(recent: &RecentErrors, kind: ErrorKind, url: &str, detail: &str) {
    let problem = Problem::new(kind, detail);
    recent.failed(&problem, Some(&origin(url)), &"proxy".into());
}

fn id(audience: &str) -> TokenKey {
    TokenKey {
        kind: TokenKind::Id {
            audience: audience.into(),
        },
        principal: Principal::Attached,
    }
}

#[test]
fn a_repeated_error_is_counted_and_listed_first() {
    let recent = RecentErrors::default();
    fail(
        &recent,
        ErrorKind::DnsFailed,
        "https://a.example/x?q",
        "first",
    );
    fail(&recent, ErrorKind::DnsFailed, "https://b.example", "other");
    fail(
        &recent,
        ErrorKind::DnsFailed,
        "https://a.example/y",
        "second",
    );
    fail(&recent, ErrorKind::DnsTimeout, "https://a.example", "third");
    let errors = recent.errors();
    let seen: Vec<_> = errors
        .iter()
        .map(|error| (&*error.detail, error.count))
        .collect();
    assert_eq!(seen, [("third", 1), ("second", 2), ("other", 1)]);
    assert_eq!(errors[1].advice, ErrorKind::DnsFailed.advice());
    assert!(errors[1].first <= errors[1].last);
}

#[test]
fn only_the_last_fifty_errors_are_kept() {
    let recent = RecentErrors::default();
    for n in 0..1_000 {
        let url = format!("https://h{n}.example");
        fail(&recent, ErrorKind::ConnectionRefused, &url, "no");
    }
    let errors = recent.errors();
    assert_eq!(errors.len(), KEPT);
    let about = |n: usize| {
        Some(ErrorSubject::Destination(origin(&format!(
            "https://h{n}.example"
        ))))
    };
    assert_eq!(errors[0].about, about(999));
    assert_eq!(errors[49].about, about(950));
}

#[test]
fn hostile_text_is_truncated_and_escaped() {
    let recent = RecentErrors::default();
    let detail = format!("a\r\nb\u{1b}[2J\u{202e}c<script>{}", "x".repeat(10_000));
    fail(&recent, ErrorKind::BadRequest, "https://a.example", &detail);
    let shown = &recent.errors()[0].detail;
    assert!(shown.starts_with("a  b [2J c<script>xx"), "{shown}");
    assert!(shown.ends_with("x…"));
    assert_eq!(shown.chars().count(), SHOWN + 1);
}

#[test]
fn a_missing_token_is_reported_with_its_account_and_advice() {
    let recent = RecentErrors::default();
    recent.not_fetched(
        &id("https://a.example"),
        &Problem::no_token(TokenFault::NoAccount, SourceKind::Metadata, "token: no"),
    );
    let json = serde_json::to_value(recent.errors()).unwrap();
    assert_eq!(json[0]["about"], "ID token for https://a.example");
    assert_eq!(json[0]["title"], TokenFault::NoAccount.title());
    assert_eq!(json[0]["advice"], TokenFault::NoAccount.advice());
    assert_eq!(json[0]["status"], serde_json::Value::Null);
    assert_eq!(json[0]["count"], 1);
    assert!(json[0]["last"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn a_rejection_names_account_audience_header_and_role() {
    let recent = RecentErrors::default();
    let key = id("https://svc.a.run.app");
    let rejection = AuthRejection {
        origin: &origin("https://svc.a.run.app/secret?x"),
        status: StatusCode::FORBIDDEN,
        header: &header::AUTHORIZATION,
        key: &key,
        account: Some("me@p.iam.gserviceaccount.com"),
        iap: false,
        project: None,
        machine_scopes: None,
    };
    recent.rejected(&rejection, &CredentialName::default());
    let error = &recent.errors()[0];
    assert_eq!(
        error.detail,
        "answered 403 to an ID token for https://svc.a.run.app in authorization, of me@p.iam.gserviceaccount.com"
    );
    assert!(
        error.advice.contains("roles/run.invoker"),
        "{}",
        error.advice
    );
    assert!(error.advice.contains("me@p.iam"), "{}", error.advice);
}

#[test]
fn an_upstream_error_is_reported_with_where_to_look() {
    let recent = RecentErrors::default();
    for _ in 0..2 {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        recent.upstream_error(
            &origin("https://svc.a.run.app/x?y"),
            status,
            &"proxy".into(),
        );
    }
    let json = serde_json::to_value(recent.errors()).unwrap();
    assert_eq!(json[0]["about"], "https://svc.a.run.app");
    assert_eq!(
        (&json[0]["status"], &json[0]["count"]),
        (&503.into(), &2.into())
    );
    // The error of Proxy-Status is for the sidecar's own answers.
    assert!(json[0]["error"].is_null());
    let detail = json[0]["detail"].as_str().unwrap();
    assert!(detail.contains("503 Service Unavailable"), "{detail}");
    assert!(
        json[0]["advice"]
            .as_str()
            .unwrap()
            .contains("upstream's log")
    );
}

#[test]
fn two_functions_of_one_host_that_refuse_calls_are_two_errors() {
    let recent = RecentErrors::default();
    let origin = origin("https://r-p.cloudfunctions.net");
    for function in ["a", "b", "a"] {
        recent.rejected(
            &AuthRejection {
                origin: &origin,
                status: StatusCode::FORBIDDEN,
                header: &header::AUTHORIZATION,
                key: &id(&format!("https://r-p.cloudfunctions.net/{function}")),
                account: None,
                iap: false,
                project: None,
                machine_scopes: None,
            },
            &CredentialName::default(),
        );
    }
    let json = serde_json::to_value(recent.errors()).unwrap();
    let counts: Vec<_> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|error| &error["count"])
        .collect();
    assert_eq!(counts, [2, 1]);
    assert_eq!(json[0]["about"], "https://r-p.cloudfunctions.net");
}

#[test]
fn a_blind_tunnel_and_an_untrusted_certificate_are_reported() {
    let recent = RecentErrors::default();
    let origin = origin("https://a.run.app");
    recent.tunnel_without_token(&origin, NoTokenReason::InterceptOff);
    recent.interception_failed(&origin, &std::io::Error::other("unknown CA"));
    let [app, tunnel] = &recent.errors()[..] else {
        panic!("two");
    };
    assert!(tunnel.advice.contains("--intercept"), "{}", tunnel.advice);
    assert!(
        tunnel.advice.contains("http://a.run.app"),
        "{}",
        tunnel.advice
    );
    assert!(app.detail.contains("unknown CA"));
    assert!(app.advice.contains("bundle.pem"));
}
