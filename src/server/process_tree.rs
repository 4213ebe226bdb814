//! Finds out whether a descendant of this process holds the other end of a connection.
//!
//! Java has no setting for a proxy's password. For it, `exec` opens a listener that requires no credentials from
//! descendants of this process. The kernel identifies the socket at the other end by the connection's two addresses,
//! and /proc/PID/fd lists the sockets of each descendant.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;

use tokio::sync::oneshot;

#[cfg(target_os = "linux")]
use super::sock_diag::SockDiag;

/// Scans of the tree. A process that exits while its siblings are listed may hide one of them (proc(5), `children`).
const SCANS: usize = 3;

/// The state of a socket that no process holds any more, as /proc/net/tcp writes it.
const TIME_WAIT: &str = "06";

/// The descendants of this process.
#[derive(Clone, Debug)]
pub struct ProcessTree {
    queries: mpsc::Sender<SocketQuery>,
}

/// A query whether a descendant holds the socket at the other end of a connection.
#[derive(Debug)]
struct SocketQuery {
    addrs: Addrs,
    result: oneshot::Sender<bool>,
}

/// The peer's address and the local address of a connection.
type Addrs = (SocketAddr, SocketAddr);

/// Answers queries until all senders are dropped. All waiting queries share one scan of /proc: the cost must not grow
/// with the connections that a process outside the tree opens.
fn serve(ancestor: u32, received: &mpsc::Receiver<SocketQuery>) {
    while let Ok(first) = received.recv() {
        let mut queries = vec![first];
        queries.extend(received.try_iter());
        let addrs: Vec<_> = queries.iter().map(|query| query.addrs).collect();
        let results = scan(ancestor, &addrs);
        for (query, is_held) in queries.into_iter().zip(results) {
            // The connection may be closed by now.
            let _ = query.result.send(is_held);
        }
    }
}

/// Returns for each connection whether a descendant holds the socket at its other end.
fn scan(ancestor: u32, connections: &[Addrs]) -> Vec<bool> {
    let sockets = sockets(connections);
    let mut missing: HashSet<&str> = sockets.iter().flatten().map(String::as_str).collect();
    for _ in 0..SCANS {
        let mut generation = children(ancestor);
        // The process tree is acyclic.
        while !generation.is_empty() && !missing.is_empty() {
            for process in &generation {
                remove_held(*process, &mut missing);
            }
            generation = generation.into_iter().flat_map(children).collect();
        }
    }
    sockets
        .iter()
        .map(|socket| {
            socket
                .as_deref()
                .is_some_and(|socket| !missing.contains(socket))
        })
        .collect()
}

/// Returns the sockets at the other ends, as /proc/PID/fd names them.
fn sockets(connections: &[Addrs]) -> Vec<Option<String>> {
    let found = match inodes(connections) {
        Ok(found) => found,
        // sock_diag is not available, or the lookup failed.
        Err(_) => inodes_from_proc(connections),
    };
    let name = |inode: u32| format!("socket:[{inode}]");
    found.into_iter().map(|inode| inode.map(name)).collect()
}

/// Looks up the inodes of the sockets by sock_diag.
#[cfg(target_os = "linux")]
fn inodes(connections: &[Addrs]) -> io::Result<Vec<Option<u32>>> {
    let diag = SockDiag::open()?;
    let connections = connections.iter();
    connections
        .map(|(peer, local)| diag.inode(*peer, *local))
        .collect()
}

#[cfg(not(target_os = "linux"))]
fn inodes(_: &[Addrs]) -> io::Result<Vec<Option<u32>>> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Finds the inodes in the list of all sockets. With thousands of sockets this takes a tenth of a second.
fn inodes_from_proc(connections: &[Addrs]) -> Vec<Option<u32>> {
    let mut wanted = HashMap::new();
    // The peer's own socket has the two addresses the other way round.
    for (index, (peer, local)) in connections.iter().enumerate() {
        for addrs in kernel_forms(*peer).into_iter().zip(kernel_forms(*local)) {
            wanted.insert(addrs, index);
        }
    }
    let mut found = vec![None; connections.len()];
    // IPv6 sockets connected to IPv4 addresses are in the second table. Java opens only such sockets.
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        if found.iter().all(Option::is_some) {
            break;
        }
        for (addrs, inode) in fs::read_to_string(table)
            .iter()
            .flat_map(|table| entries(table))
        {
            if let Some(found) = wanted.get(&addrs).and_then(|index| found.get_mut(*index)) {
                *found = Some(inode);
            }
        }
    }
    found
}

