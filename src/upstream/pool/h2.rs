//! HTTP/2 connections. Each carries as many requests as the upstream permits; if all are full, another one is opened.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::IDLE_CHECK_AFTER;
use super::driver::{Tasks, drive};
use super::lease::{Lease, Release, ReleasedParts};
use super::ping::{Complaints, PONG, PingTimer, Pings, SILENT};
use super::target_pool::Pool;
use crate::error::ErrorKind;
use crate::memory::{Charge, Memory, UPSTREAM_CONNECTION};
use crate::upstream::cancellable_body::{CancellableBody, SendableBody};
use crate::upstream::failure::{Failure, UpstreamPeer, is_broken, is_going_away};
use crate::upstream::idle_since::IdleSince;
use crate::upstream::interim::InterimLimiter;
use crate::upstream::io::UpstreamIo;
use crate::upstream::receive_state::ReceiveState;

/// The largest receive windows of a stream and of a connection, in bytes. At a round-trip time of 50 ms they permit 40
/// MiB per second on each stream. 13 downloads that an app does not read cannot block the other streams, and those of two
/// workers take at most 56 MiB.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 28 * 1024 * 1024;

/// The smallest receive window of a connection. A small window makes downloads slow.
const SMALLEST_WINDOW: u32 = 1024 * 1024;

/// The number of streams that are remembered for a second after they were reset here. Frames that the upstream sends on
/// them in this time are not its fault.
const REMEMBERED: usize = 4096;

/// The maximum number of frames on streams that are no longer remembered, in a connection's life.
const LATE_FRAMES: usize = 64 * 1024;

/// The bytes of a request's body that may wait for the upstream's window.
const SEND_BUFFER: usize = 512 * 1024;

/// hyper's own limit, 16 KiB, is too small for large cookies and gRPC's error details.
const MAX_HEADER_LIST: u32 = 256 * 1024;

/// An open connection.
pub(in crate::upstream) struct Http2Connection<B> {
    sender: SendRequest<CancellableBody<B>>,
    /// The number of streams that the upstream permits, as last received.
    allowed: Arc<AtomicUsize>,
    /// Whether a GOAWAY was received.
    leaving: AtomicBool,
    pings: Arc<Pings>,
    pool: Weak<Pool<B>>,
    pub(in crate::upstream) peer: UpstreamPeer,
    pub(in crate::upstream) received: ReceiveState,
    charge: Charge,
}

/// The open connections of a target, and the number of streams on each.
pub(super) struct Http2Connections<B>(Vec<Carrier<B>>);

struct Carrier<B> {
    connection: Arc<Http2Connection<B>>,
    in_flight: usize,
    idle: IdleSince,
}

/// Returns the receive windows of a stream and of a connection for a budget of `limit` bytes. What a stream has received
/// counts against the budget only when the app reads it, so the windows are a part of it: a quarter for a connection.
fn windows(limit: usize) -> (u32, u32) {
    let quarter = u32::try_from(limit / 4).unwrap_or(u32::MAX);
    let connection = quarter.clamp(SMALLEST_WINDOW, CONNECTION_WINDOW);
    (STREAM_WINDOW.min(connection / 4), connection)
}

// === impl Http2Connection ===

impl<B: SendableBody> Http2Connection<B> {
    /// Exchanges prefaces. No request is sent to a peer before its SETTINGS show that it speaks HTTP/2 and how many
    /// streams it permits.
    pub(super) async fn open(
        io: UpstreamIo,
        peer: UpstreamPeer,
        pool: Weak<Pool<B>>,
        within: Duration,
        memory: &Memory,
        complaints: Complaints,
    ) -> Result<Arc<Self>, Failure> {
        let charge = memory.charge(UPSTREAM_CONNECTION);
        let (stream_window, connection_window) = windows(memory.limit());
        let pings = Pings::new(complaints.clone());
        let received = io.receive_state();
        let handshake = async {
            let tasks = Tasks::default();
            let (sender, mut connection) = http2::Builder::new(tasks.clone())
                .timer(PingTimer(Arc::clone(&pings)))
                .initial_stream_window_size(stream_window)
                .initial_connection_window_size(connection_window)
                .max_header_list_size(MAX_HEADER_LIST)
                .max_send_buf_size(SEND_BUFFER)
                .max_concurrent_reset_streams(REMEMBERED)
                .max_local_error_reset_streams(LATE_FRAMES)
                .keep_alive_interval(SILENT)
                .keep_alive_timeout(PONG)
                .keep_alive_while_idle(false)
                // Zero until the upstream's SETTINGS arrive, which shows that they have arrived.
                .initial_max_send_streams(0)
                .handshake(TokioIo::new(io.limiting(InterimLimiter::http2())))
                .await?;
            let mut wire = tasks.take();
            let open = poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
                Poll::Ready(ended) => Poll::Ready(ended.map(|()| false)),
                Poll::Pending => {
                    if wire
                        .as_mut()
                        .is_some_and(|wire| wire.as_mut().poll(cx).is_ready())
                    {
                        wire = None;
                    }
                    if connection.current_max_send_streams() == 0 {
                        Poll::Pending
                    } else {
                        Poll::Ready(Ok(true))
                    }
                }
            });
            Ok(open.await?.then_some((sender, connection, wire)))
        };
        let (sender, connection, wire) = match timeout(within, handshake).await {
            Err(_) => return Err(Failure::timed_out(&peer, "HTTP/2 preface", within)),
            Ok(Err(error)) => return Err(Failure::exchange(&peer, &error)),
            Ok(Ok(None)) => {
                return Err(Failure::new(
                    ErrorKind::ConnectionTerminated,
                    format!("{peer}: the connection was closed during the HTTP/2 handshake"),
                ));
            }
            Ok(Ok(Some(opened))) => opened,
        };
        let allowed = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
        tokio::spawn(drive(wire, connection, Arc::clone(&allowed), complaints));
        Ok(Arc::new(Self {
            sender,
            allowed,
            leaving: AtomicBool::new(false),
            pings,
            pool,
            peer,
            received,
            charge,
        }))
    }

    /// Sends a request. Returns it if no byte of it was sent.
    pub(in crate::upstream) fn send(
        &self,
        request: Request<CancellableBody<B>>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<CancellableBody<B>>>>>
    + use<B> {
        let waiting = self.pings.wait();
        let sent = self.sender.clone().try_send_request(request);
        async move {
            let response = sent.await;
            if response.is_ok() {
                waiting.answered();
            }
            response
        }
    }

    /// Handles the failure of a request. If the upstream is going away or the connection was closed, no further request
    /// uses the connection.
    pub(in crate::upstream) fn failed(&self, error: &hyper::Error) {
        if is_going_away(error) || is_broken(error) {
            self.leaving.store(true, Ordering::Relaxed);
        }
    }

    /// Returns whether it accepts requests, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed() && !self.leaving.load(Ordering::Relaxed)
    }
}

