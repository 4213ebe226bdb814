//! TLS: trust, the errors of untrusted certificates, and session resumption.

use std::sync::Arc;

use sidentity::config::HttpVersion;
use sidentity::destination::Scheme;
use sidentity::error::ErrorKind;
use sidentity::memory::Memory;
use sidentity::telemetry::Metrics;
use sidentity::upstream::{DialPolicy, Upstream};

use crate::client::{Client, NAME, Setting, get, https, secure, target};
use crate::support::hostile::Hostile;
use crate::support::tls::{Leaf, TestCa};
use crate::support::upstream::{AnyBody, Honest, Manner};

async fn presenting(leaf: Leaf) -> Honest {
    Honest::start(Manner {
        tls: Some(leaf.serving(&["h2", "http/1.1"])),
        ..Manner::default()
    })
    .await
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_not_trusted() {
    let server = presenting(TestCa::new().leaf(&[NAME])).await;
    let client = Setting::new(server.address, Some(&TestCa::new())).client();
    let place = format!("https://{NAME} at {}", server.address);
    client
        .fails(
            &https(),
            get("/"),
            ErrorKind::CertificateInvalid,
            &[&place, "--upstream-ca"],
        )
        .await;
    assert!(server.seen().is_empty());
    let tls = client.metric("sidentity_upstream_connects_total{outcome=\"tls\"}");
    assert_eq!(tls, 1.0);
    client.connections(0).await;
}

#[tokio::test]
async fn a_certificate_for_another_name_is_an_error_that_lists_its_names() {
    let ca = TestCa::new();
    let server = presenting(ca.leaf(&["one.test", "two.test"])).await;
    let client = Setting::new(server.address, Some(&ca)).client();
    client
        .fails(
            &https(),
            get("/"),
            ErrorKind::CertificateInvalid,
            &["one.test, two.test"],
        )
        .await;
}

#[tokio::test]
async fn an_expired_certificate_is_not_trusted() {
    let ca = TestCa::new();
    let server = presenting(ca.expired_leaf(&[NAME])).await;
    let client = Setting::new(server.address, Some(&ca)).client();
    client
        .fails(
            &https(),
            get("/"),
            ErrorKind::CertificateInvalid,
            &["expired"],
        )
        .await;
}

#[tokio::test]
async fn an_ip_address_must_be_in_the_certificate_as_an_address() {
    let ca = TestCa::new();
    let server = presenting(ca.leaf(&["127.0.0.1"])).await;
    let client = Setting::new(server.address, Some(&ca)).client();
    let authority = server.address.to_string();
    let by_address = target(Scheme::Https, &authority, HttpVersion::Auto);
    client.get(&by_address, "/").await.unwrap();
    assert_eq!(server.only().sni, None);
    let port = server.address.port();
    let by_name = target(
        Scheme::Https,
        &format!("localhost:{port}"),
        HttpVersion::Auto,
    );
    client
        .fails(
            &by_name,
            get("/"),
            ErrorKind::CertificateInvalid,
            &["127.0.0.1"],
        )
        .await;
}

#[tokio::test]
async fn bytes_that_are_not_tls_are_a_tls_error() {
    // One upstream speaks cleartext, one closes, one resets.
    let plain = Honest::start(Manner::default()).await;
    let slams = Hostile::slams().await;
    let resets = Hostile::resets_at_once().await;
    for address in [plain.address, slams.address, resets.address] {
        let client = Client::plain(address);
        client
            .fails(&https(), get("/"), ErrorKind::TlsProtocol, &["TLS"])
            .await;
        let tls = client.metric("sidentity_upstream_connects_total{outcome=\"tls\"}");
        assert_eq!(tls, 1.0);
    }
}

#[tokio::test]
async fn the_user_may_choose_the_version_of_http() {
    let (server, client) = secure(&["h2", "http/1.1"]).await;
    for (http, alpn) in [
        (HttpVersion::Auto, "h2"),
        (HttpVersion::Http1, "http/1.1"),
        (HttpVersion::Http2, "h2"),
    ] {
        client
            .get(&target(Scheme::Https, NAME, http), "/")
            .await
            .unwrap();
        assert_eq!(server.seen().pop().unwrap().alpn.as_deref(), Some(alpn));
    }
}

#[tokio::test]
async fn an_upstream_without_http2_is_an_error_if_http2_is_required() {
    let wants = target(Scheme::Https, NAME, HttpVersion::Http2);
    let (_server, client) = secure(&["http/1.1"]).await;
    client
        .fails(&wants, get("/"), ErrorKind::TlsProtocol, &[])
        .await;
    // This upstream does not support ALPN.
    let (server, client) = secure(&[]).await;
    client
        .fails(&wants, get("/"), ErrorKind::TlsProtocol, &["HTTP/2"])
        .await;
    client.get(&https(), "/").await.unwrap();
    assert_eq!(server.seen()[0].alpn, None);
}

#[tokio::test]
async fn a_complete_body_needs_no_close_notify() {
    let ca = TestCa::new();
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello",
    ] {
        let config = ca.leaf(&[NAME]).serving(&["http/1.1"]);
        let server = Hostile::without_close_notify(config, answer).await;
        let client = Setting::new(server.address, Some(&ca)).client();
        let (_, body) = client.get(&https(), "/").await.unwrap();
        assert_eq!(body, "hello");
        client.connections(0).await;
    }
}