/// Returns the two addresses and the inode of each socket that a process holds. The columns of /proc/net/tcp (proc(5))
/// are number, local address, remote address and state; the tenth is the inode.
fn entries(table: &str) -> impl Iterator<Item = ((String, String), u32)> {
    table.lines().filter_map(|line| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let (local, remote, state) = (columns.next()?, columns.next()?, columns.next()?);
        if state == TIME_WAIT {
            return None;
        }
        let inode = columns.nth(5)?.parse().ok()?;
        // A socket that no process holds has the inode 0.
        (inode != 0).then(|| ((local.to_owned(), remote.to_owned()), inode))
    })
}

/// Formats an address as the kernel does: 32-bit words in native byte order, in hexadecimal. An IPv4 address has one
/// form in each table.
fn kernel_forms(address: SocketAddr) -> Vec<String> {
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

/// Returns the children of all threads of a process. It is empty if the process has ended or may not be inspected.
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

/// Removes the sockets that the process holds.
fn remove_held(process: u32, sockets: &mut HashSet<&str>) {
    let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else {
        return;
    };
    for file in files.flatten() {
        if let Ok(to) = fs::read_link(file.path()) {
            to.to_str().map(|to| sockets.remove(to));
        }
    }
}

// === impl ProcessTree ===

impl ProcessTree {
    /// Returns the descendants of this process, or `None` if the system does not list the children of processes.
    pub(crate) fn descendants() -> Option<Self> {
        let ancestor = std::process::id();
        fs::read(format!("/proc/{ancestor}/task/{ancestor}/children")).ok()?;
        let (queries, received) = mpsc::channel();
        // Reads of /proc block.
        std::thread::Builder::new()
            .name("process-tree".to_owned())
            .spawn(move || serve(ancestor, &received))
            .ok()?;
        Some(Self { queries })
    }

    /// Returns whether a descendant holds the socket at the other end of a connection.
    pub(super) async fn holds(&self, peer: SocketAddr, local: SocketAddr) -> bool {
        let (result, received) = oneshot::channel();
        let addrs = (peer, local);
        let sent = self.queries.send(SocketQuery { addrs, result });
        sent.is_ok() && received.await.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sockets_of_a_process_are_found_with_both_addresses() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 11 1 0\n\
             1: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 22 1 0\n\
             2: 0100007F:C351 0100007F:1F90 06 00000000:00000000 03:00001234 00000000     0        0 0 3 0\n\
             3: nonsense\n";
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        if cfg!(target_endian = "little") {
            let found: Vec<_> = entries(table).collect();
            let ends = |local: &str, remote: &str| (local.to_owned(), remote.to_owned());
            assert_eq!(
                found,
                [
                    (ends("0100007F:1F90", "0100007F:C350"), 11),
                    (ends("0100007F:C350", "0100007F:1F90"), 22),
                ]
            );
            assert_eq!(
                kernel_forms(at(8080)),
                ["0100007F:1F90", "0000000000000000FFFF00000100007F:1F90"]
            );
            assert_eq!(
                kernel_forms("[::1]:80".parse().unwrap()),
                ["00000000000000000000000001000000:0050"]
            );
        }
    }

    #[test]
    fn a_process_is_not_its_own_descendant() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let near = listener.local_addr().unwrap();
        let streams = [(); 2].map(|()| std::net::TcpStream::connect(near).unwrap());
        let ends = streams
            .each_ref()
            .map(|stream| (stream.local_addr().unwrap(), near));
        if cfg!(target_os = "linux") {
            let found = inodes_from_proc(&ends);
            assert!(found.iter().all(Option::is_some) && found[0] != found[1]);
            assert_eq!(inodes(&ends).unwrap_or_else(|_| found.clone()), found);
        }
        assert_eq!(scan(std::process::id(), &ends), [false, false]);
    }
}
