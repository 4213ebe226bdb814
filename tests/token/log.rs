//! Log lines about tokens, which never contain one.

use std::io;
use std::sync::{Arc, Mutex};

use http::HeaderValue;
use sidentity::policy::AuthScheme;

use super::support::metadata::{Answer, in_seconds, jwt};
use super::{error, id_slot};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_reports_failure_and_recovery_once_without_the_token() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // With one logger only, the first thread, perhaps of another test, would decide whether a call site is enabled.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    let secret = jwt("https://a.example", in_seconds(3600));
    let (_server, slot) = id_slot([
        Answer::status(400, format!("{secret} is bad")),
        Answer::ok(&secret),
    ])
    .await;
    let failed = error(&slot).await;
    error(&slot).await;
    tokio::time::sleep(failed.wait().unwrap()).await;
    let token = slot.token().await.unwrap();
    let sensitive: HeaderValue = token.header(AuthScheme::Basic);
    tracing::info!(?token, ?sensitive, ?slot, "shown on purpose");
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let ours = |level| {
        let mut lines = text
            .lines()
            .filter(|line| line.contains("sidentity::token"));
        lines.by_ref().filter(|line| line.contains(level)).count()
    };
    assert_eq!((ours(" WARN "), ours(" INFO ")), (1, 1), "{text}");
    assert!(text.contains("https://a.example"), "{text}");
    for part in secret.split('.').filter(|part| part.len() > 8) {
        assert!(!text.contains(part), "{text}");
    }
}
