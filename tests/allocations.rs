//! Counts the allocations of code that must not allocate.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sidentity::config::MetadataServer;
use sidentity::destination::{Destination, Host};
use sidentity::policy::{
    AuthScheme, Placement, Policy, Principal, Settings, TokenKey, TokenKind, inject, select_header,
};
use sidentity::telemetry::Metrics;
use sidentity::token::{MetadataClient, Now, TokenCache, TokenSources};

mod support;

use support::metadata::Metadata;

#[tokio::test]
async fn a_cached_token_is_sent_without_an_allocation() {
    let server = Metadata::start().await;
    let address = server.address();
    let metadata = MetadataServer {
        host: Host::from(address.ip()),
        port: address.port(),
        disabled: false,
    };
    let client = MetadataClient::new(&metadata, Duration::from_secs(8));
    let cache = TokenCache::new(
        TokenSources::metadata_only(client),
        Arc::new(Metrics::new()),
    );
    let scopes = [].into();
    let slot = cache.slot(&TokenKey {
        kind: TokenKind::Access { scopes },
        principal: Principal::Attached,
    });
    slot.token().await.unwrap();

    let policy = Policy::new(Vec::new(), Settings::default());
    let destination = Destination::parse("https://storage.googleapis.com/storage/v1/b").unwrap();
    let decision = policy.decide(&destination, "googleapis.com");
    let placeholders = policy.placeholders();
    // hyper reserves the same capacity in a request's map.
    let mut headers = HeaderMap::with_capacity(16);
    for (name, value) in [
        ("host", "storage.googleapis.com"),
        ("accept", "*/*"),
        ("x-id", "1"),
    ] {
        headers.insert(name, value.parse().unwrap());
    }
    let started = Now::now().mono;

    let mut send = || {
        let token = slot.ready(Now::at(started)).expect("a token");
        assert!(!placeholders.find(&headers, Some("alt=json&k%65y=")).any());
        let placement = select_header(&decision, &headers, None).expect("a place");
        if let Placement::Inject(header) = placement {
            inject(
                &decision,
                &mut headers,
                header,
                token.header(AuthScheme::Bearer),
            );
        }
        assert_eq!(headers.len(), 4);
        headers.remove(AUTHORIZATION);
    };
    // The first access of a thread to a slot allocates what later accesses need.
    send();
    let cost = measure(|| (0..1000).for_each(|_| send()));
    assert_eq!(cost.count_total, 0);
}
