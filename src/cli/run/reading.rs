//! The reading of the configuration after SIGHUP, while the sidecar serves.

use std::future::pending;
use std::io;
use std::pin::Pin;

use crate::cli::reading::read_apart;
use crate::config::{self, Config, Diagnostic, Env, RawConfig};

type Loaded = io::Result<Result<Config, Vec<Diagnostic>>>;

/// The configuration's file, and those that it names, as they are being read. At most one thread reads: a file system that does
/// not respond holds up one.
#[derive(Default)]
pub(super) struct Reading {
    current: Option<Pin<Box<dyn Future<Output = Loaded> + Send>>>,
    /// What is read after that, because it may have changed since.
    next: Option<(RawConfig, Env)>,
}

// === impl Reading ===

impl Reading {
    /// Whether files are being read.
    pub(super) fn is_on(&self) -> bool {
        self.current.is_some()
    }

    /// Begins to read, or reads again after the current reading.
    pub(super) fn start(&mut self, flags: RawConfig, env: Env) {
        if self.is_on() {
            self.next = Some((flags, env));
            return;
        }
        let read = read_apart(move || config::load(&flags, &env));
        self.current = Some(Box::pin(read));
    }

    /// Completes when files were read. Never completes while nothing is read.
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
