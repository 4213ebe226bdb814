//! Finds the file that `--credentials` means, in the search order of Application Default Credentials (ADC).

use std::fmt;
use std::path::{Path, PathBuf};

use super::shown::path_name;

/// `--credentials`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `auto`: the search order of ADC, which ends with the metadata server.
    #[default]
    Auto,
    /// `metadata`: the metadata server only.
    Metadata,
    /// `adc`: a file from the search, never the metadata server.
    Adc,
    /// The path of a file.
    File(PathBuf),
}

/// The input of the search.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Environment<'a> {
    /// `GOOGLE_APPLICATION_CREDENTIALS`, if it is not empty.
    pub(crate) variable: Option<&'a str>,
    /// `CLOUDSDK_CONFIG`, if it is not empty.
    pub(crate) gcloud_folder: Option<&'a str>,
    /// `HOME`, if it is not empty.
    pub(crate) home: Option<&'a str>,
    /// Whether a variable says that there is a metadata server.
    pub(crate) has_metadata_server: bool,
}

/// The result of the search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A file. It may not exist if the user named it.
    File(PathBuf, FoundBy),
    /// No file: the metadata server.
    Metadata {
        /// The files and variables that were tried, for a message. `None` if a metadata server certainly exists.
        searched: Option<String>,
        /// The path of gcloud's file, which does not exist.
        looked_at: Option<PathBuf>,
    },
    /// No file, and the metadata server must not be used.
    Nothing {
        /// The files and variables that were tried, for a message.
        searched: String,
    },
}

/// The setting that named a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FoundBy {
    /// `--credentials FILE`.
    Option,
    /// `GOOGLE_APPLICATION_CREDENTIALS`.
    Variable,
    /// The search in gcloud's directory.
    Gcloud,
}

/// Why the metadata server is not called.
pub(crate) const NO_METADATA_SERVER: &str = "NO_GCE_CHECK says that there is no metadata server";

const VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
const FILE: &str = "application_default_credentials.json";

/// Finds the credential file. An existing file is never skipped, even if it is invalid.
pub(crate) fn search(mode: &Mode, environment: &Environment<'_>) -> Found {
    if let Mode::File(path) = mode {
        return Found::File(path.clone(), FoundBy::Option);
    }
    if *mode == Mode::Metadata {
        return Found::Metadata {
            searched: None,
            looked_at: None,
        };
    }
    if let Some(path) = environment.variable {
        return Found::File(path.into(), FoundBy::Variable);
    }
    if *mode == Mode::Auto && environment.has_metadata_server {
        return Found::Metadata {
            searched: None,
            looked_at: None,
        };
    }
    let gcloud = environment.gcloud_file();
    if let Some(path) = gcloud.as_deref().filter(|path| exists(path)) {
        return Found::File(path.to_owned(), FoundBy::Gcloud);
    }
    let gcloud_text = match &gcloud {
        Some(path) => format!("{} does not exist", path_name(path)),
        None => "CLOUDSDK_CONFIG and HOME are not set, so there is no file of gcloud".to_owned(),
    };
    let searched = format!("{VARIABLE} is not set; {gcloud_text}");
    match mode {
        Mode::Adc => Found::Nothing { searched },
        _ => Found::Metadata {
            searched: Some(searched),
            looked_at: gcloud,
        },
    }
}

/// Returns the message that the search found nothing, and that the metadata server is not called, with advice.
pub(crate) fn nothing_found_without_server(searched: &str) -> String {
    format!(
        "no credentials were found: {searched}; {NO_METADATA_SERVER}. Unset NO_GCE_CHECK if there is one; otherwise run \
         `gcloud auth application-default login` (then restart, or send SIGHUP if gcloud's directory existed at the start), \
         or set GOOGLE_APPLICATION_CREDENTIALS"
    )
}

/// Returns the message that the search found nothing, with advice. `why` says why no metadata server was found.
pub(crate) fn nothing_found(searched: &str, why: &str) -> String {
    format!(
        "no credentials were found: {searched}; {why}. Run `gcloud auth application-default login` (then restart, or send \
         SIGHUP if gcloud's directory existed at the start), or set GOOGLE_APPLICATION_CREDENTIALS or GCE_METADATA_HOST"
    )
}

/// Returns whether the file exists. A file without access counts as existing, because reading it reports the reason.
fn exists(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}

// === impl Environment ===

impl Environment<'_> {
    /// Returns the path of the file that `gcloud auth application-default login` writes.
    fn gcloud_file(&self) -> Option<PathBuf> {
        let folder = match (self.gcloud_folder, self.home) {
            (Some(folder), _) => PathBuf::from(folder),
            (None, Some(home)) => Path::new(home).join(".config/gcloud"),
            (None, None) => return None,
        };
        Some(folder.join(FILE))
    }
}

// === impl Mode ===

impl Mode {
    /// Parses `auto`, `metadata`, `adc` or a path.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" => return None,
            "auto" => Self::Auto,
            "metadata" => Self::Metadata,
            "adc" => Self::Adc,
            path => Self::File(path.into()),
        })
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Metadata => f.write_str("metadata"),
            Self::Adc => f.write_str("adc"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

// === impl FoundBy ===

impl fmt::Display for FoundBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Option => "--credentials",
            Self::Variable => VARIABLE,
            Self::Gcloud => "gcloud's directory",
        })
    }
}

#[cfg(test)]
mod tests;
