//! The cost of a token hit, which each request with a token has.

#![allow(clippy::expect_used)]

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use sidentity::config::MetadataServer;
use sidentity::destination::Host;
use sidentity::policy::{AuthScheme, Principal, TokenKey, TokenKind};
use sidentity::telemetry::Metrics;
use sidentity::token::{MetadataClient, Now, TokenCache, TokenSources};

/// Starts a metadata server that returns one token of the usual length, for an hour.
fn metadata_server() -> MetadataServer {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a caller");
        let _ = stream.read(&mut [0; 4096]);
        let token = "x".repeat(1024);
        let body = format!(r#"{{"access_token":"{token}","expires_in":3600}}"#);
        let head = "HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\n";
        let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
    });
    MetadataServer {
        host: Host::from(address.ip()),
        port: address.port(),
        disabled: false,
    }
}

fn hit(c: &mut Criterion) {
    let client = MetadataClient::new(&metadata_server(), Duration::from_secs(8));
    let cache = TokenCache::new(
        TokenSources::metadata_only(client),
        Arc::new(Metrics::new()),
    );
    let key = TokenKey {
        kind: TokenKind::Access { scopes: [].into() },
        principal: Principal::Attached,
    };
    let slot = cache.slot(&key);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let token = runtime.block_on(slot.token()).expect("a token");
    let now = Now::now();

    c.bench_function("token/clocks", |b| b.iter(Now::now));
    c.bench_function("token/ready", |b| b.iter(|| slot.ready(black_box(now))));
    c.bench_function("token/header", |b| {
        b.iter(|| token.header(black_box(AuthScheme::Bearer)));
    });
    // A request has already read the clock for its start.
    let started = now.mono;
    c.bench_function("token/hit", |b| {
        b.iter(|| {
            let token = slot.ready(Now::at(black_box(started)))?;
            Some(token.header(AuthScheme::Bearer))
        });
    });
    c.bench_function("token/hit by key", |b| {
        b.iter(|| {
            let token = cache.slot(black_box(&key)).ready(Now::now())?;
            Some(token.header(AuthScheme::Bearer))
        });
    });
}

criterion_group!(benches, hit);
criterion_main!(benches);
