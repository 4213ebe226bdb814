//! Permanent failures, and responses that are rejected.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sidentity::config::MetadataServer;
use sidentity::destination::Host;
use sidentity::error::{ErrorKind, TokenFault};
use sidentity::telemetry::Metrics;
use sidentity::token::{Facts, MetadataClient, TokenCache, TokenSources};

use super::support::metadata::{Answer, Kind, Metadata, in_seconds, jwt, jwt_of};
use super::{TIMEOUT, access, access_slot, cache_for, error, get, id_slot};

#[tokio::test]
async fn a_404_is_reported_with_a_hint_and_recovers_without_a_restart() {
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
async fn each_kind_of_failure_has_its_own_advice() {
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
            TokenFault::WrongServer,
        ),
        (vec![Answer::raw("SSH-2.0-x\r\n")], TokenFault::WrongServer),
    ];
    for (answers, fault) in cases {
        let (_server, slot) = access_slot(answers).await;
        let error = error(&slot).await;
        assert_eq!(error.fault(), Some(fault), "{error}");
        assert_eq!(error.problem().advice(), fault.advice());
        assert_eq!(slot.status().last_fault, Some(fault));
    }
    let server = Metadata::start().await;
    server.script(Kind::Access, [Answer::never()]);
    let slot = cache_for(&server, Duration::from_millis(200)).slot(&access(&[]));
    assert_eq!(error(&slot).await.fault(), Some(TokenFault::TimedOut));
    let mut server = Metadata::start().await;
    server.stop().await;
    let slot = cache_for(&server, Duration::from_millis(200)).slot(&access(&[]));
    assert_eq!(error(&slot).await.fault(), Some(TokenFault::Unreachable));
}

#[tokio::test]
async fn a_permanent_error_is_not_retried() {
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
async fn a_server_without_metadata_flavor_is_rejected() {
    for answer in [
        Answer::access("SECRET", 3600).without_flavor(),
        Answer::access("SECRET", 3600)
            .without_flavor()
            .header("metadata-flavor", "Vanilla"),
    ] {
        let (server, slot) = access_slot([answer]).await;
        let failed = error(&slot).await;
        assert_eq!(failed.kind(), ErrorKind::TokenRefused);
        assert!(failed.detail().contains("another server answers there"));
        assert_eq!(server.count(Kind::Access), 1);
    }
}

#[tokio::test]
async fn garbage_is_an_error_that_is_not_cached_or_quoted() {
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
            &jwt("https://a.example", in_seconds(4)),
            &jwt("https://a.example", in_seconds(-60)),
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
        assert!(
            failed.detail().starts_with("token: cannot get a"),
            "{failed}"
        );
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
async fn an_id_token_for_another_audience_is_rejected_and_not_quoted() {
    let exp = in_seconds(3600);
    for (claims, words) in [
        (format!(r#"{{"aud":"SECRET","exp":{exp}}}"#), "aud differs"),
        (
            format!(r#"{{"aud":["https://a.example","SECRET"],"exp":{exp}}}"#),
            "aud differs",
        ),
        (format!(r#"{{"exp":{exp}}}"#), "has no aud"),
    ] {
        let (server, slot) = id_slot([Answer::ok(jwt_of(&claims))]).await;
        let failed = error(&slot).await;
        assert_eq!(failed.kind(), ErrorKind::TokenRefused, "{claims}");
        assert_eq!(failed.fault(), Some(TokenFault::Malformed));
        assert!(failed.detail().contains(words), "{failed}");
        assert!(!failed.detail().contains("SECRET"), "{failed}");
        assert!(!slot.has_token());
        assert_eq!(server.count(Kind::Identity), 1, "{claims}");
    }
    let list = format!(r#"{{"aud":["https://a.example"],"exp":{exp}}}"#);
    let (_server, slot) = id_slot([Answer::ok(jwt_of(&list))]).await;
    assert_eq!(get(&slot).await, jwt_of(&list));
}

#[tokio::test]
async fn an_unsigned_id_token_is_rejected() {
    let good = jwt("https://a.example", in_seconds(3600));
    let (_, rest) = good.split_once('.').unwrap();
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"None"}"#, r#"{"typ":"JWT"}"#] {
        let answer = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header));
        let (_server, slot) = id_slot([Answer::ok(answer)]).await;
        let failed = error(&slot).await;
        assert_eq!(failed.kind(), ErrorKind::TokenRefused, "{header}");
        assert!(failed.detail().starts_with("token: "), "{failed}");
        assert!(failed.detail().contains("alg"), "{failed}");
    }
}

#[tokio::test]
async fn a_valid_response_after_garbage_is_used() {
    let (_server, slot) = access_slot([Answer::ok("{bad"), Answer::access("T1", 3600)]).await;
    let failed = error(&slot).await;
    tokio::time::sleep(failed.wait().unwrap()).await;
    assert_eq!(get(&slot).await, "T1");
}

#[tokio::test]
async fn bytes_that_are_not_http_and_endless_responses_are_errors() {
    let flavored = "HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\n";
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    for (answer, words) in [
        (Answer::raw("SSH-2.0-OpenSSH_9.6\r\n\r\n"), "not HTTP"),
        (Answer::raw(vec![0xff; 64]), "not HTTP"),
        (
            Answer::raw(format!("{flavored}X: {}\r\n\r\n", "x".repeat(200_000))),
            "not HTTP",
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
async fn an_id_token_of_64_kib_is_accepted() {
    let payload = format!(
        r#"{{"aud":"https://a.example","exp":{},"x":"{}"}}"#,
        in_seconds(3600),
        "x".repeat(40_000)
    );
    let token = jwt_of(&payload);
    let body = format!("{token}{}", " ".repeat(64 * 1024 - token.len()));
    let (_server, slot) = id_slot([Answer::ok(body)]).await;
    assert_eq!(get(&slot).await, token);
}

#[tokio::test]
async fn with_no_gce_check_no_metadata_server_is_called() {
    let server = Metadata::start().await;
    let client = MetadataClient::new(
        &MetadataServer {
            host: Host::from(server.address().ip()),
            port: server.address().port(),
            disabled: true,
        },
        TIMEOUT,
    );
    let sources = TokenSources::metadata_only(client);
    let slot = TokenCache::new(sources.clone(), Arc::new(Metrics::new())).slot(&access(&[]));
    let failed = error(&slot).await;
    assert_eq!(failed.kind(), ErrorKind::TokenUnavailable);
    assert!(failed.detail().starts_with("token: "));
    assert!(failed.detail().contains("NO_GCE_CHECK"));
    assert!(Facts::new(sources, None).universe().await.is_err());
    assert_eq!(server.all_requests().len(), 0);
}
