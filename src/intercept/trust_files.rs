//! `--ca-dir`: the files with which an app trusts the CA. None of them contains a private key.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;

use super::pkcs12;

/// Readable by other users, because the app may run as another user.
const MODE: u32 = 0o644;

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("flag --ca-dir: cannot write {path}: {reason}")]
pub struct NotWritten {
    path: String,
    reason: io::Error,
}

/// Writes `truststore.p12`, `bundle.pem`, and `ca.pem` last: a process that waits for it finds all files.
pub(super) fn write(
    folder: &Path,
    authority: &CertificateDer<'_>,
    roots: &[CertificateDer<'_>],
) -> Result<(), NotWritten> {
    let put = |name: &str, content: io::Result<Vec<u8>>| {
        content
            .and_then(|content| replace(folder, name, &content))
            .map_err(|reason| NotWritten {
                path: folder.join(name).display().to_string(),
                reason,
            })
    };
    let ca = pem(authority);
    let bundle: String = roots
        .iter()
        .map(|root| pem(root))
        .chain([ca.clone()])
        .collect();
    fs::create_dir_all(folder).map_err(|reason| NotWritten {
        path: folder.display().to_string(),
        reason,
    })?;
    put("truststore.p12", pkcs12::trust_store(authority, roots))?;
    put("bundle.pem", Ok(bundle.into_bytes()))?;
    put("ca.pem", Ok(ca.into_bytes()))
}

/// Replaces a file by renaming a new one, so that no process reads a partial file.
fn replace(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let new = folder.join(format!(".{name}.new"));
    // A crash left it behind, or it is a link that must not be followed.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(&new)?;
    let written = file
        .write_all(content)
        // Independent of the umask.
        .and_then(|()| file.set_permissions(Permissions::from_mode(MODE)))
        .and_then(|()| fs::rename(&new, folder.join(name)));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

/// Encodes a certificate as PEM (RFC 7468).
fn pem(certificate: &CertificateDer<'_>) -> String {
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = &*STANDARD.encode(certificate);
    while let Some((line, more)) = rest.split_at_checked(64) {
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    if !rest.is_empty() {
        pem.push_str(rest);
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests;
