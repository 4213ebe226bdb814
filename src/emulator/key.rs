//! The key that signs ID tokens, and its public key in the formats that verifiers fetch.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, DistinguishedName, DnType};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde::Serialize;
use serde_json::{Value, json};

/// The beginning of `RSAPublicKey` (RFC 8017, A.1.1) for a modulus of 2048 bits and the exponent 65537. The modulus and
/// [`AFTER_MODULUS`] follow.
const BEFORE_MODULUS: [u8; 9] = [0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00];
const AFTER_MODULUS: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];

/// An RSA key pair of 2048 bits.
pub(super) struct GeneratedKey {
    pair: KeyPair,
    id: String,
    header: String,
}

/// The key cannot be generated or encoded. The random number generator or the memory allocation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot generate a key")]
pub(super) struct NoKey;

// === impl GeneratedKey ===

impl GeneratedKey {
    /// Generates a key.
    pub(super) fn generate() -> Result<Self, NoKey> {
        let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| NoKey)?;
        let id = hex(digest(&SHA256, pair.public_key().as_ref()).as_ref())
            .chars()
            .take(40)
            .collect::<String>();
        let header = encoded(&json!({"alg": "RS256", "kid": id, "typ": "JWT"}));
        Ok(Self { pair, id, header })
    }

    /// Returns the public key as `RSAPublicKey` DER.
    pub(super) fn public_key(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// Returns the key id for the header of each JWT.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Returns the private key as PKCS#8 PEM, for a credential file.
    pub(super) fn private_pem(&self) -> Result<String, NoKey> {
        Ok(self.certificate_key()?.serialize_pem())
    }

    /// Signs a JWT (RFC 7519) in compact form.
    pub(super) fn sign(&self, claims: &impl Serialize) -> Option<String> {
        let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims).ok()?);
        let message = format!("{}.{payload}", self.header);
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                message.as_bytes(),
                &mut signature,
            )
            .ok()?;
        Some(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Returns the public key as a JWK set (RFC 7517, RFC 7518 6.3).
    pub(super) fn jwks(&self) -> Result<Value, NoKey> {
        let modulus = self
            .public_key()
            .strip_prefix(&BEFORE_MODULUS)
            .and_then(|rest| rest.strip_suffix(&AFTER_MODULUS))
            .ok_or(NoKey)?;
        Ok(json!({"keys": [{
            "alg": "RS256",
            "e": "AQAB",
            "kid": self.id,
            "kty": "RSA",
            "n": URL_SAFE_NO_PAD.encode(modulus),
            "use": "sig",
        }]}))
    }

    /// Returns the public key as certificates by key id, like `https://www.googleapis.com/oauth2/v1/certs`.
    pub(super) fn certificates(&self) -> Result<Value, NoKey> {
        let key = self.certificate_key()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "sidentity metadata-server");
        let certificate = params.self_signed(&key).map_err(|_| NoKey)?;
        Ok(json!({ &self.id: certificate.pem() }))
    }

    fn certificate_key(&self) -> Result<rcgen::KeyPair, NoKey> {
        let private = self.pair.as_der().map_err(|_| NoKey)?;
        rcgen::KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(private.as_ref()),
            &rcgen::PKCS_RSA_SHA256,
        )
        .map_err(|_| NoKey)
    }
}

impl fmt::Debug for GeneratedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeneratedKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Encodes bytes in lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}
