//! Listening sockets, TCP and unix. Their errors tell the user what to change.

use std::fs::Permissions;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockAddr, Socket as RawSocket, Type};
use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::config::{Listen, Route};

/// The number of connections that wait in the kernel until they are accepted. Linux reduces it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// The number of attempts to find one port for both loopback addresses. A port that is free on 127.0.0.1 may be in use
/// on ::1.
const FREE_PORT_TRIES: usize = 16;

/// A bound socket.
#[derive(Debug)]
pub(crate) struct Listener {
    /// The socket.
    pub(crate) socket: Socket,
    /// The bound address. Port 0 is replaced with the port in use.
    pub(crate) listen: Listen,
}

/// The two kinds of socket.
#[derive(Debug)]
pub(crate) enum Socket {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket, and the guard of its file.
    Unix(
        UnixListener,
        #[expect(dead_code, reason = "its drop removes the socket file")] SocketFile,
    ),
}

/// The file of a unix socket. Its drop removes the file.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

/// The reason that a listener cannot be opened, for the user.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {listen}: {reason}")]
pub struct ListenerError {
    listen: String,
    reason: String,
    is_in_use: bool,
}

// === impl Listener ===

impl Listener {
    /// Binds and listens. The kernel then queues connections until they are accepted.
    ///
    /// # Errors
    ///
    /// Fails if the address is in use, not local, or not permitted to this user.
    pub(crate) async fn bind(listen: &Listen) -> Result<Self, ListenerError> {
        Self::bind_with(listen, None).await
    }

    /// Binds a port on 127.0.0.1 and on ::1, if the machine has IPv6. Port 0 selects a port that is free on both.
    ///
    /// # Errors
    ///
    /// Fails like [`bind`](Self::bind), for either address.
    pub(crate) async fn bind_loopback(port: u16) -> Result<(Self, Option<Self>), ListenerError> {
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
                Err(error) if is_ipv6_missing(&error) => return Ok((first, None)),
                Err(error) => return Err(ListenerError::new(&Listen::Tcp(address), &error)),
            }
        }
    }

    /// Like [`bind`](Self::bind). A unix socket gets the permissions `mode`, or [`Route::MODE`] if there are none.
    ///
    /// # Errors
    ///
    /// Fails like [`bind`](Self::bind).
    pub(crate) async fn bind_with(
        listen: &Listen,
        mode: Option<u32>,
    ) -> Result<Self, ListenerError> {
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
                // Set after bind, because the umask removes permissions at bind.
                let mode = Permissions::from_mode(mode.unwrap_or(Route::MODE));
                std::fs::set_permissions(path, mode).map_err(failed)?;
                Ok(Self {
                    socket: Socket::Unix(socket, file),
                    listen: listen.clone(),
                })
            }
        }
    }

    /// Returns the address of a TCP listener.
    pub(crate) fn tcp(&self) -> Option<SocketAddr> {
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
            is_in_use: error.kind() == io::ErrorKind::AddrInUse,
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

    /// Names the option that sets another address, if the address is in use.
    pub(crate) fn of_option(mut self, option: &str) -> Self {
        if self.is_in_use {
            let free = match self.listen.starts_with("unix:") {
                true => "",
                false => " (port 0 takes a free one)",
            };
            self.reason += &format!("; choose another with {option}{free}");
        }
        self
    }
}

/// Returns whether the machine has no IPv6, or no IPv6 address on its loopback interface.
fn is_ipv6_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = RawSocket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Without this option, a restart would fail until the connections of the last run time out.
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// Returns why a unix socket cannot be bound, and names the directory or file that prevents it.
fn why_no_socket(path: &Path, error: &io::Error) -> String {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    match error.kind() {
        io::ErrorKind::PermissionDenied => match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                // The outermost directory without search permission: directories below it cannot be examined.
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

/// Removes a socket file that a crash left. A failed connection shows that no process accepts on it. Other files are
/// never removed.
async fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::other("another file exists at this path"));
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        // The socket belongs to another user, whose process may accept on it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        Err(_) => std::fs::remove_file(path),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
