//! The HTTP client: opens, verifies and pools connections to upstreams, and sends requests.
//!
//! [`Upstream`] is its interface. The pool of a request's [`Target`] finds or opens a connection ([`pool`]). Opening
//! covers `--connect-to`, name resolution, the dial policy, happy eyeballs and TLS ([`dial`]). [`retry`] decides which
//! requests may be sent twice. The response's [`UpstreamBody`] returns the connection.
//!
//! The timeouts here are those of connecting. The caller limits the time of a response by dropping the future.

mod body;
mod cancellable_body;
mod connect_to;
mod dial;
mod dial_policy;
mod expect;
mod eyeballs;
mod failure;
mod idle_since;
mod interim;
mod io;
mod pool;
mod read_ahead;
mod receive_state;
mod resend;
mod retry;
mod retry_after;
mod target;
mod tls;
mod unsent;
mod via_proxy;

use std::fmt;
use std::sync::Arc;

use http::{Request, Response};
use tokio::net::TcpStream;

pub use self::body::UpstreamBody;
pub(crate) use self::cancellable_body::SendableBody;
pub(crate) use self::connect_to::bypass;
pub use self::dial_policy::DialPolicy;
pub(crate) use self::expect::expects_continue;
pub(crate) use self::failure::of_interrupted;
pub use self::pool::PoolLimits;
pub(crate) use self::resend::{BufferedBody, SentRequest};
pub(crate) use self::retry_after::retry_after;
pub use self::target::Target;
pub(crate) use self::tls::BadRoots;
#[cfg(any(fuzzing, test))]
pub use self::via_proxy::fuzz_connect_answer;

use self::dial::Dialer;
use self::pool::Pools;
use crate::config;
use crate::destination::Origin;
use crate::dns::Priority;
use crate::error::Error;
use crate::memory::Memory;
use crate::telemetry::Metrics;

/// A response, and the copy of its request if the caller asked for it or a retry might have needed it.
pub(crate) type ResponseAndCopy<B> = (Response<UpstreamBody>, Option<Box<SentRequest<B>>>);

/// Sends requests to upstreams over pooled connections. Clones share the pool.
///
/// `B` is the body of the requests.
pub struct Upstream<B> {
    pools: Arc<Pools<B>>,
}

// === impl Upstream ===

impl<B: SendableBody> Upstream<B> {
    /// Loads the trust roots. Nothing is dialled yet.
    ///
    /// # Errors
    ///
    /// A file of trust roots that the user named cannot be used.
    pub fn new(
        config: &config::UpstreamConfig,
        dial_policy: DialPolicy,
        metrics: Arc<Metrics>,
        memory: Memory,
    ) -> Result<Self, BadRoots> {
        Self::with_limits(config, dial_policy, metrics, memory, PoolLimits::default())
    }

    /// Like [`Upstream::new`], with other limits.
    ///
    /// # Errors
    ///
    /// Fails like [`Upstream::new`].
    pub fn with_limits(
        config: &config::UpstreamConfig,
        dial_policy: DialPolicy,
        metrics: Arc<Metrics>,
        memory: Memory,
        limits: PoolLimits,
    ) -> Result<Self, BadRoots> {
        let dialer = Dialer::new(config, dial_policy, metrics)?;
        Ok(Self {
            pools: Pools::new(dialer, limits, config, memory),
        })
    }

    /// Sends a request and waits for the response's head. Dropping the future, or the response's body, cancels the
    /// request upstream.
    ///
    /// Only path and query of the request's URI are used; authority, `Host` and version are set here. The headers must
    /// not be hop-by-hop, except `Connection: upgrade` and `Upgrade`. Such a request is sent over HTTP/1.1, and after a
    /// response 101 [`hyper::upgrade::on`] returns the connection.
    ///
    /// # Errors
    ///
    /// No connection could be opened, or it ended without a response. The detail names the origin and the address.
    pub fn send(
        &self,
        target: &Target,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<UpstreamBody>, Error>> + Send + use<B> {
        self.send_with(target, Priority::Normal, request)
    }

    /// Like [`Upstream::send`], with a priority for the lookup of the target's name.
    ///
    /// # Errors
    ///
    /// Fails like [`Upstream::send`].
    pub(crate) fn send_with(
        &self,
        target: &Target,
        priority: Priority,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<UpstreamBody>, Error>> + Send + use<B> {
        let sent = self.send_copied(target, priority, false, request);
        async move { Ok(sent.await?.0) }
    }

    /// Like [`Upstream::send_with`]. If `keep_copy` is set, the response comes with a copy of the request, for a retry.
    ///
    /// # Errors
    ///
    /// Fails like [`Upstream::send`].
    // The bound `Send` is explicit, because a caller whose bodies fail with a boxed error could not prove it.
    pub(crate) fn send_copied(
        &self,
        target: &Target,
        priority: Priority,
        keep_copy: bool,
        request: Request<B>,
    ) -> impl Future<Output = Result<ResponseAndCopy<B>, Error>> + Send + use<B> {
        let mut target = if target::is_upgrade(request.headers()) {
            target.for_upgrade()
        } else {
            target.clone()
        };
        if target.proxy_may_read {
            target.proxy_may_read =
                self.pools.dialer.forwards(&target) && target::is_forwardable(&request);
        }
        retry::send(
            Arc::clone(&self.pools),
            target,
            priority,
            keep_copy,
            request,
        )
    }

    /// Opens a TCP connection for a tunnel, which is not pooled. `--connect-to`, `--upstream-proxy` and the refusals
    /// apply.
    ///
    /// # Errors
    ///
    /// The TCP errors of [`Upstream::send`].
    pub async fn tunnel(&self, origin: &Origin, priority: Priority) -> Result<TcpStream, Error> {
        let dialer = &self.pools.dialer;
        let dialled = dialer.tcp(origin, priority).await;
        dialer.count(&dialled);
        let (stream, _) = dialled?;
        Ok(stream)
    }

    /// Closes every idle connection. After the process was frozen, it is not known which of them the peer has closed.
    pub fn close_idle(&self) {
        self.pools.close_idle();
    }
}

impl<B> Clone for Upstream<B> {
    fn clone(&self) -> Self {
        Self {
            pools: Arc::clone(&self.pools),
        }
    }
}

impl<B> fmt::Debug for Upstream<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").finish_non_exhaustive()
    }
}
