//! `--upstream-proxy`: by `CONNECT`, in absolute form for requests without a token, and the responses of proxies.

use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderValue, Method, Version, header};
use sidentity::config::{self, ConnectHost, ConnectTo, Env, HttpVersion, OptionKey, RawConfig};
use sidentity::destination::{Host, Origin, Scheme};
use sidentity::dns::Priority;
use sidentity::error::ErrorKind;
use sidentity::upstream::{DialPolicy, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Client, NAME, Setting, get, h2c, http, https, request, target, whole};
use crate::support::hostile::Hostile;
use crate::support::proxy::Proxy;
use crate::support::tls::TestCa;
use crate::support::upstream::{Honest, Manner, soon, text};
use crate::support::wire::{Port, Wire, field};

mod connect_response;
mod refusals;

/// Returns the proxy of these options.
fn way_out(proxy: &str, no_proxy: &str) -> Option<std::sync::Arc<config::UpstreamProxy>> {
    let mut raw = RawConfig::default();
    raw.set_flag(OptionKey::UpstreamProxy, [proxy.to_owned()]);
    raw.set_flag(OptionKey::NoUpstreamProxy, [no_proxy.to_owned()]);
    config::load(&raw, &Env::default()).unwrap().upstream.proxy
}

/// Returns a client that reaches upstreams through this proxy. It cannot resolve names.
fn setting(proxy: SocketAddr, ca: Option<&TestCa>) -> Setting {
    Setting::new(proxy, ca).with(|setting| {
        setting.config.connect_to.clear();
        setting.config.proxy = way_out(&format!("http://{proxy}"), "");
    })
}

/// Returns an honest HTTPS upstream under [`NAME`] with these protocols, and its CA.
async fn tls_upstream(alpn: &[&str]) -> (Honest, TestCa) {
    let ca = TestCa::new();
    let server = Honest::start(Manner {
        tls: Some(ca.leaf(&[NAME]).serving(alpn)),
        ..Manner::default()
    });
    (server.await, ca)
}

/// Returns `http://api.example`, which the proxy may read.
fn forwarded() -> Target {
    Target {
        proxy_may_read: true,
        upgrade: false,
        ..http()
    }
}

/// Asserts the failure of a call whose `CONNECT` gets this answer. With `closes`, the connection then ends.
async fn fails_on(
    client: &Client,
    port: &Port,
    (answer, closes): (&str, bool),
    kind: ErrorKind,
    words: &[&str],
) {
    let target = https();
    let failed = client.fails(&target, get("/secret?key=abc"), kind, words);
    let proxy = async {
        let mut wire = port.accept().await;
        let head = wire.head().await;
        assert!(
            head.starts_with("CONNECT api.example:443 HTTP/1.1\r\n"),
            "{head}"
        );
        let _ = wire.try_send(answer).await;
        (!closes).then_some(wire)
    };
    tokio::join!(failed, proxy);
}

/// Accepts one request to the proxy and answers it. Returns the connection, which stays open.
async fn answer_one(port: &Port, answer: &str) -> Wire {
    let mut wire = port.accept().await;
    wire.head().await;
    wire.send(answer).await;
    wire
}

#[tokio::test]
async fn tls_upstreams_are_reached_by_connect_and_verified() {
    for (alpn, version) in [("h2", Version::HTTP_2), ("http/1.1", Version::HTTP_11)] {
        let (server, ca) = tls_upstream(&[alpn]).await;
        let proxy = Proxy::knowing(&[("api.example:443", server.address)]).await;
        let client = setting(proxy.address, Some(&ca)).client();
        for _ in 0..3 {
            assert_eq!(client.get(&https(), "/a").await.unwrap().0, 200);
        }
        assert_eq!(
            proxy.lines(),
            ["CONNECT api.example:443"],
            "the tunnel is kept"
        );
        let asked = &proxy.asked()[0];
        assert_eq!(asked.headers["host"], "api.example:443");
        assert!(!asked.headers.contains_key(header::PROXY_AUTHORIZATION));
        let seen = server.seen();
        assert_eq!(seen.len(), 3);
        assert_eq!(seen[0].version, version);
        assert_eq!(seen[0].sni.as_deref(), Some(NAME));
        assert_eq!(
            client.metric("sidentity_upstream_connects_total{outcome=\"ok\"}"),
            1.0
        );
        // Another CA is not trusted through a proxy either.
        let client = setting(proxy.address, Some(&TestCa::new())).client();
        let words = ["https://api.example", &proxy.url(), "issuer"];
        client
            .fails(&https(), get("/"), ErrorKind::CertificateInvalid, &words)
            .await;
    }
}

