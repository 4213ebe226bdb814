//! A cache of leaf certificates, one per host. A certificate is issued at the first connection and renewed before it
//! expires.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, Ticketer};
use rustls::server::ProducesTickets;
use rustls::sign::SingleCertAndKey;

use super::ca::{CertificateAuthority, LEAF_LIFE, NoAuthority};
use crate::lru::LruMap;
use crate::token::{Deadline, Now};

/// The number of cached hosts. Names come from the app, so the cache is bounded.
const CAPACITY: usize = 1_024;

/// A certificate with less time left is renewed.
const RENEWED: Duration = Duration::from_secs(4 * 60 * 60);

/// The leaf certificates of the process.
pub(super) struct CertCache {
    authority: CertificateAuthority,
    provider: Arc<CryptoProvider>,
    /// Shared by all hosts: sessions outlive the renewal of a certificate.
    ticketer: Arc<dyn ProducesTickets>,
    made: LruMap<Arc<str>, Leaf>,
}

#[derive(Clone)]
struct Leaf {
    config: Arc<ServerConfig>,
    expires: Deadline,
}

// === impl CertCache ===

impl CertCache {
    pub(super) fn new(authority: CertificateAuthority) -> Result<Self, NoAuthority> {
        Self::with_capacity(CAPACITY, authority)
    }

    fn with_capacity(
        capacity: usize,
        authority: CertificateAuthority,
    ) -> Result<Self, NoAuthority> {
        Ok(Self {
            authority,
            provider: Arc::new(aws_lc_rs::default_provider()),
            ticketer: Ticketer::new().map_err(|error| NoAuthority(error.to_string()))?,
            made: LruMap::new(capacity),
        })
    }

    pub(super) fn authority(&self) -> &CertificateAuthority {
        &self.authority
    }

    /// Returns the TLS configuration of a server with this host name.
    pub(super) fn config(
        &self,
        host: &Arc<str>,
        now: Now,
    ) -> Result<Arc<ServerConfig>, NoAuthority> {
        let leaf =
            self.made
                .get_or_try_make(host, |leaf| leaf.is_fresh(now), || self.make(host, now))?;
        Ok(leaf.config)
    }

    fn make(&self, host: &str, now: Now) -> Result<Leaf, NoAuthority> {
        let key = self.authority.leaf(host, now.wall, &self.provider)?;
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| NoAuthority(error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = self.ticketer.clone();
        Ok(Leaf {
            config: Arc::new(config),
            expires: now.after(LEAF_LIFE),
        })
    }
}

impl fmt::Debug for CertCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertCache")
            .field("authority", &self.authority)
            .field("made", &self.made.len())
            .finish_non_exhaustive()
    }
}

// === impl Leaf ===

impl Leaf {
    fn is_fresh(&self, now: Now) -> bool {
        self.expires.left(now) > RENEWED
    }
}

#[cfg(test)]
mod tests;
