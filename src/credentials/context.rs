//! The inputs, besides the file, for reading a credential file.

use std::fmt;

use super::endpoint::TrustedUrl;

/// The inputs, besides the file, for reading a credential file.
#[derive(Clone, Copy)]
pub struct ReadContext<'a> {
    /// The universe domain if the file names none.
    pub universe: &'a str,
    /// `--trust-credential-url`.
    pub trusted: &'a [TrustedUrl],
    /// The environment. Other clouds describe their credentials in variables.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

impl fmt::Debug for ReadContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadContext")
            .field("universe", &self.universe)
            .field("trusted", &self.trusted)
            .finish_non_exhaustive()
    }
}
