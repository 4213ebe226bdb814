//! The trust roots of an app, in addition to the CA.

use std::collections::HashSet;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Returns the system's roots or those of `SSL_CERT_FILE`, else Mozilla's.
pub(super) fn system(file: Option<&Path>) -> Vec<CertificateDer<'static>> {
    let found = match file {
        // An unreadable file was already refused for the upstreams' roots.
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

/// Adds the certificates that are not in the list yet.
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
