use proptest::prelude::*;

use super::*;
use crate::destination::Scheme;

fn list(text: &str) -> NoProxy {
    NoProxy::split(text)
        .map(|entry| NoProxyEntry::parse(entry).unwrap_or_else(|| panic!("{entry}")))
        .collect()
}

fn origin(authority: &str) -> Origin {
    Origin::from_authority(Scheme::Https, authority).unwrap()
}

#[track_caller]
fn covered(text: &str, authorities: &[&str]) {
    for authority in authorities {
        assert!(list(text).covers(&origin(authority)), "{text}: {authority}");
    }
}

#[track_caller]
fn not_covered(text: &str, authorities: &[&str]) {
    for authority in authorities {
        assert!(
            !list(text).covers(&origin(authority)),
            "{text}: {authority}"
        );
    }
}

/// Entries that curl and Go interpret alike.
#[test]
fn a_name_covers_itself_and_its_subdomains() {
    for text in [
        "a.example",
        "A.Example",
        "a.example.",
        "b.example, a.example",
    ] {
        covered(
            text,
            &[
                "a.example",
                "A.EXAMPLE",
                "x.a.example",
                "y.x.a.example:8443",
                "a.example.",
            ],
        );
        not_covered(
            text,
            &["example", "xa.example", "a.example.org", "192.0.2.1"],
        );
    }
    covered("intranet", &["intranet", "x.intranet"]);
    not_covered("intranet", &["myintranet"]);
}

#[test]
fn addresses_and_blocks_cover_addresses_only() {
    covered(
        "192.0.2.1",
        &["192.0.2.1", "192.0.2.1:8443", "[::ffff:192.0.2.1]"],
    );
    not_covered("192.0.2.1", &["192.0.2.10", "1.192.0.2.1.example"]);
    covered("2001:db8::1", &["[2001:db8::1]", "[2001:db8::1]:8443"]);
    covered("10.0.0.0/8,2001:db8::/32", &["10.1.2.3", "[2001:db8:1::1]"]);
    not_covered(
        "10.0.0.0/8,2001:db8::/32",
        &["11.0.0.1", "[2001:db9::1]", "ten.example"],
    );
    covered("10.0.0.129/25", &["10.0.0.128", "10.0.0.255"]);
    not_covered("10.0.0.129/25", &["10.0.0.127"]);
    covered("0.0.0.0/0", &["203.0.113.9"]);
    not_covered("0.0.0.0/0", &["[2001:db8::1]"]);
    covered("::ffff:10.0.0.0/104", &["10.9.9.9"]);
    covered("198.51.100.7/32", &["198.51.100.7"]);
}

/// If they differ, an entry matches if it does in either.
#[test]
fn an_entry_matches_if_it_does_in_curl_or_in_go() {
    // This entry matches so in curl and Python; in Go the domain itself does not match.
    covered(".a.example", &["a.example", "x.a.example"]);
    // This entry matches so in Go; curl does not support it.
    covered("*.a.example", &["x.a.example", "y.x.a.example"]);
    not_covered("*.a.example", &["a.example", "xa.example"]);
    // In Go this entry may have any position; in curl it must be the whole list.
    covered("*", &["a.example", "192.0.2.1", "[::1]"]);
    covered("x.example,*", &["a.example"]);
    // curl also splits at white space.
    covered(
        "x.example a.example\tb.example",
        &["a.example", "b.example"],
    );
    // This entry matches so in Go; curl accepts no port.
    covered("a.example:8443", &["a.example:8443", "x.a.example:8443"]);
    not_covered("a.example:8443", &["a.example", "a.example:844"]);
    covered(
        ".a.example:80,192.0.2.1:81,[2001:db8::1]:82",
        &["x.a.example:80", "192.0.2.1:81", "[2001:db8::1]:82"],
    );
    not_covered(
        ".a.example:80,192.0.2.1:81,[2001:db8::1]:82",
        &["x.a.example", "192.0.2.1", "[2001:db8::1]"],
    );
    covered("*:8443", &["a.example:8443"]);
    not_covered("*:8443", &["a.example"]);
}

#[test]
fn an_empty_list_matches_nothing() {
    for text in ["", " ", ",", " , ,"] {
        assert!(list(text).is_empty(), "{text:?}");
        not_covered(text, &["a.example", "localhost"]);
    }
}

#[test]
fn an_entry_that_can_match_no_host_is_rejected() {
    for text in [
        "http://a.example",
        "a.example/path",
        "10.0.0.0/33",
        "10.0.0.0/",
        "10.0.0.0/+8",
        "2001:db8::/129",
        "a.example:0",
        "a.example:99999",
        "a.example:",
        ":80",
        "a..example",
        ".",
        "*.",
        "**",
        "*a.example",
        ".192.0.2.1",
        "user@a.example",
        "[::1",
    ] {
        assert_eq!(NoProxyEntry::parse(text), None, "{text}");
    }
}

#[test]
fn a_list_is_displayed_as_written() {
    let text = "A.example,*.b.example:80,10.0.0.0/8";
    assert_eq!(list(text).to_string(), text.to_ascii_lowercase());
}

proptest! {
    #[test]
    fn no_list_makes_the_parser_panic(text in ".{0,60}") {
        for entry in NoProxy::split(&text) {
            if let Some(parsed) = NoProxyEntry::parse(entry) {
                let again = NoProxyEntry::parse(&parsed.text);
                prop_assert_eq!(Some(parsed), again);
            }
        }
    }

    #[test]
    fn a_cidr_block_covers_addresses_with_its_prefix(network: u32, address: u32, bits in 0u8..=32) {
        let (network, address) = (std::net::Ipv4Addr::from(network), std::net::Ipv4Addr::from(address));
        let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
        let same = network.to_bits() & mask == address.to_bits() & mask;
        let text = format!("{network}/{bits}");
        prop_assert_eq!(list(&text).covers(&origin(&address.to_string())), same);
    }
}
