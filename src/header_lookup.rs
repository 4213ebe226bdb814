//! Header fields: fast lookups of those that most messages do not have, and copies of values.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Among this number of names, comparing each is faster than hashing. In longer heads a lookup hashes, so that its
/// time does not depend on the length.
const FEW: usize = 16;

/// The maximum size of the h2 crate's HPACK table for sent heads, in bytes. Larger values do not enter it.
const HPACK_TABLE: usize = 4096;

/// Returns whether there is a field of this name.
pub(crate) fn has(headers: &HeaderMap, name: &HeaderName) -> bool {
    if headers.keys_len() <= FEW {
        headers.keys().any(|key| key == name)
    } else {
        headers.contains_key(name)
    }
}

/// Returns the values of all fields of this name, in their order.
pub(crate) fn values<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a HeaderValue> + use<'a> {
    has(headers, name)
        .then(|| headers.get_all(name))
        .into_iter()
        .flatten()
}

/// Copies the values that HPACK may put in its table, for a head that is sent over HTTP/2.
///
/// Values that were read share the buffer of their whole head, which can be large. The table keeps small values for as
/// long as the connection is open, and would keep these buffers with them. Sensitive values never enter it.
pub(crate) fn detach(headers: &mut HeaderMap) {
    let may_be_kept = |value: &HeaderValue| value.len() <= HPACK_TABLE && !value.is_sensitive();
    let total: usize = headers
        .values()
        .filter(|value| may_be_kept(value))
        .map(HeaderValue::len)
        .sum();
    // In a larger head, each value gets its own buffer.
    let mut shared = (total <= HPACK_TABLE).then(|| BytesMut::with_capacity(total));
    for value in headers.values_mut().filter(|value| may_be_kept(value)) {
        let copy = match &mut shared {
            Some(buffer) => {
                buffer.extend_from_slice(value.as_bytes());
                buffer.split().freeze()
            }
            None => Bytes::copy_from_slice(value.as_bytes()),
        };
        // The bytes were valid before.
        if let Ok(copy) = HeaderValue::from_maybe_shared(copy) {
            *value = copy;
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::{HOST, TE};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn detached_values_do_not_keep_the_buffer_of_their_head() {
        for small in [10, 200] {
            let head = Bytes::from(vec![b'a'; 64 * 1024]);
            let mut headers = HeaderMap::new();
            for number in 0..small {
                let value = head.slice(number..number + 100);
                headers.append("x-small", HeaderValue::from_maybe_shared(value).unwrap());
            }
            let before = headers.clone();
            detach(&mut headers);
            assert_eq!(headers, before);
            drop(before);
            assert!(head.is_unique(), "{small}");
        }
    }

    #[test]
    fn sensitive_values_stay_sensitive() {
        let mut value = HeaderValue::from_static("Bearer x");
        value.set_sensitive(true);
        let mut headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, value)]);
        detach(&mut headers);
        assert!(headers.values().all(HeaderValue::is_sensitive));
    }

    proptest! {
        #[test]
        fn a_field_is_found_in_short_and_long_heads(others in 0usize..40, lines in 0usize..3, at in 0usize..40) {
            let mut headers = HeaderMap::new();
            for number in 0..others {
                if number == at {
                    for line in 0..lines {
                        headers.append(TE, HeaderValue::from(line));
                    }
                }
                let name = HeaderName::from_bytes(format!("x-{number}").as_bytes()).unwrap();
                headers.append(name, HeaderValue::from_static("1"));
            }
            let expected: Vec<_> = headers.get_all(TE).iter().collect();
            prop_assert_eq!(has(&headers, &TE), !expected.is_empty());
            prop_assert_eq!(values(&headers, &TE).collect::<Vec<_>>(), expected);
            prop_assert!(!has(&headers, &HOST));
            let last = HeaderName::from_bytes(format!("X-{}", others.max(1) - 1).as_bytes()).unwrap();
            prop_assert_eq!(has(&headers, &last), others > 0);
        }
    }
}
