//! Clients that send an incomplete head, send nothing, or do not read the sidecar's response. The server runs in this
//! process, with short deadlines.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sidentity::app::App;
use sidentity::config::{self, Env, OptionKey, RawConfig};
use sidentity::server::ServerLimits;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};

use super::intercept::tls;
use super::support::app::{get, proxied};
use super::support::frames::{
    END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, RawHttp2, SETTINGS, closed_within,
    frame, get as get_block, settings,
};
use super::support::hostile::{HELLO, Hostile};
use super::support::metadata::Metadata;
use super::support::wire::Wire;

const HEAD: Duration = Duration::from_millis(1000);
const ANSWER: Duration = Duration::from_millis(800);
const IDLE: Duration = Duration::from_millis(1500);

/// Longer than any deadline, also on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Shorter than the deadlines.
const EARLY: Duration = Duration::from_millis(600);

/// A sidecar with a route to an upstream that always answers, and with short deadlines.
struct Setting {
    _metadata: Metadata,
    upstream: Hostile,
    proxy: SocketAddr,
    route: SocketAddr,
    admin: SocketAddr,
}

impl Setting {
    async fn start(flags: &[(OptionKey, &str)]) -> Self {
        Self::start_with(flags, |_| {}).await
    }

    async fn start_with(flags: &[(OptionKey, &str)], change: impl Fn(&mut ServerLimits)) -> Self {
        let metadata = Metadata::start().await;
        let upstream = Hostile::always(HELLO).await;
        let env: Env = [("GCE_METADATA_HOST", metadata.address().to_string())]
            .into_iter()
            .collect();
        let mut raw = RawConfig::default();
        let route = format!("127.0.0.1:0=http://{},credential=none", upstream.address);
        for (name, value) in [
            (OptionKey::Proxy, "127.0.0.1:0"),
            (OptionKey::Admin, "127.0.0.1:0"),
            (OptionKey::Route, route.as_str()),
        ]
        .iter()
        .chain(flags)
        {
            raw.set_flag(*name, [(*value).to_owned()]);
        }
        let config = config::load(&raw, &env).unwrap();
        let mut limits = ServerLimits::of(&config);
        (limits.head, limits.answer) = (HEAD, ANSWER);
        limits.idle.set(IDLE);
        change(&mut limits);
        let app = App::build_with(config, limits).await.unwrap();
        let setting = Self {
            _metadata: metadata,
            upstream,
            proxy: app.proxy_address().unwrap(),
            route: app.route_addresses()[0],
            admin: app.admin_address().unwrap(),
        };
        tokio::spawn(app.run(std::future::pending()));
        setting
    }

    fn listeners(&self) -> [(&'static str, SocketAddr); 3] {
        [
            ("proxy", self.proxy),
            ("route", self.route),
            ("admin", self.admin),
        ]
    }
}

/// Sends a byte at intervals until the peer does not accept it or closes.
async fn drip(mut stream: TcpStream, bytes: &'static [u8]) -> Duration {
    let began = Instant::now();
    let (mut read, mut write) = stream.split();
    let writes = async {
        for byte in bytes.iter().cycle() {
            if write.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut sink = Vec::new();
    let closed = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut sink);
    tokio::select! {
        () = writes => {}
        _ = closed => {}
        () = tokio::time::sleep(TIMEOUT) => panic!("it was not closed"),
    }
    began.elapsed()
}

/// Returns incomplete heads: a client stops after these bytes.
fn incomplete() -> [(&'static str, Vec<u8>); 6] {
    let begun = frame(HEADERS, END_STREAM, 1, &get_block("localhost", "/"));
    let prefaces = |more: &[u8]| [PREFACE, &settings(0), more].concat();
    [
        ("nothing", Vec::new()),
        ("half a head", b"GET / HTTP/1.1\r\nHost: ".to_vec()),
        ("half a preface", PREFACE[..16].to_vec()),
        ("the preface alone", PREFACE.to_vec()),
        ("preface and SETTINGS", prefaces(&[])),
        ("HEADERS without END_HEADERS", prefaces(&begun)),
    ]
}

#[tokio::test]
async fn connections_without_a_complete_head_are_closed_on_every_listener() {
    let setting = Setting::start(&[]).await;
    let sent = incomplete();
    let mut late = tokio::task::JoinSet::new();
    for (listener, address) in setting.listeners() {
        for (what, bytes) in sent.clone() {
            late.spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
                let took = closed_within(&mut stream, TIMEOUT).await;
                assert!(took > EARLY, "{listener}, {what}: after {took:?}");
            });
        }
        late.spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            let took = drip(stream, b"GET / HTTP/1.1\r\nx: y\r\n").await;
            assert!(took > EARLY, "{listener}, byte by byte: after {took:?}");
        });
        late.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(PREFACE).await.unwrap();
            stream.write_all(&settings(0)).await.unwrap();
            let took = drip(
                stream,
                &[0, 0, 8, PING, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8],
            )
            .await;
            assert!(took > EARLY, "{listener}, PINGs: after {took:?}");
        });
    }
    while let Some(ended) = late.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn connections_without_a_complete_head_are_closed_on_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("route.sock");
    let route = format!("unix:{}=http://127.0.0.1:9,credential=none", path.display());
    let _setting = Setting::start(&[(OptionKey::Route, &route)]).await;
    let mut late = tokio::task::JoinSet::new();
    for (what, bytes) in incomplete() {
        let path = path.clone();
        late.spawn(async move {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            let took = closed_within(&mut stream, TIMEOUT).await;
            assert!(took > EARLY, "{what}: after {took:?}");
        });
    }
    while let Some(ended) = late.join_next().await {
        ended.unwrap();
    }
}

