//! Tokens that expire soon.

use std::time::Duration;

use sidentity::error::ErrorKind;

use super::support::metadata::{Answer, Kind};
use super::{access_slot, error, get, id_slot};

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
async fn an_expired_token_is_not_sent_even_if_no_new_one_is_available() {
    let (_server, slot) = access_slot([Answer::access("T1", 7), Answer::status(400, "no")]).await;
    assert_eq!(get(&slot).await, "T1");
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    assert_eq!(error(&slot).await.kind(), ErrorKind::TokenRefused);
    assert!(!slot.has_token());
}
