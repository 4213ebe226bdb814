//! Opens connections.

use std::sync::Arc;

use super::target_pool::Pool;
use super::{Pools, h1, h2};
use crate::upstream::cancellable_body::SendableBody;
use crate::upstream::dial::Dialled;
use crate::upstream::failure::Failure;
use crate::upstream::io::{ConnectionPermit, UpstreamIo};

/// A new connection of the protocol that ALPN selected.
pub(super) enum PooledConnection<B> {
    Http1(Arc<h1::Http1Connection<B>>),
    Http2(Arc<h2::Http2Connection<B>>),
}

// === impl Pool ===

impl<B: SendableBody> Pool<B> {
    /// Opens a connection within the global limit.
    pub(super) async fn open(
        self: &Arc<Self>,
        pools: &Pools<B>,
    ) -> Result<PooledConnection<B>, Failure> {
        let permit = pools.permit().await?;
        let permit = ConnectionPermit::new(permit, &pools.dialer.metrics);
        let opened = self.establish(pools, permit).await;
        pools.dialer.count(&opened);
        pools.relieve();
        opened
    }

    async fn establish(
        self: &Arc<Self>,
        pools: &Pools<B>,
        permit: ConnectionPermit,
    ) -> Result<PooledConnection<B>, Failure> {
        let Dialled {
            stream,
            http2,
            peer,
        } = pools.dialer.dial(&self.target, self.priority()).await?;
        let io = UpstreamIo::new(stream, permit);
        let pool = Arc::downgrade(self);
        let memory = &pools.memory;
        Ok(if http2 {
            let within = pools.dialer.timeout;
            let complaints = self.complaints.clone();
            PooledConnection::Http2(
                h2::Http2Connection::open(io, peer, pool, within, memory, complaints).await?,
            )
        } else {
            let upgrade = self.target.upgrade;
            PooledConnection::Http1(
                h1::Http1Connection::open(io, upgrade, peer, pool, memory).await?,
            )
        })
    }
}
