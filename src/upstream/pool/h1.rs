//! HTTP/1.1: a connection carries one request at a time; idle ones wait in a stack.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::NAP;
use super::lease::{Held, Rest};
use super::target::Pool;
use crate::memory::{Charge, Memory, UPSTREAM_CONNECTION};
use crate::upstream::clock::Moment;
use crate::upstream::failure::{Failure, Place};
use crate::upstream::interim::Interim;
use crate::upstream::io::{Heard, Io};
use crate::upstream::lock;
use crate::upstream::outgoing::{Outgoing, RequestBody};

/// Fields in a response's head. hyper's own limit, 100, is less than some upstreams send.
const MAX_HEADERS: usize = 256;

/// Bytes of a response's head, and of what is read or written ahead.
const MAX_BUFFER: usize = 512 * 1024;

/// An open connection.
pub(in crate::upstream) struct Connection<B> {
    sender: Mutex<SendRequest<Outgoing<B>>>,
    pool: Weak<Pool<B>>,
    /// How far the exchange on it is.
    pub(in crate::upstream) heard: Heard,
    pub(in crate::upstream) place: Place,
    charge: Charge,
}

/// Idle connections, the last one used on top: it is the likeliest to be open still, and those at the bottom grow old.
pub(super) struct Idle<B>(Vec<(Arc<Connection<B>>, Moment)>);

// === impl Connection ===

impl<B: RequestBody> Connection<B> {
    pub(super) async fn open(
        io: Io,
        place: Place,
        pool: Weak<Pool<B>>,
        memory: &Memory,
    ) -> Result<Arc<Self>, Failure> {
        let charge = memory.charge(UPSTREAM_CONNECTION);
        let heard = io.heard();
        let (sender, connection) = http1::Builder::new()
            .preserve_header_case(true)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_BUFFER)
            .handshake(TokioIo::new(io.limiting(Interim::http1())))
            .await
            .map_err(|error| Failure::exchange(&place, &error))?;
        tokio::spawn(async move {
            // Whoever waits for a response is told the error; an idle connection's is nobody's business.
            let _ = connection.with_upgrades().await;
        });
        Ok(Arc::new(Self {
            sender: Mutex::new(sender),
            pool,
            heard,
            place,
            charge,
        }))
    }

    /// Sends a request, which comes back where no byte of it was taken. Only the wait for the response is a future: one
    /// that held the request too would be moved about with it.
    pub(in crate::upstream) fn send(
        &self,
        mut request: Request<Outgoing<B>>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Outgoing<B>>>>> + use<B>
    {
        request.body_mut().mark_end(self.heard.begin());
        lock(&self.sender).try_send_request(request)
    }

    /// hyper is done with the last exchange and the upstream has not closed.
    pub(super) fn is_ready(&self) -> bool {
        lock(&self.sender).is_ready()
    }

    fn is_closed(&self) -> bool {
        lock(&self.sender).is_closed()
    }

    /// Waits until hyper is done with an exchange whose response has ended: the request's last bytes may still be on
    /// their way.
    async fn ready(&self, within: Duration) -> bool {
        let ready = poll_fn(|cx| lock(&self.sender).poll_ready(cx));
        matches!(timeout(within, ready).await, Ok(Ok(())))
    }
}

impl<B: RequestBody> Held for Connection<B> {
    fn ended(self: Arc<Self>, rest: Rest, complete: bool) {
        // Where it is not given back, the sender ends with `self`, and that closes the connection.
        let Some(pool) = self.pool.upgrade().filter(|_| complete) else {
            return;
        };
        // An upstream that answered early may take the rest of the request for another one: nobody else's follows it.
        let reusable = self.heard.in_order();
        if reusable && self.is_ready() {
            pool.give_back(self);
        } else if !self.is_closed()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                // Either way the upstream may still want the rest of the request.
                if self.ready(pool.patience).await && reusable {
                    pool.give_back(self);
                }
                drop(rest);
            });
        }
    }

    fn memory(&self) -> &Memory {
        self.charge.memory()
    }
}

// === impl Idle ===

impl<B: RequestBody> Idle<B> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Keeps a connection, unless `most` are kept already.
    pub(super) fn push(&mut self, connection: Arc<Connection<B>>, most: usize) {
        if self.0.len() < most {
            self.0.push((connection, Moment::now()));
        }
    }

    /// The last one used that is open and not older than `most`, and whether it has napped.
    pub(super) fn pop(&mut self, most: Duration) -> Option<(Arc<Connection<B>>, bool)> {
        while let Some((connection, since)) = self.0.pop() {
            let age = since.age();
            if age >= most {
                // All below are older.
                self.0.clear();
            } else if connection.is_ready() {
                return Some((connection, age >= NAP));
            }
        }
        None
    }

    /// Closes those that are too old.
    pub(super) fn expire(&mut self, age: Duration) {
        self.0
            .retain(|(connection, since)| since.age() < age && !connection.is_closed());
    }

    /// Closes those that became idle at this moment or before.
    pub(super) fn close_until(&mut self, moment: &Moment) {
        self.0.retain(|(_, since)| !since.is_until(moment));
    }

    /// When each became idle.
    pub(super) fn moments(&self) -> impl Iterator<Item = Moment> {
        self.0.iter().map(|(_, since)| *since)
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