/// With the version that ALPN selected, and without ALPN.
#[tokio::test]
async fn connections_without_a_complete_head_are_closed_inside_an_intercepted_tunnel() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().display().to_string();
    let setting = Setting::start(&[
        (OptionKey::Intercept, "true"),
        (OptionKey::CaDir, &directory),
    ])
    .await;
    let ca = folder.path().join("ca.pem");
    let mut late = tokio::task::JoinSet::new();
    for (what, bytes) in incomplete() {
        let agreed: &[u8] = match what {
            "half a head" => b"http/1.1",
            _ => b"h2",
        };
        for alpn in [&[agreed][..], &[]] {
            let (ca, bytes, proxy) = (ca.clone(), bytes.clone(), setting.proxy);
            let alpn = alpn.to_vec();
            late.spawn(async move {
                let target = "svc.a.run.app:443";
                let mut stream = tls(proxy, target, &ca, &alpn).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
                stream.flush().await.unwrap();
                let took = closed_within(&mut stream, TIMEOUT).await;
                assert!(took > EARLY, "{what}, {alpn:?}: after {took:?}");
            });
        }
    }
    while let Some(ended) = late.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn a_partial_next_head_closes_the_connection_but_idleness_does_not() {
    let setting = Setting::start(&[]).await;
    let at = setting.route;
    let call = format!("GET / HTTP/1.1\r\nHost: {at}\r\n\r\n");
    let mut idle = Wire::open(at).await;
    idle.send(&call).await;
    assert_eq!(idle.message().await.1, "hello");
    let mut half = Wire::open(at).await;
    half.send(&call).await;
    assert_eq!(half.message().await.1, "hello");
    let began = Instant::now();
    half.send("GET / HT").await;
    assert_eq!(half.rest().await, "");
    assert!(began.elapsed() > EARLY, "{:?}", began.elapsed());
    tokio::time::sleep(2 * IDLE).await;
    idle.send(&call).await;
    assert_eq!(idle.message().await.1, "hello");
}

