//! IPv4 addresses inside IPv6 addresses. A translator or tunnel may deliver the packets to the IPv4 address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Returns the address in canonical form, then every IPv4 address that a translator or tunnel may deliver to.
///
/// The result is only for refusals. Whether such a translator exists is unknown.
pub(crate) fn equivalents(address: IpAddr) -> impl Iterator<Item = IpAddr> {
    let canonical = address.to_canonical();
    let embedded = match canonical {
        IpAddr::V4(_) => [None; 4],
        IpAddr::V6(address) => embedded(address),
    };
    std::iter::once(canonical).chain(embedded.into_iter().flatten().map(IpAddr::V4))
}

fn embedded(address: Ipv6Addr) -> [Option<Ipv4Addr>; 4] {
    let bytes = address.octets();
    let at = |[a, b, c, d]: [usize; 4]| {
        let byte = |index: usize| bytes.get(index).copied().unwrap_or(0);
        Some(Ipv4Addr::new(byte(a), byte(b), byte(c), byte(d)))
    };
    let last = at([12, 13, 14, 15]);
    match address.segments() {
        // NAT64 (RFC 6052); IPv4-compatible (RFC 4291, 2.5.5.1); SIIT's ::ffff:0:a.b.c.d (RFC 2765).
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => {
            [last, None, None, None]
        }
        // A network's own NAT64 prefix (RFC 8215), for each prefix length that fits (RFC 6052, 2.2).
        [0x64, 0xff9b, 1, ..] => [
            at([6, 7, 9, 10]),
            at([7, 9, 10, 11]),
            at([9, 10, 11, 12]),
            last,
        ],
        // 6to4 (RFC 3056).
        [0x2002, ..] => [at([2, 3, 4, 5]), None, None, None],
        // Teredo (RFC 4380): the server's address, and the client's address with inverted bits.
        [0x2001, 0, ..] => [
            last.map(|client| Ipv4Addr::from(!u32::from(client))),
            at([4, 5, 6, 7]),
            None,
            None,
        ],
        // ISATAP (RFC 5214), with any prefix.
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => [last, None, None, None],
        _ => [None; 4],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn reaches(address: &str, expected: &str) {
        let expected: IpAddr = expected.parse().unwrap();
        let found: Vec<IpAddr> = equivalents(address.parse().unwrap()).collect();
        assert!(found.contains(&expected), "{address}: {found:?}");
    }

    #[test]
    fn every_form_that_embeds_an_ipv4_address_is_recognised() {
        for address in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "::ffff:0:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::169.254.169.254",
            "64:ff9b:1:2:3:4:169.254.169.254",
            "64:ff9b:1:a9fe:a9:fe00::",
            "64:ff9b:1:12a9:fe:a9fe::",
            "64:ff9b:1:1234:a9:fea9:fe00:0",
            "2002:a9fe:a9fe::",
            "2002:a9fe:a9fe:1:2:3:4:5",
            "2001:0:a9fe:a9fe::",
            "2001:0:102:304:0:0:5601:5601",
            "fe80::5efe:169.254.169.254",
            "2001:db8::200:5efe:169.254.169.254",
        ] {
            reaches(address, "169.254.169.254");
        }
        reaches("fd20:ce::254", "fd20:ce::254");
    }

    #[test]
    fn an_address_that_embeds_none_equals_only_itself() {
        for address in [
            "10.0.0.1",
            "fd20:ce::254",
            "2001:db8::a9fe:a9fe",
            "64:ff9b:2::a9fe:a9fe",
            "fe80::1",
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert!(equivalents(address).eq([address]));
        }
    }
}
