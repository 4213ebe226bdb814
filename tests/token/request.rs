//! Requests to the metadata server, and the handling of its responses.

use sidentity::policy::{AuthScheme, Principal, TokenKey};

use super::support::metadata::{ACCOUNTS, Answer, Kind, Metadata, audience_of, in_seconds, jwt};
use super::{access, access_slot, cache, get, id};

#[tokio::test]
async fn an_access_token_is_requested_as_documented_and_sent_as_bearer() {
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
async fn a_second_request_uses_the_cached_token() {
    let (server, slot) =
        access_slot([Answer::access("T1", 3600), Answer::access("T2", 3600)]).await;
    assert_eq!(get(&slot).await, "T1");
    assert_eq!(get(&slot).await, "T1");
    assert_eq!(server.count(Kind::Access), 1);
}

#[tokio::test]
async fn scopes_are_requested_and_have_their_own_token() {
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
async fn another_account_is_requested_by_its_name() {
    let server = Metadata::start().await;
    let key = TokenKey {
        principal: Principal::Account("other@p.iam.gserviceaccount.com".into()),
        ..access(&[])
    };
    get(&cache(&server).slot(&key)).await;
    let path = format!("{ACCOUNTS}/other@p.iam.gserviceaccount.com/token");
    assert_eq!(server.requests(Kind::Access)[0].path, path);
}

#[tokio::test]
async fn an_id_token_is_requested_in_full_format_and_trimmed() {
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
async fn an_audience_with_reserved_characters_is_preserved() {
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
