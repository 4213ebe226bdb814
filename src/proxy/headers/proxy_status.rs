//! `Proxy-Status` of an upstream (RFC 9209): the member named `sidentity` is reserved for this proxy.
//!
//! Members of other proxies pass. A member that claims to be ours is dropped, so that an upstream cannot pass its own
//! failure off as the sidecar's.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::header_lookup;

/// The field name.
pub(crate) const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// The name of this proxy's own member.
const OWN: &[u8] = b"sidentity";

/// Removes the members named `sidentity`, and every line that cannot be split unambiguously. For headers and trailers.
pub(crate) fn drop_own(headers: &mut HeaderMap) {
    if !header_lookup::has(headers, &PROXY_STATUS) {
        return;
    }
    let clean = headers
        .get_all(PROXY_STATUS)
        .iter()
        .all(|line| members(line.as_bytes()).is_some_and(|all| !all.iter().any(|m| is_own(m))));
    if clean {
        return;
    }
    let kept: Vec<HeaderValue> = headers
        .get_all(PROXY_STATUS)
        .iter()
        .filter_map(|line| {
            let members = members(line.as_bytes())?;
            let foreign: Vec<&[u8]> = members.into_iter().filter(|m| !is_own(m)).collect();
            HeaderValue::from_bytes(&foreign.join(&b", "[..])).ok()
        })
        .filter(|line| !line.is_empty())
        .collect();
    headers.remove(PROXY_STATUS);
    for line in kept {
        headers.append(PROXY_STATUS, line);
    }
}

/// Returns the members of one line (RFC 9651, 3.1), trimmed. A comma inside a string is not a separator. `None` if a
/// string is unterminated: combined with the next line (RFC 9110, 5.3) it would hide a member there.
fn members(line: &[u8]) -> Option<Vec<&[u8]>> {
    let mut members = Vec::new();
    let (mut quoted, mut escaped) = (false, false);
    let mut from = 0;
    for (at, byte) in line.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                members.push(line.get(from..at)?.trim_ascii());
                from = at + 1;
            }
            _ => {}
        }
    }
    members.push(line.get(from..)?.trim_ascii());
    members.retain(|member| !member.is_empty());
    (!quoted).then_some(members)
}

/// Returns whether the member's name, a token or a string, is ours, in any case and with any escapes.
fn is_own(member: &[u8]) -> bool {
    let name: Vec<u8> = match member.strip_prefix(b"\"") {
        Some(string) => {
            let mut name = Vec::new();
            let mut bytes = string.iter();
            while let Some(byte) = bytes.next() {
                match byte {
                    b'"' => break,
                    b'\\' => name.extend(bytes.next()),
                    byte => name.push(*byte),
                }
            }
            name
        }
        None => member
            .iter()
            .copied()
            .take_while(|byte| *byte != b';')
            .collect(),
    };
    name.trim_ascii().eq_ignore_ascii_case(OWN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filtered(lines: &[&str]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(PROXY_STATUS, HeaderValue::from_str(line).unwrap());
        }
        drop_own(&mut headers);
        headers
            .get_all(PROXY_STATUS)
            .iter()
            .map(|line| line.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_proxy_status_member_in_our_name_is_dropped_in_every_spelling() {
        for forged in [
            "sidentity",
            "sidentity; error=dns_error",
            " sidentity ;error=dns_error",
            "\tsidentity;details=\"a, b\"",
            "Sidentity; error=dns_error",
            "\"sidentity\"; error=dns_error",
            "\"sident\\ity\"",
            "sidentity, sidentity",
            ",sidentity,",
        ] {
            assert_eq!(filtered(&[forged]), [""; 0], "{forged}");
            let beside = format!("{forged}, edge; received-status=502");
            assert_eq!(
                filtered(&[&beside]),
                ["edge; received-status=502"],
                "{forged}"
            );
            assert_eq!(
                filtered(&["edge", forged, "cdn"]),
                ["edge", "cdn"],
                "{forged}"
            );
        }
    }

    #[test]
    fn proxy_status_members_of_other_proxies_are_unchanged() {
        for line in [
            "edge; error=dns_error; details=\"sidentity, sidentity\"",
            "sidentity2;  error=dns_error ,x",
            "edge;next-hop=sidentity",
            "\"sid\\\"entity\"; error=x",
            "",
        ] {
            assert_eq!(filtered(&[line]), [line], "{line}");
        }
    }

    #[test]
    fn an_unterminated_string_does_not_hide_the_next_line() {
        assert_eq!(
            filtered(&["edge; details=\"a", "sidentity; error=x\"", "cdn"]),
            ["cdn"]
        );
    }

    proptest! {
        #[test]
        fn no_remaining_line_has_a_member_in_our_name(lines in prop::collection::vec("[ ,;\"\\\\a-z]{0,6}(sidentity)?[ ,;\"\\\\a-z]{0,6}", 0..4)) {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let left = filtered(&lines);
            let joined = left.join(", ");
            let members = members(joined.as_bytes());
            prop_assert!(members.is_some_and(|all| !all.iter().any(|m| is_own(m))), "{joined}");
        }
    }
}
