//! Which trailers pass.

use http::HeaderName;
use proptest::prelude::*;

use super::*;

fn fields(lines: &[(&str, &str)]) -> HeaderMap {
    lines
        .iter()
        .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
        .collect()
}

#[test]
fn trailers_keep_their_order() {
    let sent = fields(&[
        ("grpc-status", "0"),
        ("grpc-message", "fine"),
        ("grpc-status-details-bin", "AA=="),
        ("x-sum", "1"),
        ("x-sum", "2"),
        ("custom", "3"),
        ("etag", "\"4\""),
        ("server-timing", "a;dur=1"),
        ("content-digest", "sha-256=:AA==:"),
        ("x-amz-checksum-crc32", "AAAAAA=="),
        ("x-amz-trailer-signature", "00"),
        ("x-goog-hash", "crc32c=AAAAAA=="),
        ("authentication-info", "nextnonce=\"1\""),
        ("proxy-status", "cdn; received-status=200"),
        ("signature", "sig=:AA==:"),
        ("traceparent", "00-0-0-01"),
        ("x-next-page-token", "5"),
    ]);
    let mut kept = sent.clone();
    strip_trailers(&mut kept);
    assert_eq!(
        kept.iter().collect::<Vec<_>>(),
        sent.iter().collect::<Vec<_>>()
    );
}

#[test]
fn routing_and_authentication_fields_are_removed_from_trailers() {
    for name in [
        "Forwarded",
        "Via",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Client-Cert",
        "X-Real-IP",
        "X-Original-URL",
        "X-Rewrite-URL",
        "Host",
        "Origin",
        "Alt-Svc",
        "X-Envoy-Original-Path",
        "X-Goog-Request-Params",
        "X-HTTP-Method-Override",
        "DPoP",
        "Cookie",
        "Set-Cookie",
        "Authorization",
        "Proxy-Authorization",
        "Proxy-Authenticate",
        "Proxy-Authentication-Info",
        "Proxy-Connection",
        "Proxy-Features",
        "WWW-Authenticate",
        "X-Goog-IAP-JWT-Assertion",
        "X-Goog-Authenticated-User-Email",
        "X-Goog-IAM-Authorization-Token",
        "X-Goog-API-Key",
        "API-Key",
        "X-API-Key",
        "ApiKey",
        "X-Amz-Security-Token",
        "X-Goog-User-Project",
        "X-Serverless-Authorization",
        "X-AppEngine-User-Email",
        "X-Endpoint-API-UserInfo",
        "X-Apigateway-API-UserInfo",
        "Client-Cert",
        "X-SSL-Client-Verify",
        "X-Auth-Token",
        "X-Access-Token",
        "X-CSRF-Token",
        "X-Original-Authorization",
        "Sec-WebSocket-Protocol",
        "Sec-Fetch-Site",
    ] {
        let mut trailers = fields(&[(name, "1"), ("x-kept", "2")]);
        strip_trailers(&mut trailers);
        assert_eq!(trailers, fields(&[("x-kept", "2")]), "{name}");
    }
}

#[test]
fn connection_in_trailers_removes_the_fields_it_names() {
    let mut trailers = fields(&[
        ("connection", "x-one, close"),
        ("x-one", "1"),
        ("x-two", "2"),
        ("close", "3"),
    ]);
    strip_trailers(&mut trailers);
    assert_eq!(trailers, fields(&[("x-two", "2")]));
}

proptest! {
    #[test]
    fn only_forbidden_trailers_are_removed(
        lines in prop::collection::vec(
            (prop_oneof![
                prop::sample::select(vec![
                    "Host", "Content-Length", "Transfer-Encoding", "TE", "Trailer", "Connection",
                    "Keep-Alive", "Proxy-Connection", "Upgrade", "Authorization",
                    "Proxy-Authorization", "Proxy-Authenticate", "WWW-Authenticate",
                    "X-Serverless-Authorization", "Cookie", "Set-Cookie", "Content-Encoding",
                    "Content-Type", "Content-Range", "Max-Forwards", "Expect", "Cache-Control",
                    "X-Goog-Api-Key", "x-goog-user-project", "Range", "If-Match", "Vary",
                ]).prop_map(str::to_owned),
                "grpc-[a-z-]{1,9}",
                "x-q[a-z]{0,3}",
            ], "[ -~]{0,9}"),
            0..12,
        ),
    ) {
        let mut trailers = HeaderMap::new();
        for (name, value) in &lines {
            trailers.append(
                name.parse::<HeaderName>().unwrap(),
                value.trim().parse().unwrap(),
            );
        }
        let named = Named::of(&trailers);
        let came = trailers.clone();
        strip_trailers(&mut trailers);
        let passes = |name: &HeaderName| {
            let name = name.as_str();
            (name.starts_with("grpc-") || name.starts_with("x-"))
                && !["x-serverless-authorization", "x-goog-api-key", "x-goog-user-project"]
                    .contains(&name)
        };
        let expected: Vec<_> = came
            .iter()
            .filter(|(name, _)| passes(name) && !named.contains(name))
            .collect();
        prop_assert_eq!(trailers.iter().collect::<Vec<_>>(), expected);
    }
}
