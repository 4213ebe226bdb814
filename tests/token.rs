//! Tokens from a metadata server on a real socket, which may fail in every way.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used)]

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::HeaderValue;
use sidentity::config::MetadataServer;
use sidentity::destination::Host;
use sidentity::error::{Error, ErrorKind, TokenFault};
use sidentity::policy::{AuthScheme, TokenKey, TokenKind};
use sidentity::telemetry::Metrics;
use sidentity::token::{Instance, MetadataClient, Slot, TokenCache, TokenSource};
use tokio::task::JoinSet;

mod support;

use support::metadata::{
    ACCOUNTS, Answer, Gate, Kind, Metadata, audience_of, in_seconds, jwt, jwt_of,
};

const TIMEOUT: Duration = Duration::from_secs(8);

fn client_for(address: SocketAddr, timeout: Duration) -> MetadataClient {
    let server = MetadataServer {
        host: Host::from(address.ip()),
        port: address.port(),
        disabled: false,
    };
    MetadataClient::new(&server, timeout)
}

fn cache_for(server: &Metadata, timeout: Duration) -> TokenCache {
    let source = TokenSource::Metadata(client_for(server.address(), timeout));
    TokenCache::new(source, Arc::new(Metrics::new()))
}

fn cache(server: &Metadata) -> TokenCache {
    cache_for(server, TIMEOUT)
}

fn instance(server: &Metadata) -> Instance {
    Instance::new(client_for(server.address(), TIMEOUT), None)
}

fn access(scopes: &[&str]) -> TokenKey {
    let scopes = scopes.iter().map(|scope| Arc::from(*scope)).collect();
    TokenKey {
        kind: TokenKind::Access { scopes },
        account: None,
    }
}

fn id(audience: &str) -> TokenKey {
    let audience = audience.into();
    TokenKey {
        kind: TokenKind::Id { audience },
        account: None,
    }
}

async fn get(slot: &Arc<Slot>) -> String {
    slot.token().await.expect("a token").reveal().to_owned()
}

async fn error(slot: &Arc<Slot>) -> Error {
    slot.token().await.expect_err("no token")
}

/// A slot for an access token of a server with this script.
async fn access_slot(answers: impl IntoIterator<Item = Answer>) -> (Metadata, Arc<Slot>) {
    let server = Metadata::start().await;
    server.script(Kind::Access, answers);
    let slot = cache(&server).slot(&access(&[]));
    (server, slot)
}

/// A slot for an ID token of a server with this script.
async fn id_slot(answers: impl IntoIterator<Item = Answer>) -> (Metadata, Arc<Slot>) {
    let server = Metadata::start().await;
    server.script(Kind::Identity, answers);
    let slot = cache(&server).slot(&id("https://a.example"));
    (server, slot)
}

// === what is asked ===

#[tokio::test]
async fn an_access_token_is_asked_for_as_google_wants_it_and_sent_as_bearer() {
    let (server, slot) = access_slot([Answer::access("T1", 3600)]).await;
    let token = slot.token().await.unwrap();
    assert_eq!(token.header(AuthScheme::Bearer), "Bearer T1");
    let request = &server.requests(Kind::Access)[0];
    assert_eq!(request.method, "GET");
    assert_eq!(request.path, format!("{ACCOUNTS}/default/token"));
    assert_eq!(request.query, None);
    let mut headers = request.headers.clone();
    headers.sort();
    let expected = [
        ("host", server.address().to_string()),
        ("metadata-flavor", "Google".to_owned()),
        (
            "user-agent",
            format!("sidentity/{}", env!("CARGO_PKG_VERSION")),
        ),
    ];
    assert_eq!(
        headers,
        expected.map(|(name, value)| (name.to_owned(), value))
    );
}

#[tokio::test]
async fn a_second_request_asks_nobody() {
    let (server, slot) =
        access_slot([Answer::access("T1", 3600), Answer::access("T2", 3600)]).await;
    assert_eq!(get(&slot).await, "T1");
    assert_eq!(get(&slot).await, "T1");
    assert_eq!(server.count(Kind::Access), 1);
}

