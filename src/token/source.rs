//! Where tokens come from.

use std::time::Duration;

use super::failure::FetchError;
use super::priority::FetchPriority;
use super::value::Token;
use crate::policy::TokenKey;

pub(super) mod metadata;
#[cfg(test)]
pub(super) mod scripted;

pub use metadata::MetadataClient;

/// A fetch gets this long beyond its own time-out before it is taken for frozen.
const GRACE: Duration = Duration::from_secs(2);

/// The kinds of source.
#[derive(Clone, Debug)]
pub enum TokenSource {
    /// The metadata server.
    Metadata(MetadataClient),
    /// A function, in tests on paused time.
    #[cfg(test)]
    #[doc(hidden)]
    Scripted(scripted::Scripted),
}

// === impl TokenSource ===

impl TokenSource {
    pub(super) async fn fetch(
        &self,
        key: &TokenKey,
        priority: &FetchPriority,
    ) -> Result<Token, FetchError> {
        match self {
            Self::Metadata(client) => client.token(key, priority).await,
            #[cfg(test)]
            Self::Scripted(script) => script.fetch().await,
        }
    }

    /// A fetch under way for longer than this was frozen with the instance; nobody should wait for it.
    pub(super) fn limit(&self) -> Duration {
        match self {
            Self::Metadata(client) => client.timeout() + GRACE,
            #[cfg(test)]
            Self::Scripted(_) => scripted::TIMEOUT + GRACE,
        }
    }
}
