//! The way of a request, in one expression.

use std::sync::Arc;

use tower::ServiceBuilder;

use crate::config::Config;
use crate::memory::Memory;
use crate::proxy::credentials::Decider;
use crate::proxy::layers::authorize::{Authorize, AuthorizeLayer};
use crate::proxy::layers::connect::{Connect, ConnectLayer};
use crate::proxy::layers::decide::{Decide, DecideLayer};
use crate::proxy::layers::forward::Forward;
use crate::proxy::layers::guard::{Guard, GuardLayer};
use crate::proxy::layers::hop_by_hop::{HopByHop, HopByHopLayer};
use crate::proxy::layers::limit::{Limit, LimitLayer, Permits};
use crate::proxy::layers::normalize::{Normalize, NormalizeLayer};
use crate::proxy::layers::record::{Record, RecordLayer};
use crate::proxy::layers::rescue::{Rescue, RescueLayer};
use crate::proxy::layers::resolve_service::{ResolveService, ResolveServiceLayer};
use crate::proxy::layers::response_timeout::{ResponseTimeout, ResponseTimeoutLayer};
use crate::proxy::layers::retry_unauthorized::{RetryUnauthorized, RetryUnauthorizedLayer};
use crate::proxy::layers::rewrite_location::{RewriteLocation, RewriteLocationLayer};
use crate::proxy::layers::upgrade::{Upgrade, UpgradeLayer};
use crate::proxy::request::body::RequestBody;
use crate::proxy::tunnel::Tunnels;
use crate::proxy::tunnel::intercept::{Interception, OpenedTunnelSender};
use crate::telemetry::{Metrics, Seldom};
use crate::upstream::Upstream;

/// What the layers are made of.
#[derive(Clone, Debug)]
pub struct StackDeps {
    /// Policy and tokens.
    pub decider: Arc<Decider>,
    /// The pool.
    pub upstream: Upstream<RequestBody>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Who opens TLS of `CONNECT`, if it is to be opened.
    pub interception: Option<Interception>,
    /// Where the inside of tunnels is served.
    pub opened: OpenedTunnelSender,
    /// What is not begun anew.
    pub shared: SharedState,
}

/// What all stacks of a process have in shared: after a reload the places taken are still taken, and what was said a
/// moment ago is not said again.
#[derive(Clone, Debug)]
pub struct SharedState {
    /// The budget of `--max-memory`.
    pub memory: Memory,
    permits: Permits,
    hints: Arc<Seldom>,
    tunnels: Tunnels,
}

// === impl SharedState ===

impl SharedState {
    /// At most so many requests at a time, and none over the budget.
    pub fn new(limit: usize, memory: Memory) -> Self {
        Self {
            memory,
            permits: Permits::new(limit),
            hints: Arc::new(Seldom::new()),
            tunnels: Tunnels::default(),
        }
    }
}

type Calls = ResolveService<
    HopByHop<
        Decide<Connect<Guard<Authorize<RetryUnauthorized<Upgrade<RewriteLocation<Forward>>>>>>>,
    >,
>;

/// The whole stack, from an [`Inbound`](super::Inbound) request to a recorded response.
pub type Stack = Record<Rescue<Limit<ResponseTimeout<Normalize<Calls>>>>>;

/// Composes the stack. The first layer sees a request first and its response last.
pub fn stack(config: &Config, parts: StackDeps) -> Stack {
    let StackDeps {
        decider,
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
    } = parts;
    let allowed_hosts: Arc<[_]> = config.allowed_hosts.as_slice().into();
    ServiceBuilder::new()
        // Outermost, so that every request is counted, whatever becomes of it.
        .layer(RecordLayer)
        // Everything inside fails with an Error; only here it becomes a response.
        .layer(RescueLayer {
            metrics: metrics.clone(),
        })
        // Before any work is done: shedding load must be cheap.
        .layer(LimitLayer {
            permits,
            memory,
            upstream: upstream.clone(),
        })
        // Around everything that waits: for tokens, connections, the upstream.
        .layer(ResponseTimeoutLayer {
            response: config.response_timeout,
        })
        // From here on nothing looks at Host again.
        .layer(NormalizeLayer {
            allowed_hosts: allowed_hosts.clone(),
        })
        // From here on the destination is sure: a service's name stands for one.
        .layer(ResolveServiceLayer {
            decider: decider.clone(),
        })
        // Before anything is injected: `Connection: authorization` must not take out our token.
        .layer(HopByHopLayer)
        // The credential, by destination alone.
        .layer(DecideLayer {
            decider: decider.clone(),
        })
        // Rules apply to tunnels too; what follows needs a request that can be read.
        .layer(ConnectLayer {
            upstream: upstream.clone(),
            tunnels: tunnels.clone(),
            decider: decider.clone(),
            metrics: metrics.clone(),
            hints: hints.clone(),
            interception,
            opened,
        })
        // No token is fetched for a page of another site, none leaves in cleartext.
        .layer(GuardLayer { allowed_hosts })
        // The token, in one header. No token, no call.
        .layer(AuthorizeLayer {
            decider: decider.clone(),
            metrics: metrics.clone(),
        })
        // Sees the upstream's own 401, and may send once more all that is below.
        .layer(RetryUnauthorizedLayer {
            metrics,
            instance: decider.instance().clone(),
            hints,
        })
        // Joins both connections after 101.
        .layer(UpgradeLayer { tunnels })
        // Next to the upstream: the app must not learn another way to it.
        .layer(RewriteLocationLayer)
        .service(Forward {
            upstream,
            http: config.upstream.http,
        })
}
