//! The log and the status page about rejected calls, the account in use, and Identity-Aware Proxy.

use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};

use super::support::app::{get, json as body, proxied};
use super::support::metadata::{Answer, Kind};
use super::support::service::{Service, reply};
use super::support::sidecar::Sidecar;
use super::{Metadata, beside, started, started_with};

const API: &str = "http://storage.googleapis.com/b";
const SERVICE: &str = "http://svc.a.run.app/";
const OWN: &str = "The upstream rejects the app's own credential";
const COMPUTE: &str = "424242-compute@developer.gserviceaccount.com";

fn message(line: &Value) -> &str {
    line["message"].as_str().unwrap_or_default()
}

/// Returns the log lines that are not the record of a request and contain all of these words.
fn hints(sidecar: &Sidecar, words: &[&str]) -> Vec<Value> {
    let mut lines = sidecar.log();
    lines.retain(|line| {
        let text = line.to_string();
        line.get("httpRequest").is_none() && words.iter().all(|word| text.contains(word))
    });
    lines
}

/// Waits for such a line.
async fn hint(sidecar: &Sidecar, words: &[&str]) -> Value {
    sidecar
        .logged(|line| {
            let text = line.to_string();
            line.get("httpRequest").is_none() && words.iter().all(|word| text.contains(word))
        })
        .await
}

/// Returns the entries of the status page with this title.
async fn entries(sidecar: &Sidecar, title: &str) -> Vec<Value> {
    let status = body(&get(sidecar.admin(), "/status").await);
    let mut errors = status["errors"].as_array().unwrap().clone();
    errors.retain(|error| error["title"] == title);
    errors
}

