//! Hop-by-hop headers (RFC 9110, 7.6.1).
//!
//! `TE: trailers` and `Trailer` are kept, because gRPC and HTTP/1.1 trailers need them.

use std::collections::HashSet;

use http::header::Entry;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use crate::header_lookup;

/// The fields that `Connection` removes from a message, trailers included (RFC 9110, 7.6.1).
///
/// A set, because a hostile line may name a hundred thousand.
#[derive(Debug, Default)]
#[expect(
    clippy::box_collection,
    reason = "most messages name none, and each body would carry the empty set"
)]
pub struct Named(Option<Box<HashSet<HeaderName>>>);

/// Removes hop-by-hop request headers. `upgrade` keeps `Upgrade`. Returns the names to remove from its trailers.
pub fn strip_request(version: Version, headers: &mut HeaderMap, upgrade: bool) -> Named {
    let trailers = wants_trailers(headers);
    let named = strip(headers, |name| {
        matches!(name.as_str(), "proxy-authorization" | "http2-settings")
            // HTTP/1.0 has no answer to it (RFC 9110, 10.1.1).
            || *name == header::EXPECT && version < Version::HTTP_11
            || *name == header::TE && !trailers
            || *name == header::UPGRADE && !upgrade
    });
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    named
}

/// Removes hop-by-hop headers of a response that does not switch protocols. Returns the names to remove from its
/// trailers.
pub fn strip_response(headers: &mut HeaderMap) -> Named {
    strip(headers, |name| {
        // They apply to the next client only, which would read them as those of the sidecar (RFC 9110, 11.7).
        matches!(
            name.as_str(),
            "upgrade" | "proxy-authenticate" | "proxy-authentication-info"
        )
    })
}

/// Removes fields that are hop-by-hop in both directions, those that `Connection` names, and those that match `and`.
fn strip(headers: &mut HeaderMap, and: impl Fn(&HeaderName) -> bool) -> Named {
    let named = Named::of(headers);
    // Transfer-Encoding overrides Content-Length (RFC 9112, 6.3).
    let chunked = header_lookup::has(headers, &header::TRANSFER_ENCODING);
    remove(headers, |name| {
        matches!(
            name.as_str(),
            "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding"
        ) || *name == header::CONTENT_LENGTH && chunked
            || named.contains(name)
            || and(name)
    });
    named
}

// === impl Named ===

impl Named {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        // There may be several lines.
        let mut names = header_lookup::values(headers, &header::CONNECTION)
            .flat_map(items)
            // The most frequent value, which is removed in any case.
            .filter(|name| !name.eq_ignore_ascii_case(b"keep-alive"))
            .filter_map(|name| HeaderName::from_bytes(name).ok())
            .filter(may_be_named)
            .peekable();
        let any = names.peek().is_some();
        Self(any.then(|| Box::new(names.collect())))
    }

    pub(crate) fn contains(&self, name: &HeaderName) -> bool {
        self.0.as_ref().is_some_and(|names| names.contains(name))
    }
}

/// Removes fields and keeps the order of the others, unlike [`HeaderMap::remove`].
pub(crate) fn remove(headers: &mut HeaderMap, is_removed: impl Fn(&HeaderName) -> bool) {
    let Some(first) = headers.keys().position(&is_removed) else {
        return;
    };
    // Removing the last field keeps the order. Removes all fields from the last to the first match, then appends the
    // kept ones.
    let mut tail: Vec<_> = headers
        .keys()
        .skip(first)
        .map(|name| (name.clone(), None, Vec::new()))
        .collect();
    for (name, value, more) in tail.iter_mut().rev() {
        if let Entry::Occupied(field) = headers.entry(&*name) {
            let (_, mut values) = field.remove_entry_mult();
            *value = values.next();
            more.extend(values);
        }
    }
    for (name, value, more) in tail {
        if !is_removed(&name) {
            for value in value.into_iter().chain(more) {
                headers.append(name.clone(), value);
            }
        }
    }
}

/// Returns whether the body has no transfer coding but chunked. Another one would stay on it without being named.
pub(crate) fn is_chunked_at_most(headers: &HeaderMap) -> bool {
    header_lookup::values(headers, &header::TRANSFER_ENCODING).all(|value| {
        value
            .as_bytes()
            .trim_ascii()
            .eq_ignore_ascii_case(b"chunked")
    })
}

/// Returns whether `Connection` may remove the field. It must not remove fields that frame or address the message (RFC
/// 9110, 7.6.1).
fn may_be_named(name: &HeaderName) -> bool {
    ![
        header::TE,
        header::TRAILER,
        header::UPGRADE,
        header::HOST,
        header::CONTENT_LENGTH,
    ]
    .contains(name)
}