#[tokio::test]
async fn cleartext_requests_without_a_token_use_absolute_form() {
    let server = Honest::start(Manner::default()).await;
    let proxy = Proxy::to(server.address).await;
    let client = setting(proxy.address, None).client();
    assert_eq!(client.get(&forwarded(), "/a?b=c").await.unwrap().0, 200);
    let sent = request(Method::POST, "/echo", text("body"));
    let response = client.send(&forwarded(), sent).await.unwrap();
    assert_eq!(whole(response).await, "body");
    let other = Target {
        origin: Origin::from_authority(Scheme::Http, "other.example:8080").unwrap(),
        ..forwarded()
    };
    client.get(&other, "/").await.unwrap();
    assert_eq!(
        proxy.lines(),
        [
            "GET http://api.example/a?b=c",
            "POST http://api.example/echo",
            "GET http://other.example:8080/",
        ]
    );
    let asked = proxy.asked();
    assert_eq!(asked[0].headers["host"], NAME);
    assert_eq!(asked[2].headers["host"], "other.example:8080");
    let connections: Vec<_> = asked.iter().map(|asked| asked.connection).collect();
    assert_eq!(
        connections,
        [0, 0, 1],
        "kept, and one origin never shares with another"
    );
    assert_eq!(server.seen()[0].uri, "/a?b=c");
}

