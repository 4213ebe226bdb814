//! Failing connections to token endpoints: the TLS handshake fails, or the upstream proxy opens no tunnel.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use crate::federation::{file_sourced, without_account};
use crate::service_account;
use crate::support::app::{proxied, text};
use crate::support::google::Google;
use crate::support::metadata::Metadata;
use crate::support::proxy::Proxy;
use crate::support::sidecar::Sidecar;

/// With a key file, ID tokens come from the token endpoint.
const SERVICE: &str = "http://billing.a.run.app/";
const API: &str = "http://storage.googleapis.com/b";

async fn started(google: &Google, file: &Value, flags: &[String]) -> Sidecar {
    let path = google.file("credentials.json", file).display().to_string();
    let flags = flags.iter().map(String::as_str);
    let all: Vec<&str> = ["--credentials", &path].into_iter().chain(flags).collect();
    Sidecar::start_with(&Metadata::start().await, &all, &[]).await
}

/// A key file and a federation file, each with a call that needs a token of its endpoint.
fn files(google: &Google) -> [(Value, &'static str); 2] {
    [
        (service_account(google), SERVICE),
        (without_account(file_sourced(google).0), API),
    ]
}

#[tokio::test]
async fn a_connection_that_breaks_during_the_tls_handshake_is_retried() {
    let google = Google::start().await;
    for (file, url) in files(&google) {
        google.break_handshakes(2);
        let sidecar = started(&google, &file, &google.flags_for_all()).await;
        let response = proxied(sidecar.proxy(), url, &[]).await;
        assert_eq!(response.status(), 200, "{}", text(&response));
    }
}

#[tokio::test]
async fn a_token_endpoint_with_an_untrusted_certificate_is_not_retried() {
    let google = Google::start().await;
    let mut flags = google.flags_for_all();
    let ca = flags.iter().position(|flag| flag == "--upstream-ca");
    flags.drain(ca.unwrap()..ca.unwrap() + 2);
    let (file, url) = files(&google)[1].clone();
    let sidecar = started(&google, &file, &flags).await;
    let response = proxied(sidecar.proxy(), url, &[]).await;
    assert_eq!(response.status(), 502, "{}", text(&response));
    assert!(
        text(&response).contains("not trusted"),
        "{}",
        text(&response)
    );
    assert_eq!(google.accepted(), 1);
}

async fn through(proxy: &Proxy, google: &Google, file: &Value) -> Sidecar {
    through_with(proxy, google, file, &["--token-timeout", "3s"]).await
}

async fn through_with(proxy: &Proxy, google: &Google, file: &Value, args: &[&str]) -> Sidecar {
    let ca = google.ca().display().to_string();
    let url = proxy.url();
    let flags = ["--upstream-ca", &*ca, "--upstream-proxy", &*url];
    let flags = flags.iter().chain(args).map(ToString::to_string);
    started(google, file, &flags.collect::<Vec<_>>()).await
}

#[tokio::test]
async fn a_proxy_that_refuses_a_token_endpoint_is_a_502_with_its_status() {
    let google = Google::start().await;
    for (status, attempts) in [(407, 1), (403, 1), (401, 1), (302, 1), (503, 2), (429, 2)] {
        for (file, url) in files(&google) {
            let proxy = Proxy::to(google.tls_address()).await;
            proxy.refuse(StatusCode::from_u16(status).unwrap());
            let sidecar = through(&proxy, &google, &file).await;
            let response = proxied(sidecar.proxy(), url, &[]).await;
            let said = text(&response);
            assert_eq!(response.status(), 502, "{said}");
            let told = response.headers()["proxy-status"].to_str().unwrap();
            assert!(told.contains("error=proxy_internal_response"), "{told}");
            assert!(
                said.contains(&format!("the proxy answered {status}")),
                "{said}"
            );
            assert!(said.contains("credentials in --upstream-proxy"), "{said}");
            assert!(!said.contains("can this machine reach it"), "{said}");
            let asked = proxy.asked().len();
            assert!(
                asked >= attempts && (attempts > 1 || asked == 1),
                "{status}: {asked}"
            );
        }
    }
}

#[tokio::test]
async fn a_briefly_overloaded_proxy_is_retried() {
    let google = Google::start().await;
    let (file, url) = files(&google)[1].clone();
    let proxy = Proxy::to(google.tls_address()).await;
    proxy.refuse(StatusCode::SERVICE_UNAVAILABLE);
    let sidecar = through(&proxy, &google, &file).await;
    let address = sidecar.proxy();
    let call = tokio::spawn(async move { proxied(address, url, &[]).await });
    while proxy.asked().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    proxy.allow();
    let response = call.await.unwrap();
    assert_eq!(response.status(), 200, "{}", text(&response));
}

#[tokio::test]
async fn a_proxy_that_names_the_time_to_retry_is_not_asked_before() {
    let google = Google::start().await;
    let (file, url) = files(&google)[1].clone();
    for is_date in [false, true] {
        let proxy = Proxy::to(google.tls_address()).await;
        let flags = ["--token-timeout", "8s"];
        let sidecar = through_with(&proxy, &google, &file, &flags).await;
        let in_four = std::time::SystemTime::now() + Duration::from_secs(4);
        let retry_after = match is_date {
            true => httpdate::fmt_http_date(in_four),
            false => "2".to_owned(),
        };
        proxy.refuse_until(&retry_after);
        let address = sidecar.proxy();
        let call = tokio::spawn(async move { proxied(address, url, &[]).await });
        while proxy.asked().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let refused = std::time::Instant::now();
        proxy.allow();
        let response = call.await.unwrap();
        assert_eq!(response.status(), 200, "{}", text(&response));
        assert!(
            refused.elapsed() >= Duration::from_millis(1_900),
            "{retry_after}"
        );
        // And once for the call itself.
        assert_eq!(proxy.asked().len(), 3);
    }
}

#[tokio::test]
async fn a_proxy_that_asks_for_an_hour_ends_the_fetch_at_once() {
    let google = Google::start().await;
    let (file, url) = files(&google)[1].clone();
    let proxy = Proxy::to(google.tls_address()).await;
    proxy.refuse_until("3600");
    let sidecar = through(&proxy, &google, &file).await;
    let response = proxied(sidecar.proxy(), url, &[]).await;
    assert_eq!(response.status(), 502, "{}", text(&response));
    // The next fetch is half a minute away at most.
    let wait: u64 = response.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((20..=30).contains(&wait), "{wait}");
    assert_eq!(proxy.asked().len(), 1);
}
