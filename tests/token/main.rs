//! Tokens from a metadata server on a real socket, which may fail in every way.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used)]

mod expiry;
mod facts;
mod log;
mod refusal;
mod request;
mod retry;
#[path = "../support/mod.rs"]
mod support;
mod waiting;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sidentity::config::MetadataServer;
use sidentity::destination::Host;
use sidentity::error::Error;
use sidentity::policy::{Principal, TokenKey, TokenKind};
use sidentity::telemetry::Metrics;
use sidentity::token::{Facts, MetadataClient, Slot, TokenCache, TokenSources};

use support::metadata::{Answer, Kind, Metadata};

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
    let sources = TokenSources::metadata_only(client_for(server.address(), timeout));
    TokenCache::new(sources, Arc::new(Metrics::new()))
}

fn cache(server: &Metadata) -> TokenCache {
    cache_for(server, TIMEOUT)
}

fn instance(server: &Metadata) -> Facts {
    Facts::new(
        TokenSources::metadata_only(client_for(server.address(), TIMEOUT)),
        None,
    )
}

fn access(scopes: &[&str]) -> TokenKey {
    let scopes = scopes.iter().map(|scope| Arc::from(*scope)).collect();
    TokenKey {
        kind: TokenKind::Access { scopes },
        principal: Principal::Attached,
    }
}

fn id(audience: &str) -> TokenKey {
    let audience = audience.into();
    TokenKey {
        kind: TokenKind::Id { audience },
        principal: Principal::Attached,
    }
}

async fn get(slot: &Arc<Slot>) -> String {
    slot.token().await.expect("a token").reveal().to_owned()
}

async fn error(slot: &Arc<Slot>) -> Error {
    slot.token().await.expect_err("no token")
}

/// Returns a slot for an access token of a server with this script.
async fn access_slot(answers: impl IntoIterator<Item = Answer>) -> (Metadata, Arc<Slot>) {
    let server = Metadata::start().await;
    server.script(Kind::Access, answers);
    let slot = cache(&server).slot(&access(&[]));
    (server, slot)
}

/// Returns a slot for an ID token of a server with this script.
async fn id_slot(answers: impl IntoIterator<Item = Answer>) -> (Metadata, Arc<Slot>) {
    let server = Metadata::start().await;
    server.script(Kind::Identity, answers);
    let slot = cache(&server).slot(&id("https://a.example"));
    (server, slot)
}