impl<B: SendableBody> Release for Http2Connection<B> {
    fn ended(self: Arc<Self>, _parts: ReleasedParts, _complete: bool) {
        if let Some(pool) = self.pool.upgrade() {
            pool.release(&self);
        }
    }

    fn memory(&self) -> &Memory {
        self.charge.memory()
    }

    fn receive_state(&self) -> Option<&ReceiveState> {
        None
    }
}

// === impl Http2Connections ===

impl<B: SendableBody> Http2Connections<B> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a connection with this number of streams in use.
    pub(super) fn add(&mut self, connection: Arc<Http2Connection<B>>, in_flight: usize) {
        self.0.push(Carrier {
            connection,
            in_flight,
            idle: IdleSince::now(),
        });
    }

    /// Takes a stream on the first connection that has a free one, with at most `most` streams on each. So the last
    /// connections become idle when there are fewer requests. The lease returns the stream by [`Streams::release`].
    pub(super) fn take(&mut self, most: usize, age: Duration) -> Option<Lease<B>> {
        self.expire(age);
        let carrier = self.0.iter_mut().find(|carrier| {
            let allowed = carrier.connection.allowed.load(Ordering::Relaxed);
            carrier.in_flight < allowed.min(most)
        })?;
        let needs_check = carrier.in_flight == 0 && carrier.idle.age() >= IDLE_CHECK_AFTER;
        carrier.in_flight += 1;
        Some(Lease::http2(Arc::clone(&carrier.connection), needs_check))
    }

    /// Releases a stream that has ended. Returns whether its connection is now idle.
    pub(super) fn release(&mut self, connection: &Arc<Http2Connection<B>>) -> bool {
        let carrier = self
            .0
            .iter_mut()
            .find(|carrier| Arc::ptr_eq(&carrier.connection, connection));
        let Some(carrier) = carrier else {
            return false;
        };
        carrier.in_flight = carrier.in_flight.saturating_sub(1);
        let idle = carrier.in_flight == 0;
        if idle {
            carrier.idle = IdleSince::now();
        }
        idle
    }

    /// Drops connections that are closed, or idle for too long.
    pub(super) fn expire(&mut self, age: Duration) {
        self.0.retain(|carrier| {
            let expired = carrier.in_flight == 0 && carrier.idle.age() >= age;
            !expired && carrier.connection.is_open()
        });
    }

    /// Closes connections without a stream.
    pub(super) fn close_idle(&mut self) {
        self.0.retain(|carrier| carrier.in_flight > 0);
    }

    /// Closes connections that have had no stream since this time or before.
    pub(super) fn close_until(&mut self, time: &IdleSince) {
        self.0
            .retain(|carrier| carrier.in_flight > 0 || !carrier.idle.is_until(time));
    }

    /// Returns the time at which each connection without a stream became idle.
    pub(super) fn idle(&self) -> impl Iterator<Item = IdleSince> {
        self.0
            .iter()
            .filter(|carrier| carrier.in_flight == 0)
            .map(|carrier| carrier.idle)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    /// With a fixed window of 28 MiB, the unread downloads of one connection exceeded a budget of 16.
    #[test]
    fn the_windows_of_a_connection_are_a_part_of_the_memory_budget() {
        for (budget, stream, connection) in [
            (usize::MAX, 2 * MIB, 28 * MIB),
            (256 * MIB, 2 * MIB, 28 * MIB),
            (64 * MIB, 2 * MIB, 16 * MIB),
            (16 * MIB, MIB, 4 * MIB),
            (MIB, MIB / 4, MIB),
        ] {
            let (of_stream, of_connection) = windows(budget);
            assert_eq!(
                (of_stream as usize, of_connection as usize),
                (stream, connection),
                "{budget}"
            );
        }
    }
}
