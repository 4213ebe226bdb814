//! Layer 3, **Limit**: at most `--max-connections` connections, and as many requests; over it 503 at once, so that a
//! flood is answered while there are descriptors left to answer it with. The same over `--max-memory`, once no idle
//! connection to an upstream is left to close.
//!
//! A caller without the proxy's password is refused before that: it must not take what authorised callers need.

mod authenticate;

use std::sync::Arc;

use http::Response;
use hyper::service::Service;
use tokio::sync::Semaphore;
use tower::Layer;

use self::authenticate::authenticate;
use crate::error::{Error, ErrorKind};
use crate::memory::Memory;
use crate::proxy::request::Inbound;
use crate::proxy::request::body::{Body, RequestBody};
use crate::proxy::service::{MaybeBoxed, ProxyService};
use crate::upstream::Upstream;

/// Makes [`Limit`].
#[derive(Clone, Debug)]
pub(crate) struct LimitLayer {
    pub(crate) permits: Permits,
    pub(crate) memory: Memory,
    pub(crate) upstream: Upstream<RequestBody>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Limit<S> {
    inner: S,
    permits: Permits,
    memory: Memory,
    upstream: Upstream<RequestBody>,
}

/// The permits of `--max-connections`; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Permits {
    free: Arc<Semaphore>,
    limit: usize,
}

impl Permits {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS))),
            limit,
        }
    }
}

impl<S> Layer<S> for LimitLayer {
    type Service = Limit<S>;

    fn layer(&self, inner: S) -> Limit<S> {
        Limit {
            inner,
            permits: self.permits.clone(),
            memory: self.memory.clone(),
            upstream: self.upstream.clone(),
        }
    }
}

impl<S> Limit<S> {
    /// Over the budget even without idle connections.
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
    type Response = Response<Body>;
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
                // The record gives it back.
                permit.forget();
                inbound.record.keep_permit(&self.permits.free);
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
