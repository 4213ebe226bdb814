use std::sync::Arc;

use http::StatusCode;
use serde_json::json;

use super::*;
use crate::config::{LogFormat, LogLevel};
use crate::destination::Scheme;
use crate::policy::{Principal, TokenKey};
use crate::telemetry::log::tests::{json, lines};

fn origin(host: &str) -> Origin {
    Origin::from_authority(Scheme::Https, host).unwrap()
}

fn id(audience: &str) -> TokenKey {
    let audience = audience.into();
    TokenKey {
        kind: TokenKind::Id { audience },
        principal: Principal::Attached,
    }
}

fn access(scopes: &[&str]) -> TokenKey {
    let scopes: Arc<[Arc<str>]> = scopes.iter().map(|scope| Arc::from(*scope)).collect();
    TokenKey {
        kind: TokenKind::Access { scopes },
        principal: Principal::Attached,
    }
}

/// The log line for this host's answer.
fn line(host: &str, status: u16, key: &TokenKey, account: Option<&str>) -> serde_json::Value {
    json(|| {
        let rejection = AuthRejection {
            origin: &origin(host),
            status: StatusCode::from_u16(status).unwrap(),
            header: &http::header::AUTHORIZATION,
            key,
            account,
            iap: false,
            project: None,
            machine_scopes: None,
        };
        auth_rejected(
            &RateLimiter::new(),
            &rejection,
            &CredentialName::default(),
            None,
        );
    })
}

fn message(host: &str, status: u16, key: &TokenKey) -> String {
    let line = line(host, status, key, Some("a@p.iam.gserviceaccount.com"));
    line["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_403_of_cloud_run_names_the_role_and_the_account() {
    let key = id("https://billing.run.app");
    let line = line(
        "billing.run.app",
        403,
        &key,
        Some("a@p.iam.gserviceaccount.com"),
    );
    assert_eq!(
        line,
        json!({
            "severity": "WARNING",
            "message": "https://billing.run.app answered 403 to an ID token: grant roles/run.invoker on the service to \
                        a@p.iam.gserviceaccount.com. Or its ingress settings do not permit calls from this network",
            "destination": "https://billing.run.app",
            "status": 403,
            "header": "authorization",
            "audience": "https://billing.run.app",
            "source": "metadata",
            "account": "a@p.iam.gserviceaccount.com",
            "help": "https://github.com/sidentity/sidentity/blob/main/docs/errors.md#log-token-rejected",
        })
    );
}

#[test]
fn a_401_of_a_google_api_names_the_scopes() {
    let key = access(&["https://a/x", "https://a/y"]);
    let line = line("storage.googleapis.com", 401, &key, None);
    assert_eq!(line["scopes"], "https://a/x https://a/y");
    assert_eq!(line.get("audience"), None);
    assert_eq!(line.get("account"), None);
    let message = line["message"].as_str().unwrap();
    assert!(
        message.contains("to an access token: access tokens are for Google APIs"),
        "{message}"
    );
}

#[test]
fn each_kind_of_rejection_has_its_advice() {
    let service = id("https://billing.run.app");
    let iap = id("1-x.apps.googleusercontent.com");
    let advised = |host, status, key: &TokenKey, word: &str| {
        let message = message(host, status, key);
        assert!(message.contains(word), "{message}");
    };
    advised("billing.run.app", 401, &service, "audience");
    advised("billing.run.app", 401, &service, "clock");
    advised("billing.run.app", 401, &service, "IAP");
    advised(
        "r-p.cloudfunctions.net",
        403,
        &service,
        "roles/cloudfunctions.invoker",
    );
    advised("billing.example.com", 403, &service, "roles/run.invoker");
    advised(
        "iap.example.com",
        403,
        &iap,
        "roles/iap.httpsResourceAccessor",
    );
    advised("iap.example.com", 401, &iap, "OAuth client id");
    advised(
        "storage.googleapis.com",
        403,
        &access(&[]),
        "permission that a@p.iam",
    );
    let unknown = line("billing.run.app", 403, &service, None);
    let unknown = unknown["message"].as_str().unwrap();
    assert!(unknown.contains("to the account in use"), "{unknown}");
}

#[test]
fn a_hint_is_logged_once_a_minute_per_status_and_destination() {
    let limiter = RateLimiter::new();
    let key = id("https://a.run.app");
    let lines = lines(LogFormat::Json, LogLevel::Info, false, || {
        for host in ["a.run.app", "a.run.app", "b.run.app", "a.run.app:8443"] {
            for status in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN] {
                let rejection = AuthRejection {
                    origin: &origin(host),
                    status,
                    header: &http::header::AUTHORIZATION,
                    key: &key,
                    account: None,
                    iap: false,
                    project: None,
                    machine_scopes: None,
                };
                auth_rejected(&limiter, &rejection, &CredentialName::default(), None);
            }
            tunnel_without_token(&limiter, &origin(host), NoTokenReason::InterceptOff);
        }
    });
    // Two answers of three destinations, and the tunnels of two hosts.
    assert_eq!(lines.len(), 8, "{lines:?}");
}

