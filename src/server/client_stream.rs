//! Checks and settings of a client's socket.

use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;

/// A client's connection.
pub(super) trait ClientStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Returns whether the client has closed or reset the connection, also if bytes before that were not read. False if
    /// the stream does not say.
    fn is_closed_by_client(&self) -> bool {
        false
    }

    /// Makes the connection end with a reset instead of a close, if it can. The client then knows that bytes are
    /// missing.
    fn reset_at_end(&self) {}

    /// Registers the stream with the current runtime, if it is a socket.
    fn into_current_runtime(self) -> io::Result<Self>
    where
        Self: Sized,
    {
        Ok(self)
    }
}

// === impl ClientStream ===

impl ClientStream for TcpStream {
    fn is_closed_by_client(&self) -> bool {
        is_closed(self.ready(Interest::READABLE))
    }

    fn reset_at_end(&self) {
        // Fails only on a closed socket.
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }

    fn into_current_runtime(self) -> io::Result<Self> {
        Self::from_std(self.into_std()?)
    }
}

impl ClientStream for UnixStream {
    fn is_closed_by_client(&self) -> bool {
        is_closed(self.ready(Interest::READABLE))
    }

    fn into_current_runtime(self) -> io::Result<Self> {
        Self::from_std(self.into_std()?)
    }
}

/// Returns whether a socket is closed for reading. `readable` completes at once while there are unread bytes.
fn is_closed(readable: impl Future<Output = io::Result<Ready>>) -> bool {
    matches!(
        pin!(readable).poll(&mut Context::from_waker(Waker::noop())),
        Poll::Ready(Ok(ready)) if ready.is_read_closed()
    )
}

/// A tunnel inside another connection.
impl<L, R> ClientStream for Either<L, R>
where
    L: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    R: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
}

#[cfg(test)]
impl ClientStream for tokio::io::DuplexStream {}
