use proptest::prelude::*;

use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn headers(pairs: &[(&HeaderName, &[u8])]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_bytes(value).unwrap());
    }
    headers
}

/// Trace, span and whether it is sampled.
type Shown = (String, Option<String>, bool);

fn shown(context: TraceContext) -> Shown {
    (
        context.trace_id().to_string(),
        context.span_id().map(|span| span.to_string()),
        context.sampled(),
    )
}

fn of(name: &HeaderName, value: &str) -> Option<Shown> {
    TraceContext::from_headers(&headers(&[(name, value.as_bytes())])).map(shown)
}

#[test]
fn a_traceparent_gives_trace_span_and_sampling() {
    let expected = |sampled| Some((TRACE.into(), Some("00f067aa0ba902b7".into()), sampled));
    let flags = |flags| {
        of(
            &TRACEPARENT,
            &format!("00-{TRACE}-00f067aa0ba902b7-{flags}"),
        )
    };
    assert_eq!(flags("01"), expected(true));
    assert_eq!(flags("00"), expected(false));
    assert_eq!(flags("03"), expected(true));
    assert_eq!(flags("fe"), expected(false));
}

#[test]
fn a_later_traceparent_version_may_have_more_fields() {
    let of = |value: String| of(&TRACEPARENT, &value).is_some();
    assert!(of(format!("cc-{TRACE}-00f067aa0ba902b7-01")));
    assert!(of(format!("cc-{TRACE}-00f067aa0ba902b7-01-what-ever")));
    assert!(!of(format!("cc-{TRACE}-00f067aa0ba902b7-01.what")));
}

#[test]
fn an_invalid_traceparent_is_ignored() {
    for value in [
        String::new(),
        "00".into(),
        format!("00-{TRACE}-00f067aa0ba902b7"),
        format!("00-{TRACE}-00f067aa0ba902b7-"),
        format!("00-{TRACE}-00f067aa0ba902b7-1"),
        format!("00-{TRACE}-00f067aa0ba902b7-01-"),
        format!("00-{TRACE}-00f067aa0ba902b7-01-x"),
        format!("00-{TRACE}-00f067aa0ba902b7-0x"),
        format!("ff-{TRACE}-00f067aa0ba902b7-01"),
        format!("0-{TRACE}-00f067aa0ba902b7-01"),
        format!("0 -{TRACE}-00f067aa0ba902b7-01"),
        format!("00-{TRACE}-0000000000000000-01"),
        format!("00-{TRACE}-00f067aa0ba902b-01"),
        format!("00-{TRACE}-00F067AA0BA902B7-01"),
        format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
        format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
        format!("00-{TRACE}0-00f067aa0ba902b7-01"),
        format!("00-+{}-00f067aa0ba902b7-01", TRACE.trim_start_matches('4')),
    ] {
        assert_eq!(of(&TRACEPARENT, &value), None, "{value:?}");
    }
}

#[test]
fn an_x_cloud_trace_context_gives_its_span_in_hexadecimal() {
    let of = |value: String| of(&X_CLOUD_TRACE_CONTEXT, &value);
    let expected = |span: &str, sampled| Some((TRACE.to_owned(), Some(span.to_owned()), sampled));
    assert_eq!(
        of(format!("{TRACE}/67667974448284343;o=1")),
        expected("00f067aa0ba902b7", true)
    );
    assert_eq!(
        of(format!("{TRACE}/1;o=0")),
        expected("0000000000000001", false)
    );
    assert_eq!(
        of(format!("{TRACE}/18446744073709551615;o=3")),
        expected("ffffffffffffffff", true)
    );
    assert_eq!(
        of(format!("{}/1", TRACE.to_uppercase())),
        expected("0000000000000001", false)
    );
    assert_eq!(of(TRACE.into()), Some((TRACE.into(), None, false)));
    assert_eq!(
        of(format!("{TRACE}/0;o=1")),
        Some((TRACE.into(), None, true))
    );
    assert_eq!(of(format!("{TRACE};o=1")), Some((TRACE.into(), None, true)));
}

#[test]
fn an_invalid_x_cloud_trace_context_is_ignored() {
    for value in [
        String::new(),
        "/1;o=1".into(),
        format!("{}/1", "0".repeat(32)),
        format!("{}/1", TRACE.trim_start_matches('4')),
        format!("{TRACE}/;o=1"),
        format!("{TRACE}/x;o=1"),
        format!("{TRACE}/+1;o=1"),
        format!("{TRACE}/18446744073709551616"),
        format!("{TRACE}/1;o="),
        format!("{TRACE}/1;p=1"),
        format!("{TRACE}/1;o=1;o=1"),
    ] {
        assert_eq!(of(&X_CLOUD_TRACE_CONTEXT, &value), None, "{value:?}");
    }
}

#[test]
fn a_single_valid_traceparent_takes_precedence() {
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let cloud = format!("{TRACE}/1;o=0");
    let span = |pairs: &[(&HeaderName, &[u8])]| {
        let context = TraceContext::from_headers(&headers(pairs))?;
        context.span_id().map(|span| span.to_string())
    };
    let (parent, cloud) = (parent.as_bytes(), cloud.as_bytes());
    let both = span(&[(&X_CLOUD_TRACE_CONTEXT, cloud), (&TRACEPARENT, parent)]);
    assert_eq!(both.as_deref(), Some("00f067aa0ba902b7"));
    let invalid = span(&[(&X_CLOUD_TRACE_CONTEXT, cloud), (&TRACEPARENT, b"00-x")]);
    assert_eq!(invalid.as_deref(), Some("0000000000000001"));
    assert_eq!(
        span(&[(&TRACEPARENT, parent), (&TRACEPARENT, parent)]),
        None
    );
    assert_eq!(span(&[]), None);
}

proptest! {
    #[test]
    fn no_header_value_makes_the_parser_panic(
        parent in proptest::collection::vec(any::<u8>(), 0..80),
        cloud in "[0-9a-fA-F]{30,34}(/[0-9]{0,22})?(;o=[0-9]{0,22})?",
    ) {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&parent) {
            headers.insert(TRACEPARENT, value);
        }
        headers.insert(X_CLOUD_TRACE_CONTEXT, cloud.parse().unwrap());
        if let Some(context) = TraceContext::from_headers(&headers) {
            prop_assert_ne!(context.trace, 0);
            prop_assert_eq!(context.trace_id().to_string().len(), 32);
        }
    }

    #[test]
    fn a_written_traceparent_is_parsed(trace in 1_u128.., span in 1_u64.., flags: u8) {
        let context = TraceContext { trace, span: Some(span), sampled: flags & 1 == 1 };
        let parent = format!("00-{trace:032x}-{span:016x}-{flags:02x}");
        prop_assert_eq!(traceparent(parent.as_bytes()), Some(context));
        let cloud = format!("{trace:032x}/{span};o={flags}");
        prop_assert_eq!(x_cloud_trace_context(cloud.as_bytes()), Some(context));
    }

    #[test]
    fn only_valid_traceparents_are_accepted(value in "[0-9a-f-]{50,60}") {
        let grammar = value.len() == 55
            && value.split('-').map(str::len).eq([2, 32, 16, 2])
            && value.starts_with("00-");
        if grammar || !value.starts_with("00-") {
            // Valid by its shape, or of a later version: the tests above say more.
            return Ok(());
        }
        prop_assert_eq!(traceparent(value.as_bytes()), None);
    }
}
