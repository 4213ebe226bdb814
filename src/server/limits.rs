//! How many connections are served, for how long one may be silent, and how much may be under way on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use crate::config::Config;

/// Descriptors that apps' connections leave to upstreams and the admin port.
const KEPT_DESCRIPTORS: usize = 64;

/// Limits and deadlines of every listener.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `--max-connections`.
    pub connections: usize,
    /// Connections that have not authenticated, where the proxy has a password.
    pub strangers: usize,
    /// Connections to the admin port.
    pub admin_connections: usize,
    /// Streams of each of those.
    pub admin_streams: u32,
    /// From the accepted connection to the first complete head, and from the first byte of a later one to its end.
    pub head: Duration,
    /// From the first byte of an answer of our own to its last.
    pub answer: Duration,
    /// An HTTP/2 connection without a stream is closed after this time (`--idle-timeout`).
    pub idle: IdleTimeout,
    /// A connection that was open for less is not closed to make room.
    pub grace: Duration,
    /// A connection of an app whose descriptor has this number, or a higher one, is not kept.
    pub descriptors: usize,
}

/// What the HTTP of one kind of listener allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct HttpLimits {
    /// Concurrent streams of a connection.
    pub(super) streams: u32,
    /// Streams of a connection that were reset before we looked at them. One more ends the connection with
    /// ENHANCE_YOUR_CALM (CVE-2023-44487).
    pub(super) resets: usize,
    /// Bytes of an HTTP/2 header list.
    pub(super) header_list: u32,
    /// Fields of an HTTP/1.1 head.
    pub(super) headers: usize,
    /// Bytes that HTTP/1.1 buffers; `None` for hyper's default.
    pub(super) buffer: Option<usize>,
    /// Bytes of uploads that may be under way on one stream.
    pub(super) stream_window: u32,
    /// The same on all of a connection.
    pub(super) connection_window: u32,
    /// A kept-alive HTTP/1.1 connection is closed after this time; `None` leaves that to its client.
    pub(super) idle_http1: Option<Duration>,
}

/// A timeout that a reload changes for open connections too, from their next request on.
#[derive(Clone, Debug)]
pub struct IdleTimeout(Arc<AtomicU64>);

// === impl Limits ===

impl Limits {
    /// As configured, for the descriptors that this process may have.
    pub fn of(config: &Config) -> Self {
        let limit = getrlimit(Resource::Nofile).current;
        let limit = limit.map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        });
        Self {
            connections: config.max_connections,
            strangers: 64,
            // A flood of the admin port must leave descriptors to apps.
            admin_connections: (limit / 8).clamp(4, 64),
            admin_streams: 8,
            head: Duration::from_secs(30),
            answer: Duration::from_secs(10),
            idle: IdleTimeout::new(config.upstream.idle_timeout),
            grace: Duration::from_millis(10),
            descriptors: limit - KEPT_DESCRIPTORS.min(limit / 2),
        }
    }
}

// === impl IdleTimeout ===

impl IdleTimeout {
    /// One of this length.
    pub fn new(timeout: Duration) -> Self {
        let new = Self(Arc::default());
        new.set(timeout);
        new
    }

    /// What it is now.
    pub fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    /// Changes it for all its clones.
    pub fn set(&self, timeout: Duration) {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.0.store(millis, Ordering::Relaxed);
    }
}

// === impl HttpLimits ===

impl HttpLimits {
    /// For apps. `streams` over the limit are told so, instead of waiting at the app.
    pub(super) fn app(streams: usize) -> Self {
        Self {
            streams: u32::try_from(streams).unwrap_or(u32::MAX),
            // An app may give up a thousand calls in the same moment that it began them.
            resets: 1024,
            // gRPC status details and cookies go beyond hyper's 16 KiB.
            header_list: 256 * 1024,
            headers: 256,
            buffer: None,
            // 16 uploads whose upstream does not read hold up none of the others. h2 derives from the second how many
            // small messages may wait unread.
            stream_window: 1024 * 1024,
            connection_window: 16 * 1024 * 1024,
            // An app's pool may be writing to a connection just as it is closed.
            idle_http1: None,
        }
    }

    /// For the admin port, which takes no bodies.
    pub(super) fn admin(limits: &Limits) -> Self {
        Self {
            streams: limits.admin_streams,
            resets: 20,
            header_list: 16 * 1024,
            headers: 100,
            buffer: Some(16 * 1024),
            stream_window: 64 * 1024,
            connection_window: 64 * 1024,
            idle_http1: Some(limits.head),
        }
    }
}
