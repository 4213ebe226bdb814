//! The cost of a request's decision and of its token header.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue};
use sidentity::destination::Destination;
use sidentity::policy::{
    Credential, Pattern, Placement, Policy, Rule, RuleOptions, Settings, inject, select_header,
    strip_redacted,
};

const UNIVERSE: &str = "googleapis.com";

fn rule(pattern: &str) -> Rule {
    Rule {
        pattern: Pattern::parse(pattern).unwrap(),
        options: RuleOptions {
            credential: Some(Credential::Id),
            audience: Some("https://audience.test".to_owned()),
            ..RuleOptions::default()
        },
        name: format!("--rule {pattern}=id").into(),
    }
}

fn decide(c: &mut Criterion) {
    let plain = Policy::new(Vec::new(), Settings::default());
    let ruled = Policy::new(
        (0..50)
            .map(|n| rule(&format!("*.team{n}.example.com/v{n}")))
            .collect(),
        Settings::default(),
    );
    let cases = [
        (
            "google api",
            &plain,
            "https://storage.googleapis.com/storage/v1/b/bucket/o/object",
        ),
        (
            "cloud run",
            &plain,
            "https://svc-424242.us-central1.run.app/orders/7",
        ),
        (
            "function",
            &plain,
            "https://us-central1-p.cloudfunctions.net/fn/sub",
        ),
        ("unmatched", &plain, "https://example.com/x"),
        (
            "50 rules, the last",
            &ruled,
            "https://a.team0.example.com/v0/x",
        ),
        (
            "50 rules, an odd path",
            &ruled,
            "https://a.team0.example.com/x/../v0/%78",
        ),
        (
            "50 rules, none",
            &ruled,
            "https://svc-424242.us-central1.run.app/orders/7",
        ),
    ];
    let mut group = c.benchmark_group("decide");
    for (name, policy, url) in cases {
        let destination = Destination::parse(url).unwrap();
        group.bench_function(name, |b| {
            b.iter(|| policy.decide(black_box(&destination), UNIVERSE));
        });
    }
    group.finish();
}

fn headers(c: &mut Criterion) {
    let policy = Policy::new(Vec::new(), Settings::default());
    let decide = |url| policy.decide(&Destination::parse(url).unwrap(), UNIVERSE);
    let mut sent = HeaderMap::new();
    for name in [
        "host",
        "accept",
        "user-agent",
        "content-type",
        "x-request-id",
        "traceparent",
    ] {
        sent.insert(name, HeaderValue::from_static("a value of some length"));
    }
    let mut group = c.benchmark_group("header");
    group.bench_function("strip_redacted, none", |b| {
        b.iter(|| strip_redacted(black_box(&mut sent)))
    });
    let api = decide("https://storage.googleapis.com/b");
    let query = Some("alt=json&prefix=a%2Fb&pageToken=abcdefgh&fields=items(name,size)");
    group.bench_function("select_header, google api with query", |b| {
        b.iter(|| select_header(&api, black_box(&sent), black_box(query)));
    });
    let run = decide("https://svc-424242.us-central1.run.app/");
    let value = HeaderValue::from_static("Bearer token");
    group.bench_function("place and inject, cloud run", |b| {
        b.iter(|| {
            if let Some(Placement::Inject(header)) = select_header(&run, &sent, None) {
                inject(&run, black_box(&mut sent), header, value.clone());
                sent.remove(http::header::AUTHORIZATION);
            }
        });
    });
    group.finish();
}

criterion_group!(benches, decide, headers);
criterion_main!(benches);
