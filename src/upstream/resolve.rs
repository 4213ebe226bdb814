//! Names to addresses, by the system's resolver.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::destination::Host;
use crate::error::ErrorKind;

/// Lookups under way at once. Each blocks a thread, and one that timed out blocks it still.
const LOOKUPS: usize = 64;

/// Why a name has no address, and the sentence for it.
pub(super) type Unresolved = (ErrorKind, String);

/// Asks the system's resolver, anew for every connection: it has a cache of its own where one is wanted.
#[derive(Debug)]
pub(super) struct Resolver {
    lookups: Arc<Semaphore>,
    timeout: Duration,
}

// === impl Resolver ===

impl Resolver {
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
            timeout,
        }
    }

    /// The addresses of `host`, in the resolver's order and at least one.
    pub(super) async fn resolve(
        &self,
        host: &Host,
        port: u16,
    ) -> Result<Vec<SocketAddr>, Unresolved> {
        let name = match host {
            Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, port)]),
            Host::Name(name) => Arc::clone(name),
        };
        let lookups = Arc::clone(&self.lookups);
        // A task of its own, because its permit must outlive a time-out as the thread does.
        let lookup = tokio::spawn(async move {
            let _permit = lookups.acquire_owned().await;
            lookup_host((&*name, port))
                .await
                .map(|found| found.collect::<Vec<_>>())
        });
        let found = match timeout(self.timeout, lookup).await {
            Err(_) => {
                return Err((
                    ErrorKind::DnsTimeout,
                    format!("{host}: the resolver did not answer in {:?}", self.timeout),
                ));
            }
            Ok(Err(_)) => {
                return Err((ErrorKind::Internal, format!("{host}: the lookup broke off")));
            }
            Ok(Ok(found)) => found,
        };
        match found {
            Ok(addresses) if !addresses.is_empty() => Ok(addresses),
            Ok(_) => Err((
                ErrorKind::DnsFailed,
                format!("{host}: the name has no address"),
            )),
            Err(error) => Err((ErrorKind::DnsFailed, format!("{host}: {error}"))),
        }
    }
}
