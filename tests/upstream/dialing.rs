//! The addresses that are dialled, those that must not be dialled, and the errors if none answers.

use std::time::Duration;

use http::Method;
use sidentity::config::{ConnectHost, ConnectTo, HttpVersion};
use sidentity::destination::{Host, Origin, Scheme};
use sidentity::dns::Priority;
use sidentity::error::ErrorKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::client::{Client, NAME, Setting, at, get, h2c, http, https, request, target};
use crate::support::hostile::Hostile;
use crate::support::upstream::{Honest, Manner, soon, text};

fn connect_to(
    host: ConnectHost,
    port: Option<u16>,
    to_host: Option<&str>,
    to_port: Option<u16>,
) -> ConnectTo {
    ConnectTo {
        host,
        port,
        to_host: to_host.map(|host| Host::parse(host).unwrap()),
        to_port,
    }
}

#[tokio::test]
async fn connect_to_changes_only_the_address() {
    let server = Honest::start(Manner::default()).await;
    let port = server.address.port();
    let entries = vec![
        connect_to(
            ConnectHost::Exact(Host::parse("one.test").unwrap()),
            Some(8080),
            Some("127.0.0.1"),
            Some(port),
        ),
        connect_to(
            ConnectHost::Suffix(".two.test".into()),
            None,
            Some("localhost"),
            Some(port),
        ),
        // One entry changes only the port, for any host; the other only the host, for any port.
        connect_to(ConnectHost::Any, Some(1), None, Some(port)),
        connect_to(ConnectHost::Any, None, Some("127.0.0.1"), None),
    ];
    let client = Setting::new(server.address, None)
        .with(|setting| setting.config.connect_to = entries)
        .client();
    let any = format!("three.test:{port}");
    for authority in ["one.test:8080", "a.b.two.test", "127.0.0.1:1", any.as_str()] {
        let target = target(Scheme::Http, authority, HttpVersion::Auto);
        client.get(&target, "/").await.unwrap();
        let seen = server.seen().pop().unwrap();
        assert_eq!(seen.headers["host"], authority);
    }
    assert_eq!(server.accepted(), 4);
}

#[tokio::test]
async fn a_closed_port_is_connection_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = Client::plain(address);
    let words = [format!("http://{NAME} at {address}")];
    client
        .fails(
            &http(),
            get("/secret?key=abc"),
            ErrorKind::ConnectionRefused,
            &[&words[0]],
        )
        .await;
    // The same with one dial for all waiting requests.
    client
        .fails(&h2c(), get("/"), ErrorKind::ConnectionRefused, &[])
        .await;
    client
        .fails(&https(), get("/"), ErrorKind::ConnectionRefused, &[])
        .await;
    let refused = client.metric("sidentity_upstream_connects_total{outcome=\"refused\"}");
    assert_eq!(refused, 3.0);
    client.connections(0).await;
}

#[tokio::test]
async fn an_address_without_a_route_is_unroutable() {
    // Broadcast; link-local without an interface; multicast.
    for address in ["255.255.255.255:80", "[fe80::1]:80", "[ff02::1]:80"] {
        let client = Client::plain(address.parse().unwrap());
        client
            .fails(&http(), get("/"), ErrorKind::Unroutable, &[address])
            .await;
        let error = client.metric("sidentity_upstream_connects_total{outcome=\"error\"}");
        assert_eq!(error, 1.0);
    }
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_a_dns_error() {
    let client = Client::plain("127.0.0.1:1".parse().unwrap());
    let target = target(Scheme::Http, "no-such-name.invalid", HttpVersion::Auto);
    client
        .fails(
            &target,
            get("/"),
            ErrorKind::DnsFailed,
            &["http://no-such-name.invalid"],
        )
        .await;
    let dns = client.metric("sidentity_upstream_connects_total{outcome=\"dns\"}");
    assert_eq!(dns, 1.0);
}

#[tokio::test]
async fn every_step_of_connecting_has_its_timeout() {
    let server = Hostile::mute().await;
    let hasty = |address| {
        Setting::new(address, None)
            .with(|setting| setting.config.connect_timeout = Duration::from_millis(100))
            .client()
    };
    let client = hasty(server.address);
    client
        .fails(
            &https(),
            get("/"),
            ErrorKind::ConnectionTimeout,
            &["TLS handshake"],
        )
        .await;
    client
        .fails(
            &h2c(),
            get("/"),
            ErrorKind::ConnectionTimeout,
            &["HTTP/2 preface"],
        )
        .await;
    // A listener whose queue is full does not answer a SYN.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut fillers = Vec::new();
    while let Ok(Ok(filler)) =
        tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
    {
        fillers.push(filler);
    }
    let client = hasty(address);
    client
        .fails(
            &http(),
            get("/"),
            ErrorKind::ConnectionTimeout,
            &["TCP connection"],
        )
        .await;
    let timeout = client.metric("sidentity_upstream_connects_total{outcome=\"timeout\"}");
    assert_eq!(timeout, 1.0);
    client.connections(0).await;
}

#[tokio::test]
async fn a_listener_of_the_sidecar_is_refused_after_name_resolution() {
    let server = Honest::start(Manner::default()).await;
    let port = server.address.port();
    let client = Setting::new(server.address, None)
        .with(|setting| setting.refuse.own = vec![server.address])
        .client();
    for authority in [
        NAME.to_owned(),
        format!("localhost:{port}"),
        format!("127.0.0.1:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("0.0.0.0:{port}"),
    ] {
        let target = target(Scheme::Http, &authority, HttpVersion::Auto);
        let sent = request(Method::POST, "/", text("x"));
        client
            .fails(&target, sent, ErrorKind::LoopDetected, &["sidecar itself"])
            .await;
        let error = client
            .upstream
            .tunnel(&target.origin, Priority::Normal)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LoopDetected);
    }
    assert_eq!(server.accepted(), 0);
}

/// A listener on all addresses accepts on an address that is in no list.
#[tokio::test]
async fn a_listener_of_the_sidecar_is_refused_by_any_address_of_the_machine() {
    let Some(own) = this_machines_address() else {
        return;
    };
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let bound = listener.local_addr().unwrap();
    let client = Setting::new(bound, None)
        .with(|setting| setting.refuse.own = vec![bound])
        .client();
    let target = at((own, bound.port()).into());
    client
        .fails(&target, get("/"), ErrorKind::LoopDetected, &[])
        .await;
}

/// Returns the source address of a packet to the internet. No packet is sent.
fn this_machines_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
}