#[tokio::test]
async fn scopes_are_asked_for_and_have_a_token_of_their_own() {
    let server = Metadata::start().await;
    server.script(
        Kind::Access,
        [Answer::access("T1", 3600), Answer::access("T2", 3600)],
    );
    let cache = cache(&server);
    assert_eq!(get(&cache.slot(&access(&["a/drive", "b"]))).await, "T1");
    assert_eq!(get(&cache.slot(&access(&[]))).await, "T2");
    let queries: Vec<_> = server
        .requests(Kind::Access)
        .into_iter()
        .map(|r| r.query)
        .collect();
    assert_eq!(queries, [Some("scopes=a%2Fdrive%2Cb".to_owned()), None]);
}

#[tokio::test]
async fn another_account_is_asked_for_by_its_name() {
    let server = Metadata::start().await;
    let key = TokenKey {
        account: Some("other@p.iam.gserviceaccount.com".into()),
        ..access(&[])
    };
    get(&cache(&server).slot(&key)).await;
    let path = format!("{ACCOUNTS}/other@p.iam.gserviceaccount.com/token");
    assert_eq!(server.requests(Kind::Access)[0].path, path);
}

#[tokio::test]
async fn an_id_token_is_asked_for_in_full_format_and_trimmed() {
    let audience = "https://svc-abc-uc.a.run.app";
    let server = Metadata::start().await;
    let token = jwt(audience, in_seconds(3600));
    server.script(Kind::Identity, [Answer::ok(format!("{token}\n"))]);
    let got = cache(&server).slot(&id(audience)).token().await.unwrap();
    assert_eq!(got.header(AuthScheme::Bearer), format!("Bearer {token}"));
    let request = &server.requests(Kind::Identity)[0];
    assert_eq!(request.path, format!("{ACCOUNTS}/default/identity"));
    assert_eq!(request.parameter("audience").as_deref(), Some(audience));
    assert_eq!(request.parameter("format").as_deref(), Some("full"));
}

#[tokio::test]
async fn an_audience_with_reserved_characters_arrives_as_it_is() {
    let server = Metadata::start().await;
    let audience = "https://x/?a=b&c d#é%25";
    get(&cache(&server).slot(&id(audience))).await;
    let request = &server.requests(Kind::Identity)[0];
    assert_eq!(request.parameter("audience").as_deref(), Some(audience));
    assert_eq!(request.query.as_deref().unwrap().split('&').count(), 2);
}

#[tokio::test]
async fn two_audiences_never_get_each_others_token() {
    let server = Metadata::start().await;
    let cache = cache(&server);
    for _ in 0..10 {
        for audience in ["https://svc-a.example", "https://svc-b.example"] {
            let token = get(&cache.slot(&id(audience))).await;
            assert_eq!(audience_of(&token), audience);
        }
    }
    assert_eq!(server.count(Kind::Identity), 2);
}

// === who waits for whom ===

#[tokio::test]
async fn a_hundred_first_requests_make_one_question() {
    let gate = Gate::new();
    let (server, slot) = access_slot([Answer::access("T1", 3600).behind(&gate)]).await;
    let mut requests = JoinSet::new();
    for _ in 0..100 {
        let slot = Arc::clone(&slot);
        requests.spawn(async move { get(&slot).await });
    }
    server.arrived(Kind::Access, 1).await;
    gate.open();
    assert!(requests.join_all().await.iter().all(|token| token == "T1"));
    assert_eq!(server.count(Kind::Access), 1);
}

#[tokio::test]
async fn a_hundred_first_requests_share_one_refusal() {
    let gate = Gate::new();
    let (server, slot) = access_slot([Answer::status(403, "no").behind(&gate)]).await;
    let mut requests = JoinSet::new();
    for _ in 0..100 {
        let slot = Arc::clone(&slot);
        requests.spawn(async move { error(&slot).await.detail().to_owned() });
    }
    server.arrived(Kind::Access, 1).await;
    gate.open();
    let errors = requests.join_all().await;
    assert!(errors.iter().all(|detail| *detail == errors[0]));
    assert!(errors[0].contains("403 Forbidden: \"no\""), "{}", errors[0]);
    assert_eq!(error(&slot).await.detail(), errors[0]);
    assert_eq!(server.count(Kind::Access), 1);
}

#[tokio::test]
async fn a_request_that_goes_away_leaves_its_token_to_the_next() {
    let gate = Gate::new();
    let (server, slot) = access_slot([Answer::access("T1", 3600).behind(&gate)]).await;
    let gone = tokio::spawn({
        let slot = Arc::clone(&slot);
        async move { slot.token().await.map(drop) }
    });
    server.arrived(Kind::Access, 1).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    gate.open();
    assert_eq!(get(&slot).await, "T1");
    assert_eq!(server.count(Kind::Access), 1);
}

