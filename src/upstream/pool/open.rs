//! Opens connections.

use std::sync::Arc;

use super::target::Pool;
use super::{Pools, h1, h2};
use crate::upstream::cancellable_body::RequestBody;
use crate::upstream::dial::Dialled;
use crate::upstream::failure::Failure;
use crate::upstream::io::{Io, Open};

/// A new connection of the protocol that ALPN selected.
pub(super) enum Opened<B> {
    Http1(Arc<h1::Connection<B>>),
    Http2(Arc<h2::Connection<B>>),
}

// === impl Pool ===

impl<B: RequestBody> Pool<B> {
    /// Opens a connection within the global limit.
    pub(super) async fn open(self: &Arc<Self>, pools: &Pools<B>) -> Result<Opened<B>, Failure> {
        let permit = pools.permit().await?;
        let open = Open::new(permit, &pools.dialer.metrics);
        let opened = self.establish(pools, open).await;
        pools.dialer.count(&opened);
        pools.relieve();
        opened
    }

    async fn establish(
        self: &Arc<Self>,
        pools: &Pools<B>,
        open: Open,
    ) -> Result<Opened<B>, Failure> {
        let Dialled {
            stream,
            http2,
            endpoint,
        } = pools.dialer.dial(&self.target, self.priority()).await?;
        let io = Io::new(stream, open);
        let pool = Arc::downgrade(self);
        let memory = &pools.memory;
        Ok(if http2 {
            let within = pools.dialer.timeout;
            let complaints = self.complaints.clone();
            Opened::Http2(
                h2::Connection::open(io, endpoint, pool, within, memory, complaints).await?,
            )
        } else {
            Opened::Http1(h1::Connection::open(io, endpoint, pool, memory).await?)
        })
    }
}
