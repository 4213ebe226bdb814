//! Limits on connections, on their silence, and on their concurrent work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use crate::config::Config;

/// The number of descriptors that apps' connections leave to upstreams and the admin port.
const KEPT_DESCRIPTORS: usize = 64;

/// Limits and deadlines of every listener.
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// `--max-connections`.
    pub(crate) connections: usize,
    /// Connections that have not authenticated, if the proxy has a password.
    pub unauthenticated: usize,
    /// Connections to the admin port.
    pub(crate) admin_connections: usize,
    /// Concurrent streams of each admin connection.
    pub(crate) admin_streams: u32,
    /// The time from accept to the first complete head, and from the first byte of a later head to its end.
    pub head: Duration,
    /// The time from the first to the last byte of a response that the sidecar itself made.
    pub answer: Duration,
    /// An HTTP/2 connection without a stream is closed after this time (`--idle-timeout`).
    pub idle: IdleTimeout,
    /// The minimum age of a connection that may be closed to make room.
    pub(crate) grace: Duration,
    /// An app's connection with this descriptor number or a higher one is not kept.
    pub(crate) descriptors: usize,
}

/// The HTTP limits of one kind of listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct HttpLimits {
    /// Concurrent streams of a connection.
    pub(super) streams: u32,
    /// The number of streams that may be reset before they are served. One more ends the connection with
    /// ENHANCE_YOUR_CALM (CVE-2023-44487).
    pub(super) resets: usize,
    /// The maximum size of an HTTP/2 header list in bytes.
    pub(super) header_list: u32,
    /// The maximum number of fields of an HTTP/1.1 head.
    pub(super) headers: usize,
    /// The HTTP/1.1 buffer in bytes. `None` is hyper's default.
    pub(super) buffer: Option<usize>,
    /// The flow-control window of a stream in bytes.
    pub(super) stream_window: u32,
    /// The flow-control window of a connection in bytes.
    pub(super) connection_window: u32,
    /// The idle time after which a kept-alive HTTP/1.1 connection is closed. `None` leaves the end to the client.
    pub(super) idle_http1: Option<Duration>,
}

/// A timeout that a reload also changes for open connections, from their next request on.
#[derive(Clone, Debug)]
pub struct IdleTimeout(Arc<AtomicU64>);

// === impl ServerLimits ===

impl ServerLimits {
    /// Returns the configured limits, reduced to the descriptors of this process.
    pub fn of(config: &Config) -> Self {
        let limit = getrlimit(Resource::Nofile).current;
        let limit = limit.map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        });
        Self {
            connections: config.max_connections,
            unauthenticated: 64,
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
    /// Creates a timeout.
    pub(crate) fn new(timeout: Duration) -> Self {
        let new = Self(Arc::default());
        new.set(timeout);
        new
    }

    /// Returns the current value.
    pub(crate) fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    /// Changes the value for all clones.
    pub fn set(&self, timeout: Duration) {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.0.store(millis, Ordering::Relaxed);
    }
}

// === impl HttpLimits ===

impl HttpLimits {
    /// Returns the limits for apps. The client learns the limit on `streams`, so that further requests wait in the
    /// client.
    pub(super) fn app(streams: usize) -> Self {
        Self {
            streams: u32::try_from(streams).unwrap_or(u32::MAX),
            // An app may cancel a thousand calls at once, just after it began them.
            resets: 1024,
            // gRPC status details and cookies exceed hyper's 16 KiB.
            header_list: 256 * 1024,
            headers: 256,
            buffer: None,
            // 16 uploads whose upstream does not read must not block other streams. h2 derives from the connection
            // window how many small messages may wait unread.
            stream_window: 1024 * 1024,
            connection_window: 16 * 1024 * 1024,
            // Closing an idle connection would race with an app's pool that sends a request on it.
            idle_http1: None,
        }
    }

    /// Returns the limits for the admin port, which accepts no bodies.
    pub(super) fn admin(limits: &ServerLimits) -> Self {
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
