//! An operator must be able to identify the cause from the log alone and from the status page alone, and see it in the
//! metrics.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::Value;

use super::connect::connect;
use super::support::app::{get, json, proxied};
use super::support::metadata::{Answer, Kind, Metadata, in_seconds, jwt};
use super::support::service::Service;
use super::support::sidecar::Sidecar;
use super::{beside, started, started_with};

const SERVICE: &str = "http://svc.a.run.app/";

/// Waits for the error of this title on the status page, and expects these words in its detail or advice.
async fn page_says(sidecar: &Sidecar, title: &str, words: &[&str]) {
    for _ in 0..500 {
        let status = json(&get(sidecar.admin(), "/status").await);
        let errors = status["errors"].as_array().unwrap();
        if let Some(error) = errors.iter().find(|error| error["title"] == title) {
            let said = format!("{} {}", error["detail"], error["advice"]);
            for word in words {
                assert!(said.contains(word), "{word} is not in {error:#}");
            }
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("nothing is titled {title}");
}

/// Waits for a log line of at least this severity with all of these words in its texts.
async fn log_says(sidecar: &Sidecar, severity: &str, words: &[&str]) {
    sidecar
        .logged(|line: &Value| {
            let said = line.to_string();
            line["severity"] == severity && words.iter().all(|word| said.contains(word))
        })
        .await;
}

fn reply(status: u16) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from("no"));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

#[tokio::test]
async fn a_missing_service_account_is_diagnosed() {
    let (metadata, _service, sidecar) = started(&[]).await;
    metadata.script(
        Kind::Identity,
        [Answer::status(404, "no such service account")],
    );
    assert_eq!(
        proxied(sidecar.proxy(), SERVICE, &[]).await.status(),
        StatusCode::BAD_GATEWAY
    );
    let words = ["404", "no such service account", "Attach a service account"];
    page_says(&sidecar, "No such service account here", &words).await;
    log_says(&sidecar, "WARNING", &words).await;
    // The line of the request has it too, with the severity of an error that the operator must correct.
    log_says(
        &sidecar,
        "ERROR",
        &["proxy_internal_error", "Attach a service account"],
    )
    .await;
    let counted =
        r#"sidentity_token_fetches_total{credential="id",outcome="error",source="metadata"} 1"#;
    sidecar.counted(counted).await;
}

#[tokio::test]
async fn a_wrong_audience_is_diagnosed() {
    let service = Service::answering(|_| reply(401)).await;
    let args = ["--rule", "svc.a.run.app=id,audience=https://typo.test"];
    let (metadata, sidecar) = started_with(&service, &args).await;
    // The token is always the same: another one would be sent too, and its 401 counted.
    let token = jwt("https://typo.test", in_seconds(3600));
    metadata.script(Kind::Identity, [Answer::ok(token)]);
    proxied(sidecar.proxy(), SERVICE, &[]).await;
    let words = [
        "https://typo.test",
        "audience must be the service's own URL",
    ];
    page_says(&sidecar, "The upstream rejects the token", &words).await;
    log_says(
        &sidecar,
        "WARNING",
        &[
            "401",
            "https://svc.a.run.app",
            r#""audience":"https://typo.test""#,
            r#""header":"authorization""#,
            "default@test-project.iam.gserviceaccount.com",
            words[1],
        ],
    )
    .await;
    sidecar
        .counted(r#"sidentity_upstream_auth_rejected_total{code="401"} 1"#)
        .await;
}

#[tokio::test]
async fn a_missing_role_is_diagnosed() {
    let service = Service::answering(|_| reply(403)).await;
    let (_metadata, sidecar) = started_with(&service, &[]).await;
    for _ in 0..3 {
        proxied(sidecar.proxy(), SERVICE, &[]).await;
    }
    let grant = "roles/run.invoker on the service to default@test-project.iam.gserviceaccount.com";
    page_says(
        &sidecar,
        "The upstream forbids the call to this account",
        &[grant],
    )
    .await;
    let words = [
        "403",
        r#""audience":"https://svc.a.run.app""#,
        r#""header":"authorization""#,
        r#""account":"default@test-project.iam.gserviceaccount.com""#,
        grant,
    ];
    log_says(&sidecar, "WARNING", &words).await;
    sidecar
        .counted(r#"sidentity_upstream_auth_rejected_total{code="403"} 3"#)
        .await;
    let lines = sidecar.log();
    let said = lines.iter().filter(|line| line.to_string().contains(grant));
    assert_eq!(said.count(), 1, "once a minute for each destination");
}

#[tokio::test]
async fn a_403_names_the_account_of_the_rule_although_the_metadata_server_does_not() {
    let service = Service::answering(|_| reply(403)).await;
    let metadata = Metadata::start().await;
    metadata.script(Kind::Identity, [Answer::identity(3600)]);
    metadata.script(Kind::Email, [Answer::status(404, "")]);
    let rule = "--rule=svc.a.run.app=id,account=x@p.iam.gserviceaccount.com";
    let sidecar = beside(&metadata, &service, &[rule]).await;
    proxied(sidecar.proxy(), SERVICE, &[]).await;
    let words = [
        "403",
        r#""account":"x@p.iam.gserviceaccount.com""#,
        "roles/run.invoker on the service to x@p.iam.gserviceaccount.com",
    ];
    log_says(&sidecar, "WARNING", &words).await;
}

#[tokio::test]
async fn a_stopped_metadata_server_is_diagnosed() {
    let (mut metadata, _service, sidecar) = started(&["--token-timeout", "1s"]).await;
    metadata.stop().await;
    let answer = proxied(sidecar.proxy(), SERVICE, &[]).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let words = ["metadata server", "169.254.169.254", "GCE_METADATA_HOST"];
    page_says(&sidecar, "The metadata server cannot be reached", &words).await;
    log_says(&sidecar, "WARNING", &words).await;
    log_says(
        &sidecar,
        "ERROR",
        &["https://svc.a.run.app", words[1], words[2]],
    )
    .await;
    sidecar
        .counted(r#"sidentity_token_lookups_total{credential="id",outcome="error"} 1"#)
        .await;
}

#[tokio::test]
async fn a_wrong_upstream_certificate_is_diagnosed() {
    let service = Service::start().await;
    let metadata = Metadata::start().await;
    let elsewhere = format!("*:443:127.0.0.1:{}", service.address().port());
    // The sidecar does not trust this service's authority.
    let sidecar = Sidecar::start(&metadata, &["--connect-to", &elsewhere]).await;
    let answer = proxied(sidecar.proxy(), SERVICE, &[]).await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(service.seen().len(), 0, "no token goes there");
    let words = ["certificate", "openssl s_client", "--upstream-ca"];
    page_says(&sidecar, "The upstream's certificate is not valid", &words).await;
    log_says(
        &sidecar,
        "WARNING",
        &["tls_certificate_error", words[1], words[2]],
    )
    .await;
    sidecar
        .counted(r#"sidentity_proxy_errors_total{error="tls_certificate_error"} 1"#)
        .await;
    sidecar
        .counted(r#"sidentity_upstream_connects_total{outcome="tls"} 1"#)
        .await;
}

#[tokio::test]
async fn a_dns_failure_is_diagnosed() {
    let metadata = Metadata::start().await;
    let args = ["--connect-to", "*:443:nowhere.invalid:443"];
    let sidecar = Sidecar::start(&metadata, &args).await;
    let answer = proxied(sidecar.proxy(), SERVICE, &[]).await;
    assert!(answer.status().is_server_error());
    let words = ["nowhere.invalid", "Cloud DNS"];
    page_says(&sidecar, "The upstream's name does not resolve", &words).await;
    log_says(&sidecar, "WARNING", &["dns_error", words[0], words[1]]).await;
    sidecar
        .counted(r#"sidentity_proxy_errors_total{error="dns_error"} 1"#)
        .await;
    sidecar
        .counted(r#"sidentity_upstream_connects_total{outcome="dns"} 1"#)
        .await;
}

#[tokio::test]
async fn a_blind_tunnel_without_a_token_is_diagnosed() {
    let (_metadata, _service, sidecar) = started(&[]).await;
    let (head, _stream) = connect(sidecar.proxy(), "svc.a.run.app:443").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let words = ["http://svc.a.run.app through the proxy", "--intercept"];
    page_says(&sidecar, "A call was sent without its token", &words).await;
    log_says(&sidecar, "WARNING", &words).await;
    sidecar
        .counted(r#"sidentity_skipped_total{reason="tunnel"} 1"#)
        .await;
}

#[tokio::test]
async fn an_app_that_bypasses_the_proxy_is_diagnosed() {
    let route = ["--route", "127.0.0.1:0=https://svc.a.run.app"];
    let (_metadata, _service, sidecar) = started(&route).await;
    let bypassed = format!(
        "no request was received so far: if the app has sent calls, they bypassed the sidecar. It must call http://{} for \
         https://svc.a.run.app/, or have HTTP_PROXY=http://{}",
        sidecar.address("127.0.0.1:0"),
        sidecar.proxy()
    );
    let status = || async { json(&get(sidecar.admin(), "/status").await) };
    assert_eq!(status().await["unused"], *bypassed);
    assert_eq!(status().await["listeners"][0]["requests"], 0);
    let is_said = |line: &Value| line["message"] == *bypassed;
    for _ in 0..9 {
        get(sidecar.admin(), "/liveness").await;
    }
    assert!(
        !sidecar.log().iter().any(is_said),
        "an app may need a moment"
    );
    for _ in 0..9 {
        get(sidecar.admin(), "/liveness").await;
    }
    sidecar.logged(is_said).await;
    assert_eq!(sidecar.log().iter().filter(|line| is_said(line)).count(), 1);

    get(sidecar.address("127.0.0.1:0"), "/").await;
    let seen = r#"sidentity_requests_total{code="200",credential="id",listener="127.0.0.1:0"} 1"#;
    sidecar.counted(seen).await;
    assert_eq!(status().await["unused"], Value::Null);
}

#[tokio::test]
async fn an_app_that_never_used_the_proxy_is_diagnosed() {
    let (_metadata, _service, mut sidecar) = started(&[]).await;
    sidecar.signal("TERM");
    sidecar.ended().await;
    sidecar
        .logged(|line| {
            line["message"]
                .as_str()
                .unwrap_or_default()
                .starts_with("no request was received so far")
        })
        .await;
}
