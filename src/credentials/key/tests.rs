use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;

/// Returns a shared key pair, because generating one takes most of a second.
pub(crate) fn pair() -> &'static KeyPair {
    static PAIR: std::sync::OnceLock<KeyPair> = std::sync::OnceLock::new();
    PAIR.get_or_init(|| KeyPair::generate(KeySize::Rsa2048).unwrap())
}

pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

fn pkcs8() -> Vec<u8> {
    AsDer::<Pkcs8V1Der<'_>>::as_der(pair())
        .unwrap()
        .as_ref()
        .to_vec()
}

/// Returns [`pair`] in the form of a service account's file.
pub(crate) fn private_key() -> String {
    pem("PRIVATE KEY", &pkcs8())
}

/// Verifies a signature of [`pair`].
pub(crate) fn verify(message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair().public_key().as_ref())
        .verify(message, signature)
        .is_ok()
}

/// Returns the key as `RSAPrivateKey`, which follows 26 bytes of `PrivateKeyInfo` (RFC 5208, 5; RFC 8017, A.1.2).
fn pkcs1() -> Vec<u8> {
    pkcs8()[26..].to_vec()
}

#[test]
fn a_key_is_read_from_pkcs8_and_from_pkcs1() {
    for pem in [private_key(), pem("RSA PRIVATE KEY", &pkcs1())] {
        let key = SigningKey::from_pem(&pem).unwrap();
        assert!(verify(b"message", &key.sign(b"message").unwrap()));
        assert_eq!(format!("{key:?}"), "SigningKey { .. }");
    }
}

#[test]
fn a_damaged_pem_block_is_an_error_that_says_what_is_damaged() {
    let whole = private_key();
    let (body, _) = whole.split_once("-----END").unwrap();
    for (text, expected) in [
        (whole.replace('\n', "\\n"), InvalidKey::NoLines),
        (whole.replace('\n', ""), InvalidKey::NoLines),
        (
            whole.replacen("KEY-----\n", "KEY-----", 1),
            InvalidKey::NoLines,
        ),
        (body.to_owned(), InvalidKey::NoEnd),
        (
            whole.replacen("END PRIVATE", "END PUBLIC", 1),
            InvalidKey::NoEnd,
        ),
        (whole.replacen("\nMII", "\n*II", 1), InvalidKey::NotBase64),
    ] {
        let error = SigningKey::from_pem(&text).unwrap_err();
        assert_eq!(error, expected);
        let text = error.to_string();
        assert!(
            text.ends_with(" is expected") && !text.contains("begins with"),
            "{text}"
        );
    }
}

#[test]
fn a_key_that_is_not_rsa_is_an_error_without_its_content() {
    let mut torn = pkcs8();
    torn.truncate(600);
    let ec = rcgen::KeyPair::generate().unwrap().serialize_pem();
    for (text, expected) in [
        ("", InvalidKey::NotPem),
        ("secret", InvalidKey::NotPem),
        (&*pem("CERTIFICATE", b"secret"), InvalidKey::NotPem),
        (&*pem("PRIVATE KEY", b"secret"), InvalidKey::NotRsa),
        (&*pem("PRIVATE KEY", &torn), InvalidKey::NotRsa),
        (&*ec, InvalidKey::NotRsa),
    ] {
        assert_eq!(SigningKey::from_pem(text), Err(expected));
    }
}