/// Waits for one entry with this title and count.
async fn entry(sidecar: &Sidecar, title: &str, count: u64) -> Value {
    for _ in 0..500 {
        let entries = entries(sidecar, title).await;
        if let [entry] = &entries[..]
            && entry["count"] == count
        {
            return entry.clone();
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("not {count} times: {:#?}", entries(sidecar, title).await);
}

#[tokio::test]
async fn a_rejected_credential_of_the_app_is_logged_once_with_advice() {
    for (url, header, status, reason) in [
        (API, ("authorization", "Bearer sk-own"), 401, "existing"),
        (API, ("authorization", "Bearer sk-own"), 403, "existing"),
        (API, ("x-goog-api-key", "AIza-own"), 401, "api_key"),
        (
            "http://storage.googleapis.com/b?key=AIza-own",
            ("accept", "*/*"),
            403,
            "api_key",
        ),
        (
            "http://storage.googleapis.com/b?access_token=own",
            ("accept", "*/*"),
            401,
            "existing",
        ),
    ] {
        let service = Service::answering(move |_| reply(status, "no")).await;
        let (metadata, sidecar) = started_with(&service, &["--access-log", "off"]).await;
        for _ in 0..3 {
            proxied(sidecar.proxy(), url, &[header]).await;
        }
        let words = ["existing=replace", "placeholder", "sidentity"];
        let line = hint(&sidecar, &words).await;
        assert_eq!(line["severity"], "WARNING");
        assert_eq!(line["destination"], "https://storage.googleapis.com");
        assert_eq!(
            (&line["status"], &line["reason"]),
            (&json!(status), &json!(reason))
        );
        assert_eq!(line["rule"], "built-in *.googleapis.com");
        let entry = entry(&sidecar, OWN, 3).await;
        assert_eq!(entry["status"], status);
        assert_eq!(
            (&entry["calls"], &entry["recent_calls"]),
            (&json!(3), &json!(3))
        );
        for word in words {
            assert!(entry["advice"].to_string().contains(word), "{entry}");
        }
        assert_eq!(hints(&sidecar, &words).len(), 1);
        let said = format!("{:?}{entry}", sidecar.log());
        assert!(
            !said.contains("-own") && !said.contains("token=own"),
            "{said}"
        );
        assert_eq!(metadata.count(Kind::Access), 0);
    }
}

#[tokio::test]
async fn each_destination_has_its_own_hint() {
    let service = Service::answering(|seen| match &*seen.host {
        "ok.googleapis.com" => reply(200, "yes"),
        "gone.googleapis.com" => reply(404, "no"),
        _ => reply(401, "no"),
    })
    .await;
    let (_metadata, sidecar) = started_with(&service, &["--access-log", "off"]).await;
    let own = [("authorization", "Bearer own")];
    for host in ["ok", "gone", "a", "b", "a", "b"] {
        let url = format!("http://{host}.googleapis.com/");
        proxied(sidecar.proxy(), &url, &own).await;
    }
    // This host gets no token, so its response causes no hint.
    proxied(sidecar.proxy(), "https://www.example.com/", &own).await;
    for host in ["a", "b"] {
        let words = [
            "existing=replace",
            &format!("https://{host}.googleapis.com"),
        ];
        hint(&sidecar, &words).await;
        assert_eq!(hints(&sidecar, &words).len(), 1);
    }
    assert_eq!(hints(&sidecar, &["existing=replace"]).len(), 2);
}

#[tokio::test]
async fn a_redirect_to_googles_sign_in_logs_the_rule_to_add() {
    for location in [
        "https://accounts.google.com/o/oauth2/v2/auth?client_id=1-x",
        "HTTPS://Accounts.Google.com:443/signin",
        "//accounts.google.com/x",
    ] {
        let service = Service::answering(move |_| {
            let mut response = reply(302, "");
            let headers = response.headers_mut();
            headers.insert("location", location.parse().unwrap());
            response
        })
        .await;
        let (_metadata, sidecar) = started_with(&service, &["--access-log", "off"]).await;
        for _ in 0..2 {
            let response = proxied(sidecar.proxy(), SERVICE, &[]).await;
            assert_eq!(response.status(), 302);
        }
        let rule = "--rule 'svc.a.run.app=id,audience=CLIENT_ID.apps.googleusercontent.com'";
        let words = ["Identity-Aware Proxy", rule];
        let line = hint(&sidecar, &words).await;
        assert_eq!(line["severity"], "WARNING");
        assert_eq!(line["status"], 302);
        assert_eq!(line["audience"], "https://svc.a.run.app");
        assert_eq!(line["destination"], "https://svc.a.run.app");
        let entry = entry(&sidecar, "The upstream requires a sign-in", 2).await;
        assert!(entry["advice"].to_string().contains(rule), "{entry}");
        assert_eq!(hints(&sidecar, &words).len(), 1);
        let counted = r#"sidentity_upstream_auth_rejected_total{code="401"} 0"#;
        sidecar.counted(counted).await;
    }
}

#[tokio::test]
async fn a_response_generated_by_iap_logs_the_rule_to_add() {
    for status in [302, 401] {
        let service = Service::answering(move |_| {
            let mut response = reply(
                status,
                "Invalid IAP credentials: JWT audience doesn't match",
            );
            let headers = response.headers_mut();
            headers.insert("x-goog-iap-generated-response", "true".parse().unwrap());
            response
        })
        .await;
        let (_metadata, sidecar) = started_with(&service, &[]).await;
        proxied(sidecar.proxy(), SERVICE, &[]).await;
        let rule = "--rule 'svc.a.run.app=id,audience=CLIENT_ID.apps.googleusercontent.com'";
        let line = hint(&sidecar, &["Identity-Aware Proxy", rule]).await;
        assert_eq!(line["status"], status);
    }
}

#[tokio::test]
async fn a_call_with_the_right_iap_audience_gets_no_hint() {
    let service = Service::answering(|seen| {
        let mut response = match &*seen.target {
            "/403" => reply(403, ""),
            _ => reply(302, ""),
        };
        let headers = response.headers_mut();
        headers.insert("x-goog-iap-generated-response", "true".parse().unwrap());
        response
    })
    .await;
    let rule = [
        "--rule",
        "iap.example.com=id,audience=1-x.apps.googleusercontent.com",
    ];
    let (_metadata, sidecar) = started_with(&service, &rule).await;
    proxied(sidecar.proxy(), "http://iap.example.com/", &[]).await;
    hint(
        &sidecar,
        &["answered 302", "admits for programmatic access"],
    )
    .await;
    proxied(sidecar.proxy(), "http://iap.example.com/403", &[]).await;
    hint(
        &sidecar,
        &["answered 403", "roles/iap.httpsResourceAccessor"],
    )
    .await;
    assert_eq!(hints(&sidecar, &["--rule"]).len(), 0);
}

#[tokio::test]
async fn other_redirects_and_calls_without_a_token_get_no_hint_of_iap() {
    let service = Service::answering(|seen| {
        let location = match &*seen.target {
            "/else" => "https://accounts.google.com.evil.example/",
            "/path" => "/accounts.google.com",
            "/user" => "https://accounts.google.com@evil.example/",
            "/ok" => return with_location(200),
            "/wide" => "https://x.accounts.google.com/",
            _ => return with_location(302),
        };
        let mut response = reply(302, "");
        let headers = response.headers_mut();
        headers.insert("location", location.parse().unwrap());
        response
    })
    .await;
    let (_metadata, sidecar) = started_with(&service, &[]).await;
    for path in ["else", "path", "user", "ok", "wide"] {
        proxied(sidecar.proxy(), &format!("{SERVICE}{path}"), &[]).await;
    }
    // One call has its own credential, the other none.
    proxied(sidecar.proxy(), API, &[("authorization", "Bearer own")]).await;
    proxied(sidecar.proxy(), "https://www.example.com/", &[]).await;
    sidecar
        .counted(r#"sidentity_requests_total{code="302",credential="none",listener="proxy"} 2"#)
        .await;
    assert_eq!(hints(&sidecar, &["Identity-Aware Proxy"]), [Value::Null; 0]);
}

fn with_location(status: u16) -> Response<Bytes> {
    let mut response = reply(status, "");
    let headers = response.headers_mut();
    headers.insert("location", "https://accounts.google.com/".parse().unwrap());
    response
}

#[tokio::test]
async fn a_401_or_403_is_logged_once_a_minute_without_an_access_log() {
    for status in [401, 403] {
        let service = Service::answering(move |_| reply(status, "no")).await;
        let (_metadata, sidecar) = started_with(&service, &["--access-log", "off"]).await;
        for _ in 0..3 {
            // One call has a token, one has none, and one has a signed URL.
            proxied(sidecar.proxy(), SERVICE, &[]).await;
            proxied(sidecar.proxy(), "https://www.example.com/x?secret=1", &[]).await;
            let signed = "http://a.googleapis.com/o?X-Goog-Signature=5ec2e7";
            proxied(sidecar.proxy(), signed, &[]).await;
        }
        let answered = format!("answered {status}");
        for host in ["svc.a.run.app", "www.example.com", "a.googleapis.com"] {
            let words = [&*answered, &format!("https://{host}")];
            let line = hint(&sidecar, &words).await;
            assert_eq!(line["severity"], "WARNING", "{line}");
            assert_eq!(line["status"], status);
            assert_eq!(hints(&sidecar, &words).len(), 1, "{host}");
        }
        let bare = hint(&sidecar, &["www.example.com", &answered]).await;
        assert_eq!(bare["rule"], "no rule");
        let signed = hint(&sidecar, &["a.googleapis.com", &answered]).await;
        assert_eq!(signed["reason"], "signed_url");
        let log = format!("{:?}", sidecar.log());
        assert!(
            !log.contains("secret=1") && !log.contains("5ec2e7"),
            "{log}"
        );
    }
}

#[tokio::test]
async fn with_an_access_log_a_403_to_a_call_without_a_token_is_one_line() {
    let service = Service::answering(|_| reply(403, "no")).await;
    let (_metadata, sidecar) = started_with(&service, &[]).await;
    proxied(sidecar.proxy(), "https://www.example.com/x", &[]).await;
    sidecar
        .logged(|line| line["httpRequest"]["status"] == 403)
        .await;
    assert_eq!(hints(&sidecar, &["answered 403"]), [Value::Null; 0]);
}

#[tokio::test]
async fn the_access_log_of_all_names_rule_account_audience_or_scopes_and_header() {
    let account = "other@p.iam.gserviceaccount.com";
    let args = [
        "--access-log",
        "all",
        "--rule",
        "scoped.googleapis.com=access,scope=https://a/y,scope=https://a/x",
        "--rule",
        &format!("else.a.run.app=id,audience=https://aud,account={account}"),
    ];
    let (metadata, _service, sidecar) = started(&args).await;
    metadata.script(Kind::Access, [Answer::access("ya29.secret", 3600)]);
    // Waits until the account is known.
    hint(&sidecar, &["default@test-project", "tokens are issued to"]).await;
    let own = ("authorization", "Bearer own");
    proxied(sidecar.proxy(), "http://svc.a.run.app/1", &[]).await;
    proxied(sidecar.proxy(), "http://svc.a.run.app/2", &[own]).await;
    proxied(sidecar.proxy(), "http://scoped.googleapis.com/3", &[]).await;
    proxied(sidecar.proxy(), "http://storage.googleapis.com/4", &[]).await;
    proxied(sidecar.proxy(), "http://else.a.run.app/5", &[]).await;
    proxied(sidecar.proxy(), "http://storage.googleapis.com/6", &[own]).await;
    proxied(sidecar.proxy(), "https://www.example.com/7", &[]).await;
    let default = "default@test-project.iam.gserviceaccount.com";
    let platform = "https://www.googleapis.com/auth/cloud-platform";
    let service = "https://svc.a.run.app";
    for (number, credential, rule, account, audience, scopes, header) in [
        (
            1,
            "id",
            "built-in *.run.app",
            default,
            service,
            "",
            "authorization",
        ),
        (
            2,
            "id",
            "built-in *.run.app",
            default,
            service,
            "",
            "x-serverless-authorization",
        ),
        (
            3,
            "access",
            args[3].split(',').next().unwrap(),
            default,
            "",
            "https://a/x https://a/y",
            "authorization",
        ),
        (
            4,
            "access",
            "built-in *.googleapis.com",
            default,
            "",
            platform,
            "authorization",
        ),
        (
            5,
            "id",
            "else.a.run.app=id",
            account,
            "https://aud",
            "",
            "authorization",
        ),
        (6, "none", "built-in *.googleapis.com", "", "", "", ""),
        (7, "none", "no rule", "", "", "", ""),
    ] {
        let path = format!("/{number}");
        let line = sidecar
            .logged(|line| {
                let url = line["httpRequest"]["requestUrl"].as_str();
                url.is_some_and(|url| url.ends_with(&path))
            })
            .await;
        assert_eq!(line["credential"], credential);
        assert!(line["rule"].as_str().unwrap().contains(rule), "{line}");
        for (name, value) in [
            ("account", account),
            ("audience", audience),
            ("scopes", scopes),
            ("header", header),
        ] {
            let expected = if value.is_empty() {
                Value::Null
            } else {
                json!(value)
            };
            assert_eq!(line[name], expected, "{name} of {line}");
        }
    }
    let log = format!("{:?}", sidecar.log());
    for secret in ["ya29", "Bearer", "eyJ"] {
        assert!(!log.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn the_access_log_of_all_names_the_account_of_the_very_first_call() {
    let service = Service::start().await;
    let metadata = Metadata::start().await;
    let slow = std::time::Duration::from_millis(200);
    let email = "slow@p.iam.gserviceaccount.com";
    metadata.script(Kind::Email, [Answer::ok(email).after(slow)]);
    let sidecar = beside(&metadata, &service, &["--access-log", "all"]).await;
    let response = proxied(sidecar.proxy(), SERVICE, &[]).await;
    assert_eq!(response.status(), 200);
    let line = sidecar
        .logged(|line| line["httpRequest"]["status"] == 200)
        .await;
    assert_eq!(line["account"], email);
    assert_eq!(metadata.count(Kind::Email), 1);
}

#[tokio::test]
async fn an_unknown_account_delays_no_call() {
    let service = Service::start().await;
    let metadata = Metadata::start().await;
    metadata.script(Kind::Email, [Answer::never()]);
    let sidecar = beside(&metadata, &service, &["--access-log", "all"]).await;
    let begun = std::time::Instant::now();
    assert_eq!(proxied(sidecar.proxy(), SERVICE, &[]).await.status(), 200);
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
    let line = sidecar
        .logged(|line| line["httpRequest"]["status"] == 200)
        .await;
    assert_eq!(
        (&line["account"], &line["header"]),
        (&Value::Null, &json!("authorization"))
    );
}

#[tokio::test]
async fn the_compute_engine_default_account_gets_a_warning_in_log_and_page() {
    let service = Service::start().await;
    let metadata = Metadata::start().await;
    metadata.script(Kind::Email, [Answer::ok(COMPUTE)]);
    let sidecar = beside(&metadata, &service, &[]).await;
    let line = hint(
        &sidecar,
        &[COMPUTE, "Compute Engine default service account"],
    )
    .await;
    assert_eq!(line["severity"], "WARNING");
    assert!(message(&line).contains("least roles"), "{line}");
    let status = body(&get(sidecar.admin(), "/status").await);
    let warnings = status["warnings"].to_string();
    assert!(
        warnings.contains(COMPUTE) && warnings.contains("least roles"),
        "{warnings}"
    );
    let explained = get(sidecar.admin(), "/explain?url=https://svc.a.run.app/").await;
    let notes = body(&explained)["notes"].to_string();
    assert!(
        notes.contains(COMPUTE) && notes.contains("least roles"),
        "{notes}"
    );
    let explained = get(sidecar.admin(), "/explain?url=https://www.example.com/").await;
    assert!(!body(&explained).to_string().contains("least roles"));
}

#[tokio::test]
async fn other_accounts_are_named_at_the_start_without_a_warning() {
    for email in [
        "app@p.iam.gserviceaccount.com",
        "x-compute@developer.gserviceaccount.com",
        "-compute@developer.gserviceaccount.com",
        "4-compute@developer.gserviceaccount.com.example",
    ] {
        let service = Service::start().await;
        let metadata = Metadata::start().await;
        metadata.script(Kind::Email, [Answer::ok(email)]);
        let sidecar = beside(&metadata, &service, &[]).await;
        let line = hint(&sidecar, &["tokens are issued to", email]).await;
        assert_eq!(line["severity"], "INFO");
        for word in ["metadata server", "test-project"] {
            assert!(message(&line).contains(word), "{line}");
        }
        let status = body(&get(sidecar.admin(), "/status").await);
        assert_eq!(status["warnings"], json!([]));
        assert_eq!(hints(&sidecar, &["least roles"]), [Value::Null; 0]);
    }
}

#[tokio::test]
async fn a_rule_with_the_compute_engine_default_account_gets_a_warning() {
    let rule = format!("x.example.com=id,account={COMPUTE}");
    let (_metadata, _service, sidecar) = started(&["--rule", &rule]).await;
    let line = hint(&sidecar, &[COMPUTE, "least roles"]).await;
    assert_eq!(line["severity"], "WARNING");
    let status = body(&get(sidecar.admin(), "/status").await);
    assert!(status["warnings"].to_string().contains("least roles"));
    let explained = get(sidecar.admin(), "/explain?url=https://x.example.com/").await;
    let notes = body(&explained)["notes"].to_string();
    assert!(notes.contains("least roles"), "{notes}");
}
