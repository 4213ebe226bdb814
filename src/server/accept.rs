//! Accepts connections and serves each in a task.

use std::future::Future;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::app_handler::AppHandler;
use super::capacity::Capacity;
use super::client_stream::ClientStream;
use super::connection_limits::{HttpLimits, ServerLimits};
use super::connection_service::{ConnectionAddrs, SharedListenerState};
use super::evictable::{EvictableSet, Eviction};
use super::io::ClientProtocol;
use super::listener::{Listener, Socket};
use super::serve::{ConnectionLimits, HttpService, serve};
use crate::diagnostics::LogEntry;
use crate::error::Error;
use crate::memory::Memory;
use crate::proxy::{ClientConnection, ConnectionState, Connections, InFlight, OpenedTunnel};
use crate::telemetry::LogThrottle;
use crate::workers::{AssignedWorker, Workers};

/// The number of connections over the limit that still get a response.
pub(super) const GRACE: usize = 64;

/// The number of connections whose process is looked up at a time. Others wait in the accept queue.
const UNIDENTIFIED: usize = 64;

/// The pause after a failed accept. It leaves the CPU to tasks that close connections.
const PAUSE: Duration = Duration::from_millis(10);

/// Serves the connections of one listener.
pub(crate) trait ConnectionHandler: Clone + Send + Sync + 'static {
    /// Serves the requests of a connection.
    type Service: HttpService;

    /// Returns the class of a connection that is accepted now.
    fn class(&self) -> ConnectionClass;

    /// Looks up the process of a connection of [`ConnectionClass::Unidentified`]. Returns its handler and class.
    fn identify(self, _: ConnectionAddrs) -> impl Future<Output = (Self, ConnectionClass)> + Send {
        std::future::ready((self, ConnectionClass::Unauthenticated))
    }

    /// Serves one connection.
    fn service(
        &self,
        connection: ClientConnection,
        addrs: Option<ConnectionAddrs>,
    ) -> impl Future<Output = Self::Service> + Send;

    /// Counts and logs a request that could not be parsed.
    fn malformed(&self, addrs: Option<ConnectionAddrs>, protocol: Version, error: &Error);
}

/// The classes of connections. Each class has its own limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionClass {
    /// A connection to the admin port.
    Admin,
    /// A connection of an app, until its first request.
    App,
    /// A connection of a caller that has not authenticated yet.
    Unauthenticated,
    /// A connection whose process is looked up before it gets a class, so that it cannot evict an app's connection.
    Unidentified,
}

/// Serves connections on all listeners of the process.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(super) in_flight: Arc<InFlight>,
    pub(super) limits: Arc<ServerLimits>,
    pub(super) connections: Arc<Connections>,
    admin_connections: Arc<Connections>,
    pub(super) waiting: Arc<EvictableSet>,
    pub(super) unauthenticated: Arc<EvictableSet>,
    /// After their first request, or with the password.
    pub(super) served: Arc<EvictableSet>,
    pub(super) admin: Arc<EvictableSet>,
    unidentified: Arc<Semaphore>,
    workers: Workers,
    failures: Arc<LogThrottle>,
    /// The tasks of accept loops and of apps' connections.
    tasks: TaskTracker,
    closing: CancellationToken,
}

/// What is known of a new connection, or of an opened tunnel, besides its stream.
struct NewConnection {
    /// `None`: the first bytes tell it.
    protocol: Option<ClientProtocol>,
    /// Those of a TCP connection.
    addrs: Option<ConnectionAddrs>,
    class: ConnectionClass,
    room: Capacity,
    /// The connection that a tunnel is inside.
    outside: Option<Arc<ConnectionState>>,
}

enum Accepted {
    Tcp(TcpStream, ConnectionAddrs),
    Unix(UnixStream),
}

// === impl Server ===

