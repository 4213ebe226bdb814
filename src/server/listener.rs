//! Listening sockets, TCP and unix.

use std::fs::Permissions;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockAddr, Socket as RawSocket, Type};
use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::config::{Listen, Route};

/// Connections that the kernel keeps waiting while we are busy.
const BACKLOG: i32 = 4096;

/// Ports that are free on 127.0.0.1 and looked at on ::1.
const FREE_PORT_TRIES: usize = 16;

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    /// What accepts.
    pub socket: Socket,
    /// Where it is bound: a free port has become a real one.
    pub listen: Listen,
}

/// The two kinds of socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket; its file goes with it.
    Unix(UnixListener, SocketFile),
}

/// Removes the socket's file when the listener is gone.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

/// A listener that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {listen}: {reason}")]
pub struct ListenerError {
    listen: String,
    reason: String,
}

impl Listener {
    /// Binds and listens; from now on callers wait instead of being refused.
    ///
    /// # Errors
    ///
    /// The address is taken, not ours, or not allowed to this user.
    pub async fn bind(listen: &Listen) -> Result<Self, ListenerError> {
        Self::bind_with(listen, None).await
    }

    /// Binds a port on 127.0.0.1 and, where the machine has it, on ::1. Port 0 takes one that is free on both.
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind), on either.
    pub async fn bind_loopback(port: u16) -> Result<(Self, Option<Self>), ListenerError> {
        let mut tries = if port == 0 { FREE_PORT_TRIES } else { 1 };
        loop {
            let first = Self::bind(&Listen::Tcp((Ipv4Addr::LOCALHOST, port).into())).await?;
            let port = first.tcp().map_or(port, |address| address.port());
            let address = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
            tries -= 1;
            match bind_tcp(address) {
                Ok(socket) => {
                    let second = Self {
                        socket: Socket::Tcp(socket),
                        listen: Listen::Tcp(address),
                    };
                    return Ok((first, Some(second)));
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
                Err(error) if is_missing(&error) => return Ok((first, None)),
                Err(error) => return Err(ListenerError::new(&Listen::Tcp(address), &error)),
            }
        }
    }

    /// The same as [`bind`](Self::bind); a unix socket gets these permissions.
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind).
    pub async fn bind_with(listen: &Listen, mode: Option<u32>) -> Result<Self, ListenerError> {
        let failed = |error: io::Error| ListenerError::new(listen, &error);
        match listen {
            Listen::Tcp(address) => {
                let socket = bind_tcp(*address).map_err(failed)?;
                let bound = socket.local_addr().map_err(failed)?;
                Ok(Self {
                    socket: Socket::Tcp(socket),
                    listen: Listen::Tcp(bound),
                })
            }
            Listen::Unix(path) => {
                remove_stale(path).await.map_err(failed)?;
                let socket = UnixListener::bind(path).map_err(failed)?;
                let file = SocketFile(path.clone());
                // After bind, since the umask takes from what bind creates.
                let mode = Permissions::from_mode(mode.unwrap_or(Route::MODE));
                std::fs::set_permissions(path, mode).map_err(failed)?;
                Ok(Self {
                    socket: Socket::Unix(socket, file),
                    listen: listen.clone(),
                })
            }
        }
    }

    /// The TCP address, where it is one.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self.listen {
            Listen::Tcp(address) => Some(address),
            Listen::Unix(_) => None,
        }
    }
}

// === impl ListenerError ===

impl ListenerError {
    fn new(listen: &Listen, error: &io::Error) -> Self {
        Self {
            listen: match listen {
                Listen::Tcp(address) => address.to_string(),
                Listen::Unix(path) => format!("unix:{}", path.display()),
            },
            reason: match (error.kind(), listen) {
                (io::ErrorKind::AddrInUse, _) => "the address is in use by another process".into(),
                (io::ErrorKind::PermissionDenied, Listen::Tcp(address))
                    if (1..1024).contains(&address.port()) =>
                {
                    "permission denied: ports below 1024 need the capability CAP_NET_BIND_SERVICE; \
                     choose a higher port"
                        .into()
                }
                (_, Listen::Unix(path)) => why_no_socket(path, error),
                (_, Listen::Tcp(_)) => error.to_string(),
            },
        }
    }
}

/// The machine has no IPv6, or its loopback interface no address of it.
fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = RawSocket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restart must not wait for the last run's connections to time out.
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// Which directory is in the way of a socket, and how.
fn why_no_socket(path: &Path, error: &io::Error) -> String {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    match error.kind() {
        io::ErrorKind::PermissionDenied => match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                // The outermost that may not be searched: those below it cannot be looked at.
                let closed = folder
                    .ancestors()
                    .take_while(|folder| std::fs::symlink_metadata(folder.join(".")).is_err())
                    .last()
                    .unwrap_or(folder);
                format!("this user may not enter the directory {closed:?}")
            }
            Ok(_) => format!(
                "another user's socket is there, which this user may not connect to or remove from {folder:?}"
            ),
            Err(_) => format!("this user may not write to the directory {folder:?}"),
        },
        io::ErrorKind::NotFound => format!("the directory {folder:?} does not exist"),
        io::ErrorKind::NotADirectory => format!("{folder:?} is not a directory"),
        io::ErrorKind::ReadOnlyFilesystem => {
            format!("the directory {folder:?} is on a read-only file system")
        }
        _ => error.to_string(),
    }
}

/// A socket file that nobody answers on was left by a crash; any other file is not ours to remove.
async fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::other("a file that is no socket is there"));
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        // Another user's, who may well answer on it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        Err(_) => std::fs::remove_file(path),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
