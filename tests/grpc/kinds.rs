//! The four kinds of calls, metadata, and failures of a call at the service.

use tokio::sync::mpsc;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};

use super::client::Client;
use super::echo::details;
use super::support::metadata::audience_of;
use super::support::upstream::soon;
use super::{HOST, started};

/// Makes calls of all four kinds on one connection.
async fn all_kinds(client: &Client) {
    let answer = client
        .unary("Unary", Request::new("hello".to_owned()))
        .await;
    assert_eq!(answer.unwrap().into_inner(), "hello");

    let mut numbers = client.server_streaming("Count", "3").await.unwrap();
    for expected in ["1", "2", "3"] {
        assert_eq!(numbers.message().await.unwrap().unwrap(), expected);
    }
    assert_eq!(numbers.message().await.unwrap(), None);

    let (say, said) = mpsc::channel(1);
    let joining = tokio::spawn({
        let client = client.clone();
        async move { client.client_streaming("Join", said).await }
    });
    for text in ["one ", "two ", "three"] {
        say.send(text.to_owned()).await.unwrap();
    }
    drop(say);
    assert_eq!(soon(joining).await.unwrap().unwrap(), "one two three");

    let (say, said) = mpsc::channel(1);
    let mut chat = soon(client.bidirectional("Chat", said)).await.unwrap();
    for text in ["ping", "pong", "ping"] {
        say.send(text.to_owned()).await.unwrap();
        // One message at a time: no message is delayed in either direction.
        assert_eq!(soon(chat.message()).await.unwrap().unwrap(), text);
    }
    drop(say);
    assert_eq!(soon(chat.message()).await.unwrap(), None);
    assert!(chat.trailers().await.unwrap().is_some());
}

#[tokio::test]
async fn all_four_kinds_of_call_pass_the_forward_proxy() {
    let setting = started(&[]).await;
    all_kinds(&setting.proxied()).await;
    assert_eq!(setting.service.connections(), 1);
}

#[tokio::test]
async fn all_four_kinds_of_call_pass_a_route() {
    let setting = started(&[]).await;
    all_kinds(&setting.routed()).await;
    assert_eq!(setting.service.connections(), 1);
}

#[tokio::test]
async fn a_call_arrives_as_valid_grpc_with_one_authorization() {
    let setting = started(&[]).await;
    for client in [setting.proxied(), setting.routed()] {
        let mut request = Request::new("hello".to_owned());
        request.set_timeout(std::time::Duration::from_secs(5));
        client.unary("Unary", request).await.unwrap();
    }
    let heads = setting.service.heads();
    assert_eq!(heads.len(), 2);
    for head in heads {
        assert_eq!(head["te"], "trailers");
        assert_eq!(head["content-type"], "application/grpc");
        assert_eq!(head["grpc-timeout"], "5000000u");
        let tokens: Vec<_> = head.get_all("authorization").iter().collect();
        assert_eq!(tokens.len(), 1, "{head:?}");
        let token = tokens[0].to_str().unwrap().strip_prefix("Bearer ").unwrap();
        assert_eq!(audience_of(token), format!("https://{HOST}"));
    }
}

#[tokio::test]
async fn a_grpc_client_that_must_send_a_key_sends_a_placeholder() {
    let setting = started(&["--placeholder", "dummy"]).await;
    for client in [setting.proxied(), setting.routed()] {
        let mut request = Request::new("hello".to_owned());
        let metadata = request.metadata_mut();
        metadata.insert("authorization", MetadataValue::from_static("Bearer dummy"));
        metadata.insert("x-goog-api-key", MetadataValue::from_static("sidentity"));
        client.unary("Unary", request).await.unwrap();
    }
    let heads = setting.service.heads();
    assert_eq!(heads.len(), 2);
    for head in heads {
        assert!(!head.contains_key("x-goog-api-key"), "{head:?}");
        let tokens: Vec<_> = head.get_all("authorization").iter().collect();
        assert_eq!(tokens.len(), 1, "{head:?}");
        let token = tokens[0].to_str().unwrap().strip_prefix("Bearer ").unwrap();
        assert_eq!(audience_of(token), format!("https://{HOST}"));
    }
}

#[tokio::test]
async fn sixty_kib_of_binary_metadata_pass_both_ways() {
    let setting = started(&[]).await;
    let mut request = Request::new(String::new());
    let value = MetadataValue::from_bytes(&details());
    request
        .metadata_mut()
        .insert_bin("x-echo-bin", value.clone());
    let answer = setting.proxied().unary("Unary", request).await.unwrap();
    assert_eq!(answer.metadata().get_bin("x-echo-bin"), Some(&value));
}

fn assert_failure(status: &Status) {
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(status.message(), "100% – not now");
    assert_eq!(status.details(), details());
}

#[tokio::test]
async fn a_failure_with_sixty_kib_of_details_is_passed_on() {
    let setting = started(&[]).await;
    for client in [setting.proxied(), setting.routed()] {
        // The status is in the head if no message precedes it.
        let failed = client.unary("Fail", Request::new(String::new())).await;
        assert_failure(&failed.unwrap_err());
        // The status is in the trailers after messages.
        let mut numbers = client.server_streaming("Count", "2 fail").await.unwrap();
        for expected in ["1", "2"] {
            assert_eq!(numbers.message().await.unwrap().unwrap(), expected);
        }
        assert_failure(&numbers.message().await.unwrap_err());
    }
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented() {
    let setting = started(&[]).await;
    let failed = setting
        .proxied()
        .unary("Nothing", Request::new(String::new()))
        .await;
    assert_eq!(failed.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn ten_thousand_chat_messages_each_way_arrive_in_order() {
    let setting = started(&[]).await;
    let (say, said) = mpsc::channel(64);
    let saying = tokio::spawn(async move {
        for number in 0..10_000 {
            say.send(number.to_string()).await.unwrap();
        }
    });
    let mut chat = soon(setting.proxied().bidirectional("Chat", said))
        .await
        .unwrap();
    for number in 0..10_000 {
        let text = soon(chat.message()).await.unwrap().unwrap();
        assert_eq!(text, number.to_string());
    }
    assert_eq!(soon(chat.message()).await.unwrap(), None);
    saying.await.unwrap();
}
