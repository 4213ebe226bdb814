//! A cache of leaf certificates, one per host. A certificate is issued at the first connection and renewed before it
//! expires.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, Ticketer};
use rustls::server::ProducesTickets;
use rustls::sign::SingleCertAndKey;

use super::ca::{CertificateAuthority, LEAF_LIFE, NoAuthority};
use crate::token::{Deadline, Now};

/// The number of cached hosts. Names come from the app, so the cache is bounded.
const CAPACITY: u64 = 1_024;

/// A certificate with less time left is renewed.
const RENEWED: Duration = Duration::from_secs(4 * 60 * 60);

/// The leaf certificates of the process.
pub(super) struct CertCache {
    authority: CertificateAuthority,
    provider: Arc<CryptoProvider>,
    /// Shared by all hosts: sessions outlive the renewal of a certificate.
    ticketer: Arc<dyn ProducesTickets>,
    made: Cache<Arc<str>, Leaf>,
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

    fn with_capacity(capacity: u64, authority: CertificateAuthority) -> Result<Self, NoAuthority> {
        Ok(Self {
            authority,
            provider: Arc::new(aws_lc_rs::default_provider()),
            ticketer: Ticketer::new().map_err(|error| NoAuthority(error.to_string()))?,
            made: Cache::builder()
                .max_capacity(capacity)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
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
        if let Some(leaf) = self.made.get(host).filter(|leaf| leaf.is_fresh(now)) {
            return Ok(leaf.config);
        }
        // Concurrent callers for the same host issue one certificate.
        let entry = self
            .made
            .entry_by_ref(host)
            .and_try_compute_with(|entry| match entry {
                Some(entry) if entry.value().is_fresh(now) => Ok(Op::Nop),
                _ => self.make(host, now).map(Op::Put),
            })?;
        let leaf = entry.into_entry().map(moka::Entry::into_value);
        match leaf {
            Some(leaf) => Ok(leaf.config),
            None => Ok(self.make(host, now)?.config),
        }
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
            .field("made", &self.made.entry_count())
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
