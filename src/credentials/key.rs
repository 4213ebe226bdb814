//! The private key of a service account.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::{self, PemObject};

/// An RSA private key. Clones share it. `Debug` shows no part of it.
#[derive(Clone)]
pub(crate) struct SigningKey(Arc<KeyPair>);

/// The reason that a text is not a private key. The message repeats no part of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidKey {
    /// There is no PEM block of a private key.
    #[error("a PEM block that begins with -----BEGIN PRIVATE KEY----- is expected")]
    NotPem,
    /// The BEGIN line has more than the label, for example because the line breaks were lost.
    #[error("a PEM block of several lines, separated by line breaks, is expected")]
    NoLines,
    /// The block has no END line with the label of its BEGIN line.
    #[error(
        "a PEM block that ends with the same label as it begins, such as -----END PRIVATE KEY-----, is expected"
    )]
    NoEnd,
    /// The lines between BEGIN and END are not base64.
    #[error("a PEM block of valid base64 is expected")]
    NotBase64,
    /// The key is of another type, damaged, or too short.
    #[error("an RSA private key of 2048 to 8192 bits in PKCS#8 or PKCS#1 is expected")]
    NotRsa,
}

// === impl SigningKey ===

impl SigningKey {
    /// Parses a PEM block with a PKCS#8 (`PRIVATE KEY`) or PKCS#1 (`RSA PRIVATE KEY`) key.
    ///
    /// # Errors
    ///
    /// Fails if there is no such block, or if its key is not an RSA key that can sign.
    pub(crate) fn from_pem(pem: &str) -> Result<Self, InvalidKey> {
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| InvalidKey::of_pem(pem, &error))?;
        let pair = match &der {
            PrivateKeyDer::Pkcs8(der) => KeyPair::from_pkcs8(der.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(der) => KeyPair::from_der(der.secret_pkcs1_der()),
            _ => return Err(InvalidKey::NotRsa),
        };
        let pair = pair.map_err(|_| InvalidKey::NotRsa)?;
        Ok(Self(Arc::new(pair)))
    }

    /// Signs with RSASSA-PKCS1-v1_5 and SHA-256 (`RS256`, RFC 7518, 3.3). Returns `None` if the random number generator
    /// fails.
    pub(crate) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                message,
                &mut signature,
            )
            .ok()?;
        Some(signature)
    }
}

// === impl InvalidKey ===

impl InvalidKey {
    /// Returns the reason that a text has no PEM block of a private key.
    fn of_pem(pem: &str, error: &pem::Error) -> Self {
        let mut lines = pem.lines().map(str::trim);
        let begin =
            lines.find(|line| line.starts_with("-----BEGIN ") && line.contains("PRIVATE KEY-----"));
        match (begin, error) {
            (None, _) => Self::NotPem,
            (Some(line), _)
                if !line.ends_with("PRIVATE KEY-----") || line.contains("-----END ") =>
            {
                Self::NoLines
            }
            (_, pem::Error::MissingSectionEnd { .. }) => Self::NoEnd,
            (_, pem::Error::Base64Decode(_)) => Self::NotBase64,
            _ => Self::NotPem,
        }
    }
}

impl PartialEq for SigningKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.public_key().as_ref() == other.0.public_key().as_ref()
    }
}

impl Eq for SigningKey {}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests;
