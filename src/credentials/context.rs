//! What reading a credential file depends on, besides the file.

use std::fmt;

use super::endpoint::TrustedUrl;

/// What reading a credential file depends on, besides the file.
#[derive(Clone, Copy)]
pub struct ReadContext<'a> {
    /// The universe domain of a file that names none.
    pub universe: &'a str,
    /// `--trust-credential-url`.
    pub trusted: &'a [TrustedUrl],
    /// The environment: other clouds tell by variables where their credentials are.
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
