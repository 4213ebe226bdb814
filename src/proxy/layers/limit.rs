//! Layer 3, **Limit**: permits as many connections and requests in flight as `--max-connections`. Further requests get
//! 503 at once, so that a flood leaves descriptors for the responses. The same applies above `--max-memory`, if closing
//! idle upstream connections does not free enough.
//!
//! A caller without the proxy's password is rejected first: it must not use the capacity of authorized callers.

mod authenticate;

use std::sync::Arc;

use http::Response;
use hyper::service::Service;
use tokio::sync::Semaphore;
use tower::Layer;
use tower::layer::layer_fn;

use self::authenticate::authenticate;
use crate::error::{Error, ErrorKind};
use crate::memory::Memory;
use crate::proxy::request::Inbound;
use crate::proxy::request::body::{RequestBody, ResponseBody};
use crate::proxy::service::{MaybeBoxed, ProxyService};
use crate::upstream::Upstream;

/// The layer that limits requests in flight and memory.
#[derive(Clone, Debug)]
pub(crate) struct Limit<S> {
    inner: S,
    permits: Permits,
    memory: Memory,
    upstream: Upstream<RequestBody>,
}

/// The permits of `--max-connections`. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Permits {
    free: Arc<Semaphore>,
    limit: usize,
}

// === impl Permits ===

impl Permits {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS))),
            limit,
        }
    }
}

// === impl Limit ===

impl<S> Limit<S> {
    pub(crate) fn layer(
        permits: Permits,
        memory: Memory,
        upstream: Upstream<RequestBody>,
    ) -> impl Layer<S, Service = Self> + Clone {
        layer_fn(move |inner| Self {
            inner,
            permits: permits.clone(),
            memory: memory.clone(),
            upstream: upstream.clone(),
        })
    }

    /// Closes idle upstream connections. Returns whether the budget is still exceeded.
    #[cold]
    fn is_exhausted(&self) -> bool {
        self.upstream.close_idle();
        self.memory.is_over()
    }

    #[cold]
    fn exhausted(&self) -> Error {
        Error::new(
            ErrorKind::LimitReached,
            format!(
                "over the memory budget: {} of {} bytes are in use (--max-memory)",
                self.memory.used(),
                self.memory.limit()
            ),
        )
    }
}

impl<S: ProxyService<Inbound>> Service<Inbound> for Limit<S> {
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = MaybeBoxed<S::Future>;

    fn call(&self, inbound: Inbound) -> Self::Future {
        let kind = &inbound.record.ingress().kind;
        if let Err(error) = authenticate(kind, inbound.request.headers()) {
            return MaybeBoxed::rejected(error);
        }
        if self.memory.is_over() && self.is_exhausted() {
            return MaybeBoxed::rejected(self.exhausted());
        }
        if let Some(full) = inbound.record.head_refused() {
            return MaybeBoxed::rejected(Error::new(ErrorKind::LimitReached, full.to_string()));
        }
        match self.permits.free.try_acquire() {
            Ok(permit) if inbound.connection.state.admit() => {
                // The record releases it.
                permit.forget();
                inbound.record.hold_permit(&self.permits.free);
                MaybeBoxed::inner(self.inner.call(inbound))
            }
            _ => MaybeBoxed::rejected(Error::new(
                ErrorKind::LimitReached,
                format!(
                    "over the limit of {} (--max-connections)",
                    self.permits.limit
                ),
            )),
        }
    }
}
