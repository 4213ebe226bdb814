//! The reading of the configuration after SIGHUP, while the sidecar serves.

use std::future::pending;
use std::io;
use std::pin::Pin;

use crate::cli::detached_thread::on_detached_thread;
use crate::config::{self, Config, Diagnostic, Env, RawConfig};

type Loaded = io::Result<Result<Config, Vec<Diagnostic>>>;

/// Reads the configuration's file, and the files that it names. At most one thread reads, so a file system that does
/// not respond holds up only one thread.
#[derive(Default)]
pub(super) struct ConfigReader {
    current: Option<Pin<Box<dyn Future<Output = Loaded> + Send>>>,
    /// The next reading, because the files may have changed since the current one began.
    next: Option<(RawConfig, Env)>,
}

// === impl ConfigReader ===

impl ConfigReader {
    /// Returns whether files are being read.
    pub(super) fn is_on(&self) -> bool {
        self.current.is_some()
    }

    /// Begins to read. If files are being read, they are read again afterwards.
    pub(super) fn start(&mut self, flags: RawConfig, env: Env) {
        if self.is_on() {
            self.next = Some((flags, env));
            return;
        }
        let read = on_detached_thread(move || config::load(&flags, &env));
        self.current = Some(Box::pin(read));
    }

    /// Completes when the current reading ends. Never completes if nothing is being read.
    pub(super) async fn done(&mut self) -> Loaded {
        let loaded = match &mut self.current {
            Some(reading) => reading.await,
            None => pending().await,
        };
        self.current = None;
        if let Some((flags, env)) = self.next.take() {
            self.start(flags, env);
        }
        loaded
    }
}
