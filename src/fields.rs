//! Look-ups of header fields that most messages do not have.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Among this number of names, comparing each is faster than hashing. In longer heads a look-up hashes, so that its
/// time does not depend on the length.
const FEW: usize = 16;

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

#[cfg(test)]
mod tests {
    use http::header::{HOST, TE};
    use proptest::prelude::*;

    use super::*;

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
