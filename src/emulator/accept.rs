//! The accept loop.

use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::diagnostics::LogEntry;
use crate::telemetry::LogThrottle;

/// Serves every connection until `shutdown` completes. Requests in progress are then aborted.
pub(super) async fn accept<F>(
    listener: &TcpListener,
    shutdown: impl Future<Output = ()>,
    serve: impl Fn(TcpStream) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let failures = LogThrottle::default();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream));
                }
                // Probably no descriptor is free. The pause lets connections close before the next attempt.
                Err(error) => {
                    if let Some(suppressed) = failures.due() {
                        tracing::warn!(%error, suppressed, help = LogEntry::AcceptFailed.page(), "cannot accept a connection");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}
