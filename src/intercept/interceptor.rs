//! The interface of interception for the rest of the sidecar.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::ca::{CertificateAuthority, NoAuthority};
use super::cert_cache::CertCache;
use super::roots;
use super::trust_files::{self, NotWritten};
use crate::destination::Host;
use crate::lock::lock;
use crate::token::Now;

/// The time limit of a handshake with an app.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The time between the first warning and the expiry of the CA.
const WARNED_BEFORE: Duration = Duration::from_secs(5 * 24 * 60 * 60);

/// Terminates TLS of an app for a host that gets a token. The process has one.
#[derive(Debug)]
pub(crate) struct Interceptor {
    leaves: CertCache,
    ca_dir: Option<PathBuf>,
    /// The time of the next warning that the CA expires.
    warn_at: Mutex<SystemTime>,
}

/// The reason that a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InterceptError {
    /// The app aborted it, usually because it does not trust the CA.
    #[error("{0}")]
    Handshake(#[from] std::io::Error),
    /// The app did not continue it in time.
    #[error("the handshake took longer than {HANDSHAKE_TIMEOUT:?}")]
    Timeout,
    /// There is no certificate for this host.
    #[error(transparent)]
    Certificate(#[from] NoAuthority),
}

// === impl Interceptor ===

impl Interceptor {
    /// Creates a CA for these domains and their subdomains. [`Self::publish`] writes to `ca_dir`.
    ///
    /// # Errors
    ///
    /// Fails if a certificate cannot contain a domain, or if the system has no randomness, which was never observed.
    pub(crate) fn new(
        domains: impl IntoIterator<Item = String>,
        ca_dir: Option<PathBuf>,
        now: SystemTime,
    ) -> Result<Self, NoAuthority> {
        let authority = CertificateAuthority::new(domains, now)?;
        let warn_at = Mutex::new(authority.until() - WARNED_BEFORE);
        Ok(Self {
            leaves: CertCache::new(authority)?,
            ca_dir,
            warn_at,
        })
    }

    /// Writes the files with which an app trusts the CA, if a directory is configured. `system_ca_file` is
    /// `SSL_CERT_FILE`. `more` are certificates that the app trusts in addition to the system's roots.
    ///
    /// # Errors
    ///
    /// Fails if the directory is not writable.
    pub(crate) fn publish(
        &self,
        system_ca_file: Option<&Path>,
        more: &[CertificateDer<'static>],
    ) -> Result<(), NotWritten> {
        match &self.ca_dir {
            Some(folder) => trust_files::write(
                folder,
                self.leaves.authority().certificate(),
                &roots::with(roots::system(system_ca_file), more),
            ),
            None => Ok(()),
        }
    }

    /// Returns the directory with the CA.
    pub(crate) fn ca_dir(&self) -> Option<&Path> {
        self.ca_dir.as_deref()
    }

    /// Returns a warning that the CA expires soon or has expired, with advice, at most once a day.
    pub(crate) fn expiry_warning(&self, now: SystemTime) -> Option<String> {
        let mut warn_at = lock(&self.warn_at);
        if now < *warn_at {
            return None;
        }
        *warn_at = now + DAY;
        let until = self.leaves.authority().until();
        let state = match until.duration_since(now) {
            Ok(left) => format!("expires in {} hours", left.as_secs() / 3600),
            Err(_) => "has expired, so apps refuse its certificates".to_owned(),
        };
        Some(format!(
            "the CA of --intercept {state}: restart the sidecar, then the apps that trust it, because each start generates a new CA"
        ))
    }

    /// Returns whether the CA may sign for this host. It never signs for an address.
    pub(crate) fn covers(&self, host: &Host) -> bool {
        host.name()
            .is_some_and(|name| self.leaves.authority().covers(name))
    }

    /// Performs the server's side of a handshake for `host`. It ignores the name that the app requests.
    ///
    /// # Errors
    ///
    /// Fails if the app aborts or is too slow, or if `host` is not a name.
    pub(crate) async fn accept<S>(
        &self,
        host: &Host,
        stream: S,
    ) -> Result<TlsStream<S>, InterceptError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Host::Name(name) = host else {
            return Err(NoAuthority("an address".to_owned()).into());
        };
        let name: &Arc<str> = name;
        let config = self.leaves.config(name, Now::now())?;
        let accept = TlsAcceptor::from(config).accept(stream);
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, accept).await {
            Ok(accepted) => Ok(accepted?),
            Err(_) => Err(InterceptError::Timeout),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expiry_of_the_ca_is_logged_once_a_day_for_five_days() {
        let start = SystemTime::UNIX_EPOCH + 20_000 * DAY;
        let interceptor = Interceptor::new(["run.app".to_owned()], None, start).unwrap();
        let at = |hours: u32| interceptor.expiry_warning(start + hours * Duration::from_secs(3600));
        assert_eq!(at(0), None);
        assert_eq!(at(25 * 24 - 1), None);
        let first = at(25 * 24).unwrap();
        assert!(
            first.contains("expires in 120 hours: restart the sidecar"),
            "{first}"
        );
        assert_eq!(at(26 * 24 - 1), None);
        let second = at(26 * 24).unwrap();
        assert!(second.contains("expires in 96 hours"), "{second}");
        let last = at(30 * 24 + 1).unwrap();
        assert!(last.contains("has expired"), "{last}");
        assert_eq!(at(30 * 24 + 2), None);
    }
}
