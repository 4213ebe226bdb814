//! The CA and the certificates that it signs (RFC 5280).

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// The lifetime of the CA. A sidecar that runs longer needs a restart, and its log warns of that.
const LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The lifetime of a leaf.
pub(super) const LEAF_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// The time by which validity begins in the past, because the app's clock may be behind.
const BACK_DATED: Duration = Duration::from_secs(60 * 60);

/// A CA that lives as long as the process.
pub(super) struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// Without wildcards, because a name constraint covers a domain and its subdomains.
    names: Vec<Box<str>>,
    until: SystemTime,
}

/// The system has no randomness, or a certificate cannot contain a name.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot make a certificate for --intercept: {0}")]
pub struct NoAuthority(pub(super) String);

// === impl CertificateAuthority ===

impl CertificateAuthority {
    /// Creates a CA for these domains and their subdomains.
    pub(super) fn new(
        names: impl IntoIterator<Item = String>,
        now: SystemTime,
    ) -> Result<Self, NoAuthority> {
        let names: Vec<Box<str>> = names.into_iter().map(String::into_boxed_str).collect();
        let serial = serial()?;
        let until = now + LIFE;
        let mut params = CertificateParams::default();
        // Each run has its own name. Otherwise an app that trusts one run's CA would report the other's signature as
        // forged.
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(
            DnType::CommonName,
            format!("sidentity local CA {}", hex(&serial)),
        );
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (now - BACK_DATED).into();
        params.not_after = until.into();
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: names
                .iter()
                .map(|name| GeneralSubtree::DnsName(name.to_string()))
                .collect(),
            // Constraints on names do not restrict addresses, so all addresses are excluded (RFC 5280, 4.2.1.10).
            excluded_subtrees: vec![
                GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
                GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
            ],
        });
        let key = new_key()?;
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
            names,
            until,
        })
    }

    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Returns when the CA expires.
    pub(super) fn until(&self) -> SystemTime {
        self.until
    }

    /// Returns whether a leaf for this name satisfies the name constraints.
    pub(super) fn covers(&self, name: &str) -> bool {
        self.names.iter().any(|domain| {
            name.strip_suffix(&**domain)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }

    /// Issues a certificate for exactly this name, with its own key.
    pub(super) fn leaf(
        &self,
        name: &str,
        now: SystemTime,
        provider: &CryptoProvider,
    ) -> Result<Arc<CertifiedKey>, NoAuthority> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::DnsName(name.try_into()?)];
        params.serial_number = Some(SerialNumber::from_slice(&serial()?));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Strict verifiers, such as Python's since 3.13, refuse a leaf without it.
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - BACK_DATED).into();
        params.not_after = (now + LEAF_LIFE).min(self.until).into();
        let key = new_key()?;
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|error| NoAuthority(error.to_owned()))?;
        let certified = CertifiedKey::from_der(vec![certificate], key, provider)
            .map_err(|error| NoAuthority(error.to_string()))?;
        Ok(Arc::new(certified))
    }
}

/// Omits the key.
impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority")
            .field("names", &self.names)
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}

impl From<rcgen::Error> for NoAuthority {
    fn from(error: rcgen::Error) -> Self {
        Self(error.to_string())
    }
}

fn new_key() -> Result<KeyPair, NoAuthority> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

/// Returns a random, positive number of full length: the first bit is 0, the second 1 (RFC 5280, 4.1.2.2).
fn serial() -> Result<[u8; 16], NoAuthority> {
    let mut serial = [0; 16];
    rand::fill(&mut serial).map_err(|_| NoAuthority("the system has no randomness".to_owned()))?;
    let [first, ..] = &mut serial;
    *first = *first & 0x3f | 0x40;
    Ok(serial)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
