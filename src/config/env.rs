//! The environment, read once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

use super::{Diagnostic, DiagnosticId};

/// The environment of the process as a value, so that tests and the resolver do not depend on the process.
#[derive(Clone, Default)]
pub struct Env(BTreeMap<OsString, OsString>);

// === impl Env ===

impl Env {
    /// Reads the environment of the process.
    pub fn from_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// Returns the variable's text, or `None` if it is not set or empty.
    ///
    /// # Errors
    ///
    /// The value is not UTF-8.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Diagnostic> {
        match self.0.get(std::ffi::OsStr::new(name)) {
            None => Ok(None),
            Some(value) => match value.to_str() {
                Some("") => Ok(None),
                Some(text) => Ok(Some(text)),
                None => Err(Diagnostic::new(
                    DiagnosticId::NotUtf8,
                    format!("environment {name}"),
                    "the value must be UTF-8 text",
                )),
            },
        }
    }

    /// Returns whether the variable is set and not empty.
    pub fn is_set(&self, name: &str) -> bool {
        self.0
            .get(std::ffi::OsStr::new(name))
            .is_some_and(|value| !value.is_empty())
    }

    /// Returns only the variables that Cloud Run sets.
    pub(super) fn of_platform(&self) -> Self {
        let is_platform = |name: &OsString| {
            let name = name.to_string_lossy();
            name.starts_with("K_") || name.starts_with("CLOUD_RUN_")
        };
        let variables = self.0.iter().filter(|(name, _)| is_platform(name));
        Self(
            variables
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        )
    }

    /// Returns this environment without the sidecar's own options, for a command that must ignore them.
    pub(crate) fn without_options(&self) -> Self {
        let kept = self
            .0
            .iter()
            .filter(|(name, _)| !name.to_string_lossy().starts_with("SIDENTITY_"));
        kept.map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// Returns the names of all variables that begin with `prefix`, in order.
    pub fn names<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = String> + 'a {
        self.0
            .keys()
            .map(|name| name.to_string_lossy())
            .filter(move |name| name.starts_with(prefix))
            .map(std::borrow::Cow::into_owned)
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Env {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Self(
            variables
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }
}

/// Shows only names, because values contain passwords.
impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
