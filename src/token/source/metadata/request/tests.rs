use std::sync::Arc;

use http::StatusCode;
use proptest::prelude::*;

use super::MetadataRequest;
use crate::policy::{Principal, TokenKey, TokenKind};

const ACCOUNTS: &str = "/computeMetadata/v1/instance/service-accounts";

fn access(scopes: &[&str], account: Option<&str>) -> MetadataRequest {
    let scopes = scopes.iter().map(|scope| Arc::from(*scope)).collect();
    MetadataRequest::token(&TokenKey {
        kind: TokenKind::Access { scopes },
        principal: account.map_or(Principal::Attached, |email| {
            Principal::Account(email.into())
        }),
    })
}

fn id(audience: &str) -> MetadataRequest {
    MetadataRequest::token(&TokenKey {
        kind: TokenKind::Id {
            audience: audience.into(),
        },
        principal: Principal::Attached,
    })
}

#[test]
fn without_scopes_there_is_no_query() {
    assert_eq!(
        access(&[], None).target,
        format!("{ACCOUNTS}/default/token")
    );
}

#[test]
fn scopes_are_separated_by_commas_and_encoded() {
    let request = access(&["a/drive", "b"], Some("x@y.example"));
    let expected = format!("{ACCOUNTS}/x@y.example/token?scopes=a%2Fdrive%2Cb");
    assert_eq!(request.target, expected);
}

#[test]
fn an_id_token_request_encodes_the_audience_and_asks_for_the_full_format() {
    assert_eq!(
        id("https://x/?a=b&c d#é").target,
        format!(
            "{ACCOUNTS}/default/identity?audience=https%3A%2F%2Fx%2F%3Fa%3Db%26c%20d%23%C3%A9&format=full"
        )
    );
}

#[test]
fn an_account_stays_one_segment_of_the_path() {
    let request = access(&[], Some("../../x?y#z"));
    let expected = format!("{ACCOUNTS}/..%2F..%2Fx%3Fy%23z/token");
    assert_eq!(request.target, expected);
}

#[test]
fn advice_for_a_404_names_the_account_and_for_a_403_the_role() {
    let attached = access(&[], None).hint(StatusCode::NOT_FOUND).unwrap();
    assert!(attached.contains("is a service account attached?"));
    let named = access(&[], Some("x@y.example"));
    let named = named.hint(StatusCode::NOT_FOUND).unwrap();
    assert!(named.contains("x@y.example"));
    let role = id("a").hint(StatusCode::FORBIDDEN).unwrap();
    assert!(role.contains("iam.gke.io/gcp-service-account"));
    assert_eq!(id("a").hint(StatusCode::BAD_REQUEST), None);
}

proptest! {
    #[test]
    fn every_audience_is_one_query_parameter(audience in "\\PC{1,60}") {
        let target = id(&audience).target;
        let query = target.split_once('?').unwrap().1;
        let value = query.strip_prefix("audience=").unwrap().strip_suffix("&format=full").unwrap();
        prop_assert!(value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)));
        let decoded = percent_encoding::percent_decode_str(value).decode_utf8().unwrap();
        prop_assert_eq!(&*decoded, &*audience);
        let _: http::uri::PathAndQuery = target.parse().unwrap();
    }
}
