use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{ServerName, UnixTime};
use time::OffsetDateTime;
use yasna::Tag;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const HOUR: Duration = Duration::from_secs(60 * 60);

fn now() -> SystemTime {
    // Certificates have times in whole seconds.
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn authority(names: &[&str]) -> CertificateAuthority {
    CertificateAuthority::new(names.iter().map(ToString::to_string), now()).unwrap()
}

fn leaf(authority: &CertificateAuthority, name: &str) -> CertificateDer<'static> {
    let provider = aws_lc_rs::default_provider();
    let certified = authority.leaf(name, now(), &provider).unwrap();
    assert_eq!(certified.cert.len(), 1, "the CA itself is the app's");
    certified.cert[0].clone()
}

/// Verifies a leaf like an app that trusts the CA.
fn verified(
    authority: &CertificateAuthority,
    leaf: &CertificateDer<'_>,
    name: &str,
    at: SystemTime,
) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone()).unwrap();
    let verifier = WebPkiServerVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::new(aws_lc_rs::default_provider()),
    )
    .build()
    .unwrap();
    let at = UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap());
    let name = ServerName::try_from(name).unwrap();
    verifier
        .verify_server_cert(leaf, &[], &name, &[], at)
        .is_ok()
}

/// The parts of a certificate (RFC 5280, 4.1).
struct Parts {
    serial: Vec<u8>,
    begins: OffsetDateTime,
    ends: OffsetDateTime,
    subject: Vec<u8>,
    key: Vec<u8>,
    extensions: Vec<u8>,
}

fn parts(certificate: &CertificateDer<'_>) -> Parts {
    yasna::parse_der(certificate, |reader| {
        reader.read_sequence(|reader| {
            let parts = reader.next().read_sequence(|reader| {
                reader
                    .next()
                    .read_tagged(Tag::context(0), |reader| reader.read_i64())?;
                let (serial, positive) = reader.next().read_bigint_bytes()?;
                assert!(positive);
                reader.next().read_der()?;
                reader.next().read_der()?;
                let (begins, ends) = reader.next().read_sequence(|reader| {
                    Ok((
                        *reader.next().read_utctime()?.datetime(),
                        *reader.next().read_utctime()?.datetime(),
                    ))
                })?;
                Ok(Parts {
                    serial,
                    begins,
                    ends,
                    subject: reader.next().read_der()?,
                    key: reader.next().read_der()?,
                    extensions: reader.next().read_der()?,
                })
            })?;
            reader.next().read_der()?;
            reader.next().read_der()?;
            Ok(parts)
        })
    })
    .unwrap()
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// Returns the 20 bytes after this header.
fn key_id<'a>(extensions: &'a [u8], header: &[u8]) -> &'a [u8] {
    let at = extensions
        .windows(header.len())
        .position(|window| window == header)
        .unwrap();
    &extensions[at + header.len()..][..20]
}

#[test]
fn a_leaf_is_valid_for_its_host_only() {
    let authority = authority(&["run.app", "googleapis.com"]);
    let leaf = leaf(&authority, "svc.a.run.app");
    assert!(verified(&authority, &leaf, "svc.a.run.app", now()));
    assert!(!verified(&authority, &leaf, "other.a.run.app", now()));
    assert!(!verified(&authority, &leaf, "x.svc.a.run.app", now()));
}

#[test]
fn name_constraints_limit_the_ca_to_its_domains() {
    let authority = authority(&["run.app", "iap.example.com"]);
    for (name, within) in [
        ("svc.a.run.app", true),
        ("iap.example.com", true),
        ("evilrun.app", false),
        ("run.app.evil.test", false),
        ("example.com", false),
        ("storage.googleapis.com", false),
    ] {
        let leaf = leaf(&authority, name);
        assert_eq!(authority.covers(name), within, "{name}");
        assert_eq!(verified(&authority, &leaf, name, now()), within, "{name}");
    }
}

#[test]
fn an_address_is_outside_of_the_name_constraints() {
    let authority = authority(&["run.app"]);
    for address in ["127.0.0.1", "::1"] {
        let mut params = CertificateParams::new(vec![address.to_owned()]).unwrap();
        params.not_before = now().into();
        params.not_after = (now() + DAY).into();
        let leaf = params
            .signed_by(&new_key().unwrap(), &authority.issuer)
            .unwrap();
        assert!(!verified(&authority, leaf.der(), address, now()));
    }
}

