//! Parses the query of a request target.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The parameters of a query, decoded like a form (`+` is a space).
pub(super) struct QueryParams<'a>(Option<&'a str>);

// === impl QueryParams ===

impl<'a> QueryParams<'a> {
    pub(super) const fn new(query: Option<&'a str>) -> Self {
        Self(query)
    }

    /// Returns the first value of this name.
    pub(super) fn value(&self, name: &str) -> Option<Cow<'a, str>> {
        self.0?
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .find(|(key, _)| form_decoded(key) == name)
            .map(|(_, value)| form_decoded(value))
    }

    /// Returns whether the value is `true`, in any case.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.value(name)
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }
}

fn form_decoded(text: &str) -> Cow<'_, str> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
    } else {
        percent_decode_str(text).decode_utf8_lossy()
    }
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_query_makes_the_parser_panic(query in ".*", name in ".*") {
            let query = QueryParams::new(Some(&query));
            let _ = query.flag(&name);
        }

        #[test]
        fn an_encoded_value_is_decoded(value in ".*", other in "[a-z=+%]*") {
            let encoded = utf8_percent_encode(&value, NON_ALPHANUMERIC);
            let text = format!("other={other}&audience={encoded}&{other}");
            let query = QueryParams::new(Some(&text));
            prop_assert_eq!(query.value("audience").unwrap(), value);
        }
    }

    #[test]
    fn without_a_query_no_parameter_is_set() {
        assert_eq!(QueryParams::new(None).value("audience"), None);
        assert!(!QueryParams::new(Some("recursive")).flag("recursive"));
        assert!(QueryParams::new(Some("recursive=TRUE")).flag("recursive"));
    }
}
