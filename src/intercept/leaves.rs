//! One leaf a host: made at the first connection, whoever comes at the same time, and renewed before it expires.

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

use super::authority::{Authority, LEAF_LIFE, NoAuthority};
use crate::token::{Deadline, Now};

/// Hosts whose leaf is kept: names come from the app, so there must be an end.
const CAPACITY: u64 = 1_024;

/// A leaf with less than this left is made anew.
const RENEWED: Duration = Duration::from_secs(4 * 60 * 60);

/// The leaves of the process.
pub(super) struct Leaves {
    authority: Authority,
    provider: Arc<CryptoProvider>,
    /// One for all hosts, so that a renewed leaf does not end the sessions of the one before it.
    ticketer: Arc<dyn ProducesTickets>,
    made: Cache<Arc<str>, Leaf>,
}

#[derive(Clone)]
struct Leaf {
    config: Arc<ServerConfig>,
    expires: Deadline,
}

// === impl Leaves ===

impl Leaves {
    pub(super) fn new(authority: Authority) -> Result<Self, NoAuthority> {
        Self::with_capacity(CAPACITY, authority)
    }

    fn with_capacity(capacity: u64, authority: Authority) -> Result<Self, NoAuthority> {
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

    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The server's side of TLS for this host.
    pub(super) fn config(
        &self,
        host: &Arc<str>,
        now: Now,
    ) -> Result<Arc<ServerConfig>, NoAuthority> {
        if let Some(leaf) = self.made.get(host).filter(|leaf| leaf.is_fresh(now)) {
            return Ok(leaf.config);
        }
        // Of all who come here for the same host one makes it, and the others find it made.
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

impl fmt::Debug for Leaves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaves")
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
