//! What the rest of the sidecar knows of interception.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::authority::{Authority, NoAuthority};
use super::cert_cache::CertCache;
use super::roots;
use super::trust_files::{self, NotWritten};
use crate::destination::Host;
use crate::lock::lock;
use crate::token::Now;

/// How long an app may take for its side of the handshake.
const PATIENCE: Duration = Duration::from_secs(10);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long before the CA expires the first warning comes.
const WARNED_BEFORE: Duration = Duration::from_secs(5 * 24 * 60 * 60);

/// Opens TLS that an app meant for a host which gets a token. One for the process.
#[derive(Debug)]
pub struct Interceptor {
    leaves: CertCache,
    ca_dir: Option<PathBuf>,
    /// When to warn next that the CA expires.
    warn_at: Mutex<SystemTime>,
}

/// A handshake that came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum InterceptError {
    /// The app broke it off, most often since it does not trust the CA.
    #[error("{0}")]
    Handshake(#[from] std::io::Error),
    /// The app did not go on with it.
    #[error("not done within {PATIENCE:?}")]
    Timeout,
    /// There is no certificate for this host.
    #[error(transparent)]
    Certificate(#[from] NoAuthority),
}

// === impl Interceptor ===

impl Interceptor {
    /// Makes a CA for these domains and what is below them. `ca_dir` is where [`Self::publish`] writes.
    ///
    /// # Errors
    ///
    /// A domain that a certificate cannot hold; or, never seen, a system without randomness.
    pub fn new(
        domains: impl IntoIterator<Item = String>,
        ca_dir: Option<PathBuf>,
        now: SystemTime,
    ) -> Result<Self, NoAuthority> {
        let authority = Authority::new(domains, now)?;
        let warn_at = Mutex::new(authority.until() - WARNED_BEFORE);
        Ok(Self {
            leaves: CertCache::new(authority)?,
            ca_dir,
            warn_at,
        })
    }

    /// Writes what an app needs to trust the CA, if there is a place for it. `system_ca_file` is `SSL_CERT_FILE`; `more`
    /// is what the app trusts beside the system's roots.
    ///
    /// # Errors
    ///
    /// The directory cannot be written to.
    pub fn publish(
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

    /// Where the app finds the CA.
    pub fn ca_dir(&self) -> Option<&Path> {
        self.ca_dir.as_deref()
    }

    /// Says that the CA expires soon, or has expired, and what to do; at most once a day.
    pub fn expiry_warning(&self, now: SystemTime) -> Option<String> {
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
            "the CA of --intercept {state}: restart the sidecar, then the apps that trust it, for each start makes a new one"
        ))
    }

    /// The CA may sign for this host; never for an address.
    pub fn covers(&self, host: &Host) -> bool {
        host.name()
            .is_some_and(|name| self.leaves.authority().covers(name))
    }

    /// The server's side of a handshake, in the place of `host`, whatever name the app asks for in it.
    ///
    /// # Errors
    ///
    /// The app breaks it off or is too slow; `host` is no name.
    pub async fn accept<S>(&self, host: &Host, stream: S) -> Result<TlsStream<S>, InterceptError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Host::Name(name) = host else {
            return Err(NoAuthority("an address".to_owned()).into());
        };
        let name: &Arc<str> = name;
        let config = self.leaves.config(name, Now::now())?;
        let accept = TlsAcceptor::from(config).accept(stream);
        match tokio::time::timeout(PATIENCE, accept).await {
            Ok(accepted) => Ok(accepted?),
            Err(_) => Err(InterceptError::Timeout),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_ca_is_warned_of_for_five_days_once_a_day() {
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