/// The partial head arrives while the previous request is in progress, usually in the same packet.
#[tokio::test]
async fn a_partial_head_behind_a_running_request_closes_the_connection() {
    let setting = Setting::start(&[]).await;
    let at = setting.route;
    let head = format!("HTTP/1.1\r\nHost: {at}\r\n");
    let chunked = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n";
    let whole = [
        format!("GET / {head}\r\n"),
        format!("POST / {head}Content-Length: 5\r\n\r\nhello"),
        format!("POST / {head}Content-Length: 1\r\n\r\nh"),
        format!("POST / {head}Content-Length: 0\r\n\r\n"),
        format!("POST / {head}{chunked}\r\n"),
        format!("POST / {head}Trailer: X-A\r\n{chunked}X-A: b\r\n\r\n"),
    ];
    let mut ends = tokio::task::JoinSet::new();
    for request in whole {
        for half in ["", "G", "GET / HTTP/1.1\r\nHos", "GET / HTTP/1.1\r\n"] {
            for requests in [1, 2] {
                let request = request.clone();
                ends.spawn(async move {
                    let what = format!("{requests} of {request:?} and {half:?}");
                    let mut app = Wire::open(at).await;
                    app.send(request.repeat(requests) + half).await;
                    for _ in 0..requests {
                        assert_eq!(app.message().await.1, "hello", "{what}");
                    }
                    let began = Instant::now();
                    if half.is_empty() {
                        let idle = tokio::time::timeout(2 * IDLE, app.rest()).await;
                        assert!(idle.is_err(), "{what}: closed");
                        return;
                    }
                    let rest = tokio::time::timeout(TIMEOUT, app.rest()).await;
                    assert_eq!(rest.unwrap_or_else(|_| panic!("{what}: open")), "");
                    assert!(began.elapsed() > EARLY, "{what}: {:?}", began.elapsed());
                });
            }
        }
    }
    while let Some(ended) = ends.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed_despite_pings() {
    let setting = Setting::start(&[]).await;
    let mut idle = tokio::task::JoinSet::new();
    for (listener, address) in setting.listeners() {
        for flood in [Vec::new(), frame(PING, 0, 0, &[7; 8]), settings(10)] {
            idle.spawn(async move {
                let mut app = RawHttp2::open(address, 65_535).await;
                let path = if listener == "proxy" { "/none" } else { "/" };
                app.request(&get_block(&address.to_string(), path)).await;
                app.frame_within(HEADERS, TIMEOUT).await.unwrap();
                let began = Instant::now();
                let goaway = loop {
                    if !flood.is_empty() {
                        app.send(&flood).await;
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    let seen = app.next_within(TIMEOUT).await.expect("a GOAWAY first");
                    if seen.kind == GOAWAY {
                        break seen;
                    }
                };
                let took = began.elapsed();
                assert!(took > IDLE / 2, "{listener}: after {took:?}");
                assert_eq!(goaway.payload[4..8], [0; 4], "{listener}: no error");
                closed_within(&mut app.stream, TIMEOUT).await;
            });
        }
    }
    while let Some(ended) = idle.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn an_http2_connection_with_a_stream_in_progress_is_not_idle() {
    let setting = Setting::start(&[]).await;
    let silent = Hostile::stalls().await;
    let mut app = RawHttp2::open(setting.proxy, 65_535).await;
    let url = silent.address.to_string();
    app.request(&get_block(&url, "/")).await;
    silent.heard(1).await;
    let goaway = tokio::time::timeout(3 * IDLE, app.frame_within(GOAWAY, TIMEOUT)).await;
    assert!(goaway.is_err(), "{goaway:?}");
}

#[tokio::test]
async fn an_unread_response_of_the_sidecar_is_reset_and_other_streams_go_on() {
    let setting = Setting::start(&[]).await;
    let silent = Hostile::stalls().await;
    for window in [0, 1] {
        let mut app = RawHttp2::open(setting.proxy, window).await;
        let carried = app
            .request(&get_block(&silent.address.to_string(), "/"))
            .await;
        let own = app.request(&get_block("127.0.0.1:1", "/")).await;
        let began = Instant::now();
        let reset = app.frame_within(RST_STREAM, TIMEOUT).await.unwrap();
        assert_eq!(reset.stream, own, "window {window}");
        assert!(began.elapsed() > ANSWER / 2, "{:?}", began.elapsed());
        let more = app.frame_within(RST_STREAM, TIMEOUT);
        let more = tokio::time::timeout(2 * ANSWER, more).await;
        assert!(more.is_err(), "{carried}: {more:?}");
    }
}

#[tokio::test]
async fn an_unread_response_of_the_admin_port_is_reset() {
    let setting = Setting::start(&[]).await;
    let authority = setting.admin.to_string();
    for path in ["/", "/metrics", "/status", "/nothing", "/liveness"] {
        for window in [0, 1] {
            let mut app = RawHttp2::open(setting.admin, window).await;
            let stream = app.request(&get_block(&authority, path)).await;
            let reset = app.frame_within(RST_STREAM, TIMEOUT).await.unwrap();
            assert_eq!(reset.stream, stream, "{path} {window}");
        }
    }
}

#[tokio::test]
async fn an_http1_client_that_does_not_read_is_closed() {
    let setting = Setting::start(&[]).await;
    for (address, target) in [
        (setting.admin, "/metrics".to_owned()),
        (setting.proxy, format!("/{}", "x".repeat(2000))),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let call = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        let calls = call.repeat(100);
        let flood = async { while stream.write_all(calls.as_bytes()).await.is_ok() {} };
        tokio::time::timeout(TIMEOUT, flood)
            .await
            .expect("it was not closed");
    }
}

/// There are two permits, and more responses of the sidecar for a client that grants no window.
#[tokio::test]
async fn a_response_of_the_sidecar_holds_no_permit() {
    let setting = Setting::start_with(&[(OptionKey::MaxConnections, "2")], |limits| {
        limits.answer = TIMEOUT;
    })
    .await;
    let mut flood = RawHttp2::open(setting.proxy, 0).await;
    let refused = get_block("127.0.0.1:1", "/");
    for _ in 0..2 {
        flood.request(&refused).await;
        flood.frame_within(HEADERS, TIMEOUT).await.unwrap();
    }
    let url = format!("http://{}/", setting.upstream.address);
    assert_eq!(proxied(setting.proxy, &url, &[]).await.status(), 200);
}

/// Unread responses are bounded: further ones are reset at once.
#[tokio::test]
async fn unread_responses_of_the_sidecar_are_bounded() {
    let setting = Setting::start_with(&[(OptionKey::MaxConnections, "2")], |limits| {
        limits.answer = TIMEOUT;
    })
    .await;
    let mut flood = RawHttp2::open(setting.proxy, 0).await;
    let refused = get_block("127.0.0.1:1", "/");
    for _ in 0..3 {
        flood.request(&refused).await;
    }
    let reset = flood.frame_within(RST_STREAM, TIMEOUT).await.unwrap();
    assert_eq!(reset.payload, 11_u32.to_be_bytes(), "ENHANCE_YOUR_CALM");
}

const PASSWORD: (OptionKey, &str) = (OptionKey::ProxyAuth, "user:secret");
const AUTHORIZED: (&str, &str) = ("proxy-authorization", "Basic dXNlcjpzZWNyZXQ=");

#[tokio::test]
async fn unauthenticated_callers_take_no_permits_from_authenticated_ones() {
    let setting = Setting::start_with(&[PASSWORD, (OptionKey::MaxConnections, "2")], |limits| {
        (limits.head, limits.answer) = (TIMEOUT, TIMEOUT);
    })
    .await;
    let url = format!("http://{}/", setting.upstream.address);
    let mut floods = Vec::new();
    for _ in 0..2 {
        let mut flood = RawHttp2::open(setting.proxy, 0).await;
        let refused = get_block("127.0.0.1:1", "/");
        for _ in 0..60 {
            flood.request(&refused).await;
        }
        flood.frame_within(HEADERS, TIMEOUT).await.unwrap();
        floods.push(flood);
    }
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(setting.proxy).await.unwrap());
    }
    let began = Instant::now();
    let response = proxied(setting.proxy, &url, &[AUTHORIZED]).await;
    assert_eq!(response.status(), 200);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    // A new connection without the password still gets 407.
    assert_eq!(proxied(setting.proxy, &url, &[]).await.status(), 407);
}

#[tokio::test]
async fn an_authenticated_connection_frees_its_unauthenticated_permit() {
    let setting = Setting::start_with(&[PASSWORD], |limits| limits.unauthenticated = 2).await;
    let at = setting.upstream.address;
    let (name, value) = AUTHORIZED;
    let call = format!("GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\n{name}: {value}\r\n\r\n");
    let mut kept = Vec::new();
    for _ in 0..3 {
        let mut app = Wire::open(setting.proxy).await;
        app.send(&call).await;
        assert_eq!(app.message().await.1, "hello");
        kept.push(app);
    }
    let mut first = TcpStream::connect(setting.proxy).await.unwrap();
    let _others = [
        TcpStream::connect(setting.proxy).await.unwrap(),
        TcpStream::connect(setting.proxy).await.unwrap(),
    ];
    // The oldest of three unauthenticated connections is closed.
    assert!(closed_within(&mut first, TIMEOUT).await < HEAD);
    for app in &mut kept {
        app.send(&call).await;
        assert_eq!(app.message().await.1, "hello");
    }
}

#[tokio::test]
async fn silent_connections_take_no_permit() {
    let setting = Setting::start_with(&[(OptionKey::MaxConnections, "2")], |limits| {
        limits.head = TIMEOUT;
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(setting.route).await.unwrap());
    }
    for _ in 0..5 {
        let began = Instant::now();
        assert_eq!(get(setting.route, "/").await.status(), 200);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}

#[tokio::test]
async fn the_admin_port_serves_probes_at_its_limit_of_64_connections() {
    let setting = Setting::start_with(&[], |limits| {
        (limits.head, limits.answer) = (TIMEOUT, TIMEOUT);
    })
    .await;
    let mut flood = Vec::new();
    for number in 0..70 {
        let mut app = RawHttp2::open(setting.admin, 0).await;
        if number % 2 == 0 {
            for _ in 0..8 {
                app.request(&get_block(&setting.admin.to_string(), "/"))
                    .await;
            }
        }
        flood.push(app);
    }
    let began = Instant::now();
    assert_eq!(get(setting.admin, "/liveness").await.status(), 200);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    // The oldest connections were closed.
    closed_within(&mut flood[0].stream, TIMEOUT).await;
    let app = flood.last_mut().unwrap();
    let allowed = app.frame_within(SETTINGS, TIMEOUT).await.unwrap().payload;
    let streams = allowed.chunks(6).find(|setting| setting[..2] == [0, 3]);
    assert_eq!(streams.unwrap()[2..], 8_u32.to_be_bytes());
}
