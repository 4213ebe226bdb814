use proptest::prelude::*;

use super::*;

#[test]
fn spellings_of_one_path_are_equal() {
    for spelling in [
        "/admin",
        "//admin",
        "/x/../admin",
        "/./admin",
        "/../../admin",
        "/%61dmin",
        "/%61%64%6D%69%6e",
        "/x/%2e%2E/admin",
        "/x\\..\\admin",
        "/admin/.",
        "/admin/y/..",
    ] {
        assert_eq!(normalize(spelling), "/admin", "{spelling}");
    }
    assert_eq!(normalize("/v1/p%3Aset%20x/%c3%A9"), "/v1/p:set%20x/%C3%A9");
    assert_eq!(normalize("/é"), "/%C3%A9");
}

#[test]
fn an_encoded_slash_or_percent_stays_encoded() {
    assert_eq!(normalize("/o/a%2fb"), "/o/a%2Fb");
    assert_eq!(normalize("/%252e%252e/admin"), "/%252e%252e/admin");
    assert_eq!(normalize("/a%5c..%5cb"), "/a%5C..%5Cb");
    assert_eq!(normalize("/100%"), "/100%25");
    assert_eq!(normalize("/%zz"), "/%25zz");
}

#[test]
fn a_plain_path_costs_no_allocation() {
    for path in ["/", "/storage/v1/b/bucket/o/file.txt", "/a/", "/a:b@c=d,e"] {
        assert!(matches!(normalize(path), Cow::Borrowed(same) if same == path));
    }
}

#[test]
fn a_prefix_matches_whole_segments() {
    assert!(is_below("/v2", "/v2"));
    assert!(is_below("/v2/x", "/v2"));
    assert!(is_below("/v2/", "/v2"));
    assert!(!is_below("/v2x", "/v2"));
    assert!(!is_below("/", "/v2"));
}

proptest! {
    #[test]
    fn normalisation_never_panics_and_is_idempotent(path in "\\PC{0,40}") {
        let once = normalize(&path).into_owned();
        prop_assert_eq!(normalize(&once), once.as_str());
    }

    #[test]
    fn dots_slashes_and_escapes_never_bypass_a_prefix(
        noise in prop::collection::vec(prop::sample::select(vec!["/.", "//", "/y/..", "/%2e", "/z/%2E%2e", "/..", "\\."]), 0..5),
        mask in prop::collection::vec(any::<bool>(), 5),
    ) {
        let mut path = noise.concat();
        path.push('/');
        for (letter, encode) in "admin".bytes().zip(mask) {
            if encode {
                path.push_str(&format!("%{letter:02x}"));
            } else {
                path.push(char::from(letter));
            }
        }
        prop_assert!(is_below(&normalize(&path), "/admin"), "{}", path);
    }
}
