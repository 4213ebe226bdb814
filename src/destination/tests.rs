use proptest::prelude::*;

use super::*;

fn host(text: &str) -> Host {
    Host::parse(text).unwrap()
}

#[test]
fn spellings_of_one_origin_are_equal() {
    let plain = Destination::parse("https://storage.googleapis.com/b?x=1").unwrap();
    for spelling in [
        "HTTPS://STORAGE.GoogleApis.com:443/b?x=1",
        "https://storage.googleapis.com./b?x=1",
        "https://storage.googleapis.com:/b?x=1",
        "https://storage.googleapis.com/b?x=1#fragment",
    ] {
        assert_eq!(Destination::parse(spelling).unwrap(), plain, "{spelling}");
    }
}

#[test]
fn every_spelling_of_the_metadata_address_is_recognised() {
    let address = host("169.254.169.254");
    for spelling in [
        "2852039166",
        "0xA9FEA9FE",
        "0xa9.0xfe.0xa9.0xfe",
        "0251.0376.0251.0376",
        "169.254.43518",
        "169.16689662",
        "169.254.169.254.",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
    ] {
        assert_eq!(host(spelling), address, "{spelling}");
    }
}

#[test]
fn user_info_is_not_the_host() {
    let destination = Destination::parse("http://storage.googleapis.com@evil.test/x").unwrap();
    assert_eq!(destination.origin.host, host("evil.test"));
    assert!(destination.userinfo);
}

#[test]
fn texts_that_are_not_a_host_are_rejected() {
    for text in [
        "",
        ".",
        "a..b",
        "-%41.com",
        "a b",
        "exämple.com",
        "a/b",
        "1.2.3.4.5",
        "256.1.1.1",
        "1.2.3.0x",
        "[::1",
        "::1",
        "[fe80::1%25eth0]",
        "4294967296",
    ] {
        // "1.2.3.0x" is 1.2.3.0 to inet_aton.
        if text == "1.2.3.0x" {
            assert_eq!(host(text), host("1.2.3.0"));
            continue;
        }
        assert!(Host::parse(text).is_err(), "{text:?} was taken for a host");
    }
    for authority in ["host:0", "host:65536", "host:+80", "host:8a", "::1:80"] {
        assert!(
            Origin::from_authority(Scheme::Http, authority).is_err(),
            "{authority:?}"
        );
    }
    for url in [
        "ftp://x/",
        "/only/path",
        "x:80",
        "https://",
        "https://:443/",
        "http://[::1",
    ] {
        assert!(Destination::parse(url).is_err(), "{url:?}");
    }
}

#[test]
fn the_upgrade_to_tls_keeps_an_explicit_port() {
    let up = |authority| {
        Origin::from_authority(Scheme::Http, authority)
            .unwrap()
            .upgraded()
            .to_string()
    };
    assert_eq!(up("a.run.app"), "https://a.run.app");
    assert_eq!(up("a.run.app:80"), "https://a.run.app");
    assert_eq!(up("a.run.app:8080"), "https://a.run.app:8080");
    assert_eq!(up("[::1]:8080"), "https://[::1]:8080");
}

#[test]
fn every_form_of_loopback_is_recognised() {
    for text in [
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "127.0.0.1",
        "127.9",
        "[::1]",
        "[::ffff:127.0.0.1]",
    ] {
        assert!(host(text).is_loopback(), "{text}");
    }
    for text in ["notlocalhost", "localhost.evil.test", "128.0.0.1", "[::2]"] {
        assert!(!host(text).is_loopback(), "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic_and_display_round_trips(text in "\\PC{0,60}") {
        if let Ok(parsed) = Host::parse(&text) {
            prop_assert_eq!(Host::parse(&parsed.to_string()).unwrap(), parsed);
        }
        if let Ok(parsed) = Destination::parse(&text) {
            prop_assert_eq!(Destination::parse(&parsed.to_string()).unwrap().origin, parsed.origin);
        }
    }

    #[test]
    fn case_and_trailing_dot_never_matter(name in "[a-zA-Z][a-zA-Z0-9-]{0,10}(\\.[a-zA-Z][a-zA-Z0-9-]{0,10}){0,3}") {
        let lower = host(&name.to_ascii_lowercase());
        prop_assert_eq!(&host(&name.to_ascii_uppercase()), &lower);
        prop_assert_eq!(&host(&format!("{name}.")), &lower);
    }
}