impl Server {
    /// Creates the server of the process. Its connections count against `memory`.
    pub(crate) fn new(in_flight: Arc<InFlight>, limits: ServerLimits, memory: Memory) -> Self {
        let answers = usize::try_from(limits.admin_streams).unwrap_or(usize::MAX);
        // Twice the limit, because responses on evicted connections end a moment later.
        let answers = limits
            .admin_connections
            .saturating_mul(answers)
            .saturating_mul(2);
        Self {
            in_flight,
            connections: Connections::new(limits.connections, memory.clone()),
            admin_connections: Connections::new(answers, memory),
            waiting: EvictableSet::new(limits.grace),
            unauthenticated: EvictableSet::new(limits.grace),
            served: EvictableSet::new(limits.grace),
            admin: EvictableSet::new(limits.grace),
            unidentified: Arc::new(Semaphore::new(UNIDENTIFIED)),
            workers: Workers::current(),
            failures: Arc::default(),
            limits: Arc::new(limits),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        }
    }

    /// Accepts in a task until [`close`](Self::close) is called.
    pub(crate) fn listen(&self, listener: Listener, serving: SharedListenerState) {
        let handler = AppHandler::new(self, serving);
        self.tasks.spawn(self.clone().accept(listener, handler));
    }

    /// Accepts in a task until the process ends, because probes and scrapes come during a drain too.
    pub(crate) fn listen_admin<H: ConnectionHandler>(&self, listener: Listener, handler: H) {
        let apart = Self {
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            ..self.clone()
        };
        tokio::spawn(apart.accept(listener, handler));
    }

    /// Serves intercepted tunnels with the state of a listener, until [`close`](Self::close) is called.
    pub(crate) fn serve_opened(
        &self,
        mut opened: mpsc::Receiver<OpenedTunnel>,
        serving: SharedListenerState,
    ) {
        let server = self.clone();
        self.tasks.spawn(async move {
            loop {
                let opened = tokio::select! {
                    opened = opened.recv() => opened,
                    () = server.closing.cancelled() => return,
                };
                let Some(OpenedTunnel {
                    stream,
                    ingress,
                    outside,
                    runtime,
                }) = opened
                else {
                    return;
                };
                let handler = AppHandler::new(&server, serving.clone()).inside(ingress);
                let new = NewConnection {
                    protocol: match &stream {
                        Either::Left(tls) => {
                            ClientProtocol::agreed(tls.get_ref().1.alpn_protocol())
                        }
                        Either::Right(_) => None,
                    },
                    addrs: None,
                    class: ConnectionClass::App,
                    room: server.evict_for(ConnectionClass::App, 0).await,
                    outside: Some(outside),
                };
                // The content of a tunnel is served where its connection is.
                let _runtime = runtime.enter();
                server.spawn(stream, new, &handler, None);
            }
        });
    }

