//! `--upstream-ca`, and further certificates to trust.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::super::diagnostic::{Diagnostic, DiagnosticId, quote};
use super::super::file::{read_limited, read_regular_limited};
use super::super::raw::Spanned;

/// The maximum size of a file in MiB. The bundle of a system has a quarter of 1 MiB.
const MAX_MEBIBYTES: u64 = 16;

/// Returns the certificates of all files.
pub(super) fn read(
    files: &[Spanned],
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<CertificateDer<'static>> {
    let mut roots = Vec::new();
    for file in files {
        match certificates(&file.value) {
            Ok(certificates) => roots.extend(certificates),
            Err(message) => diagnostics.push(file.diagnostic(DiagnosticId::InvalidFile, message)),
        }
    }
    roots
}

/// Checks `SSL_CERT_FILE`. As in other programs, unusable certificates are ignored, but one must be usable.
pub(super) fn system(file: &str) -> Result<(), String> {
    let pem = read_regular_limited(file, MAX_MEBIBYTES)?;
    let any = CertificateDer::pem_slice_iter(&pem).any(|certificate| certificate.is_ok());
    any.then_some(())
        .ok_or_else(|| format!("{} contains no certificate: it must be PEM", quote(file)))
}

/// Returns the usable certificates of a file, or of the files in a directory that OpenSSL reads.
///
/// # Errors
///
/// The file cannot be read, or has no usable certificate.
pub fn usable_certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = if Path::new(path).is_dir() {
        let files = hashed(path)?;
        if files.is_empty() {
            return Err(format!(
                "{} contains no file that is named by the hash of its certificate, and clients read only such files. Run openssl rehash \
                 on it",
                quote(path)
            ));
        }
        files
            .iter()
            .filter_map(|file| read_regular_limited(file, MAX_MEBIBYTES).ok())
            .flat_map(|pem| usable_in(&pem))
            .collect()
    } else {
        usable_in(&read_regular_limited(path, MAX_MEBIBYTES)?)
    };
    some(found).ok_or_else(|| {
        format!(
            "{} contains no usable certificate: it must be PEM",
            quote(path)
        )
    })
}

/// Like [`usable_certificates`], for the PEM text itself.
///
/// # Errors
///
/// The text has no usable certificate.
pub fn usable_certificates_in(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    // npm also accepts escaped line breaks.
    let pem = pem.replace("\\n", "\n");
    some(usable_in(pem.as_bytes()))
        .ok_or_else(|| "the value contains no usable certificate".to_owned())
}

fn some(found: Vec<CertificateDer<'static>>) -> Option<Vec<CertificateDer<'static>>> {
    (!found.is_empty()).then_some(found)
}

/// Ignores blocks that are not certificates, because one such block makes OpenSSL refuse the whole file.
fn usable_in(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    let mut store = rustls::RootCertStore::empty();
    CertificateDer::pem_slice_iter(pem)
        .filter_map(Result::ok)
        .filter(|certificate| store.add(certificate.clone()).is_ok())
        .collect()
}

/// Returns the files of a directory whose names are hashes, as c_rehash(1) makes them.
fn hashed(folder: &str) -> Result<Vec<String>, String> {
    let entries = std::fs::read_dir(folder)
        .map_err(|error| format!("cannot read {}: {error}", quote(folder)))?;
    let mut files: Vec<String> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let parts = name.to_str().and_then(|name| name.split_once('.'));
            parts.is_some_and(|(hash, number)| {
                hash.len() == 8
                    && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
                    && number.parse::<u32>().is_ok()
            })
        })
        .filter_map(|entry| entry.path().to_str().map(str::to_owned))
        .collect();
    files.sort();
    Ok(files)
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let name = quote(path);
    let pem = read_limited(path, MAX_MEBIBYTES)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{name} is broken PEM: {error}"))?;
    if certificates.is_empty() {
        return Err(format!("{name} contains no certificate: it must be PEM"));
    }
    // Reports invalid certificates now, not at the first handshake.
    let mut store = rustls::RootCertStore::empty();
    for certificate in &certificates {
        store
            .add(certificate.clone())
            .map_err(|error| format!("{name} contains no usable certificate: {error}"))?;
    }
    Ok(certificates)
}
