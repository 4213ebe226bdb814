//! Finds the socket at an end of a connection by sock_diag(7). The kernel looks it up by its addresses, which is faster
//! than a list of all sockets of the machine.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, sendto,
    socket_with,
};

/// `SOCK_DIAG_BY_FAMILY`, the type of the request and its answer.
const BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;

/// The number of bytes of a netlink header and an `inet_diag_req_v2`.
const REQUEST_LENGTH: u32 = 16 + 56;

/// A netlink socket to the kernel.
#[derive(Debug)]
pub(super) struct SockDiag(OwnedFd);

// === impl SockDiag ===

impl SockDiag {
    /// Opens the socket. Fails if the kernel has no sock_diag, as in gVisor.
    pub(super) fn open() -> io::Result<Self> {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::DGRAM);
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
        Ok(Self(socket))
    }

    /// Returns the inode of the socket that is bound to `far` and connected to `near`, or `None` if no process holds
    /// one.
    pub(super) fn inode(&self, far: SocketAddr, near: SocketAddr) -> io::Result<Option<u32>> {
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.0, &request(far, near), SendFlags::empty(), &kernel)?;
        // The kernel answers before sendto returns.
        let mut answer = [0; 512];
        let (_, length) = recv(&self.0, &mut answer, RecvFlags::DONTWAIT)?;
        let answer = answer.get(..length).unwrap_or_default();
        inode(answer, near.port()).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// `nlmsghdr` and `inet_diag_req_v2` of linux/inet_diag.h.
fn request(far: SocketAddr, near: SocketAddr) -> Vec<u8> {
    let any = u32::MAX.to_ne_bytes();
    let family = match far.ip().to_canonical() {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let family = u8::try_from(family.as_raw()).unwrap_or_default();
    let protocol = u8::try_from(ipproto::TCP.as_raw().get()).unwrap_or_default();
    [
        &REQUEST_LENGTH.to_ne_bytes()[..],
        &BY_FAMILY.to_ne_bytes(),
        &REQUEST.to_ne_bytes(),
        // The sequence number and our port.
        &[0; 8],
        &[family, protocol, 0, 0],
        // All states.
        &any,
        &far.port().to_be_bytes(),
        &near.port().to_be_bytes(),
        &padded(far.ip()),
        &padded(near.ip()),
        // The interface, and INET_DIAG_NOCOOKIE.
        &[0; 4],
        &any,
        &any,
    ]
    .concat()
}

/// Returns an address in the 16 bytes of IPv6.
fn padded(ip: IpAddr) -> [u8; 16] {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// Returns the inode in an answer (`nlmsghdr` and `inet_diag_msg`). The outer `None` means an unknown answer, the inner
/// one that there is no such socket.
fn inode(answer: &[u8], port: u16) -> Option<Option<u32>> {
    let four = |at: usize| answer.get(at..at + 4)?.try_into().ok();
    let two = |at: usize| answer.get(at..at + 2)?.try_into().ok();
    match u16::from_ne_bytes(two(4)?) {
        BY_FAMILY => {
            // If no socket is connected, the kernel returns a socket that listens at the far end.
            let connected = u16::from_be_bytes(two(22)?) == port;
            let inode = u32::from_ne_bytes(four(84)?);
            Some((connected && inode != 0).then_some(inode))
        }
        ERROR => {
            let code = i32::from_ne_bytes(four(16)?);
            (code == -rustix::io::Errno::NOENT.raw_os_error()).then_some(None)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_socket_is_found_by_its_connection() {
        let Ok(diag) = SockDiag::open() else {
            return;
        };
        for (listen, call) in [
            ("127.0.0.1:0", "127.0.0.1"),
            // Java connects to IPv4 addresses in this form.
            ("127.0.0.1:0", "[::ffff:127.0.0.1]"),
            ("[::1]:0", "[::1]"),
        ] {
            // The machine has no IPv6.
            let Ok(listener) = TcpListener::bind(listen) else {
                continue;
            };
            let near = listener.local_addr().unwrap();
            let stream = TcpStream::connect(format!("{call}:{}", near.port())).unwrap();
            let (accepted, far) = listener.accept().unwrap();
            let link = format!("/proc/self/fd/{}", stream.as_raw_fd());
            let name = std::fs::read_link(link).unwrap();
            let found = diag.inode(far, near).unwrap();
            assert_eq!(
                name.to_str(),
                found.map(|inode| format!("socket:[{inode}]")).as_deref()
            );
            // A listener is not an end of a connection.
            let nowhere = SocketAddr::new(far.ip(), 1);
            assert_eq!(diag.inode(near, nowhere).unwrap(), None);
            assert_eq!(diag.inode(nowhere, near).unwrap(), None);
            drop(stream);
            assert_eq!(diag.inode(far, near).unwrap(), None, "no process holds it");
            drop(accepted);
        }
    }

    #[test]
    fn a_truncated_netlink_answer_is_ignored() {
        for length in 0..88 {
            let mut answer = vec![0; length];
            if let Some(kind) = answer.get_mut(4) {
                *kind = 20;
            }
            assert_eq!(inode(&answer, 80), None, "{length}");
        }
    }
}