    /// Stops accepting, tells every connection to finish, and waits until all have.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn accept<H: ConnectionHandler>(self, listener: Listener, handler: H) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.socket.accept() => accepted,
                () = self.closing.cancelled() => return,
            };
            let class = handler.class();
            match accepted {
                Ok(accepted) => {
                    let room = self.evict_for(class, accepted.descriptor()).await;
                    match accepted {
                        Accepted::Tcp(stream, addrs) if class == ConnectionClass::Unidentified => {
                            self.identify(stream, addrs, &handler).await;
                        }
                        Accepted::Tcp(stream, addrs) => {
                            self.assign(
                                stream,
                                NewConnection::socket(Some(addrs), class, room),
                                &handler,
                            );
                        }
                        Accepted::Unix(stream) => {
                            self.assign(stream, NewConnection::socket(None, class, room), &handler);
                        }
                    }
                }
                Err(error) => {
                    self.log_failure(&error);
                    if self.evict(class) == Eviction::Empty {
                        self.served.evict_idle();
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Looks up the process of a connection in a task, then serves the connection.
    async fn identify<H: ConnectionHandler>(
        &self,
        stream: TcpStream,
        addrs: ConnectionAddrs,
        handler: &H,
    ) {
        let Ok(permit) = self.unidentified.clone().acquire_owned().await else {
            return;
        };
        let (server, handler) = (self.clone(), handler.clone());
        self.tasks.spawn(async move {
            let (handler, class) = handler.identify(addrs).await;
            drop(permit);
            let room = match class {
                ConnectionClass::App => server.evict_for(class, 0).await,
                // Does not wait for room, because the number of waiting tasks would be unbounded.
                _ if !server.is_full(class) || server.evict(class) == Eviction::Closed => {
                    Capacity::Available
                }
                _ => return,
            };
            server.assign(
                stream,
                NewConnection::socket(Some(addrs), class, room),
                &handler,
            );
        });
    }

    /// Serves a connection on the worker with the fewest.
    fn assign<S, H>(&self, stream: S, new: NewConnection, handler: &H)
    where
        S: ClientStream,
        H: ConnectionHandler,
    {
        let worker = self.workers.least_loaded();
        if worker.is_current() {
            self.spawn(stream, new, handler, Some(worker));
            return;
        }
        let _runtime = worker.enter_runtime();
        match stream.into_current_runtime() {
            Ok(stream) => self.spawn(stream, new, handler, Some(worker)),
            Err(error) => self.log_failure(&error),
        }
    }

    fn log_failure(&self, error: &io::Error) {
        if let Some(before) = self.failures.due() {
            tracing::warn!(%error, suppressed = before, help = LogEntry::AcceptFailed.page(), "cannot accept a connection");
        }
    }

    /// Serves a connection in a task of the current runtime. It counts as a connection of `worker`.
    fn spawn<S, H>(
        &self,
        stream: S,
        new: NewConnection,
        handler: &H,
        worker: Option<AssignedWorker>,
    ) where
        S: ClientStream,
        H: ConnectionHandler,
    {
        let NewConnection {
            protocol,
            addrs,
            class,
            room,
            outside,
        } = new;
        let (connections, evictable, http) = match class {
            ConnectionClass::Admin => (
                &self.admin_connections,
                &self.admin,
                HttpLimits::admin(&self.limits),
            ),
            ConnectionClass::App
            | ConnectionClass::Unauthenticated
            | ConnectionClass::Unidentified => (
                &self.connections,
                if class == ConnectionClass::App {
                    &self.waiting
                } else {
                    &self.unauthenticated
                },
                HttpLimits::app(self.limits.connections.saturating_add(GRACE)),
            ),
        };
        let state = match outside {
            Some(outside) => ConnectionState::inside(outside, connections.clone()),
            None => ConnectionState::new(connections.clone()),
        };
        if room == Capacity::Exhausted {
            state.refuse();
        }
        let limits = ConnectionLimits {
            entry: evictable.take(&state),
            served: (class != ConnectionClass::Admin).then(|| self.served.clone()),
            server: self.limits.clone(),
            http,
            closing: self.closing.clone(),
            state: state.clone(),
        };
        let connection = ClientConnection {
            local: addrs.map(|addrs| addrs.local),
            state,
        };
        let handler = handler.clone();
        self.tasks.spawn(async move {
            let _counted = worker;
            let service = handler.service(connection, addrs);
            serve(stream, protocol, service, limits, |protocol, error| {
                handler.malformed(addrs, protocol, error);
            })
            .await;
        });
    }
}

// === impl NewConnection ===

impl NewConnection {
    const fn socket(
        addrs: Option<ConnectionAddrs>,
        class: ConnectionClass,
        room: Capacity,
    ) -> Self {
        Self {
            protocol: None,
            addrs,
            class,
            room,
            outside: None,
        }
    }
}

// === impl Accepted ===

impl Accepted {
    /// Returns the lowest free descriptor. It approximates the number of descriptors in use.
    fn descriptor(&self) -> usize {
        let descriptor = match self {
            Self::Tcp(stream, _) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        };
        usize::try_from(descriptor).unwrap_or(0)
    }
}

impl Socket {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Both calls fail only on a closed connection. Serving it reports the error.
                let _ = stream.set_nodelay(true);
                let local = stream.local_addr().or_else(|_| listener.local_addr())?;
                Ok(Accepted::Tcp(stream, ConnectionAddrs { peer, local }))
            }
            Self::Unix(listener, _) => Ok(Accepted::Unix(listener.accept().await?.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Without TCP_NODELAY the second of two small writes waits for an acknowledgement: 40 ms for each response.
    #[tokio::test]
    async fn an_accepted_connection_has_nagle_disabled() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _app = TcpStream::connect(address).await.unwrap();
        let Accepted::Tcp(stream, addrs) = Socket::Tcp(listener).accept().await.unwrap() else {
            panic!("no TCP");
        };
        assert!(stream.nodelay().unwrap());
        assert_eq!(addrs.local, address);
    }
}
