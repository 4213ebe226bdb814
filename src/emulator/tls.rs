//! TLS for the emulator: a CA generated at start, and a certificate for each requested name.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use aws_lc_rs::rand;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::lock::lock;

/// The cache is emptied at this number of names, so that a client that invents names cannot fill the memory.
const NAMES: usize = 256;

/// A CA whose key never leaves the process. It has no name constraints, so trust it only in tests.
pub struct LocalCa {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    provider: Arc<CryptoProvider>,
    leaves: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

/// The system has no randomness.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate: {0}")]
pub struct NoCertificate(String);

// === impl LocalCa ===

impl LocalCa {
    /// Generates a CA.
    ///
    /// # Errors
    ///
    /// Fails if the system has no randomness.
    pub fn new() -> Result<Self, NoCertificate> {
        let mut serial = [0; 16];
        rand::fill(&mut serial).map_err(|_| NoCertificate("no randomness".to_owned()))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // Each run has its own name. Otherwise a client that trusts two runs would report one's signature as forged.
        params.distinguished_name.push(
            DnType::CommonName,
            format!("sidentity emulator CA {}", super::key::hex(&serial)),
        );
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            leaves: Mutex::default(),
        })
    }

    /// Returns the CA certificate.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Returns the CA certificate as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Returns a server configuration that presents a certificate for the requested name, or for loopback.
    ///
    /// # Errors
    ///
    /// Fails if the cryptography provider supports no TLS version.
    pub fn server_config(self: &Arc<Self>, alpn: &[&[u8]]) -> Result<ServerConfig, NoCertificate> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| NoCertificate(error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as _);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(config)
    }

    fn leaf(&self, name: &str) -> Result<Arc<CertifiedKey>, NoCertificate> {
        let mut leaves = lock(&self.leaves);
        if let Some(leaf) = leaves.get(name) {
            return Ok(Arc::clone(leaf));
        }
        if leaves.len() >= NAMES {
            leaves.clear();
        }
        let leaf = Arc::new(self.sign(name)?);
        leaves.insert(name.to_owned(), Arc::clone(&leaf));
        Ok(leaf)
    }

    fn sign(&self, name: &str) -> Result<CertifiedKey, NoCertificate> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::DnsName(name.try_into()?)];
        if name == LOCALHOST {
            let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            let addresses = loopback.map(|address: IpAddr| SanType::IpAddress(address));
            params.subject_alt_names.extend(addresses);
        }
        let mut serial = [1; 16];
        let (_, random) = serial.split_at_mut(1);
        rand::fill(random).map_err(|_| NoCertificate("no randomness".to_owned()))?;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Python's verifier refuses a leaf without it since 3.13.
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|error| NoCertificate(error.to_owned()))?;
        CertifiedKey::from_der(vec![certificate], key, &self.provider)
            .map_err(|error| NoCertificate(error.to_string()))
    }
}

const LOCALHOST: &str = "localhost";

impl ResolvesServerCert for LocalCa {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.leaf(hello.server_name().unwrap_or(LOCALHOST)).ok()
    }
}

impl fmt::Debug for LocalCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalCa").finish_non_exhaustive()
    }
}

impl From<rcgen::Error> for NoCertificate {
    fn from(error: rcgen::Error) -> Self {
        Self(error.to_string())
    }
}
