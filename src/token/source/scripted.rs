//! A token source for tests that returns scripted results.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{FetchFuture, TokenSource};
use crate::error::{SourceKind, TokenFault};
use crate::policy::{Principal, TokenKey};
use crate::token::clock::Now;
use crate::token::fetch_error::FetchError;
use crate::token::priority::FetchPriority;
use crate::token::value::Token;

/// The time limit of a fetch.
pub(in crate::token) const TIMEOUT: Duration = Duration::from_secs(8);

type Result = std::result::Result<Token, FetchError>;
type Script = dyn Fn(usize) -> FetchFuture<'static, Token> + Send + Sync;

/// Calls a function with the number of the fetch, which starts at 1.
#[derive(Clone)]
pub(in crate::token) struct Scripted {
    script: Arc<Script>,
    calls: Arc<AtomicUsize>,
}

impl Scripted {
    /// Creates a source that runs `script`.
    pub(in crate::token) fn new<F>(script: impl Fn(usize) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result> + Send + 'static,
    {
        Self {
            script: Arc::new(move |call| Box::pin(script(call))),
            calls: Arc::default(),
        }
    }

    /// Returns the number of fetches so far.
    pub(in crate::token) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl TokenSource for Scripted {
    fn describe(&self) -> &'static str {
        "the script"
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Metadata
    }

    fn serves(&self, _: &Principal) -> bool {
        true
    }

    fn fetch<'a>(&'a self, _: &'a TokenKey, _: &'a FetchPriority) -> FetchFuture<'a, Token> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        (self.script)(call)
    }

    fn time_limit(&self) -> Duration {
        TIMEOUT
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scripted").finish_non_exhaustive()
    }
}

/// Returns a token that is valid for `seconds` from now.
pub(in crate::token) fn token(value: &str, seconds: u64) -> Result {
    let now = Now::now();
    let expires = now.after(Duration::from_secs(seconds));
    Ok(Token::new(value, expires, now).expect("a token"))
}

/// Returns the error of a server that is down.
pub(in crate::token) fn unavailable(words: &str) -> Result {
    Err(FetchError::new(TokenFault::Unreachable, words))
}

/// Returns the error of a server that refuses.
pub(in crate::token) fn refused(words: &str) -> Result {
    Err(FetchError::new(TokenFault::NoAccount, words))
}
