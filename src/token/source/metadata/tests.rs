use std::time::Duration;

use super::{MetadataEndpoint, read_token};
use crate::destination::Host;
use crate::policy::TokenKind;
use crate::token::clock::Now;

#[test]
fn a_token_that_expired_during_a_freeze_is_requested_again() {
    let kind = TokenKind::Access { scopes: [].into() };
    let start = Now::now();
    let read = |life: u64, frozen: u64| {
        let body = format!(r#"{{"access_token":"T","expires_in":{life}}}"#);
        // The monotonic clock stops while the machine is suspended.
        let wall = start.wall + Duration::from_secs(frozen);
        read_token(&kind, body.as_bytes(), start, Now { wall, ..start })
    };
    let retry = |life, frozen| read(life, frozen).map_err(|failure| failure.retry).err();
    assert_eq!(retry(34, 6), Some(true), "28 s left");
    assert_eq!(retry(34, 3600), Some(true), "expired");
    assert_eq!(retry(3600, 6), None, "it is good all the same");
    assert_eq!(retry(28, 2), None, "it was not frozen");
    assert_eq!(retry(4, 0), Some(false), "nonsense");
}

#[test]
fn the_metadata_server_at_its_well_known_address_has_its_host_name() {
    for (host, port, expected) in [
        ("169.254.169.254", 80, "metadata.google.internal"),
        ("metadata.google.internal", 80, "metadata.google.internal"),
        ("169.254.169.254", 8080, "169.254.169.254:8080"),
        ("localhost", 8980, "localhost:8980"),
        ("[fd20:ce::254]", 80, "[fd20:ce::254]"),
    ] {
        let endpoint = MetadataEndpoint::new(&Host::parse(host).unwrap(), port);
        assert_eq!(endpoint.authority, expected);
    }
}