#[test]
fn a_403_after_a_401_and_that_of_another_function_are_logged() {
    let limiter = RateLimiter::new();
    let lines = lines(LogFormat::Json, LogLevel::Info, false, || {
        for (status, function) in [(401, "a"), (403, "a"), (403, "b"), (403, "a"), (403, "b")] {
            auth_rejected(
                &limiter,
                &AuthRejection {
                    origin: &origin("r-p.cloudfunctions.net"),
                    status: StatusCode::from_u16(status).unwrap(),
                    header: &http::header::AUTHORIZATION,
                    key: &id(&format!("https://r-p.cloudfunctions.net/{function}")),
                    account: None,
                    iap: false,
                    project: None,
                    machine_scopes: None,
                },
                &CredentialName::default(),
                None,
            );
        }
    });
    let said: Vec<_> = lines
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| (line["status"].clone(), line["audience"].clone()))
        .collect();
    let expected = |status: u16, function: &str| {
        let audience = format!("https://r-p.cloudfunctions.net/{function}");
        (json!(status), json!(audience))
    };
    assert_eq!(
        said,
        [expected(401, "a"), expected(403, "a"), expected(403, "b")]
    );
}

#[test]
fn a_blind_tunnel_without_a_token_logs_what_to_set() {
    let line = json(|| {
        tunnel_without_token(
            &RateLimiter::new(),
            &origin("a.run.app"),
            NoTokenReason::InterceptOff,
        );
    });
    assert_eq!(line["severity"], "WARNING");
    assert_eq!(line["destination"], "https://a.run.app");
    let message = line["message"].as_str().unwrap();
    assert!(
        message.starts_with("the CONNECT tunnel to https://a.run.app carries no token,"),
        "{message}"
    );
    for way in ["http://a.run.app", "--route", "--intercept", "--ca-dir"] {
        assert!(message.contains(way), "{message}");
    }
}

#[test]
fn an_unopened_tunnel_logs_the_reason() {
    for (reason, why) in [
        (NoTokenReason::NotTls, "its content is not TLS"),
        (NoTokenReason::NotCovered, "CA does not cover that host"),
    ] {
        let line = json(|| tunnel_without_token(&RateLimiter::new(), &origin("a.run.app"), reason));
        let message = line["message"].as_str().unwrap();
        assert!(
            message.contains(why) && message.contains("--route"),
            "{message}"
        );
        assert!(!message.contains("--intercept"), "{message}");
    }
}

#[test]
fn an_app_that_rejects_the_certificate_gets_a_hint() {
    let said = |folder: Option<&str>| {
        let error = std::io::Error::other("received fatal alert: UnknownCA");
        let line = json(|| {
            let folder = folder.map(Path::new);
            interception_failed(&RateLimiter::new(), &origin("a.run.app"), &error, folder);
        });
        assert_eq!(line["severity"], "WARNING");
        line["message"].as_str().unwrap().to_owned()
    };
    let message = said(Some("/ca"));
    for wanted in [
        "https://a.run.app failed: received fatal alert: UnknownCA",
        "SSL_CERT_FILE=/ca/bundle.pem",
        "NODE_EXTRA_CA_CERTS=/ca/ca.pem",
        "-Djavax.net.ssl.trustStore=/ca/truststore.p12",
    ] {
        assert!(message.contains(wanted), "{message}");
    }
    assert!(said(None).contains("--ca-dir"));
}
