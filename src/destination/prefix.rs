//! Path prefixes of routes: which route has a path, and which target its upstream gets.

use http::uri::{InvalidUri, PathAndQuery};

/// Returns the item with the longest prefix that has the path, or `None` if no prefix has it. Of equal prefixes, the
/// first one is returned.
pub(crate) fn longest_prefix<T>(
    items: impl IntoIterator<Item = T>,
    prefix: impl Fn(&T) -> &str,
    path: &str,
) -> Option<T> {
    let mut longest: Option<T> = None;
    for item in items {
        let length = prefix(&item).len();
        let is_longer = longest
            .as_ref()
            .is_none_or(|longest| length > prefix(longest).len());
        if is_longer && is_under(path, prefix(&item)) {
            longest = Some(item);
        }
    }
    longest
}

/// Returns the upstream's base path followed by the request's path without the route's prefix, and the request's query.
/// A request for the prefix alone gets the base path as it is written.
///
/// # Errors
///
/// Fails if the result is not a path.
pub(crate) fn upstream_target(
    prefix: &str,
    upstream: &PathAndQuery,
    asked: &PathAndQuery,
) -> Result<PathAndQuery, InvalidUri> {
    let (path, query) = (asked.path(), asked.query());
    let base = upstream.path();
    let base = base.strip_suffix('/').unwrap_or(base);
    // Fast path: no prefix to remove and no base path to add.
    if base.is_empty() && prefix.is_empty() && asked.as_str().starts_with('/') {
        return Ok(asked.clone());
    }
    let rest = path.strip_prefix(prefix).unwrap_or(path);
    let mut target = String::with_capacity(base.len() + path.len() + query.map_or(0, str::len) + 2);
    target.push_str(base);
    if path == "*" && base.is_empty() {
        target.push('*');
    } else if path == "*" {
        // The base path is a part of the upstream's server, not the whole server.
        target.push('/');
    } else if rest.is_empty() && base.is_empty() {
        target.push('/');
    } else if rest.is_empty() {
        target.push_str(upstream.path().get(base.len()..).unwrap_or_default());
    } else {
        target.push_str(rest);
    }
    if let Some(query) = query {
        target.push('?');
        target.push_str(query);
    }
    PathAndQuery::try_from(target)
}

/// Compares whole segments: `/v1` is under `/v1`, `/v10` is not.
pub(crate) fn is_under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_matches_whole_segments() {
        assert!(is_under("/v1", "/v1"));
        assert!(is_under("/v1/", "/v1"));
        assert!(is_under("/v1/x", "/v1"));
        assert!(is_under("/anything", ""));
        assert!(is_under("*", ""));
        assert!(!is_under("/v10", "/v1"));
        assert!(!is_under("/v", "/v1"));
    }

    #[test]
    fn the_prefix_alone_is_the_base_path_as_written() {
        let target = |prefix, upstream, asked| {
            let upstream = PathAndQuery::try_from(upstream).unwrap();
            let asked = PathAndQuery::try_from(asked).unwrap();
            upstream_target(prefix, &upstream, &asked)
                .unwrap()
                .to_string()
        };
        for (prefix, upstream, asked, sent) in [
            ("/api", "/two", "/api", "/two"),
            ("/api", "/two", "/api?q", "/two?q"),
            ("/api", "/two", "/api/", "/two/"),
            ("/api", "/two/", "/api", "/two/"),
            ("/api", "/two/", "/api/x", "/two/x"),
            ("/api", "/", "/api", "/"),
            ("/api", "/", "/api?q", "/?q"),
            ("", "/two", "/", "/two/"),
            ("", "/two", "/x", "/two/x"),
        ] {
            assert_eq!(target(prefix, upstream, asked), sent, "{asked}");
        }
    }

    #[test]
    fn the_longest_prefix_is_selected_in_any_order() {
        let select = |prefixes: &[&'static str], path| {
            longest_prefix(prefixes.iter().copied(), |prefix| prefix, path)
        };
        for prefixes in [["", "/v1", "/v1/x"], ["/v1/x", "/v1", ""]] {
            assert_eq!(select(&prefixes, "/v1/x"), Some("/v1/x"));
            assert_eq!(select(&prefixes, "/v1/xy"), Some("/v1"));
            assert_eq!(select(&prefixes, "/v1"), Some("/v1"));
            assert_eq!(select(&prefixes, "/v%31"), Some(""));
        }
        assert_eq!(select(&["/v1"], "/"), None);
    }
}
