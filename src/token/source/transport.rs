//! The HTTP client of an [`EndpointClient`](super::endpoint::EndpointClient), for any type of bodies.
//!
//! The compiler makes one copy of `Upstream` for each type of bodies. Token sources use the type of the sidecar's
//! requests, so the binary contains the client once.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};

use crate::config;
use crate::dns::Priority;
use crate::error::Error;
use crate::memory::Memory;
use crate::telemetry::Metrics;
use crate::upstream::{BadRoots, DialPolicy, SendableBody, Target, Upstream, UpstreamBody};

/// The response to a request, as soon as its head has arrived.
pub(super) type ResponseFuture =
    Pin<Box<dyn Future<Output = Result<Response<UpstreamBody>, Error>> + Send>>;

/// Sends one request.
pub(super) trait Transport: Send + Sync {
    fn send(&self, target: &Target, request: Request<Bytes>) -> ResponseFuture;
}

/// Opens a transport with its own connections, within a memory budget.
pub(super) type OpenTransport =
    fn(&config::UpstreamConfig, Arc<Metrics>, Memory) -> Result<Arc<dyn Transport>, BadRoots>;

/// Opens a transport whose bodies have the type `B`.
pub(super) fn open<B: SendableBody + From<Bytes>>(
    config: &config::UpstreamConfig,
    metrics: Arc<Metrics>,
    memory: Memory,
) -> Result<Arc<dyn Transport>, BadRoots> {
    let upstream = Upstream::<B>::new(config, DialPolicy::default(), metrics, memory)?;
    Ok(Arc::new(upstream))
}

impl<B: SendableBody + From<Bytes>> Transport for Upstream<B> {
    fn send(&self, target: &Target, request: Request<Bytes>) -> ResponseFuture {
        Box::pin(self.send_with(target, Priority::High, request.map(B::from)))
    }
}
