//! A certificate authority for one measurement, and the TLS configurations of both ends.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::Failure;

/// The file name of the authority's certificate.
pub const CA: &str = "ca.pem";
/// The file names of the upstream's certificate and key.
const CERTIFICATE: &str = "upstream.pem";
const KEY: &str = "upstream.key";

/// The upstream's names: a service, functions, and the machine itself.
const NAMES: [&str; 3] = ["*.us-central1.run.app", "*.cloudfunctions.net", "localhost"];

/// Creates an authority and the upstream's certificate, ECDSA P-256 like Google's.
pub fn make(folder: &Path) -> Result<(), Failure> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "sidentity measurements");
    let key = KeyPair::generate()?;
    let authority = params.self_signed(&key)?;
    let issuer = Issuer::new(params, key);
    let mut leaf = CertificateParams::new(NAMES.map(str::to_owned).to_vec())?;
    leaf.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &issuer)?;
    fs::create_dir_all(folder)?;
    fs::write(folder.join(CA), authority.pem())?;
    fs::write(folder.join(CERTIFICATE), certificate.pem())?;
    fs::write(folder.join(KEY), key.serialize_pem())?;
    Ok(())
}

/// Returns the upstream's configuration.
pub fn server(folder: &Path) -> Result<Arc<ServerConfig>, Failure> {
    let certificate = CertificateDer::from_pem_file(folder.join(CERTIFICATE))?;
    let key = PrivateKeyDer::from_pem_file(folder.join(KEY))?;
    // The same cipher for every proxy, independent of its preference.
    let cipher = aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384;
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![cipher],
        ..aws_lc_rs::default_provider()
    });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Returns the configuration of a client that trusts the authorities in this file and speaks one protocol.
pub fn client(ca: &Path, http2: bool) -> Result<Arc<ClientConfig>, Failure> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(ca)? {
        roots.add(root?)?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let protocol: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}