pub(crate) fn wants_upgrade(headers: &HeaderMap) -> bool {
    header_lookup::has(headers, &header::UPGRADE)
        && headers
            .get_all(header::CONNECTION)
            .iter()
            .any(|value| lists(value, "upgrade"))
        // Upgrade to h2c is obsolete (RFC 9113, 3.1). A server may ignore it.
        && !headers
            .get_all(header::UPGRADE)
            .iter()
            .any(|value| lists(value, "h2c"))
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    header_lookup::values(headers, &header::TE).any(|value| lists(value, "trailers"))
}

fn lists(value: &HeaderValue, wanted: &str) -> bool {
    items(value).any(|item| item.eq_ignore_ascii_case(wanted.as_bytes()))
}

/// Returns the items of a list. An invalid item does not affect the others.
pub(crate) fn items(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value
        .as_bytes()
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn hop_by_hop_fields_are_removed() {
        let mut sent = headers(&[
            ("connection", "keep-alive, x-one"),
            ("connection", "X-Two"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic eA=="),
            ("transfer-encoding", "chunked"),
            ("te", "gzip, trailers"),
            ("trailer", "x-sum"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
        ]);
        strip_request(Version::HTTP_11, &mut sent, false);
        assert_eq!(
            sent,
            headers(&[("te", "trailers"), ("trailer", "x-sum"), ("x-three", "3")])
        );
    }

    #[test]
    fn a_field_named_close_is_removed_with_connection_close() {
        for (connection, left) in [("close", 0), ("keep-alive", 1)] {
            let mut sent = headers(&[("connection", connection), ("close", "1")]);
            strip_request(Version::HTTP_11, &mut sent, false);
            assert_eq!(sent.len(), left, "{connection}");
        }
    }

    #[test]
    fn an_expectation_is_forwarded_except_from_http_1_0() {
        let expecting = headers(&[("expect", "100-continue")]);
        for (version, left) in [
            (Version::HTTP_10, HeaderMap::new()),
            (Version::HTTP_11, expecting.clone()),
            (Version::HTTP_2, expecting.clone()),
        ] {
            let mut sent = expecting.clone();
            strip_request(version, &mut sent, false);
            assert_eq!(sent, left, "{version:?}");
        }
    }

    #[test]
    fn an_invalid_name_in_connection_does_not_hide_others() {
        let mut sent = headers(&[("x-one", "1"), ("x-two", "2"), ("te", "trailers")]);
        let named = HeaderValue::from_bytes(b"X-One, \xff, x-two").unwrap();
        sent.append("connection", named);
        strip_request(Version::HTTP_11, &mut sent, false);
        assert_eq!(sent, headers(&[("te", "trailers")]));
    }

    #[test]
    fn an_upgrade_is_forwarded() {
        let mut sent = headers(&[("connection", "Upgrade"), ("upgrade", "websocket")]);
        assert!(wants_upgrade(&sent));
        strip_request(Version::HTTP_11, &mut sent, true);
        assert_eq!(
            sent,
            headers(&[("connection", "upgrade"), ("upgrade", "websocket")])
        );
        assert!(!wants_upgrade(&headers(&[("upgrade", "websocket")])));
        assert!(!wants_upgrade(&headers(&[
            ("connection", "Upgrade, HTTP2-Settings"),
            ("upgrade", "h2c")
        ])));
    }

    #[test]
    fn connection_cannot_remove_framing_fields() {
        let mut sent = headers(&[
            ("connection", "content-length, host"),
            ("content-length", "3"),
        ]);
        strip_request(Version::HTTP_11, &mut sent, false);
        assert_eq!(sent, headers(&[("content-length", "3")]));
    }

    proptest! {
        #[test]
        fn the_order_of_the_other_fields_and_of_their_values_stays(lines in prop::collection::vec("[a-d]", 0..12), dead in "[a-d]{0,3}") {
            let sent: Vec<(HeaderName, HeaderValue)> = lines
                .iter()
                .enumerate()
                .map(|(number, name)| (name.parse().unwrap(), HeaderValue::from(number)))
                .collect();
            let is_dead = |name: &HeaderName| dead.contains(name.as_str());
            let kept = sent.iter().filter(|(name, _)| !is_dead(name)).cloned();
            let kept: HeaderMap = kept.collect();
            let mut headers: HeaderMap = sent.into_iter().collect();
            remove(&mut headers, is_dead);
            prop_assert!(headers.iter().eq(kept.iter()));
        }

        #[test]
        fn every_field_that_connection_names_is_removed(names in prop::collection::vec("x-[a-z]{1,8}", 1..8), split in 0usize..8) {
            let mut sent = HeaderMap::new();
            for name in &names {
                sent.append(name.parse::<HeaderName>().unwrap(), "1".parse().unwrap());
            }
            let (first, second) = names.split_at(split.min(names.len()));
            for part in [first, second] {
                sent.append("connection", part.join(" , ").parse().unwrap());
            }
            strip_request(Version::HTTP_11, &mut sent, false);
            prop_assert!(sent.is_empty());
        }
    }
}
