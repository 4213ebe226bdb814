//! The `Host` of a request, and the grammar of an authority.

use std::net::Ipv6Addr;

use http::{HeaderMap, HeaderValue, Request, Version, header};

use crate::error::{Error, ErrorKind};

/// Returns the text of `Host`. There is at most one, and HTTP/1.1 requires it (RFC 9112, 3.2).
///
/// # Errors
///
/// [`ErrorKind::BadRequest`]: there are two, there is none in HTTP/1.1, or it is not visible ASCII.
pub(crate) fn host_text<B>(request: &Request<B>) -> Result<Option<&str>, Error> {
    match optional_host_text(request.headers())? {
        None if request.version() == Version::HTTP_11 => Err(bad("no Host header (RFC 9112, 3.2)")),
        host => Ok(host),
    }
}

/// Like [`host_text`], where HTTP/1.1 may omit it.
pub(crate) fn optional_host_text(headers: &HeaderMap) -> Result<Option<&str>, Error> {
    let host = sole_host(headers)?.map(|host| host.to_str()).transpose();
    host.map_err(|_| bad("the Host header is not a valid host"))
}

/// Returns the only `Host`. Fails if there are several, which would be ambiguous.
pub(crate) fn sole_host(headers: &HeaderMap) -> Result<Option<&HeaderValue>, Error> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next();
    match hosts.next() {
        Some(_) => Err(bad("more than one Host header")),
        None => Ok(host),
    }
}

fn bad(detail: &str) -> Error {
    Error::new(ErrorKind::BadRequest, detail)
}

/// Returns whether `text` is `uri-host [":" port]` with a host (RFC 9110, 7.2; RFC 3986, 3.2.2 and 3.2.3). A registered
/// name may hold more than a name of the DNS.
pub(crate) fn is_authority(text: &str) -> bool {
    let (is_host, rest) = match text.strip_prefix('[') {
        Some(literal) => match literal.split_once(']') {
            Some((address, rest)) => (is_ip_literal(address), rest),
            None => return false,
        },
        None => {
            let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            (is_registered_name(name), rest)
        }
    };
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
    is_host && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
}

fn is_ip_literal(address: &str) -> bool {
    let Some(future) = address.strip_prefix(['v', 'V']) else {
        return address.parse::<Ipv6Addr>().is_ok();
    };
    future.split_once('.').is_some_and(|(version, rest)| {
        !version.is_empty()
            && version.bytes().all(|b| b.is_ascii_hexdigit())
            && !rest.is_empty()
            && rest.bytes().all(|b| b == b':' || is_name_byte(b))
    })
}

/// Returns whether this is a registered name. The grammar also allows an empty name, which names no host.
fn is_registered_name(name: &str) -> bool {
    let mut parts = name.split('%');
    let is_plain = |part: &str| part.bytes().all(is_name_byte);
    !name.is_empty()
        && parts.next().is_some_and(is_plain)
        && parts.all(|part| {
            part.split_at_checked(2).is_some_and(|(escaped, rest)| {
                escaped.bytes().all(|b| b.is_ascii_hexdigit()) && is_plain(rest)
            })
        })
}

/// Returns whether the byte is an unreserved character or a sub-delim (RFC 3986, 2.2 and 2.3).
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_follows_the_grammar() {
        for text in [
            "a",
            "a.example:80",
            "a:",
            "a:99999",
            "a!b",
            "a%20b",
            "a_b.~c",
            "!$&'()*+,;=",
            "1.2.3.4",
            "999.1.1.1",
            "[::1]",
            "[::1]:80",
            "[v1.a:b]",
        ] {
            assert!(is_authority(text), "{text}");
        }
        for text in [
            "",
            ":80",
            "a b",
            "a@b",
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "a\"b",
            "a<b",
            "a%2",
            "a%zz",
            "a%",
            "a:b",
            "a:80:90",
            "::1",
            "[::1",
            "[a]",
            "[]",
            "[::1]80",
            "[v.a]",
            "[v1.]",
            "a[b",
            "ü",
            "a%ü1",
            "http://a/",
        ] {
            assert!(!is_authority(text), "{text}");
        }
    }
}