#[tokio::test]
async fn no_more_than_four_questions_are_asked_at_once() {
    let gate = Gate::new();
    let server = Metadata::start().await;
    server.script(
        Kind::Identity,
        [Answer::with({
            let gate = gate.clone();
            move |_| Answer::ok(jwt("a", in_seconds(3600))).behind(&gate)
        })],
    );
    let cache = cache(&server);
    let mut requests = JoinSet::new();
    for n in 0..10 {
        let slot = cache.slot(&id(&format!("https://{n}.example")));
        requests.spawn(async move { get(&slot).await });
    }
    server.arrived(Kind::Identity, 4).await;
    let fifth = server.arrived(Kind::Identity, 5);
    let fifth = tokio::time::timeout(Duration::from_millis(200), fifth).await;
    assert!(fifth.is_err(), "a fifth question");
    gate.open();
    assert_eq!(requests.join_all().await.len(), 10);
    assert_eq!(server.count(Kind::Identity), 10);
}

// === what is tried again ===

#[tokio::test]
async fn a_server_that_is_starting_is_asked_again() {
    let (server, slot) = access_slot([
        Answer::status(503, "starting"),
        Answer::status(503, "starting"),
        Answer::access("T1", 3600),
    ])
    .await;
    let start = Instant::now();
    assert_eq!(get(&slot).await, "T1");
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(server.count(Kind::Access), 3);
}

#[tokio::test]
async fn everything_that_may_pass_is_tried_again() {
    for trouble in [
        Answer::status(408, ""),
        Answer::status(429, ""),
        Answer::status(500, ""),
        Answer::status(502, "").without_flavor(),
        Answer::status(504, ""),
        Answer::close(),
        Answer::reset(),
        Answer::raw("HTTP/1.1 200 OK\r\nMetadata-Fl"),
        Answer::access("SECRET", 3600).torn_at(20),
        Answer::raw(
            "HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n{",
        ),
    ] {
        let (server, slot) = access_slot([trouble, Answer::access("T1", 3600)]).await;
        assert_eq!(get(&slot).await, "T1");
        let connections: Vec<_> = server
            .requests(Kind::Access)
            .iter()
            .map(|r| r.connection)
            .collect();
        assert_eq!(
            connections,
            [1, 2],
            "a connection of its own for each attempt"
        );
    }
}

#[tokio::test]
async fn a_limited_server_gets_the_time_that_it_asks_for() {
    let (server, slot) = access_slot([
        Answer::status(429, "slow down").header("retry-after", "1"),
        Answer::access("T1", 3600),
    ])
    .await;
    let start = Instant::now();
    assert_eq!(get(&slot).await, "T1");
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(server.count(Kind::Access), 2);
}

#[tokio::test]
async fn a_server_that_asks_for_more_time_than_there_is_fails_the_request_at_once() {
    let limited = Answer::status(429, "slow down").header("retry-after", "20");
    let (server, slot) = access_slot([limited]).await;
    let start = Instant::now();
    let failed = error(&slot).await;
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(failed.kind(), ErrorKind::TokenUnavailable);
    assert!(failed.wait().unwrap() > Duration::from_secs(15));
    assert_eq!(server.count(Kind::Access), 1);
}

#[tokio::test]
async fn a_server_that_stays_limited_is_asked_five_times_and_then_left_alone() {
    let (server, slot) = access_slot([Answer::status(429, "Quota exceeded")]).await;
    let failed = error(&slot).await;
    assert_eq!(failed.kind(), ErrorKind::TokenUnavailable);
    let address = server.address();
    assert_eq!(
        failed.detail(),
        format!(
            "token: an access token (account default) asked of http://{address}: answered 429 Too Many Requests: \
             \"Quota exceeded\" (5 attempts)"
        )
    );
    assert_eq!(server.count(Kind::Access), 5);
    let start = Instant::now();
    let again = error(&slot).await;
    assert!(start.elapsed() < Duration::from_millis(500));
    assert_eq!(again.detail(), failed.detail());
    let wait = again.wait().unwrap();
    assert!(!wait.is_zero() && wait <= Duration::from_secs(1));
    assert_eq!(server.count(Kind::Access), 5);
}