#[tokio::test]
async fn the_metadata_server_is_refused_under_any_name_if_configured() {
    let server = Honest::start(Manner::default()).await;
    let setting = |metadata| {
        Setting::new(server.address, None).with(|setting| {
            setting.refuse.metadata = metadata;
            setting.refuse.metadata_extra =
                Some((Host::Ip(server.address.ip()), server.address.port()));
            // Another name that resolves to this address.
            setting.config.connect_to.push(connect_to(
                ConnectHost::Exact(Host::parse("innocent.test").unwrap()),
                None,
                Some("169.254.169.254"),
                None,
            ));
        })
    };
    let client = setting(true).client();
    for authority in [NAME, "innocent.test", "169.254.169.254", "[fd20:ce::254]"] {
        let target = target(Scheme::Http, authority, HttpVersion::Auto);
        client
            .fails(&target, get("/"), ErrorKind::Denied, &["--metadata-access"])
            .await;
        let error = client
            .upstream
            .tunnel(&target.origin, Priority::Normal)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
    }
    assert_eq!(server.accepted(), 0);
    setting(false).client().get(&http(), "/").await.unwrap();
}

#[tokio::test]
async fn the_metadata_server_is_refused_by_its_address_if_a_name_is_configured() {
    let server = Honest::start(Manner::default()).await;
    let port = server.address.port();
    let setting = |host: &str| {
        Setting::new(server.address, None).with(|setting| {
            setting.config.connect_to.clear();
            setting.refuse.metadata = true;
            setting.refuse.metadata_extra = Some((Host::parse(host).unwrap(), port));
        })
    };
    let by_name = setting("localhost").client();
    let by_address = setting("127.0.0.1").client();
    for client in [&by_name, &by_address] {
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"] {
            let target = target(Scheme::Http, &format!("{host}:{port}"), HttpVersion::Auto);
            client
                .fails(&target, get("/"), ErrorKind::Denied, &["--metadata-access"])
                .await;
        }
    }
    assert_eq!(server.accepted(), 0);
    let elsewhere = setting("unknown.invalid").client();
    let target = target(Scheme::Http, &server.address.to_string(), HttpVersion::Auto);
    elsewhere.get(&target, "/").await.unwrap();
}

#[tokio::test]
async fn a_tunnel_connects_to_the_address_of_connect_to() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::plain(listener.local_addr().unwrap());
    let origin = Origin::from_authority(Scheme::Https, "tunnel.example:8443").unwrap();
    let mut tunnel = soon(client.upstream.tunnel(&origin, Priority::Normal))
        .await
        .unwrap();
    assert!(tunnel.nodelay().unwrap());
    let (mut far, _) = listener.accept().await.unwrap();
    far.write_all(b"first").await.unwrap();
    let mut bytes = [0; 5];
    tunnel.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"first");
    drop(listener);
    let error = soon(client.upstream.tunnel(&origin, Priority::Normal))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}
