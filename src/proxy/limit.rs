//! Layer 3, **Limit**: at most `--max-connections` connections, and as many requests; over it 503 at once, so that a
//! flood is answered while there are descriptors left to answer it with.

use std::sync::Arc;

use http::Response;
use hyper::service::Service;
use tokio::sync::Semaphore;
use tower::Layer;

use super::body::Body;
use super::call::Inbound;
use super::step::{Carry, Step};
use crate::error::{Error, ErrorKind};

/// Makes [`Limit`].
#[derive(Clone, Debug)]
pub(super) struct LimitLayer {
    permits: Arc<Semaphore>,
    limit: usize,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Limit<S> {
    inner: S,
    permits: Arc<Semaphore>,
    limit: usize,
}

impl LimitLayer {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS))),
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
            limit: self.limit,
        }
    }
}

impl<S: Carry<Inbound>> Service<Inbound> for Limit<S> {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Step<S::Future>;

    fn call(&self, inbound: Inbound) -> Self::Future {
        match self.permits.clone().try_acquire_owned() {
            Ok(permit) if !inbound.connection.over_limit => {
                inbound.exchange.keep(permit);
                Step::now(self.inner.call(inbound))
            }
            _ => Step::refused(Error::new(
                ErrorKind::LimitReached,
                format!("over the limit of {} (--max-connections)", self.limit),
            )),
        }
    }
}
