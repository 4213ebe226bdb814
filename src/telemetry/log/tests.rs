use std::sync::Arc;

use tracing::subscriber::with_default;

use super::*;
use crate::config::AccessLog;

/// Keeps each write apart.
#[derive(Clone, Default)]
pub(in crate::telemetry) struct Writes(Arc<Mutex<Vec<Vec<u8>>>>);

impl Write for Writes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines that `events` makes a logger write.
pub(in crate::telemetry) fn lines(
    format: LogFormat,
    level: LogLevel,
    colour: bool,
    events: impl FnOnce(),
) -> Vec<String> {
    let writes = Writes::default();
    let log = Log {
        format,
        level,
        access: AccessLog::All,
    };
    with_default(Logger::new(&log, colour, writes.clone()), events);
    let writes = writes.0.lock().unwrap();
    writes
        .iter()
        .map(|line| {
            let line = str::from_utf8(line).unwrap();
            let line = line.strip_suffix('\n').expect("a write is a whole line");
            assert!(!line.contains('\n'), "a write is one line: {line:?}");
            line.to_owned()
        })
        .collect()
}

/// The one JSON line that `event` makes, without its time, which is checked.
pub(in crate::telemetry) fn json(event: impl FnOnce()) -> serde_json::Value {
    let lines = lines(LogFormat::Json, LogLevel::Trace, false, event);
    let [line] = &lines[..] else {
        panic!("one line, not {lines:?}");
    };
    let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
    let time = value.as_object_mut().unwrap().remove("time").unwrap();
    let time = humantime::parse_rfc3339(time.as_str().unwrap()).unwrap();
    assert!(SystemTime::now().duration_since(time).unwrap().as_secs() < 60);
    value
}

/// The one text line that `event` makes, without its time, which is checked.
pub(in crate::telemetry) fn text(event: impl FnOnce()) -> String {
    let lines = lines(LogFormat::Text, LogLevel::Trace, false, event);
    let [line] = &lines[..] else {
        panic!("one line, not {lines:?}");
    };
    let (time, rest) = line.split_at(13);
    let shape: String = time
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "00:00:00.000 ");
    rest.to_owned()
}

fn one_of_each() {
    tracing::error!("e");
    tracing::warn!("w");
    tracing::info!("i");
    tracing::debug!("d");
    tracing::trace!("t");
}

#[test]
fn the_level_decides_what_is_written() {
    let words = |level| {
        let lines = lines(LogFormat::Text, level, false, one_of_each);
        let words = lines
            .iter()
            .map(|line| line.rsplit_once(' ').unwrap().1.to_owned());
        words.collect::<String>()
    };
    assert_eq!(words(LogLevel::Error), "e");
    assert_eq!(words(LogLevel::Warn), "ew");
    assert_eq!(words(LogLevel::Info), "ewi");
    assert_eq!(words(LogLevel::Debug), "ewid");
    assert_eq!(words(LogLevel::Trace), "ewidt");
}

#[test]
fn disabled_log_lines_are_not_formatted() {
    let seen = std::cell::Cell::new(false);
    let expensive = || {
        seen.set(true);
        "x"
    };
    let lines = lines(LogFormat::Json, LogLevel::Info, false, || {
        tracing::debug!(value = expensive(), "no");
        let span = tracing::error_span!("span", value = expensive());
        assert!(span.is_disabled());
    });
    assert!(lines.is_empty() && !seen.get());
}

#[test]
fn log_lines_of_many_threads_never_interleave() {
    let writes = Writes::default();
    let log = Log {
        format: LogFormat::Json,
        level: LogLevel::Info,
        access: AccessLog::Off,
    };
    let dispatch = tracing::Dispatch::new(Logger::new(&log, false, writes.clone()));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let dispatch = &dispatch;
            scope.spawn(move || {
                dispatcher::with_default(dispatch, || {
                    (0..50).for_each(|n| tracing::info!(thread, n, "{}", "x".repeat(200)));
                });
            });
        }
    });
    let writes = writes.0.lock().unwrap();
    assert_eq!(writes.len(), 200);
    for line in writes.iter() {
        serde_json::from_slice::<serde_json::Value>(line).unwrap();
    }
}

#[test]
fn a_log_write_error_is_ignored() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
    let log = Log {
        format: LogFormat::Json,
        level: LogLevel::Info,
        access: AccessLog::Off,
    };
    with_default(Logger::new(&log, false, Closed), one_of_each);
}