#[test]
fn the_ca_satisfies_strict_verifiers() {
    let authority = authority(&["run.app"]);
    let parts = parts(authority.certificate());
    let stamp = |time: SystemTime| OffsetDateTime::from(time);
    assert_eq!(parts.begins, stamp(now() - HOUR));
    assert_eq!(parts.ends, stamp(now() + 30 * DAY));
    for (what, wanted) in [
        (
            "critical basicConstraints: a CA of path length 0",
            &b"\x06\x03\x55\x1d\x13\x01\x01\xff\x04\x08\x30\x06\x01\x01\xff\x02\x01\x00"[..],
        ),
        (
            "critical keyUsage: keyCertSign and cRLSign alone",
            &b"\x06\x03\x55\x1d\x0f\x01\x01\xff\x04\x04\x03\x02\x01\x06"[..],
        ),
        (
            "critical nameConstraints",
            &b"\x06\x03\x55\x1d\x1e\x01\x01\xff"[..],
        ),
    ] {
        assert!(holds(&parts.extensions, wanted), "{what}");
    }
}

#[test]
fn a_leaf_names_only_its_issuer_and_its_host() {
    let authority = authority(&["run.app"]);
    let ca = parts(authority.certificate());
    let leaf = parts(&leaf(&authority, "svc.a.run.app"));
    assert_eq!(leaf.begins, OffsetDateTime::from(now() - HOUR));
    assert_eq!(leaf.ends, OffsetDateTime::from(now() + DAY));
    assert_eq!(leaf.subject, b"\x30\x00");
    let issuer = key_id(
        &leaf.extensions,
        b"\x06\x03\x55\x1d\x23\x04\x18\x30\x16\x80\x14",
    );
    assert_eq!(
        issuer,
        key_id(&ca.extensions, b"\x06\x03\x55\x1d\x0e\x04\x16\x04\x14")
    );
    // One dNSName. The extension is critical, because the subject is empty.
    let san = b"\x06\x03\x55\x1d\x11\x01\x01\xff\x04\x11\x30\x0f\x82\x0dsvc.a.run.app";
    assert!(holds(&leaf.extensions, san));
    let server_auth =
        b"\x06\x03\x55\x1d\x25\x04\x0c\x30\x0a\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x01";
    assert!(holds(&leaf.extensions, server_auth));
    assert!(
        !holds(
            &leaf.extensions,
            b"\x01\x01\xff\x04\x05\x30\x03\x01\x01\xff"
        ),
        "no CA"
    );
}

#[test]
fn a_leaf_is_valid_for_a_day_and_not_longer_than_its_ca() {
    let authority = authority(&["run.app"]);
    let first = leaf(&authority, "svc.a.run.app");
    for (at, valid) in [
        (now() - HOUR, true),
        (now() - HOUR - Duration::from_secs(1), false),
        (now() + DAY, true),
        (now() + DAY + Duration::from_secs(1), false),
    ] {
        assert_eq!(verified(&authority, &first, "svc.a.run.app", at), valid);
    }
    let provider = aws_lc_rs::default_provider();
    let late = now() + LIFE - HOUR;
    let last = authority.leaf("svc.a.run.app", late, &provider).unwrap();
    let ends = parts(authority.certificate()).ends;
    assert_eq!(parts(&last.cert[0]).ends, ends);
}

#[test]
fn no_two_certificates_share_a_serial_or_a_key() {
    let one = authority(&["run.app"]);
    let certificates = [
        one.certificate().clone(),
        authority(&["run.app"]).certificate().clone(),
        leaf(&one, "a.run.app"),
        leaf(&one, "a.run.app"),
        leaf(&one, "b.run.app"),
    ];
    let parts: Vec<Parts> = certificates.iter().map(parts).collect();
    for (n, one) in parts.iter().enumerate() {
        assert_eq!(one.serial.len(), 16);
        for other in parts.iter().skip(n + 1) {
            assert_ne!(one.serial, other.serial);
            assert_ne!(one.key, other.key);
        }
    }
    // An app finds the issuer by its name, so two CAs must have different names.
    assert_ne!(parts[0].subject, parts[1].subject);
}

#[test]
fn only_host_names_get_a_leaf() {
    let authority = authority(&["run.app"]);
    let provider = aws_lc_rs::default_provider();
    assert!(authority.leaf("é.run.app", now(), &provider).is_err());
    assert!(!format!("{authority:?}").contains("key"));
}
