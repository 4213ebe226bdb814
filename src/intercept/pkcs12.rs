//! A trust store for Java: PKCS #12 (RFC 7292) with unencrypted certificates and a MAC.
//!
//! The MAC's password is public, as usual for a trust store. Readers require one.

use std::io;

use aws_lc_rs::{digest, hmac, rand};
use rustls::pki_types::CertificateDer;
use yasna::models::ObjectIdentifier;
use yasna::{DERWriter, Tag, construct_der};

const PASSWORD: &str = "changeit";

/// A small number, because the password is public.
const ITERATIONS: u32 = 2_048;

/// The block size of SHA-256 in bytes.
const BLOCK: usize = 64;

const DATA: &[u64] = &[1, 2, 840, 113549, 1, 7, 1];
const CERT_BAG: &[u64] = &[1, 2, 840, 113549, 1, 12, 10, 1, 3];
const X509_CERTIFICATE: &[u64] = &[1, 2, 840, 113549, 1, 9, 22, 1];
const FRIENDLY_NAME: &[u64] = &[1, 2, 840, 113549, 1, 9, 20];
/// Oracle's attribute of a trusted certificate. Without it Java finds no entry.
const TRUSTED_KEY_USAGE: &[u64] = &[2, 16, 840, 1, 113894, 746875, 1, 1];
const ANY_EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37, 0];
const SHA_256: &[u64] = &[2, 16, 840, 1, 101, 3, 4, 2, 1];

/// Returns the store, with the CA under the alias `sidentity` and the others under `root-1` and so on.
pub(super) fn trust_store(
    authority: &CertificateDer<'_>,
    roots: &[CertificateDer<'_>],
) -> io::Result<Vec<u8>> {
    let mut salt = [0; 16];
    rand::fill(&mut salt).map_err(|_| io::Error::other("the system has no randomness"))?;
    let roots = (1..).map(|n| format!("root-{n}")).zip(roots);
    let content = construct_der(|writer| {
        writer.write_sequence_of(|bags| {
            bag(bags.next(), "sidentity", authority);
            for (alias, root) in roots {
                bag(bags.next(), &alias, root);
            }
        });
    });
    let safe = construct_der(|writer| {
        writer.write_sequence_of(|safes| data(safes.next(), &content));
    });
    let key = hmac::Key::new(
        hmac::HMAC_SHA256,
        mac_key(PASSWORD, &salt, ITERATIONS).as_ref(),
    );
    let mac = hmac::sign(&key, &safe);
    Ok(construct_der(|writer| {
        writer.write_sequence(|pfx| {
            pfx.next().write_u8(3);
            data(pfx.next(), &safe);
            pfx.next().write_sequence(|mac_data| {
                mac_data.next().write_sequence(|info| {
                    info.next().write_sequence(|algorithm| {
                        algorithm.next().write_oid(&oid(SHA_256));
                        algorithm.next().write_null();
                    });
                    info.next().write_bytes(mac.as_ref());
                });
                mac_data.next().write_bytes(&salt);
                mac_data.next().write_u32(ITERATIONS);
            });
        });
    }))
}

/// Writes a ContentInfo of plain octets (RFC 2315, 8).
fn data(writer: DERWriter<'_>, content: &[u8]) {
    writer.write_sequence(|info| {
        info.next().write_oid(&oid(DATA));
        info.next()
            .write_tagged(Tag::context(0), |writer| writer.write_bytes(content));
    });
}

/// Writes a SafeBag with one trusted certificate.
fn bag(writer: DERWriter<'_>, alias: &str, certificate: &CertificateDer<'_>) {
    writer.write_sequence(|bag| {
        bag.next().write_oid(&oid(CERT_BAG));
        bag.next().write_tagged(Tag::context(0), |writer| {
            writer.write_sequence(|bag| {
                bag.next().write_oid(&oid(X509_CERTIFICATE));
                bag.next()
                    .write_tagged(Tag::context(0), |writer| writer.write_bytes(certificate));
            });
        });
        bag.next().write_set_of(|attributes| {
            attribute(attributes.next(), FRIENDLY_NAME, |value| {
                value.write_bmp_string(alias);
            });
            attribute(attributes.next(), TRUSTED_KEY_USAGE, |value| {
                value.write_oid(&oid(ANY_EXTENDED_KEY_USAGE));
            });
        });
    });
}

fn attribute(writer: DERWriter<'_>, name: &[u64], value: impl FnOnce(DERWriter<'_>)) {
    writer.write_sequence(|attribute| {
        attribute.next().write_oid(&oid(name));
        attribute.next().write_set_of(|values| value(values.next()));
    });
}

fn oid(components: &[u64]) -> ObjectIdentifier {
    ObjectIdentifier::from_slice(components)
}

/// Derives the key of a MAC with SHA-256 (RFC 7292, B.2). Its key needs one block, and salt and password fit into one
/// block each.
fn mac_key(password: &str, salt: &[u8], iterations: u32) -> digest::Digest {
    const MAC: u8 = 3;
    let password: Vec<u8> = password
        .encode_utf16()
        .chain([0])
        .flat_map(u16::to_be_bytes)
        .collect();
    let mut start = vec![MAC; BLOCK];
    start.extend(salt.iter().cycle().take(BLOCK));
    start.extend(password.iter().cycle().take(BLOCK));
    (1..iterations).fold(digest::digest(&digest::SHA256, &start), |last, _| {
        digest::digest(&digest::SHA256, last.as_ref())
    })
}

#[cfg(test)]
mod tests;
