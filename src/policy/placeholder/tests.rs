use proptest::prelude::*;

use super::*;

/// What stays of a header's values.
fn kept(placeholders: &Placeholders, name: &'static str, values: &[&str]) -> Vec<String> {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    let kept = headers.clone();
    if placeholders.find(&headers, None).any() {
        placeholders.remove_from_headers(&mut headers);
        assert!(!placeholders.find(&headers, None).any());
    } else {
        placeholders.remove_from_headers(&mut headers);
        assert_eq!(headers, kept);
    }
    let values = headers.get_all(name).iter();
    values
        .map(|value| value.to_str().unwrap().to_owned())
        .collect()
}

fn is_placeholder(name: &'static str, value: &str) -> bool {
    kept(&Placeholders::default(), name, &[value]).is_empty()
}

/// What stays of a target.
fn rest(target: &str) -> String {
    let target: PathAndQuery = target.parse().unwrap();
    let placeholders = Placeholders::default();
    let rest = placeholders.remove_from_query(&target);
    let found = placeholders.find(&HeaderMap::new(), target.query());
    assert_eq!(found.any(), rest != target, "{target}");
    assert_eq!(found.in_query(), found.any());
    rest.as_str().to_owned()
}

#[test]
fn a_bearer_token_or_basic_password_is_compared_whole() {
    for value in [
        "Bearer sidentity",
        "bearer sidentity",
        "BEARER   sidentity",
        "Bearer sidentity ",
        // user:sidentity, with padding and without
        "Basic dXNlcjpzaWRlbnRpdHk=",
        "basic dXNlcjpzaWRlbnRpdHk",
        // :sidentity
        "Basic OnNpZGVudGl0eQ==",
    ] {
        assert!(is_placeholder("authorization", value), "{value}");
    }
    for value in [
        "",
        "Bearer",
        "Bearer ",
        "sidentity",
        "Bearer Sidentity",
        "Bearer sidentity2",
        "Bearer xsidentity",
        "Bearer sidentity sidentity",
        "Bearer sidentity, Bearer sidentity",
        "Bearersidentity",
        "Token sidentity",
        "Basic sidentity",
        // sidentity:secret, sidentity, user:a:sidentity, user:
        "Basic c2lkZW50aXR5OnNlY3JldA==",
        "Basic c2lkZW50aXR5",
        "Basic dXNlcjphOnNpZGVudGl0eQ==",
        "Basic dXNlcjo=",
        "Basic ",
        "Basic !!!",
    ] {
        assert!(!is_placeholder("authorization", value), "{value}");
    }
}

#[test]
fn a_key_header_is_compared_whole() {
    for name in ["x-goog-api-key", "x-api-key", "api-key"] {
        assert!(is_placeholder(name, "sidentity"), "{name}");
        for value in ["", " ", "Sidentity", "sidentity,x", "Bearer sidentity"] {
            assert!(!is_placeholder(name, value), "{name}: {value}");
        }
    }
    for name in [
        "x-serverless-authorization",
        "proxy-authorization",
        "cookie",
        "x-my-key",
    ] {
        assert!(!is_placeholder(name, "Bearer sidentity"), "{name}");
        assert!(!is_placeholder(name, "sidentity"), "{name}");
    }
}

#[test]
fn every_copy_is_removed_and_other_values_keep_their_order() {
    let placeholders = Placeholders::new(["dummy"]);
    let values = ["Bearer a", "Bearer sidentity", "Bearer b", "Bearer dummy"];
    let stayed = kept(&placeholders, "authorization", &values);
    assert_eq!(stayed, ["Bearer a", "Bearer b"]);
    let stayed = kept(&placeholders, "x-api-key", &["dummy", "dummy"]);
    assert_eq!(stayed, [""; 0]);
    assert_eq!(kept(&placeholders, "x-api-key", &["x", ""]), ["x", ""]);
}

#[test]
fn the_key_is_removed_from_the_query_and_the_rest_is_unchanged() {
    for (target, expected) in [
        ("/p?key=sidentity", "/p"),
        ("/p?key=sidentity&alt=sse", "/p?alt=sse"),
        ("/p?alt=sse&key=sidentity", "/p?alt=sse"),
        ("/p?a=%2F%2f&key=sidentity&&b=+&c", "/p?a=%2F%2f&&b=+&c"),
        ("/p?key=sidentity&key=sidentity", "/p"),
        ("/p?key=sidentity&key=real", "/p?key=real"),
        ("/p?key=%73identity", "/p"),
        ("/p?k%65y=%73%69dentity&x=1", "/p?x=1"),
        ("/p?key=sidentity&", "/p?"),
        ("/?key=sidentity", "/"),
    ] {
        assert_eq!(rest(target), expected, "{target}");
    }
    for target in [
        "/p",
        "/p?",
        "/p?key",
        "/p?key=",
        "/p?key=Sidentity",
        "/p?key=sidentity2",
        "/p?key=sidentity%00",
        "/p?key==sidentity",
        "/p?Key=sidentity",
        "/p?apikey=sidentity",
        "/p?a=key=sidentity",
        "/p;key=sidentity",
        "/p?access_token=sidentity",
    ] {
        assert_eq!(rest(target), target);
    }
}

#[test]
fn a_placeholder_is_visible_ascii() {
    for text in ["x", "sk-proj-0", "a+b=c", "~!"] {
        assert_eq!(Placeholders::parse(text).as_deref(), Ok(text));
    }
    for text in ["", " ", "a b", "a\t", "é", "a\u{7f}"] {
        assert!(Placeholders::parse(text).is_err(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn values_that_are_not_placeholders_are_unchanged(
        pairs in proptest::collection::vec("(key|k%65y|a)?=?(sidentity|%73identity|[a-z%/?&=+]{0,4})", 0..6),
        keys in proptest::collection::vec("(Bearer |basic |)(sidentity|OnNpZGVudGl0eQ==|[!-~ ]{0,12})", 0..6),
    ) {
        let placeholders = Placeholders::default();
        let query = pairs.join("&");
        let target: PathAndQuery = format!("/p?{query}").parse().unwrap();
        let rest = placeholders.remove_from_query(&target);
        let kept: Vec<_> = query.split('&').filter(|pair| !placeholders.is_in_pair(pair)).collect();
        prop_assert_eq!(rest.query().unwrap_or(""), kept.join("&"));
        prop_assert_eq!(placeholders.remove_from_query(&rest), rest);

        let mut headers = HeaderMap::new();
        for key in &keys {
            headers.append(AUTHORIZATION, HeaderValue::from_str(key).unwrap());
            headers.append("x-api-key", HeaderValue::from_str(key).unwrap());
            headers.append("x-other", HeaderValue::from_str(key).unwrap());
        }
        let before = headers.clone();
        placeholders.remove_from_headers(&mut headers);
        prop_assert!(!placeholders.find(&headers, None).any());
        for name in before.keys() {
            let kept = before.get_all(name).iter().filter(|value| !placeholders.is_in_header(name, value));
            prop_assert!(kept.eq(headers.get_all(name)), "{}", name);
        }
    }
}
