use super::*;

#[track_caller]
fn parsed(text: &str, address: &str, credentials: Option<&str>) {
    let url = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(format!("{}:{}", url.host, url.port), address, "{text}");
    let encoded = credentials.map(|text| format!("Basic {}", STANDARD.encode(text)));
    let value = url.authorization;
    assert_eq!(
        value.as_ref().and_then(|value| value.to_str().ok()),
        encoded.as_deref(),
        "{text}"
    );
    assert!(value.is_none_or(|value| value.is_sensitive()));
}

#[test]
fn a_proxy_is_an_http_url() {
    parsed("http://proxy.example:3128", "proxy.example:3128", None);
    parsed("http://proxy.example:3128/", "proxy.example:3128", None);
    parsed("HTTP://Proxy.Example:3128", "proxy.example:3128", None);
    parsed("proxy.example:3128", "proxy.example:3128", None);
    parsed("http://proxy.example", "proxy.example:80", None);
    parsed("http://[::1]:3128", "[::1]:3128", None);
    parsed("http://10.0.0.1:3128", "10.0.0.1:3128", None);
}

#[test]
fn user_info_is_percent_decoded() {
    parsed("http://u:p@p.example:1", "p.example:1", Some("u:p"));
    parsed("http://u@p.example:1", "p.example:1", Some("u:"));
    parsed("http://u:@p.example:1", "p.example:1", Some("u:"));
    parsed(
        "http://j%C3%BCrgen:p%40%2F%3A%23%25@p.example:1",
        "p.example:1",
        Some("j\u{fc}rgen:p@/:#%"),
    );
    parsed("http://u:a:b@p.example:1", "p.example:1", Some("u:a:b"));
    parsed("http://u:a@b@p.example:1", "p.example:1", Some("u:a@b"));
    parsed("http://@p.example:1", "p.example:1", None);
}

#[track_caller]
fn refused(text: &str, says: &str) {
    let error = parse(text).map(|_| ()).unwrap_err();
    assert!(error.contains(says), "{text}: {error}");
    for secret in ["s3cret", "hunter"] {
        assert!(!error.contains(secret), "{text}: {error}");
    }
}

#[test]
fn a_proxy_that_is_not_http_is_an_error() {
    for scheme in ["https", "socks4", "socks5", "SOCKS5H"] {
        let says = format!("{}:// proxies are not supported", scheme.to_lowercase());
        refused(&format!("{scheme}://u:s3cret@p.example:1"), &says);
    }
    refused(
        "ftp://p.example:1",
        "must be http://[USER:PASSWORD@]HOST:PORT",
    );
}

#[test]
fn no_error_shows_a_password() {
    refused("http://u:s3cret@", FORM);
    refused("http://u:s3cret@p.example:port", FORM);
    refused("http://u:s3cret@p.example:0", FORM);
    refused("http://u:hunter/s3cret@p.example:1", "percent-encoded");
    refused("http://u:s3cret#hunter@p.example:1", "percent-encoded");
    refused(
        "http://p.example:1/?hunter=s3cret",
        "nothing after the port",
    );
    refused("http://u:s3cret%zz@p.example:1", "must begin an escape");
    refused("http://u:s3cret%@p.example:1", "must begin an escape");
    refused("http://u%3As3cret:x@p.example:1", "colon");
    refused("http://u:s3cret%0d%0ax@p.example:1", "control");
    refused("", FORM);
    refused("http://", FORM);
    refused("http://p q:1", FORM);
}

#[test]
fn a_proxy_that_is_a_listener_of_the_sidecar_is_recognised_by_its_address() {
    let reaches =
        |host: &str, bound: &str| reaches(&Host::parse(host).unwrap(), bound.parse().unwrap());
    for (host, bound) in [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        ("localhost", "::1"),
        ("127.0.0.1", "0.0.0.0"),
        ("127.0.0.1", "::"),
        ("0.0.0.0", "127.0.0.1"),
        ("[::1]", "::"),
        ("[::ffff:127.0.0.1]", "127.0.0.1"),
        ("10.0.0.7", "10.0.0.7"),
    ] {
        assert!(reaches(host, bound), "{host} {bound}");
    }
    for (host, bound) in [
        ("10.0.0.7", "127.0.0.1"),
        ("proxy.example", "127.0.0.1"),
        ("10.0.0.7", "10.0.0.8"),
        ("[::1]", "127.0.0.1"),
    ] {
        assert!(!reaches(host, bound), "{host} {bound}");
    }
}
