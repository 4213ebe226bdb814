use proptest::prelude::*;
use serde_json::json;

use crate::config::{LogFormat, LogLevel};
use crate::telemetry::escape::LONGEST;
use crate::telemetry::log::tests::{json, lines};
use crate::telemetry::set_project;

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[test]
fn a_line_begins_with_severity_and_time() {
    let lines = lines(LogFormat::Json, LogLevel::Info, false, || {
        tracing::info!("hello")
    });
    let [line] = &lines[..] else {
        panic!("{lines:?}")
    };
    let rest = line
        .strip_prefix(r#"{"severity":"INFO","time":"20"#)
        .unwrap();
    assert!(rest.ends_with(r#"Z","message":"hello"}"#), "{line}");
}

#[test]
fn levels_are_the_severities_of_cloud_logging() {
    let severity = |event: fn()| json(event)["severity"].as_str().unwrap().to_owned();
    assert_eq!(severity(|| tracing::error!("x")), "ERROR");
    assert_eq!(severity(|| tracing::warn!("x")), "WARNING");
    assert_eq!(severity(|| tracing::info!("x")), "INFO");
    assert_eq!(severity(|| tracing::debug!("x")), "DEBUG");
    assert_eq!(severity(|| tracing::trace!("x")), "DEBUG");
}

#[test]
fn fields_keep_their_type_at_the_top_level() {
    let error = std::io::Error::other("broken");
    let line = json(|| {
        tracing::warn!(
            listener = "proxy",
            count = 3_u64,
            less = -3_i64,
            share = 0.5,
            nothing = f64::NAN,
            yes = true,
            absent = None::<&str>,
            shown = %"a b",
            debug = ?Some(1),
            error = &error as &dyn std::error::Error,
            "what {}",
            "happened",
        )
    });
    assert_eq!(
        line,
        json!({
            "severity": "WARNING", "message": "what happened", "listener": "proxy", "count": 3, "less": -3,
            "share": 0.5, "nothing": "NaN", "yes": true, "shown": "a b", "debug": "Some(1)", "error": "broken",
        })
    );
}

#[test]
fn no_field_replaces_a_reserved_key() {
    let line = json(|| tracing::info!(severity = "no", time = 1, "x"));
    let expected = json!({"severity": "INFO", "message": "x", "severity_": "no", "time_": 1});
    assert_eq!(line, expected);
}

#[test]
fn a_trace_has_its_resource_name_once_the_project_is_known() {
    let event =
        || tracing::info!({ "logging.googleapis.com/trace" = TRACE_ID, trace = TRACE_ID }, "x");
    let expected = |name: &str| json!({"severity": "INFO", "message": "x", "trace": TRACE_ID, "logging.googleapis.com/trace": name});
    assert_eq!(json(event), expected(TRACE_ID));
    let known = json(|| {
        set_project("s3ns:\"p");
        set_project("too late");
        event();
    });
    assert_eq!(
        known,
        expected(&format!("projects/s3ns:\"p/traces/{TRACE_ID}"))
    );
}

#[test]
fn hostile_text_is_escaped() {
    let hostile = "\"},\n{\"severity\":\"ERROR\"}\r\t\0\x1b[2J\u{7f}\u{9b}\u{2028}\u{202e}\\ é 😀";
    let lines = lines(LogFormat::Json, LogLevel::Info, false, || {
        tracing::info!(value = hostile, "{hostile}");
    });
    let [line] = &lines[..] else {
        panic!("{lines:?}")
    };
    let (_, value) = line.split_once(r#","value":"#).unwrap();
    assert_eq!(
        value,
        r#""\"},\n{\"severity\":\"ERROR\"}\r\t\u0000\u001b[2J\u007f\u009b\u2028\u202e\\ é 😀"}"#
    );
    let parsed: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(parsed["value"], hostile);
    assert_eq!(parsed["message"], hostile);
}

#[test]
fn a_long_value_is_truncated() {
    let long = "é".repeat(LONGEST);
    let line = json(|| tracing::info!(value = long, "short"));
    let value = line["value"].as_str().unwrap();
    assert_eq!(value, format!("{}…", "é".repeat(LONGEST / 2)));
    assert_eq!(line["message"], "short");
}

proptest! {
    #[test]
    fn every_text_round_trips(text in any::<String>(), message in any::<String>()) {
        let line = json(|| tracing::info!(text, "{message}"));
        prop_assert_eq!(line, json!({"severity": "INFO", "message": message, "text": text}));
    }
}