/// An attacker on the network could have truncated it there.
#[tokio::test]
async fn a_body_of_unknown_length_needs_a_close_notify() {
    use http_body_util::BodyExt;
    let ca = TestCa::new();
    let config = ca.leaf(&[NAME]).serving(&["http/1.1"]);
    let server = Hostile::without_close_notify(config, "HTTP/1.1 200 OK\r\n\r\nhello").await;
    let client = Setting::new(server.address, Some(&ca)).client();
    let response = client.send(&https(), get("/")).await.unwrap();
    let error = response.into_body().collect().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn ssl_cert_file_replaces_the_systems_roots() {
    let ca = TestCa::new();
    let server = presenting(ca.leaf(&[NAME])).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("roots.pem");
    std::fs::write(&file, &ca.pem).unwrap();
    let client = Setting::new(server.address, None)
        .with(|setting| setting.config.system_ca_file = Some(file))
        .client();
    client.get(&https(), "/").await.unwrap();
}

#[tokio::test]
async fn unreadable_roots_are_an_error_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "nothing in here").unwrap();
    let missing = folder.path().join("missing.pem");
    for (file, word) in [(empty, "no certificate"), (missing, "missing.pem")] {
        let setting = Setting::new("127.0.0.1:1".parse().unwrap(), None)
            .with(|setting| setting.config.system_ca_file = Some(file));
        let metrics = Arc::new(Metrics::new());
        let bad = Upstream::<AnyBody>::new(
            &setting.config,
            DialPolicy::default(),
            metrics,
            Memory::default(),
        );
        let text = bad.unwrap_err().to_string();
        assert!(
            text.contains("SSL_CERT_FILE") && text.contains(word),
            "{text}"
        );
    }
    let mut setting = Setting::new("127.0.0.1:1".parse().unwrap(), None);
    setting.config.extra_roots = vec![b"no certificate".to_vec().into()];
    let metrics = Arc::new(Metrics::new());
    let bad = Upstream::<AnyBody>::new(
        &setting.config,
        DialPolicy::default(),
        metrics,
        Memory::default(),
    );
    assert!(bad.unwrap_err().to_string().contains("--upstream-ca"));
}

#[tokio::test]
async fn a_tls_session_is_resumed_across_http_versions() {
    let (server, client) = secure(&["h2", "http/1.1"]).await;
    let versions = [HttpVersion::Http1, HttpVersion::Auto, HttpVersion::Http2];
    for http in versions {
        client
            .get(&target(Scheme::Https, NAME, http), "/")
            .await
            .unwrap();
    }
    let resumed: Vec<bool> = server.seen().iter().map(|seen| seen.resumed).collect();
    assert_eq!(resumed, [false, true, true]);
}
