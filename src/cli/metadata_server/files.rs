//! `--write-credentials`: a credential file of each kind, for the token endpoints of this process.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::emulator::Emulator;
use crate::emulator::google::{AWS_REGION, Endpoints, SubjectSource};

/// How long the subject tokens in the files are valid, in seconds.
const SUBJECT_LIFETIME: u64 = 24 * 60 * 60;

/// Writes the files, and returns how to use them. `reachable` is the emulator's address for apps on this machine.
pub(super) fn write(
    folder: &Path,
    emulator: &Emulator,
    reachable: SocketAddr,
) -> io::Result<String> {
    let folder = std::path::absolute(folder)?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)?;
    let google = emulator.google();
    let endpoints = Endpoints::default();
    let no_key = |error| io::Error::other(format!("{error}"));
    let subject = google
        .subject_token(SystemTime::now(), SUBJECT_LIFETIME)
        .ok_or_else(|| io::Error::other("no subject token can be made"))?;
    let account = google.service_account(&endpoints).map_err(no_key)?;
    let subject_file = put(&folder, "subject-token", &subject)?;
    let program = put(&folder, "subject-token.sh", &script(&subject))?;
    fs::set_permissions(&program, Permissions::from_mode(0o700))?;
    let federated = |source| google.external_account(&endpoints, source);
    let files = [
        ("authorized-user", google.authorized_user(&endpoints)),
        ("external-account-aws", federated(SubjectSource::Aws)),
        (
            "external-account-executable",
            federated(SubjectSource::Executable(&quoted(&program))),
        ),
        (
            "external-account-file",
            federated(SubjectSource::File(&subject_file)),
        ),
        (
            "external-account-url",
            federated(SubjectSource::Url(&format!("http://{reachable}"))),
        ),
        (
            "external-account-authorized-user",
            google.external_account_authorized_user(&endpoints),
        ),
        (
            "impersonated-service-account",
            google.impersonated(&endpoints, &account, &[]),
        ),
        ("service-account", account),
    ];
    for (name, content) in &files {
        put(&folder, &format!("{name}.json"), &pretty(content)?)?;
    }
    let keys = google.aws_environment();
    put(
        &folder,
        "aws.env",
        &format!(
            "AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\nAWS_REGION={AWS_REGION}\n",
            keys.id, keys.secret
        ),
    )?;
    let ca = put(&folder, "ca.pem", emulator.ca().pem())?;
    Ok(usage(&folder, &ca, reachable, &files))
}

/// Replaces a file atomically by one that only its owner can read.
fn put(folder: &Path, name: &str, text: &str) -> io::Result<PathBuf> {
    let path = folder.join(name);
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.persist(&path)?;
    Ok(path)
}

fn pretty(content: &Value) -> io::Result<String> {
    Ok(serde_json::to_string_pretty(content)? + "\n")
}

/// Returns a script that responds as an executable source.
fn script(subject: &str) -> String {
    let answer = json!({
        "version": 1,
        "success": true,
        "token_type": "urn:ietf:params:oauth:token-type:jwt",
        "id_token": subject,
    });
    format!("#!/bin/sh\necho '{answer}'\n")
}

/// Quotes a path for a command line.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(is_plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

fn usage(folder: &Path, ca: &Path, reachable: SocketAddr, files: &[(&str, Value)]) -> String {
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    let (folder, ca) = (quoted(folder), quoted(ca));
    format!(
        "
Credential files are in {folder}. Their keys were made at start, and nothing but this process accepts them:
{}.

Try one of them; the flags lead all connections here:

    sidentity token --credentials {folder}/service-account.json \\
        --upstream-ca {ca} --connect-to '*:443:{reachable}' https://storage.googleapis.com/
    sidentity exec --credentials {folder}/external-account-file.json \\
        --upstream-ca {ca} --connect-to '*:443:{reachable}' curl -s https://storage.googleapis.com/

For external-account-aws, add --connect-to 169.254.169.254:80:{reachable}, or set the variables in aws.env.
GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1 allows external-account-executable. Subject tokens are valid for 24 hours.
",
        names.join(", "),
    )
}
