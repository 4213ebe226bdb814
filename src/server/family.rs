//! Who is at the other end of a connection on this machine: a process of ours, or a stranger.
//!
//! Java has no setting for a proxy's password. `exec` gives it a listener of its own, which asks for none where the
//! kernel says that the other end belongs to a descendant of this process, the child or whatever it started. /proc tells
//! it: the socket by its two addresses, and its holder among the descendants.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// A process that exits while its siblings are listed may hide one of them (proc(5), `children`).
const LOOKS: usize = 3;

/// The descendants of one process.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    ancestor: u32,
}

// === impl Family ===

impl Family {
    /// Ours; none where the system does not say who descends from whom.
    pub fn ours() -> Option<Self> {
        let ancestor = std::process::id();
        fs::read(format!("/proc/{ancestor}/task/{ancestor}/children")).ok()?;
        Some(Self { ancestor })
    }

    /// Whether one of them holds the far end of a connection; it reads /proc, so it belongs on a thread that may wait.
    pub(super) fn has(self, far: SocketAddr, near: SocketAddr) -> bool {
        let Some(inode) = socket(far, near) else {
            return false;
        };
        let wanted = format!("socket:[{inode}]");
        (0..LOOKS).any(|_| {
            let mut generation = children(self.ancestor);
            // A loop of processes there is none, and each one is looked at once.
            while !generation.is_empty() {
                if generation.iter().any(|process| holds(*process, &wanted)) {
                    return true;
                }
                generation = generation.into_iter().flat_map(children).collect();
            }
            false
        })
    }
}

/// The inode of the socket that is bound to `far` and connected to `near`.
fn socket(far: SocketAddr, near: SocketAddr) -> Option<String> {
    // A socket of IPv6 that calls an address of IPv4 stands in the second one, and so do all of Java's.
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| {
            let table = fs::read_to_string(table).ok()?;
            inode(&table, far, near)
        })
}

/// Columns of /proc/net/tcp (proc(5)): number, local and remote address, …, the tenth is the inode.
fn inode(table: &str, far: SocketAddr, near: SocketAddr) -> Option<String> {
    let (far, near) = (spellings(far), spellings(near));
    table.lines().find_map(|line| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let (local, remote) = (columns.next()?, columns.next()?);
        let is_it = far
            .iter()
            .zip(&near)
            .any(|(far, near)| far == local && near == remote);
        let inode = is_it.then(|| columns.nth(6)).flatten()?;
        // One that nobody holds any more has none.
        (inode != "0").then(|| inode.to_owned())
    })
}

/// An address as the kernel writes it: words of 32 bits in the machine's own order, in hexadecimal; IPv4 in both families.
fn spellings(address: SocketAddr) -> Vec<String> {
    let words = |octets: &[u8]| -> String {
        octets
            .chunks_exact(4)
            .filter_map(|word| Some(u32::from_ne_bytes(word.try_into().ok()?)))
            .map(|word| format!("{word:08X}"))
            .collect()
    };
    let port = address.port();
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => vec![
            format!("{}:{port:04X}", words(&ip.octets())),
            format!("{}:{port:04X}", words(&ip.to_ipv6_mapped().octets())),
        ],
        IpAddr::V6(ip) => vec![format!("{}:{port:04X}", words(&ip.octets()))],
    }
}

/// The children of all threads of a process; those of one that is gone, or not ours to look at, are none.
fn children(process: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else {
        return Vec::new();
    };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| {
            let ids = list.split_ascii_whitespace().map(str::parse);
            ids.filter_map(Result::ok).collect::<Vec<u32>>()
        })
        .collect()
}

fn holds(process: u32, socket: &str) -> bool {
    fs::read_dir(format!("/proc/{process}/fd")).is_ok_and(|files| {
        files
            .flatten()
            .any(|file| fs::read_link(file.path()).is_ok_and(|to| to == Path::new(socket)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_found_by_both_of_its_addresses() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 11 1 0\n\
             1: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 22 1 0\n\
             2: 0100007F:C351 0100007F:1F90 06 00000000:00000000 03:00001234 00000000     0        0 0 3 0\n\
             3: nonsense\n";
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        if cfg!(target_endian = "little") {
            assert_eq!(inode(table, at(50000), at(8080)).as_deref(), Some("22"));
            assert_eq!(inode(table, at(8080), at(50000)).as_deref(), Some("11"));
            assert_eq!(inode(table, at(50000), at(8081)), None);
            // Its process has closed it.
            assert_eq!(inode(table, at(50001), at(8080)), None);
            assert_eq!(
                spellings(at(8080)),
                ["0100007F:1F90", "0000000000000000FFFF00000100007F:1F90"]
            );
            assert_eq!(
                spellings("[::1]:80".parse().unwrap()),
                ["00000000000000000000000001000000:0050"]
            );
        }
    }

    #[test]
    fn this_process_is_no_descendant_of_itself() {
        let Some(family) = Family::ours() else {
            return;
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let near = listener.local_addr().unwrap();
        let stream = std::net::TcpStream::connect(near).unwrap();
        let far = stream.local_addr().unwrap();
        assert!(socket(far, near).is_some());
        assert!(!family.has(far, near));
    }
}
