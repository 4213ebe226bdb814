use proptest::prelude::*;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::connect_response::{Invalid, read_in_pieces as read};
use super::*;

#[track_caller]
fn status(bytes: &str) -> u16 {
    read(bytes.as_bytes(), 1).unwrap().unwrap().0.status
}

#[test]
fn bytes_after_the_head_belong_to_the_tunnel() {
    for size in [1, 2, 3, 7, 1000] {
        let (response, rest) = read(
            b"HTTP/1.1 200 Connection established\r\n\r\n\x16\x03rest",
            size,
        )
        .unwrap()
        .unwrap();
        assert!(response.is_success());
        assert_eq!(response.reason, "Connection established");
        assert_eq!(rest, b"\x16\x03rest");
    }
}

#[test]
fn any_2xx_opens_the_tunnel_even_with_body_fields() {
    for head in [
        "HTTP/1.0 200 OK\r\n\r\n",
        "HTTP/1.1 200\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 299 x\n\n",
        "\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 x\r\na: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ] {
        let (response, rest) = read(head.as_bytes(), 5).unwrap().unwrap();
        assert!(response.is_success(), "{head}");
        assert!(rest.is_empty(), "{head}");
    }
    assert_eq!(
        status("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"),
        407
    );
    assert_eq!(
        status("HTTP/1.1 302 Found\r\nLocation: http://x/\r\n\r\n"),
        302
    );
}

#[test]
fn a_response_that_is_not_http_is_recognised_by_its_first_bytes() {
    for bytes in [
        "SSH-2.0-x\r\n",
        "\x15\x03\x01\x00\x02\x02",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.x 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1\r\n\r\n",
        "http/1.1 200 OK\r\n\r\n",
    ] {
        assert_eq!(
            read(bytes.as_bytes(), 100),
            Err(Invalid::NotHttp),
            "{bytes}"
        );
    }
    assert_eq!(read(b"HTTP/1.1 101 x\r\n\r\n", 100), Err(Invalid::Switched));
}

#[test]
fn the_size_of_a_head_is_bounded() {
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(20_000));
    assert_eq!(read(endless.as_bytes(), 1000), Err(Invalid::Large));
    let empty = "\r\n".repeat(20_000);
    assert_eq!(read(empty.as_bytes(), 1000), Err(Invalid::Large));
    let fields = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101));
    assert_eq!(read(fields.as_bytes(), 1000), Err(Invalid::Large));
    let interim = "HTTP/1.1 100 x\r\n\r\n".repeat(33);
    assert_eq!(read(interim.as_bytes(), 1000), Err(Invalid::Interim));
}

#[test]
fn only_a_text_body_of_known_length_is_read() {
    let length = |fields: &str| {
        let head = format!("HTTP/1.1 403 x\r\n{fields}\r\n");
        read(head.as_bytes(), 100).unwrap().unwrap().0.text_length()
    };
    assert_eq!(length("Content-Length: 5\r\n"), Some(5));
    assert_eq!(
        length("content-length:5\r\ncontent-type: text/plain; charset=utf-8\r\n"),
        Some(5)
    );
    assert_eq!(
        length("Content-Length: 5\r\nContent-Type: text/html\r\n"),
        None
    );
    assert_eq!(
        length("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        None
    );
    assert_eq!(length("Content-Length: 0\r\n"), None);
    assert_eq!(length("Content-Length: x\r\n"), None);
    assert_eq!(length(""), None);
}

fn proxy(credentials: Option<&str>) -> UpstreamProxy {
    let text = match credentials {
        Some(credentials) => format!("http://{credentials}@proxy.example:3128"),
        None => "http://proxy.example:3128".to_owned(),
    };
    let mut raw = crate::config::RawConfig::default();
    raw.set_flag(crate::config::OptionKey::UpstreamProxy, [text]);
    let config = crate::config::load(&raw, &crate::config::Env::default()).unwrap();
    UpstreamProxy::clone(&config.upstream.proxy.unwrap())
}

#[test]
fn a_refusal_quotes_the_proxy_without_credentials() {
    let said = |credentials, status, words: &str| {
        refusal(&proxy(credentials), status, &[Some(words)], &[])
    };
    assert_eq!(
        said(None, 403, "Filtered"),
        "the proxy answered 403 Filtered"
    );
    assert_eq!(said(None, 503, ""), "the proxy answered 503");
    assert_eq!(
        said(None, 403, "no\x1b[31m"),
        "the proxy answered 403 no [31m"
    );
    let encoded = STANDARD.encode("u:s3cret");
    for words in ["your s3cret is wrong", &format!("Basic {encoded}")] {
        let said = said(Some("u:s3cret"), 403, words);
        assert_eq!(said, "the proxy answered 403");
    }
    assert!(said(None, 403, &"x".repeat(5000)).len() < 300);
}

#[test]
fn a_407_is_an_error_with_advice() {
    let said = |credentials, schemes: &[&str]| {
        let schemes: Vec<String> = schemes.iter().map(|scheme| (*scheme).to_owned()).collect();
        refusal(&proxy(credentials), 407, &[], &schemes)
    };
    assert!(said(None, &["basic"]).contains("it requires credentials"));
    assert!(said(Some("u:p"), &["basic"]).contains("does not accept the credentials"));
    let wrong = refusal(&proxy(Some("u:p")), 401, &[Some("Unauthorized")], &[]);
    assert!(
        wrong.contains("401 Unauthorized: it does not accept"),
        "{wrong}"
    );
    let said = said(Some("u:p"), &["negotiate", "ntlm"]);
    assert!(
        said.ends_with("it accepts negotiate, ntlm, but only basic is supported"),
        "{said}"
    );
}

#[test]
fn no_response_in_the_fuzz_corpus_breaks_an_invariant() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/corpus/connect");
    for entry in std::fs::read_dir(corpus).unwrap() {
        fuzz_connect_answer(&std::fs::read(entry.unwrap().path()).unwrap());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        prefix in prop::bool::ANY,
        size in 0u8..50,
    ) {
        let mut all = if prefix { b"HTTP/1.1 ".to_vec() } else { Vec::new() };
        all.extend(bytes);
        all.insert(0, size);
        fuzz_connect_answer(&all);
    }
}
