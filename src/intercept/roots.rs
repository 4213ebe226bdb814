//! What an app trusts beside the CA.

use std::collections::HashSet;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// The system's roots, or those of `SSL_CERT_FILE`; Mozilla's, where there are none.
pub(super) fn system(file: Option<&Path>) -> Vec<CertificateDer<'static>> {
    let found = match file {
        // Who cannot be read here was refused already, as the upstreams' roots.
        Some(file) => CertificateDer::pem_file_iter(file)
            .map(|found| found.filter_map(Result::ok).collect())
            .unwrap_or_default(),
        None => rustls_native_certs::load_native_certs().certs,
    };
    if found.is_empty() {
        return webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec();
    }
    found
}

/// Adds those that are not there yet.
pub(super) fn with(
    mut roots: Vec<CertificateDer<'static>>,
    more: &[CertificateDer<'static>],
) -> Vec<CertificateDer<'static>> {
    let known: HashSet<&[u8]> = roots.iter().map(AsRef::as_ref).collect();
    let new: Vec<_> = more
        .iter()
        .filter(|root| !known.contains(root.as_ref()))
        .cloned()
        .collect();
    roots.extend(new);
    roots
}
