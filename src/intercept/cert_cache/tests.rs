use std::time::SystemTime;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};
use tokio::time::Instant;

use super::*;

const HOUR: Duration = Duration::from_secs(60 * 60);

fn leaves(capacity: usize) -> CertCache {
    let authority = CertificateAuthority::new(["run.app".to_owned()], SystemTime::now()).unwrap();
    CertCache::with_capacity(capacity, authority).unwrap()
}

fn now() -> Now {
    Now {
        wall: SystemTime::now(),
        mono: Instant::now(),
    }
}

fn host(number: usize) -> Arc<str> {
    format!("svc-{number}.run.app").into()
}

#[test]
fn a_burst_of_first_connections_shares_one_leaf() {
    let (leaves, now) = (leaves(CAPACITY), now());
    let made: Vec<Arc<ServerConfig>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..500)
            .map(|_| scope.spawn(|| leaves.config(&host(0), now).unwrap()))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(made.iter().all(|one| Arc::ptr_eq(one, &made[0])));
}

#[test]
fn a_leaf_is_renewed_before_it_expires_by_either_clock() {
    let (leaves, start) = (leaves(CAPACITY), now());
    let first = leaves.config(&host(0), start).unwrap();
    let at = |wall: Duration, mono: Duration| Now {
        wall: start.wall + wall,
        mono: start.mono + mono,
    };
    let is_first = |now| Arc::ptr_eq(&first, &leaves.config(&host(0), now).unwrap());
    assert!(is_first(at(19 * HOUR, 19 * HOUR)));
    assert!(!is_first(at(20 * HOUR, HOUR)), "frozen");
    // The renewed certificate is cached too.
    let second = leaves.config(&host(0), at(20 * HOUR, HOUR)).unwrap();
    let again = leaves.config(&host(0), at(21 * HOUR, 2 * HOUR)).unwrap();
    assert!(Arc::ptr_eq(&second, &again));
    let third = leaves.config(&host(0), at(21 * HOUR, 21 * HOUR)).unwrap();
    assert!(
        !Arc::ptr_eq(&second, &third),
        "a wall clock that was set back"
    );
}

#[test]
fn the_number_of_cached_hosts_is_bounded() {
    let (leaves, now) = (leaves(4), now());
    for number in 0..64 {
        leaves.config(&host(number), now).unwrap();
        assert!(leaves.made.len() <= 4);
    }
    let last = leaves.config(&host(63), now).unwrap();
    assert!(Arc::ptr_eq(&last, &leaves.config(&host(63), now).unwrap()));
}

/// Performs a handshake in memory. The client may resume an earlier session.
fn shake(client: &Arc<ClientConfig>, server: Arc<ServerConfig>) -> rustls::HandshakeKind {
    let name = ServerName::try_from("svc-0.run.app").unwrap();
    let mut client = ClientConnection::new(client.clone(), name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    for _ in 0..4 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        while !wire.is_empty() {
            let read = server.read_tls(&mut &*wire).unwrap();
            wire.drain(..read);
            server.process_new_packets().unwrap();
        }
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        while !wire.is_empty() {
            let read = client.read_tls(&mut &*wire).unwrap();
            wire.drain(..read);
            client.process_new_packets().unwrap();
        }
    }
    assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]));
    client.handshake_kind().unwrap()
}

#[test]
fn a_session_is_resumed_even_with_a_renewed_leaf() {
    let (leaves, start) = (leaves(CAPACITY), now());
    let mut roots = RootCertStore::empty();
    roots.add(leaves.authority.certificate().clone()).unwrap();
    let mut client = ClientConfig::builder_with_provider(leaves.provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let client = Arc::new(client);
    let first = shake(&client, leaves.config(&host(0), start).unwrap());
    assert_eq!(first, rustls::HandshakeKind::Full);
    let later = Now {
        mono: start.mono + 21 * HOUR,
        ..start
    };
    let second = shake(&client, leaves.config(&host(0), later).unwrap());
    assert_eq!(second, rustls::HandshakeKind::Resumed);
}
