//! Happy eyeballs (RFC 8305): tries addresses one after another, without waiting for a slow one.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The delay before the next address is tried in parallel (RFC 8305, 5).
const STAGGER: Duration = Duration::from_millis(250);

/// Connects to the first of `addresses` that accepts. The error is that of the first attempt that failed.
pub(super) async fn connect(
    addresses: Vec<SocketAddr>,
) -> Result<(TcpStream, SocketAddr), (Option<SocketAddr>, io::Error)> {
    let mut queue = interleave(addresses).into_iter();
    // All attempts are dropped with this future.
    let mut attempts = JoinSet::new();
    let mut failed = None;
    loop {
        if let Some(address) = queue.next() {
            attempts.spawn(async move { (address, TcpStream::connect(address).await) });
        }
        tokio::select! {
            ended = attempts.join_next() => match ended {
                Some(Ok((address, Ok(stream)))) => return Ok((stream, address)),
                Some(Ok((address, Err(error)))) => {
                    failed.get_or_insert((Some(address), error));
                }
                Some(Err(_)) => {}
                None => {
                    let none = || (None, io::ErrorKind::AddrNotAvailable.into());
                    return Err(failed.unwrap_or_else(none));
                }
            },
            () = sleep(STAGGER), if !queue.as_slice().is_empty() => {}
        }
    }
}

/// Alternates the address families, beginning with that of the first address (RFC 8305, 4).
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let favourite = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == favourite);
    let mut mixed = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let before = mixed.len();
        mixed.extend(first.next());
        mixed.extend(second.next());
        if mixed.len() == before {
            return mixed;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn address_families_alternate_after_the_first_address() {
        let parse = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let mixed = interleave(parse(&[
            "[::1]:1",
            "[::2]:1",
            "[::3]:1",
            "1.1.1.1:1",
            "1.1.1.2:1",
        ]));
        assert_eq!(
            mixed,
            parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1", "[::3]:1"])
        );
        assert!(interleave(Vec::new()).is_empty());
    }

    #[tokio::test]
    async fn an_address_that_refuses_does_not_hide_one_that_accepts() {
        let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refused = refusing.local_addr().unwrap();
        drop(refusing);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let (_, address) = connect(vec![refused, open]).await.unwrap();
        assert_eq!(address, open);
        let (address, error) = connect(vec![refused, refused]).await.unwrap_err();
        assert_eq!(address, Some(refused));
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    /// An address whose accept queue is full, so that it does not respond.
    #[tokio::test]
    async fn a_silent_address_is_raced_by_the_next() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let silent = socket.listen(1).unwrap();
        let silent_address = silent.local_addr().unwrap();
        let mut fillers = Vec::new();
        while let Ok(Ok(filler)) =
            tokio::time::timeout(STAGGER, TcpStream::connect(silent_address)).await
        {
            fillers.push(filler);
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        // The kernel's own timeout for the silent address is minutes.
        let within = Duration::from_secs(60);
        let connected = tokio::time::timeout(within, connect(vec![silent_address, open])).await;
        assert_eq!(connected.unwrap().unwrap().1, open);
    }
}
