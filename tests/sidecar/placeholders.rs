//! Apps that require a static key: the token replaces a placeholder.

use bytes::Bytes;
use http::{HeaderMap, Request};

use super::support::app::{get, json, proxied, send, text};
use super::support::metadata::{Answer, Gate, Kind};
use super::support::service::{Seen, Service};
use super::support::sidecar::Sidecar;
use super::support::streams::{app, open};
use super::support::upstream::soon;
use super::{Metadata, beside, is_for, started};

const API: &str = "http://us-central1-aiplatform.googleapis.com/v1/x";
/// `user:sidentity`.
const BASIC: &str = "Basic dXNlcjpzaWRlbnRpdHk=";

/// The fields in which apps send a key.
const CARRIERS: [(&str, &str); 5] = [
    ("authorization", "Bearer sidentity"),
    ("authorization", BASIC),
    ("x-goog-api-key", "sidentity"),
    ("x-api-key", "sidentity"),
    ("api-key", "sidentity"),
];

/// Returns the last request that arrived.
fn last(service: &Service) -> Seen {
    service.seen().pop().unwrap()
}

/// Returns the values of every header that may carry a key, except the token's.
fn keys(headers: &HeaderMap) -> Vec<String> {
    ["x-goog-api-key", "x-api-key", "api-key"]
        .iter()
        .flat_map(|name| headers.get_all(*name))
        .map(|value| value.to_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_placeholder_is_replaced_wherever_a_client_puts_its_key() {
    let (metadata, service, sidecar) = started(&[]).await;
    for header in CARRIERS {
        proxied(sidecar.proxy(), API, &[header]).await;
        let seen = last(&service);
        assert_eq!(
            seen.header("authorization"),
            Some("Bearer T1"),
            "{header:?}"
        );
        assert_eq!(keys(&seen.headers), [""; 0], "{header:?}");
    }
    for (query, rest) in [
        ("?key=sidentity", ""),
        ("?alt=sse&key=sidentity&x=%2f", "?alt=sse&x=%2f"),
        ("?key=sidentity&key=%73identity&a", "?a"),
    ] {
        proxied(sidecar.proxy(), &format!("{API}{query}"), &[]).await;
        let seen = last(&service);
        assert_eq!(seen.header("authorization"), Some("Bearer T1"), "{query}");
        assert_eq!(seen.target, format!("/v1/x{rest}"));
    }
    assert_eq!(metadata.count(Kind::Access), 1);
}

#[tokio::test]
async fn several_placeholders_are_all_removed() {
    let (_metadata, service, sidecar) = started(&[]).await;
    let url = format!("{API}?key=sidentity&alt=sse");
    let mut headers = CARRIERS.to_vec();
    headers.push(("x-api-key", "sidentity"));
    proxied(sidecar.proxy(), &url, &headers).await;
    let seen = service.only();
    assert_eq!(seen.header("authorization"), Some("Bearer T1"));
    assert_eq!(keys(&seen.headers), [""; 0]);
    assert_eq!(seen.target, "/v1/x?alt=sse");
}

#[tokio::test]
async fn an_id_token_replaces_a_placeholder_by_proxy_and_by_route() {
    let route = ["--route", "127.0.0.1:0=https://svc.a.run.app/base"];
    let (_metadata, service, sidecar) = started(&route).await;
    for (name, value) in CARRIERS {
        proxied(sidecar.proxy(), "http://svc.a.run.app/x", &[(name, value)]).await;
        let seen = last(&service);
        let token = seen.header("authorization");
        assert!(is_for(token, "https://svc.a.run.app"), "{name}");
        assert_eq!(seen.header("x-serverless-authorization"), None);
        assert_eq!(keys(&seen.headers), [""; 0]);
    }
    get(sidecar.address("127.0.0.1:0"), "/x?key=sidentity&y=1").await;
    let seen = last(&service);
    assert!(is_for(
        seen.header("authorization"),
        "https://svc.a.run.app"
    ));
    assert_eq!(seen.target, "/base/x?y=1");
}

#[tokio::test]
async fn http2_requests_may_have_placeholders() {
    let (_metadata, service, sidecar) = started(&[]).await;
    let app = app(sidecar.proxy()).await;
    let request = Request::get(format!("{API}?key=sidentity"))
        .header("authorization", "Bearer sidentity")
        .header("x-goog-api-key", "sidentity")
        .body(())
        .unwrap();
    let (response, _) = open(&app, request, true).await;
    assert_eq!(soon(response).await.unwrap().status(), 200);
    let seen = service.only();
    assert_eq!(seen.header("authorization"), Some("Bearer T1"));
    assert_eq!(keys(&seen.headers), [""; 0]);
    assert_eq!(seen.target, "/v1/x");
}

#[tokio::test]
async fn a_placeholder_beside_a_real_credential_is_removed() {
    let (metadata, service, sidecar) = started(&[]).await;
    let both = [("authorization", "Bearer own"), ("x-api-key", "sidentity")];
    proxied(sidecar.proxy(), &format!("{API}?key=sidentity"), &both).await;
    let seen = last(&service);
    assert_eq!(seen.header("authorization"), Some("Bearer own"));
    assert_eq!(keys(&seen.headers), [""; 0]);
    assert_eq!(seen.target, "/v1/x");

    let both = [
        ("authorization", "Bearer sidentity"),
        ("x-goog-api-key", "AIza"),
    ];
    proxied(sidecar.proxy(), API, &both).await;
    let seen = last(&service);
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(keys(&seen.headers), ["AIza"]);

    let both = [("x-goog-api-key", "sidentity"), ("x-goog-api-key", "AIza")];
    proxied(
        sidecar.proxy(),
        &format!("{API}?key=AIza&key=sidentity"),
        &both,
    )
    .await;
    let seen = last(&service);
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(keys(&seen.headers), ["AIza"]);
    assert_eq!(seen.target, "/v1/x?key=AIza");

    let signed = format!("{API}?X-Goog-Signature=0a");
    proxied(
        sidecar.proxy(),
        &signed,
        &[("authorization", "Bearer sidentity")],
    )
    .await;
    let seen = last(&service);
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(metadata.count(Kind::Access), 0);
}

#[tokio::test]
async fn a_value_that_resembles_a_placeholder_is_a_real_credential() {
    let (metadata, service, sidecar) = started(&[]).await;
    for value in [
        "Bearer Sidentity",
        "Bearer sidentity2",
        "Bearer sidentity sidentity",
        "Token sidentity",
        "sidentity",
        // This is sidentity:secret.
        "Basic c2lkZW50aXR5OnNlY3JldA==",
    ] {
        proxied(sidecar.proxy(), API, &[("authorization", value)]).await;
        assert_eq!(last(&service).header("authorization"), Some(value));
    }
    for query in [
        "?key=Sidentity",
        "?key=sidentity0",
        "?access_token=sidentity",
    ] {
        proxied(sidecar.proxy(), &format!("{API}{query}"), &[]).await;
        let seen = last(&service);
        assert_eq!(seen.header("authorization"), None, "{query}");
        assert_eq!(seen.target, format!("/v1/x{query}"));
    }
    assert_eq!(metadata.count(Kind::Access), 0);
}

#[tokio::test]
async fn an_empty_key_is_not_a_placeholder() {
    let (_metadata, service, sidecar) = started(&[]).await;
    let empty = [("x-api-key", ""), ("api-key", ""), ("x-goog-api-key", "")];
    proxied(sidecar.proxy(), &format!("{API}?key=&a=1"), &empty).await;
    let seen = service.only();
    assert_eq!(seen.header("authorization"), Some("Bearer T1"));
    assert_eq!(keys(&seen.headers), ["", "", ""]);
    assert_eq!(seen.target, "/v1/x?key=&a=1");
}

#[tokio::test]
async fn a_destination_without_a_token_gets_the_placeholder() {
    let args = ["--rule", "none.googleapis.com=none"];
    let (metadata, service, sidecar) = started(&args).await;
    let hosts = ["none.googleapis.com", "oauth2.googleapis.com"];
    for host in hosts {
        for (name, value) in CARRIERS {
            // A request without a token is not upgraded to TLS.
            let url = format!("https://{host}/x?key=sidentity&a=1");
            proxied(sidecar.proxy(), &url, &[(name, value)]).await;
            let seen = last(&service);
            assert_eq!(seen.header(name), Some(value));
            assert_eq!(seen.target, "/x?key=sidentity&a=1");
        }
    }
    let request = Request::builder()
        .method("TRACE")
        .uri(API)
        .header("host", "us-central1-aiplatform.googleapis.com")
        .header("x-api-key", "sidentity")
        .body(Bytes::new())
        .unwrap();
    send(sidecar.proxy(), request).await;
    assert_eq!(last(&service).header("x-api-key"), Some("sidentity"));
    assert_eq!(metadata.count(Kind::Access), 0);
}

#[tokio::test]
async fn a_google_api_of_another_universe_gets_the_placeholder() {
    let service = Service::start().await;
    let metadata = Metadata::start().await;
    let gate = Gate::new();
    metadata.script(Kind::Universe, [Answer::ok("s3nsapis.fr").behind(&gate)]);
    let sidecar = beside(&metadata, &service, &[]).await;
    let proxy = sidecar.proxy();
    let call = tokio::spawn(async move {
        let url = format!("{API}?key=sidentity");
        proxied(proxy, &url, &[("x-api-key", "sidentity")]).await
    });
    sidecar
        .counted(r#"sidentity_requests_in_flight{listener="proxy"} 1"#)
        .await;
    gate.open();
    assert_eq!(soon(call).await.unwrap().status(), 200);
    let seen = service.only();
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(seen.header("x-api-key"), Some("sidentity"));
    assert_eq!(seen.target, "/v1/x?key=sidentity");
}

/// Returns whether a key counts as a placeholder.
async fn takes(sidecar: &Sidecar, service: &Service, key: &str) -> bool {
    proxied(sidecar.proxy(), API, &[("x-goog-api-key", key)]).await;
    last(service).header("authorization") == Some("Bearer T1")
}

#[tokio::test]
async fn placeholders_come_from_every_source_and_a_reload_changes_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sidentity.yaml");
    std::fs::write(&file, "placeholder: [from-file, dummy]\n").unwrap();
    let service = Service::start().await;
    let metadata = Metadata::start().await;
    metadata.script(Kind::Access, [Answer::access("T1", 3600)]);
    let flags = service.flags();
    let path = file.display().to_string();
    let more = [
        "--placeholder",
        "sk-dummy",
        "--placeholder=a+b",
        "--config",
        &path,
    ];
    let args: Vec<&str> = flags.iter().map(String::as_str).chain(more).collect();
    let env = [("SIDENTITY_PLACEHOLDER", "from-env other")];
    let sidecar = Sidecar::start_with(&metadata, &args, &env).await;
    for key in [
        "sidentity",
        "sk-dummy",
        "a+b",
        "from-env",
        "other",
        "from-file",
        "dummy",
    ] {
        assert!(takes(&sidecar, &service, key).await, "{key}");
    }
    assert!(!takes(&sidecar, &service, "sk-real").await);
    proxied(sidecar.proxy(), &format!("{API}?key=a%2Bb&x"), &[]).await;
    assert_eq!(last(&service).target, "/v1/x?x");

    std::fs::write(&file, "placeholder: newer\n").unwrap();
    sidecar.signal("HUP");
    sidecar
        .logged(|line| {
            line["message"]
                .as_str()
                .is_some_and(|m| m.starts_with("reloaded"))
        })
        .await;
    assert!(takes(&sidecar, &service, "newer").await);
    assert!(takes(&sidecar, &service, "sk-dummy").await);
    assert!(!takes(&sidecar, &service, "from-file").await);
}

#[tokio::test]
async fn explain_mentions_placeholders() {
    let (_metadata, _service, sidecar) = started(&[]).await;
    let notes = async |url: &str| {
        let answer = get(sidecar.admin(), &format!("/explain?url={url}")).await;
        assert_eq!(answer.status(), 200, "{}", text(&answer));
        json(&answer)
    };
    let plain = notes("https://storage.googleapis.com/b").await;
    assert!(plain["notes"].to_string().contains("placeholder sidentity"));
    let with = notes("https://storage.googleapis.com/b%3Fkey%3Dsidentity").await;
    assert_eq!(with["credential"], "access");
    assert!(
        with["notes"].to_string().contains("key= is removed"),
        "{with}"
    );
    let real = notes("https://storage.googleapis.com/b%3Fkey%3DAIza").await;
    assert_eq!(real["credential"], "none");
    assert!(
        real["notes"].to_string().contains("key=sidentity"),
        "{real}"
    );
}