#[tokio::test]
async fn a_server_that_comes_up_700_ms_later_is_waited_for() {
    let (mut server, slot) = access_slot([Answer::access("T1", 3600)]).await;
    server.stop().await;
    let request = tokio::spawn(async move { get(&slot).await });
    tokio::time::sleep(Duration::from_millis(700)).await;
    server.restart().await;
    assert_eq!(request.await.unwrap(), "T1");
}

#[tokio::test]
async fn where_nobody_listens_the_error_says_so_and_what_to_do() {
    let (mut server, slot) = access_slot([Answer::never()]).await;
    server.stop().await;
    let failed = error(&slot).await;
    assert_eq!(failed.kind(), ErrorKind::TokenUnavailable);
    for words in [
        "no connection",
        "refused",
        "GCE_METADATA_HOST",
        "5 attempts",
    ] {
        assert!(failed.detail().contains(words), "{}", failed.detail());
    }
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_and_then_asked_on_a_new_connection() {
    let server = Metadata::start().await;
    server.script(Kind::Access, [Answer::never(), Answer::access("T2", 3600)]);
    let slot = cache_for(&server, Duration::from_millis(300)).slot(&access(&[]));
    let failed = error(&slot).await;
    assert_eq!(failed.kind(), ErrorKind::TokenUnavailable);
    assert!(failed.detail().contains("no answer within 0.3 s"));
    tokio::time::sleep(failed.wait().unwrap()).await;
    assert_eq!(get(&slot).await, "T2");
    assert_eq!(server.requests(Kind::Access)[1].connection, 2);
}

#[tokio::test]
async fn an_attempt_that_the_end_cuts_short_does_not_hide_what_the_server_said_before() {
    let server = Metadata::start().await;
    let answers = [Answer::status(503, "warming up"), Answer::never()];
    server.script(Kind::Access, answers);
    let slot = cache_for(&server, Duration::from_secs(1)).slot(&access(&[]));
    let failed = error(&slot).await;
    assert!(
        failed.detail().contains("warming up"),
        "{}",
        failed.detail()
    );
    assert_eq!(server.requests(Kind::Access).len(), 2);
}

#[tokio::test]
async fn an_attempt_that_hangs_costs_three_seconds_and_no_more() {
    let (server, slot) = access_slot([Answer::never(), Answer::access("T2", 3600)]).await;
    let start = Instant::now();
    assert_eq!(get(&slot).await, "T2");
    let took = start.elapsed();
    assert!(took > Duration::from_secs(3) && took < Duration::from_secs(5));
    assert_eq!(server.count(Kind::Access), 2);
}

#[test]
fn an_answer_that_lay_in_a_frozen_instance_is_not_used_beyond_its_time() {
    let elsewhere = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (server, slot) = elsewhere.block_on(access_slot([
        Answer::access("T1", 34),
        Answer::access("T2", 3600),
    ]));
    let here = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    here.block_on(async {
        slot.refresh_if_stale();
        while server.count(Kind::Access) == 0 {
            tokio::task::yield_now().await;
        }
        // Nothing of ours runs any more; the answer arrives all the same.
        std::thread::sleep(Duration::from_millis(4_500));
        assert_eq!(get(&slot).await, "T2");
    });
}

// === what is not tried again ===

#[tokio::test]
async fn a_404_is_told_with_a_hint_and_heals_without_a_restart() {
    let page = "<!DOCTYPE html><title>Error 404 (Not Found)!!1</title><p>no such path";
    let (server, slot) = access_slot([
        Answer::status(404, page).header("content-type", "text/html"),
        Answer::access("T1", 3600),
    ])
    .await;
    let failed = error(&slot).await;
    assert_eq!(failed.kind(), ErrorKind::TokenRefused);
    for words in [
        "404 Not Found: \"Error 404 (Not Found)!!1\"",
        "is a service account attached?",
        "Workload Identity",
    ] {
        assert!(failed.detail().contains(words), "{}", failed.detail());
    }
    assert_eq!(server.count(Kind::Access), 1);
    tokio::time::sleep(failed.wait().unwrap()).await;
    assert_eq!(get(&slot).await, "T1");
}

#[tokio::test]
async fn each_way_to_fail_has_its_own_advice() {
    let limited = || Answer::status(429, "slow down");
    let failing = || Answer::status(503, "away");
    let cases = [
        (vec![Answer::status(404, "none")], TokenFault::NoAccount),
        (vec![Answer::status(403, "no")], TokenFault::Forbidden),
        (vec![Answer::status(400, "what")], TokenFault::Refused),
        (vec![limited(); 5], TokenFault::Limited),
        (vec![failing(); 5], TokenFault::Failing),
        (vec![Answer::ok("{}")], TokenFault::Malformed),
        (
            vec![Answer::access("T1", 3600).without_flavor()],
            TokenFault::Impostor,
        ),
        (vec![Answer::raw("SSH-2.0-x\r\n")], TokenFault::Impostor),
    ];
    for (answers, fault) in cases {
        let (_server, slot) = access_slot(answers).await;
        let error = error(&slot).await;
        assert_eq!(error.fault(), Some(fault), "{error}");
        assert_eq!(error.advice(), fault.advice());
        assert_eq!(slot.status().last_fault, Some(fault));
    }
    let server = Metadata::start().await;
    server.script(Kind::Access, [Answer::never()]);
    let slot = cache_for(&server, Duration::from_millis(200)).slot(&access(&[]));
    assert_eq!(error(&slot).await.fault(), Some(TokenFault::Silent));
    let mut server = Metadata::start().await;
    server.stop().await;
    let slot = cache_for(&server, Duration::from_millis(200)).slot(&access(&[]));
    assert_eq!(error(&slot).await.fault(), Some(TokenFault::Unreachable));
}

#[tokio::test]
async fn what_will_not_pass_is_asked_once() {
    for status in [204, 301, 302, 307, 400, 401, 403, 404, 418] {
        let answer = Answer::status(status, "").header("location", "/elsewhere");
        let (server, slot) = access_slot([answer]).await;
        let failed = error(&slot).await;
        assert_eq!(failed.kind(), ErrorKind::TokenRefused, "{status}");
        assert!(failed.detail().contains(&status.to_string()));
        assert_eq!(server.all_requests().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn whoever_does_not_say_that_it_is_the_metadata_server_is_not_believed() {
    for answer in [
        Answer::access("SECRET", 3600).without_flavor(),
        Answer::access("SECRET", 3600)
            .without_flavor()
            .header("metadata-flavor", "Vanilla"),
    ] {
        let (server, slot) = access_slot([answer]).await;
        let failed = error(&slot).await;
        assert_eq!(failed.kind(), ErrorKind::TokenRefused);
        assert!(failed.detail().contains("something else answers there"));
        assert_eq!(server.count(Kind::Access), 1);
    }
}

#[tokio::test]
async fn nonsense_is_an_error_is_not_kept_and_is_never_quoted() {
    let payload = format!(r#"{{"aud":"a","exp":{}}}"#, in_seconds(3600));
    let two_parts = jwt_of(&payload).rsplit_once('.').unwrap().0.to_owned();
    let cases: Vec<(bool, String)> = [
        "",
        " \r\n ",
        "{bad SECRET",
        r#"{"access_token":"","expires_in":3600,"x":"SECRET"}"#,
        r#"{"access_token":"SECRET"}"#,
        r#"{"access_token":"SECRET","expires_in":0}"#,
        r#"{"access_token":"SECRET","expires_in":-5}"#,
        r#"{"access_token":"SECRET","expires_in":5}"#,
        r#"{"access_token":["SECRET"],"expires_in":3600}"#,
        r#"{"access_token":"SECRET\r\nX: y","expires_in":3600}"#,
    ]
    .into_iter()
    .map(|body| (false, body.to_owned()))
    .chain(
        [
            "",
            " \n",
            "error SECRET\nnot-found",
            "SECRET\rx",
            "SECRET.a.jwt",
            &two_parts,
            &jwt_of("{}"),
            &jwt("SECRET", in_seconds(4)),
            &jwt("SECRET", in_seconds(-60)),
        ]
        .into_iter()
        .map(|body| (true, body.to_owned())),
    )
    .collect();
    for (is_id, body) in cases {
        let answers = [Answer::ok(&body)];
        let (server, slot) = if is_id {
            id_slot(answers).await
        } else {
            access_slot(answers).await
        };
        let failed = error(&slot).await;
        assert_eq!(failed.kind(), ErrorKind::TokenRefused, "{body:?}");
        assert!(failed.detail().starts_with("token: a"), "{failed}");
        assert!(!failed.detail().contains("SECRET"), "{failed}");
        let first = body.split('.').next().unwrap();
        assert!(
            first.len() < 10 || !failed.detail().contains(first),
            "{failed}"
        );
        assert!(!slot.has_token());
        assert_eq!(server.all_requests().len(), 1, "{body:?}");
    }
}

#[tokio::test]
async fn after_nonsense_the_next_good_answer_counts() {
    let (_server, slot) = access_slot([Answer::ok("{bad"), Answer::access("T1", 3600)]).await;
    let failed = error(&slot).await;
    tokio::time::sleep(failed.wait().unwrap()).await;
    assert_eq!(get(&slot).await, "T1");
}

#[tokio::test]
async fn bytes_that_are_no_http_and_answers_without_end_are_refused() {
    let flavored = "HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\n";
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    for (answer, words) in [
        (Answer::raw("SSH-2.0-OpenSSH_9.6\r\n\r\n"), "no HTTP"),
        (Answer::raw(vec![0xff; 64]), "no HTTP"),
        (
            Answer::raw(format!("{flavored}X: {}\r\n\r\n", "x".repeat(200_000))),
            "no HTTP",
        ),
        (Answer::ok("x".repeat(64 * 1024 + 1)), "longer than 64 KiB"),
        (
            Answer::raw(format!(
                "{flavored}Transfer-Encoding: chunked\r\n\r\n{}",
                chunk.repeat(20)
            )),
            "longer than 64 KiB",
        ),
    ] {
        let (server, slot) = id_slot([answer]).await;
        let failed = error(&slot).await;
        assert_eq!(failed.kind(), ErrorKind::TokenRefused, "{failed}");
        assert!(failed.detail().contains(words), "{failed}");
        assert_eq!(server.count(Kind::Identity), 1);
    }
}

#[tokio::test]
async fn an_id_token_of_64_kib_is_taken() {
    let payload = format!(
        r#"{{"exp":{},"x":"{}"}}"#,
        in_seconds(3600),
        "x".repeat(40_000)
    );
    let token = jwt_of(&payload);
    let body = format!("{token}{}", " ".repeat(64 * 1024 - token.len()));
    let (_server, slot) = id_slot([Answer::ok(body)]).await;
    assert_eq!(get(&slot).await, token);
}

#[tokio::test]
async fn where_the_user_says_that_there_is_no_metadata_server_none_is_asked() {
    let server = Metadata::start().await;
    let client = MetadataClient::new(
        &MetadataServer {
            host: Host::from(server.address().ip()),
            port: server.address().port(),
            disabled: true,
        },
        TIMEOUT,
    );
    let source = TokenSource::Metadata(client.clone());
    let slot = TokenCache::new(source, Arc::new(Metrics::new())).slot(&access(&[]));
    let failed = error(&slot).await;
    assert_eq!(failed.kind(), ErrorKind::TokenUnavailable);
    assert!(failed.detail().starts_with("token: "));
    assert!(failed.detail().contains("NO_GCE_CHECK"));
    assert!(Instance::new(client, None).universe().await.is_err());
    assert_eq!(server.all_requests().len(), 0);
}

// === time ===

#[tokio::test]
async fn an_id_token_from_the_servers_cache_is_replaced_before_it_expires() {
    let (server, slot) = id_slot([Answer::identity(32), Answer::identity(3600)]).await;
    let first = get(&slot).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let second = get(&slot).await;
    assert_ne!(first, second);
    assert_eq!(server.count(Kind::Identity), 2);
}

#[tokio::test]
async fn an_expired_token_is_not_sent_though_no_new_one_can_be_had() {
    let (_server, slot) = access_slot([Answer::access("T1", 7), Answer::status(400, "no")]).await;
    assert_eq!(get(&slot).await, "T1");
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    assert_eq!(error(&slot).await.kind(), ErrorKind::TokenRefused);
    assert!(!slot.has_token());
}

// === facts ===

#[tokio::test]
async fn the_universe_is_googles_own_where_the_server_knows_of_none() {
    for (answer, expected) in [
        (Answer::status(404, "not found"), "googleapis.com"),
        (Answer::ok(""), "googleapis.com"),
        (Answer::ok("s3nsapis.fr\n"), "s3nsapis.fr"),
    ] {
        let server = Metadata::start().await;
        server.script(Kind::Universe, [answer]);
        let instance = instance(&server);
        assert_eq!(instance.universe_if_known(), None);
        for _ in 0..2 {
            assert_eq!(&*instance.universe().await.unwrap(), expected);
        }
        assert_eq!(instance.universe_if_known().as_deref(), Some(expected));
        let path = "/computeMetadata/v1/universe/universe-domain";
        assert_eq!(server.requests(Kind::Universe)[0].path, path);
        assert_eq!(server.count(Kind::Universe), 1);
    }
}

#[tokio::test]
async fn the_configurations_universe_is_not_asked_for() {
    let server = Metadata::start().await;
    let client = client_for(server.address(), TIMEOUT);
    let instance = Instance::new(client, Some("s3nsapis.fr".into()));
    assert_eq!(&*instance.universe().await.unwrap(), "s3nsapis.fr");
    assert_eq!(server.all_requests().len(), 0);
}

#[tokio::test]
async fn a_universe_that_cannot_be_had_now_is_asked_for_again() {
    let server = Metadata::start().await;
    server.script(
        Kind::Universe,
        [
            Answer::ok("<html>no universe</html>"),
            Answer::status(500, ""),
            Answer::status(500, ""),
            Answer::ok("s3nsapis.fr"),
        ],
    );
    let instance = instance(&server);
    let failed = instance.universe().await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::TokenRefused);
    let held_off = instance.universe().await.unwrap_err();
    assert_eq!(held_off.detail(), failed.detail());
    assert_eq!(server.count(Kind::Universe), 1);
    assert_eq!(instance.universe_if_known(), None);
    tokio::time::sleep(held_off.wait().unwrap()).await;
    assert_eq!(&*instance.universe().await.unwrap(), "s3nsapis.fr");
    assert_eq!(server.count(Kind::Universe), 4);
}

#[tokio::test]
async fn project_and_accounts_are_asked_for_once() {
    let server = Metadata::start().await;
    let other = format!("{ACCOUNTS}/other@x.example/email");
    server.script_path(&other, [Answer::ok("other@x.example")]);
    let instance = instance(&server);
    assert_eq!(instance.project_id_if_known(), None);
    assert_eq!(instance.email_if_known(None), None);
    let mut questions = JoinSet::new();
    for _ in 0..10 {
        let instance = instance.clone();
        questions.spawn(async move { instance.project_id().await.unwrap() });
    }
    assert!(
        questions
            .join_all()
            .await
            .iter()
            .all(|id| &**id == "test-project")
    );
    for _ in 0..2 {
        let email = instance.email(None).await.unwrap();
        assert_eq!(&*email, "default@test-project.iam.gserviceaccount.com");
        let email = instance.email(Some("other@x.example")).await.unwrap();
        assert_eq!(&*email, "other@x.example");
    }
    assert_eq!(
        instance.project_id_if_known().as_deref(),
        Some("test-project")
    );
    let other = instance.email_if_known(Some("other@x.example"));
    assert_eq!(other.as_deref(), Some("other@x.example"));
    assert_eq!(server.count(Kind::ProjectId), 1);
    assert_eq!(server.count(Kind::Email), 2);
}

// === secrets ===

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_names_the_audience_once_a_failure_and_tells_of_recovery_but_of_no_token() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // Were there only one, whether a line is of interest would be asked of the thread that comes by first, another test's.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    let secret = jwt_of(&format!(r#"{{"exp":{}}}"#, in_seconds(3600)));
    let (_server, slot) = id_slot([
        Answer::status(400, format!("{secret} is bad")),
        Answer::ok(&secret),
    ])
    .await;
    let failed = error(&slot).await;
    error(&slot).await;
    tokio::time::sleep(failed.wait().unwrap()).await;
    let token = slot.token().await.unwrap();
    let sensitive: HeaderValue = token.header(AuthScheme::Basic);
    tracing::info!(?token, ?sensitive, ?slot, "shown on purpose");
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let ours = |level| {
        let mut lines = text
            .lines()
            .filter(|line| line.contains("sidentity::token"));
        lines.by_ref().filter(|line| line.contains(level)).count()
    };
    assert_eq!((ours(" WARN "), ours(" INFO ")), (1, 1), "{text}");
    assert!(text.contains("https://a.example"), "{text}");
    for part in secret.split('.').filter(|part| part.len() > 8) {
        assert!(!text.contains(part), "{text}");
    }
}
