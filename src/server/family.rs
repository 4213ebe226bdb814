//! Who is at the other end of a connection on this machine: a process of ours, or a stranger.
//!
//! Java has no setting for a proxy's password. `exec` gives it a listener of its own, which asks for none where the
//! kernel says that the other end belongs to a descendant of this process, the child or whatever it started. /proc tells
//! it: the socket by its two addresses, and its holder among the descendants.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;

use tokio::sync::oneshot;

#[cfg(target_os = "linux")]
use super::sock_diag::SockDiag;

/// A process that exits while its siblings are listed may hide one of them (proc(5), `children`).
const LOOKS: usize = 3;

/// The state of a socket that no process holds any more, as /proc/net/tcp writes it.
const TIME_WAIT: &str = "06";

/// The descendants of this process.
#[derive(Clone, Debug)]
pub struct Family {
    questions: mpsc::Sender<Question>,
}

/// Whether one of them holds the far end of a connection.
#[derive(Debug)]
struct Question {
    ends: Ends,
    answer: oneshot::Sender<bool>,
}

/// The far end, then ours.
type Ends = (SocketAddr, SocketAddr);

// === impl Family ===

impl Family {
    /// Ours; none where the system does not say who descends from whom.
    pub fn ours() -> Option<Self> {
        let ancestor = std::process::id();
        fs::read(format!("/proc/{ancestor}/task/{ancestor}/children")).ok()?;
        let (questions, asked) = mpsc::channel();
        std::thread::Builder::new()
            .name("family".to_owned())
            .spawn(move || answer(ancestor, &asked))
            .ok()?;
        Some(Self { questions })
    }

    /// Whether one of them holds the far end of a connection.
    pub(super) async fn has(&self, far: SocketAddr, near: SocketAddr) -> bool {
        let (answer, answered) = oneshot::channel();
        let ends = (far, near);
        let asked = self.questions.send(Question { ends, answer });
        asked.is_ok() && answered.await.unwrap_or(false)
    }
}

/// Answers until nobody can ask any more. One look at /proc is for all who wait: a stranger who connects again and again must
/// not cost one look each time.
fn answer(ancestor: u32, asked: &mpsc::Receiver<Question>) {
    while let Ok(first) = asked.recv() {
        let mut questions = vec![first];
        questions.extend(asked.try_iter());
        let ends: Vec<_> = questions.iter().map(|question| question.ends).collect();
        let answers = look(ancestor, &ends);
        for (question, is_ours) in questions.into_iter().zip(answers) {
            // The connection may be gone.
            let _ = question.answer.send(is_ours);
        }
    }
}

/// For each connection, whether a descendant holds its far end.
fn look(ancestor: u32, connections: &[Ends]) -> Vec<bool> {
    let sockets = sockets(connections);
    let mut missing: HashSet<&str> = sockets.iter().flatten().map(String::as_str).collect();
    for _ in 0..LOOKS {
        let mut generation = children(ancestor);
        // The process tree is acyclic, and each process is looked at once.
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

/// The sockets at the far ends, as /proc/PID/fd names them.
fn sockets(connections: &[Ends]) -> Vec<Option<String>> {
    let found = match inodes(connections) {
        Ok(found) => found,
        // Where the kernel has no sock_diag.
        Err(_) => listed(connections),
    };
    let name = |inode: u32| format!("socket:[{inode}]");
    found.into_iter().map(|inode| inode.map(name)).collect()
}

/// Their inodes, by sock_diag.
#[cfg(target_os = "linux")]
fn inodes(connections: &[Ends]) -> io::Result<Vec<Option<u32>>> {
    let diag = SockDiag::open()?;
    let ends = connections.iter();
    ends.map(|(far, near)| diag.inode(*far, *near)).collect()
}

#[cfg(not(target_os = "linux"))]
fn inodes(_: &[Ends]) -> io::Result<Vec<Option<u32>>> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The same, by the list of all sockets: that of thousands takes a tenth of a second.
fn listed(connections: &[Ends]) -> Vec<Option<u32>> {
    let mut wanted = HashMap::new();
    for (index, (far, near)) in connections.iter().enumerate() {
        for ends in spellings(*far).into_iter().zip(spellings(*near)) {
            wanted.insert(ends, index);
        }
    }
    let mut found = vec![None; connections.len()];
    // A socket of IPv6 that calls an address of IPv4 stands in the second one, and so do all of Java's.
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        if found.iter().all(Option::is_some) {
            break;
        }
        for (ends, inode) in fs::read_to_string(table)
            .iter()
            .flat_map(|table| entries(table))
        {
            if let Some(found) = wanted.get(&ends).and_then(|index| found.get_mut(*index)) {
                *found = Some(inode);
            }
        }
    }
    found
}

/// The two addresses and the inode of each socket that a process holds. Columns of /proc/net/tcp (proc(5)): number, local
/// and remote address, state, …, the tenth is the inode.
fn entries(table: &str) -> impl Iterator<Item = ((String, String), u32)> {
    table.lines().filter_map(|line| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let (local, remote, state) = (columns.next()?, columns.next()?, columns.next()?);
        if state == TIME_WAIT {
            return None;
        }
        let inode = columns.nth(5)?.parse().ok()?;
        // One that nobody holds any more has none.
        (inode != 0).then(|| ((local.to_owned(), remote.to_owned()), inode))
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

/// Takes those away that the process holds.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_a_process_holds_are_found_with_both_addresses() {
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
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let near = listener.local_addr().unwrap();
        let streams = [(); 2].map(|()| std::net::TcpStream::connect(near).unwrap());
        let ends = streams
            .each_ref()
            .map(|stream| (stream.local_addr().unwrap(), near));
        if cfg!(target_os = "linux") {
            let found = listed(&ends);
            assert!(found.iter().all(Option::is_some) && found[0] != found[1]);
            assert_eq!(inodes(&ends).unwrap_or_else(|_| found.clone()), found);
        }
        assert_eq!(look(std::process::id(), &ends), [false, false]);
    }
}
