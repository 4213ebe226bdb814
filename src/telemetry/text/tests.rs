use proptest::prelude::*;

use crate::config::{LogFormat, LogLevel};
use crate::telemetry::log::tests::{lines, text};

#[test]
fn a_line_has_time_level_message_and_fields() {
    assert_eq!(
        text(|| tracing::info!(listener = "proxy", n = 1, "it is ready")),
        "INFO  it is ready listener=proxy n=1"
    );
    assert_eq!(text(|| tracing::error!("no")), "ERROR no");
}

#[test]
fn a_value_with_spaces_is_quoted() {
    assert_eq!(
        text(|| tracing::warn!(a = "b c", d = "", e = "f=\"g\"", "x")),
        r#"WARN  x a="b c" d="" e="f=\"g\"""#
    );
}

#[test]
fn the_fields_of_a_request_come_last_under_short_names() {
    let line = text(|| {
        tracing::info!(
            {
                "httpRequest.requestUrl" = "https://example.com/",
                "httpRequest.protocol" = "HTTP/2",
                "logging.googleapis.com/trace" = "abc"
            },
            "GET https://example.com/"
        );
    });
    assert_eq!(
        line,
        "INFO  GET https://example.com/ trace=abc protocol=HTTP/2"
    );
}

#[test]
fn hostile_text_cannot_forge_lines_or_colours() {
    let hostile = "x\n12:00:00.000 ERROR forged\x1b[31m\u{9b}31m\u{202e}";
    assert_eq!(
        text(|| tracing::info!(value = hostile, "{hostile}")),
        "INFO  x\\n12:00:00.000 ERROR forged\\u001b[31m\\u009b31m\\u202e \
         value=\"x\\n12:00:00.000 ERROR forged\\u001b[31m\\u009b31m\\u202e\""
    );
}

#[test]
fn only_terminals_get_colours() {
    let lines = lines(LogFormat::Text, LogLevel::Info, true, || {
        tracing::warn!(a = 1, "x");
    });
    let [line] = &lines[..] else {
        panic!("{lines:?}")
    };
    assert!(line.starts_with("\x1b[2m"), "{line:?}");
    assert!(
        line.ends_with("\x1b[0m \x1b[33mWARN \x1b[0m x \x1b[2ma=\x1b[0m1"),
        "{line:?}"
    );
}

proptest! {
    #[test]
    fn every_log_line_is_one_printable_line(value in any::<String>(), message in any::<String>()) {
        let line = text(|| tracing::info!(value, "{message}"));
        prop_assert!(!line.contains(char::is_control), "{line:?}");
    }
}
