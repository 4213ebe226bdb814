//! The stack of layers, as one expression.

use std::sync::Arc;

use tower::ServiceBuilder;

use super::credentials::CredentialProvider;
use super::layers::authorize::Authorize;
use super::layers::connect::{self, Connect};
use super::layers::decide::Decide;
use super::layers::forward::Forward;
use super::layers::hop_by_hop::HopByHop;
use super::layers::limit::{Limit, Permits};
use super::layers::normalize::Normalize;
use super::layers::record::Record;
use super::layers::reject_cross_site::RejectCrossSite;
use super::layers::rescue::Rescue;
use super::layers::resolve_service::ResolveService;
use super::layers::response_timeout::ResponseTimeout;
use super::layers::retry_unauthorized::RetryUnauthorized;
use super::layers::rewrite_location::RewriteLocation;
use super::layers::upgrade::Upgrade;
use super::request::body::RequestBody;
use super::request::{Addressed, Authorized, Decided, Inbound, Located, Outbound, Stripped};
use super::service::takes;
use super::tunnel::Tunnels;
use super::tunnel::intercept::{Interception, OpenedTunnelSender};
use crate::config::Config;
use crate::memory::Memory;
use crate::telemetry::{Metrics, RateLimiter};
use crate::upstream::Upstream;

/// What the layers need.
#[derive(Clone, Debug)]
pub(crate) struct StackDeps {
    /// Policy and tokens.
    pub(crate) provider: Arc<CredentialProvider>,
    /// The connection pool.
    pub(crate) upstream: Upstream<RequestBody>,
    /// The counters.
    pub(crate) metrics: Arc<Metrics>,
    /// Terminates the TLS of `CONNECT` tunnels, with `--intercept`.
    pub(crate) interception: Option<Interception>,
    /// Where the requests inside tunnels are served.
    pub(crate) opened: OpenedTunnelSender,
    /// What a reload keeps.
    pub(crate) shared: SharedState,
}

/// State that all stacks of a process share. A reload keeps it: permits stay taken, and rate-limited messages stay
/// suppressed.
#[derive(Clone, Debug)]
pub(crate) struct SharedState {
    /// The budget of `--max-memory`.
    pub(crate) memory: Memory,
    permits: Permits,
    hints: Arc<RateLimiter>,
    tunnels: Tunnels,
}

// === impl SharedState ===

impl SharedState {
    /// `limit`: the maximum number of concurrent requests. None is accepted over the memory budget.
    pub(crate) fn new(limit: usize, memory: Memory) -> Self {
        Self {
            memory,
            permits: Permits::new(limit),
            hints: Arc::new(RateLimiter::new()),
            tunnels: Tunnels::default(),
        }
    }
}

type FromOutbound = ResponseTimeout<Upgrade<RewriteLocation<Forward>>>;
type FromDecided = Connect<RejectCrossSite<Authorize<RetryUnauthorized<FromOutbound>>>>;
type FromAddressed = ResolveService<HopByHop<Decide<FromDecided>>>;

/// The whole stack, from an [`Inbound`](super::Inbound) request to a recorded response.
pub(crate) type Stack = Record<Rescue<Limit<Normalize<FromAddressed>>>>;

/// Composes the stack. The first layer sees a request first and its response last.
///
/// `takes` checks at compile time which type of request the layers below it take. A layer without one between it and
/// the next takes and passes on the same type.
pub(crate) fn stack(config: &Config, deps: StackDeps) -> Stack {
    let StackDeps {
        provider,
        upstream,
        metrics,
        interception,
        opened,
        shared:
            SharedState {
                memory,
                permits,
                hints,
                tunnels,
            },
    } = deps;
    let allowed_hosts: Arc<[_]> = config.allowed_hosts.as_slice().into();
    ServiceBuilder::new()
        // Outermost, so that every request is counted, however it ends.
        .layer(Record::layer())
        .layer(takes::<Inbound>())
        // The layers inside fail with an Error; only here it becomes a response.
        .layer(Rescue::layer(metrics.clone()))
        // Before any work is done: shedding load must be cheap.
        .layer(Limit::layer(permits, memory, upstream.clone()))
        // The layers inside do not read Host or the URI's authority to find the destination.
        .layer(Normalize::layer(allowed_hosts.clone()))
        .layer(takes::<Addressed>())
        // The destination is final from here on: the name of a service is resolved.
        .layer(ResolveService::layer(provider.clone()))
        .layer(takes::<Located>())
        // Before anything is injected: `Connection: authorization` must not remove our token.
        .layer(HopByHop::layer())
        .layer(takes::<Stripped>())
        // The credential, by destination alone, and with it the upgrade to TLS.
        .layer(Decide::layer(provider.clone()))
        .layer(takes::<Decided>())
        // Rules apply to tunnels too; the layers inside need a request that can be read.
        .layer(Connect::layer(connect::TunnelOpener {
            upstream: upstream.clone(),
            tunnels: tunnels.clone(),
            provider: provider.clone(),
            metrics: metrics.clone(),
            hints: hints.clone(),
            interception,
            opened,
        }))
        // No token is fetched for a page of another site.
        .layer(RejectCrossSite::layer(allowed_hosts))
        // The token, in one header. A request that needs one and gets none fails here.
        .layer(Authorize::layer(provider.clone(), metrics.clone()))
        .layer(takes::<Authorized>())
        // Sees the upstream's own 401, and may repeat all layers below once.
        .layer(RetryUnauthorized::layer(
            metrics,
            provider.facts().clone(),
            provider.policy().credential_name().clone(),
            hints,
        ))
        .layer(takes::<Outbound>())
        // Each attempt has the whole time. The wait for a token has its own limit.
        .layer(ResponseTimeout::layer(config.response_timeout))
        // Joins both connections after 101.
        .layer(Upgrade::layer(tunnels))
        // Next to the upstream: the app must not learn another way to it.
        .layer(RewriteLocation::layer())
        .service(Forward::new(upstream, config.upstream.http))
}
