use proptest::prelude::*;

use super::*;

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

fn matches(text: &str, url: &str) -> bool {
    pattern(text).matches(&Destination::parse(url).unwrap())
}

fn why(text: &str) -> String {
    Pattern::parse(text).unwrap_err().to_string()
}

#[test]
fn a_suffix_matches_whole_labels_but_not_the_name_itself() {
    assert!(matches("*.example.com", "https://a.example.com/"));
    assert!(matches("*.example.com", "https://a.b.example.com/"));
    assert!(!matches("*.example.com", "https://example.com/"));
    assert!(!matches("*.example.com", "https://evilexample.com/"));
    assert!(!matches(
        "*.example.com",
        "https://a.example.com.evil.test/"
    ));
}

#[test]
fn a_pattern_without_a_port_matches_any_port() {
    assert!(matches("api.example.com", "http://api.example.com:8080/"));
    assert!(matches("api.example.com:443", "https://api.example.com/"));
    assert!(matches("api.example.com:80", "http://api.example.com/"));
    assert!(!matches(
        "api.example.com:443",
        "https://api.example.com:8443/"
    ));
    assert!(matches("[::1]:80", "http://[::1]/"));
    assert!(matches("[::1]", "http://[0:0::1]:9/"));
    assert!(matches("127.0.0.1", "http://2130706433/"));
}

#[test]
fn a_path_prefix_matches_whole_segments_in_every_spelling() {
    for url in [
        "/admin",
        "/admin/",
        "/admin/x?y",
        "/x/../admin",
        "//admin",
        "/%61dmin",
        "/./x/%2e%2e/admin",
    ] {
        assert!(
            matches("h.test/admin", &format!("https://h.test{url}")),
            "{url}"
        );
    }
    for url in ["/", "/adminx", "/x/admin", "/Admin", "/admin%2Fx"] {
        assert!(
            !matches("h.test/admin", &format!("https://h.test{url}")),
            "{url}"
        );
    }
    assert!(matches("h.test/", "https://h.test/anything"));
    assert!(matches("h.test/%61/", "https://h.test/a/b"));
}

#[test]
fn a_pattern_displays_in_its_normal_form() {
    for (text, normal) in [
        ("API.Example.COM.", "api.example.com"),
        ("*.Example.com:8443/v2/", "*.example.com:8443/v2"),
        ("h.test/", "h.test"),
        ("h.test//a/../%62", "h.test/b"),
        ("h.test/v%2a", "h.test/v%2A"),
        ("[0:0::1]:80", "[::1]:80"),
        ("0x7f.1", "127.0.0.1"),
    ] {
        assert_eq!(pattern(text).to_string(), normal);
    }
}

#[test]
fn an_invalid_pattern_is_an_error_with_the_correct_form() {
    assert!(why("*").contains("*.example.com"));
    assert!(why("*.").contains("needs a suffix"));
    assert!(why("*example.com").contains("whole labels"));
    assert!(why("a.*.com").contains("whole labels"));
    assert!(why("*.1.2.3.4").contains("address"));
    assert!(why("*.254").contains("address"));
    assert!(why("https://example.com").contains("scheme"));
    assert!(why("").contains("missing"));
    assert!(why(":443").contains("missing"));
    assert!(why("/v2").contains("missing"));
    assert!(why("::1").contains("brackets"));
    assert!(why("h.test/v2/*").contains("prefix"));
    assert!(why("h.test/v2?x=1").contains("query"));
    assert!(why("h.test/a b").contains("%20"));
    for port in ["", "0", "65536", "+80", "8a"] {
        assert!(
            why(&format!("h.test:{port}")).contains("1 to 65535"),
            "{port:?}"
        );
    }
    assert!(why("user@h.test").contains("not a host"));
    assert!(why("[::1").contains("brackets"));
    assert!(!why("a\u{1b}[31m").contains('\u{1b}'));
}

#[test]
fn the_most_specific_pattern_comes_first() {
    let mut patterns: Vec<_> = [
        "*.com",
        "*.b.com:1/x",
        "*.b.com/long/path",
        "a.b.com",
        "*.b.com",
        "a.b.com/x/y",
        "*.b.com:1",
        "a.b.com:443",
        "a.b.com/x",
    ]
    .map(pattern)
    .into();
    patterns.sort_by_key(Pattern::specificity);
    let sorted: Vec<_> = patterns.iter().map(Pattern::to_string).collect();
    assert_eq!(
        sorted,
        [
            "a.b.com:443",
            "a.b.com/x/y",
            "a.b.com/x",
            "a.b.com",
            "*.b.com:1/x",
            "*.b.com:1",
            "*.b.com/long/path",
            "*.b.com",
            "*.com",
        ]
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic_and_display_round_trips(text in "(\\*\\.)?\\PC{0,20}(:[0-9]{0,6})?(/\\PC{0,20})?") {
        if let Ok(parsed) = Pattern::parse(&text) {
            prop_assert_eq!(Pattern::parse(&parsed.to_string()).unwrap(), parsed);
        }
    }

    #[test]
    fn a_prefix_without_a_dot_never_matches(glued in "[a-z0-9]{1,12}") {
        let glued = format!("https://{glued}example.com/");
        prop_assert!(!matches("*.example.com", &glued));
        prop_assert!(!matches("example.com", &glued));
    }
}
