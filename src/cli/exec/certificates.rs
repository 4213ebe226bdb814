//! The certificates that the caller's environment variables name.
//!
//! The command gets the same bundle in all of these variables. It contains the certificates that they named, and the
//! sidecar trusts these for upstreams, as if `--upstream-ca` had named them.

use rustls::pki_types::CertificateDer;

use super::git;
use crate::config::{self, Env};

/// Variables that name a file of certificates. Their clients read none of the other variables set here, or prefer their
/// own.
const FILES: [&str; 17] = [
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "CURL_CA_BUNDLE",
    // Deno adds these to its built-in roots.
    "DENO_CERT",
    "GIT_SSL_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HEX_CACERTS_PATH",
    "HTTPLIB2_CA_CERTS",
    "NIX_SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    NPM,
    "PERL_LWP_SSL_CA_FILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SYSTEM_CERTIFICATE_PATH",
    "YARN_HTTPS_CA_FILE_PATH",
];

/// Further variables of this kind. They are set only if the caller has set them, because without them their clients
/// read `SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE` or npm's variable.
const OPTIONAL: [&str; 12] = [
    "BUNDLE_SSL_CA_CERT",
    "COMPOSER_CAFILE",
    "CONDA_SSL_VERIFY",
    "GDAL_CURL_CA_BUNDLE",
    "HTTPS_CA_FILE",
    "JULIA_SSL_CA_ROOTS_PATH",
    "MOJO_CA_FILE",
    "RCLONE_CA_CERT",
    "TWINE_CERT",
    "WEBSOCKET_CLIENT_CA_BUNDLE",
    "YARN_CAFILE",
    "YARN_CA_FILE_PATH",
];

/// Variables that name directories. The bundle contains their certificates. The command keeps them, because its clients
/// read a directory in addition to the bundle.
const FOLDERS: [&str; 5] = [
    "COMPOSER_CAPATH",
    "GIT_SSL_CAPATH",
    "HTTPS_CA_DIR",
    "PERL_LWP_SSL_CA_PATH",
    SYSTEM_FOLDER,
];

/// npm's variable. npm accepts any spelling of it.
const NPM: &str = "NPM_CONFIG_CAFILE";
const NPM_SPELLINGS: [&str; 4] = [
    "npm_config_ca",
    "npm_config_cafile",
    "pnpm_config_ca",
    "pnpm_config_cafile",
];

/// The file of the system's roots. The configuration reads it.
const SYSTEM: &str = "SSL_CERT_FILE";
/// The directories of the system's roots, separated by colons.
const SYSTEM_FOLDER: &str = "SSL_CERT_DIR";

/// The certificates that the caller's variables name.
#[derive(Debug, Default)]
pub(super) struct InheritedCertificates {
    /// The valid certificates, without duplicates.
    pub(super) certificates: Vec<CertificateDer<'static>>,
    /// Files that cannot be read or contain no certificate, each with its variable.
    pub(super) warnings: Vec<String>,
}

/// Returns the names of the variables that will name the bundle.
pub(super) fn variables(env: &Env) -> Vec<String> {
    let inherited = OPTIONAL.into_iter().filter(|name| env.is_set(name));
    let fixed = [SYSTEM].into_iter().chain(FILES).chain(inherited);
    let git = git::entries(env).into_iter();
    let git = git.filter(|entry| entry.kind == git::Kind::Certificates);
    let git = git.map(|entry| entry.variable);
    fixed.map(str::to_owned).chain(git).collect()
}

/// Returns other spellings of these variables. They are removed.
pub(super) fn removed(env: &Env) -> Vec<String> {
    env.names("").filter(|name| is_npms(name)).collect()
}

fn is_npms(name: &str) -> bool {
    let key = name.to_ascii_lowercase().replace('-', "_");
    name != NPM && NPM_SPELLINGS.contains(&&*key)
}

// === impl InheritedCertificates ===

impl InheritedCertificates {
    /// Reads the files that the variables name.
    pub(super) fn of(env: &Env) -> Self {
        let mut found = Self::default();
        let named = FILES.into_iter().chain(OPTIONAL).chain(FOLDERS);
        let named = named.map(str::to_owned).chain(removed(env));
        let git = git::entries(env).into_iter();
        let git = git.filter(|entry| entry.kind == git::Kind::Certificates);
        for name in named.chain(git.map(|entry| entry.variable)) {
            match env.text(&name) {
                Ok(Some(value)) => found.add(&name, value, env),
                Ok(None) => {}
                Err(problem) => found.warn(problem),
            }
        }
        for value in git::parameter_certificates(env) {
            found.add(git::PARAMETERS, &value, env);
        }
        found
    }

    fn add(&mut self, name: &str, value: &str, env: &Env) {
        let system = matches!(env.text(SYSTEM), Ok(Some(file)) if file == value);
        if system || is_switch(value) {
            return;
        }
        if name == SYSTEM_FOLDER {
            // A missing file is common, so it gets no warning.
            for folder in value.split(':') {
                self.take(config::usable_certificates(folder).unwrap_or_default());
            }
            return;
        }
        let read = match value.trim_start().starts_with("-----BEGIN ") {
            true => config::usable_certificates_in(value),
            false => config::usable_certificates(value),
        };
        match read {
            Ok(certificates) => self.take(certificates),
            Err(message) => self.warn(format_args!("environment {name}: {message}")),
        }
    }

    fn take(&mut self, certificates: Vec<CertificateDer<'static>>) {
        for certificate in certificates {
            if !self.certificates.contains(&certificate) {
                self.certificates.push(certificate);
            }
        }
    }

    fn warn(&mut self, problem: impl std::fmt::Display) {
        self.warnings.push(format!(
            "{problem}. The command trusts the other certificates"
        ));
    }
}

/// Returns whether the value is a switch, as `CONDA_SSL_VERIFY` may be.
fn is_switch(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    matches!(
        &*value,
        "0" | "1" | "false" | "no" | "off" | "on" | "true" | "truststore" | "yes"
    )
}
