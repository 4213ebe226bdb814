use yasna::{ASN1Result, BERReader};

use super::*;

/// The parts of a store that a reader of trust stores uses.
struct Store {
    safe: Vec<u8>,
    mac: Vec<u8>,
    salt: Vec<u8>,
    entries: Vec<(String, Vec<u8>)>,
}

fn content(reader: BERReader<'_, '_>) -> ASN1Result<Vec<u8>> {
    reader.read_sequence(|reader| {
        assert_eq!(reader.next().read_oid()?, oid(DATA));
        reader
            .next()
            .read_tagged(Tag::context(0), |reader| reader.read_bytes())
    })
}

fn entry(reader: BERReader<'_, '_>) -> ASN1Result<(String, Vec<u8>)> {
    reader.read_sequence(|reader| {
        assert_eq!(reader.next().read_oid()?, oid(CERT_BAG), "no bag for a key");
        let certificate = reader.next().read_tagged(Tag::context(0), |reader| {
            reader.read_sequence(|reader| {
                assert_eq!(reader.next().read_oid()?, oid(X509_CERTIFICATE));
                reader
                    .next()
                    .read_tagged(Tag::context(0), |reader| reader.read_bytes())
            })
        })?;
        let (mut alias, mut trusted) = (String::new(), false);
        reader.next().read_set_of(|reader| {
            reader.read_sequence(|reader| {
                let name = reader.next().read_oid()?;
                reader.next().read_set_of(|reader| {
                    if name == oid(FRIENDLY_NAME) {
                        alias = reader.read_bmp_string()?;
                    } else {
                        assert_eq!(name, oid(TRUSTED_KEY_USAGE));
                        trusted = reader.read_oid()? == oid(ANY_EXTENDED_KEY_USAGE);
                    }
                    Ok(())
                })
            })
        })?;
        assert!(trusted, "Java would not see it");
        Ok((alias, certificate))
    })
}

fn open(store: &[u8]) -> Store {
    let (safe, mac, salt) = yasna::parse_der(store, |reader| {
        reader.read_sequence(|reader| {
            assert_eq!(reader.next().read_u8()?, 3);
            let safe = content(reader.next())?;
            let (mac, salt) = reader.next().read_sequence(|reader| {
                let mac = reader.next().read_sequence(|reader| {
                    reader.next().read_der()?;
                    reader.next().read_bytes()
                })?;
                let salt = reader.next().read_bytes()?;
                assert_eq!(reader.next().read_u32()?, ITERATIONS);
                Ok((mac, salt))
            })?;
            Ok((safe, mac, salt))
        })
    })
    .unwrap();
    let bags = yasna::parse_der(&safe, |reader| {
        reader.read_sequence(|reader| content(reader.next()))
    })
    .unwrap();
    let entries = yasna::parse_der(&bags, |reader| reader.collect_sequence_of(entry)).unwrap();
    Store {
        safe,
        mac,
        salt,
        entries,
    }
}

#[test]
fn every_certificate_is_a_trusted_entry_with_its_own_alias() {
    let certificate = |byte| CertificateDer::from(vec![byte; 9]);
    let store = open(&trust_store(&certificate(1), &[certificate(2), certificate(3)]).unwrap());
    let entries: Vec<(&str, &[u8])> = store
        .entries
        .iter()
        .map(|(alias, certificate)| (&**alias, &**certificate))
        .collect();
    assert_eq!(
        entries,
        [
            ("sidentity", &[1; 9][..]),
            ("root-1", &[2; 9]),
            ("root-2", &[3; 9])
        ]
    );
}

#[test]
fn the_mac_is_that_of_the_password_changeit() {
    let store = open(&trust_store(&CertificateDer::from(vec![1; 9]), &[]).unwrap());
    let key = mac_key("changeit", &store.salt, ITERATIONS);
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_ref());
    assert!(hmac::verify(&key, &store.safe, &store.mac).is_ok());
    let other = mac_key("changeme", &store.salt, ITERATIONS);
    let other = hmac::Key::new(hmac::HMAC_SHA256, other.as_ref());
    assert!(hmac::verify(&other, &store.safe, &store.mac).is_err());
}

#[test]
fn the_key_is_derived_as_by_openssl() {
    // openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt id:3 -kdfopt iter:3 … PKCS12KDF
    let salt: Vec<u8> = (0..16).collect();
    let expected = [
        0x04, 0xd3, 0x9a, 0x89, 0x3a, 0x1d, 0x13, 0x3f, 0xd7, 0x5e, 0xa7, 0x54, 0xfb, 0xa8, 0x56,
        0xf6, 0xc9, 0x0a, 0xd3, 0xdc, 0x3a, 0xbb, 0xb2, 0xe5, 0x09, 0x95, 0xaa, 0x3d, 0x5f, 0xa0,
        0x2e, 0x0f,
    ];
    assert_eq!(mac_key("changeit", &salt, 3).as_ref(), expected);
}