#[tokio::test]
async fn requests_with_a_token_or_without_absolute_form_use_connect() {
    let server = Honest::start(Manner::default()).await;
    let proxy = Proxy::to(server.address).await;
    let client = setting(proxy.address, None).client();
    // A request with a token.
    client.get(&http(), "/token").await.unwrap();
    // A request over HTTP/2 by prior knowledge.
    let prior = Target {
        proxy_may_read: true,
        upgrade: false,
        ..h2c()
    };
    client.get(&prior, "/h2").await.unwrap();
    assert_eq!(server.seen()[1].version, Version::HTTP_2);
    for (method, path) in [(Method::TRACE, "/"), (Method::OPTIONS, "*")] {
        let sent = request(method, path, text(""));
        whole(client.send(&forwarded(), sent).await.unwrap()).await;
    }
    assert_eq!(server.seen()[3].uri, "*");
    // A request with a credential for the origin, such as IAP.
    let mut iap = get("/iap");
    let value = HeaderValue::from_static("Bearer x");
    iap.headers_mut().insert(header::PROXY_AUTHORIZATION, value);
    whole(client.send(&forwarded(), iap).await.unwrap()).await;
    assert_eq!(server.seen()[4].headers["proxy-authorization"], "Bearer x");
    let mut upgrade = get("/upgrade");
    for (name, value) in [("connection", "upgrade"), ("upgrade", "echo")] {
        upgrade
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    let mut response = client.send(&forwarded(), upgrade).await.unwrap();
    assert_eq!(response.status(), 101);
    let upgraded = soon(hyper::upgrade::on(&mut response)).await.unwrap();
    let mut echo = Wire::over(hyper_util::rt::TokioIo::new(upgraded));
    echo.send("frames").await;
    assert_eq!(echo.exactly(6).await, "frames");
    assert!(
        proxy
            .lines()
            .iter()
            .all(|line| line == "CONNECT api.example:80"),
        "{:?}",
        proxy.lines()
    );
}

#[tokio::test]
async fn grpc_and_streams_pass_through_the_tunnel_both_ways() {
    let (server, ca) = tls_upstream(&["h2"]).await;
    let proxy = Proxy::to(server.address).await;
    let client = setting(proxy.address, Some(&ca)).client();
    let (sender, body) = crate::support::upstream::channel();
    let mut sent = request(Method::POST, "/echo", body);
    sent.headers_mut()
        .insert("te", HeaderValue::from_static("trailers"));
    let response = client.send(&https(), sent).await.unwrap();
    let mut echo = response.into_body();
    for word in ["one", "two"] {
        sender
            .send(http_body::Frame::data(word.into()))
            .await
            .unwrap();
        let frame = soon(http_body_util::BodyExt::frame(&mut echo))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(frame.into_data().unwrap(), word);
    }
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    sender
        .send(http_body::Frame::trailers(trailers))
        .await
        .unwrap();
    drop(sender);
    let frame = soon(http_body_util::BodyExt::frame(&mut echo))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(frame.into_trailers().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn a_blind_tunnel_goes_through_the_proxy() {
    let port = Port::open().await;
    let proxy = Proxy::to(port.address()).await;
    let client = setting(proxy.address, None).client();
    let origin = Origin::from_authority(Scheme::Https, "db.example:5432").unwrap();
    let tunnel = soon(client.upstream.tunnel(&origin, Priority::Normal))
        .await
        .unwrap();
    let (mut tunnel, mut far) = (Wire::over(tunnel), port.accept().await);
    tunnel.send("SELECT 1").await;
    assert_eq!(far.exactly(8).await, "SELECT 1");
    assert_eq!(proxy.lines(), ["CONNECT db.example:5432"]);
}

#[tokio::test]
async fn connect_to_changes_the_target_of_connect_as_in_curl() {
    let server = Honest::start(Manner::default()).await;
    let proxy = Proxy::to(server.address).await;
    let client = setting(proxy.address, None)
        .with(|setting| {
            setting.config.connect_to = vec![ConnectTo {
                host: ConnectHost::Exact(Host::parse(NAME).unwrap()),
                port: None,
                to_host: Some(Host::parse("elsewhere.test").unwrap()),
                to_port: Some(8443),
            }];
            // The entries are compared with the names that are called.
            setting.config.proxy = way_out(&proxy.url(), "elsewhere.test");
        })
        .client();
    client.get(&forwarded(), "/").await.unwrap();
    assert_eq!(proxy.lines(), ["CONNECT elsewhere.test:8443"]);
    assert_eq!(server.only().headers["host"], NAME);
}

#[tokio::test]
async fn hosts_on_the_list_are_called_directly_and_resolved_locally() {
    let server = Honest::start(Manner::default()).await;
    let proxy = Proxy::to(server.address).await;
    let port = server.address.port();
    let client = setting(proxy.address, None)
        .with(|setting| {
            setting.config.proxy = way_out(&proxy.url(), "localhost, 127.0.0.0/8");
        })
        .client();
    for authority in ["localhost", "127.0.0.1"] {
        let direct = Target {
            proxy_may_read: true,
            upgrade: false,
            ..target(
                Scheme::Http,
                &format!("{authority}:{port}"),
                HttpVersion::Auto,
            )
        };
        client.get(&direct, "/").await.unwrap();
    }
    assert_eq!(server.seen().len(), 2);
    assert_eq!(server.seen()[0].uri, "/");
    client.get(&forwarded(), "/").await.unwrap();
    assert_eq!(proxy.lines(), ["GET http://api.example/"]);
}

/// The well-known names and addresses are tested without a socket, because some machines have that server.
#[tokio::test]
async fn the_metadata_server_is_never_called_through_the_proxy() {
    let metadata = Honest::start(Manner::default()).await;
    let port = Port::open().await;
    let mut raw = RawConfig::default();
    raw.set_flag(
        OptionKey::UpstreamProxy,
        [format!("http://{}", port.address())],
    );
    let env = [("GCE_METADATA_HOST", metadata.address.to_string())];
    let config = config::load(&raw, &env.into_iter().collect()).unwrap();
    let client = setting(port.address(), None)
        .with(|setting| setting.config.proxy = config.upstream.proxy)
        .client();
    for host in ["127.0.0.1", "localhost"] {
        let authority = format!("{host}:{}", metadata.address.port());
        let target = Target {
            proxy_may_read: true,
            upgrade: false,
            ..target(Scheme::Http, &authority, HttpVersion::Auto)
        };
        client.get(&target, "/").await.unwrap();
    }
    assert_eq!(metadata.seen().len(), 2);
    port.untouched().await;
}

#[tokio::test]
async fn credentials_are_sent_to_the_proxy_only() {
    let (server, ca) = tls_upstream(&["http/1.1"]).await;
    // This is user:p@ss.
    let basic = "Basic dXNlcjpwQHNz";
    let proxy = Proxy::asking(server.address, basic).await;
    let url = format!("http://user:p%40ss@{}", proxy.address);
    let with = |ca: Option<&TestCa>, url: &str| {
        let way_out = way_out(url, "");
        setting(proxy.address, ca).with(|setting| setting.config.proxy = way_out)
    };
    let client = with(Some(&ca), &url).client();
    client.get(&https(), "/").await.unwrap();
    assert_eq!(proxy.asked()[0].headers["proxy-authorization"], basic);
    let plain = Honest::start(Manner::default()).await;
    let forwarding = Proxy::asking(plain.address, basic).await;
    let url = format!("http://user:p%40ss@{}", forwarding.address);
    let client = with(None, &url).client();
    client.get(&forwarded(), "/").await.unwrap();
    assert_eq!(forwarding.asked()[0].headers["proxy-authorization"], basic);
    for seen in [server.only(), plain.only()] {
        assert!(!seen.headers.contains_key("proxy-authorization"));
    }
}

#[tokio::test]
async fn an_unreachable_proxy_is_an_error_that_names_the_destination() {
    let port = Port::open().await;
    let address = port.address();
    drop(port);
    let client = setting(address, None).client();
    let url = format!("http://{address}");
    for target in [https(), forwarded()] {
        let words = ["api.example", "through the proxy", &url];
        client
            .fails(&target, get("/"), ErrorKind::ConnectionRefused, &words)
            .await;
    }
    let client = setting(address, None)
        .with(|setting| {
            setting.config.proxy = way_out("http://proxy.invalid:3128", "");
        })
        .client();
    let words = ["api.example", "http://proxy.invalid:3128", "proxy.invalid"];
    client
        .fails(&https(), get("/"), ErrorKind::DnsFailed, &words)
        .await;
}

#[tokio::test]
async fn own_listeners_and_metadata_addresses_are_refused_without_the_proxy() {
    let port = Port::open().await;
    let refuse = DialPolicy {
        own: vec!["127.0.0.1:9090".parse().unwrap()],
        metadata: true,
        metadata_extra: None,
    };
    let client = setting(port.address(), None)
        .with(|setting| setting.refuse = refuse.clone())
        .client();
    let plain = |authority: &str| Target {
        proxy_may_read: true,
        upgrade: false,
        ..target(Scheme::Http, authority, HttpVersion::Auto)
    };
    for (target, kind) in [
        (plain("127.0.0.1:9090"), ErrorKind::LoopDetected),
        (plain("localhost:9090"), ErrorKind::LoopDetected),
        (plain("169.254.169.254"), ErrorKind::Denied),
        (
            target(Scheme::Https, "127.0.0.1:9090", HttpVersion::Auto),
            ErrorKind::LoopDetected,
        ),
    ] {
        client.fails(&target, get("/"), kind, &[]).await;
    }
    port.untouched().await;
    // The proxy is one of the sidecar's own listeners.
    let own = DialPolicy {
        own: vec![port.address()],
        ..refuse
    };
    let client = setting(port.address(), None)
        .with(|setting| setting.refuse = own)
        .client();
    client
        .fails(
            &https(),
            get("/"),
            ErrorKind::LoopDetected,
            &["through the proxy"],
        )
        .await;
    port.untouched().await;
}

#[tokio::test]
async fn a_closed_proxy_connection_is_reopened_for_an_idempotent_request() {
    let server = Honest::start(Manner::default()).await;
    let proxy = Proxy::to(server.address).await;
    let client = setting(proxy.address, None).client();
    client.get(&forwarded(), "/close").await.unwrap();
    client.get(&forwarded(), "/").await.unwrap();
    assert_eq!(proxy.asked().len(), 2);
}

#[tokio::test]
async fn a_response_of_the_origin_passes_unchanged() {
    let hostile = Hostile::always("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
    let proxy = Proxy::to(hostile.address).await;
    let client = setting(proxy.address, None).client();
    let (status, body) = client.get(&forwarded(), "/").await.unwrap();
    assert_eq!((status.as_u16(), &*body), (403, &b"no"[..]));
}
