//! `--upstream-ca`.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::super::file::bounded;
use super::super::problem::{Problem, quote};
use super::super::raw::Text;

/// In MiB; a system's whole bundle is a quarter of one.
const LARGEST: u64 = 16;

/// Every certificate of every file.
pub(super) fn read(files: &[Text], problems: &mut Vec<Problem>) -> Vec<CertificateDer<'static>> {
    let mut roots = Vec::new();
    for file in files {
        match certificates(&file.value) {
            Ok(certificates) => roots.extend(certificates),
            Err(message) => problems.push(file.problem(message)),
        }
    }
    roots
}

/// `SSL_CERT_FILE` as every other program takes it: what of it cannot be used is left out, but something must be there.
pub(super) fn system(file: &str) -> Result<(), String> {
    let pem = bounded(file, LARGEST)?;
    let any = CertificateDer::pem_slice_iter(&pem).any(|certificate| certificate.is_ok());
    any.then_some(())
        .ok_or_else(|| format!("{} holds no certificate: it must be PEM", quote(file)))
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let name = quote(path);
    let pem = bounded(path, LARGEST)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{name} is broken PEM: {error}"))?;
    if certificates.is_empty() {
        return Err(format!("{name} holds no certificate: it must be PEM"));
    }
    // PEM around nonsense is found now rather than at the first handshake.
    let mut store = rustls::RootCertStore::empty();
    for certificate in &certificates {
        store
            .add(certificate.clone())
            .map_err(|error| format!("{name} holds no usable certificate: {error}"))?;
    }
    Ok(certificates)
}
