//! Subject tokens of workload and workforce identity federation: the tokens of another identity provider that the
//! Security Token Service exchanges.

use std::fmt;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::endpoint::EndpointClient;
use crate::credentials::CredentialSource;
use crate::token::fetch_error::FetchError;
use crate::token::priority::FetchPriority;

mod aws;
mod budget;
mod executable;
mod file;
mod format;
mod url;

use aws::AwsCache;
use budget::Budget;

/// Gets the subject tokens of one credential file.
#[derive(Debug)]
pub(super) struct SubjectTokens {
    source: CredentialSource,
    /// The audience of the exchange.
    audience: Box<str>,
    client: EndpointClient,
    /// The client that uses no proxy.
    local: EndpointClient,
    aws: Mutex<AwsCache>,
}

// === impl SubjectTokens ===

impl SubjectTokens {
    /// Creates the source. `local` sends requests to this machine and its link.
    pub(super) fn new(
        source: CredentialSource,
        audience: &str,
        client: EndpointClient,
        local: EndpointClient,
    ) -> Self {
        Self {
            source,
            audience: audience.into(),
            client,
            local,
            aws: Mutex::default(),
        }
    }

    /// Gets a new token. Its requests end at `end`.
    pub(super) async fn token(
        &self,
        priority: &FetchPriority,
        end: Instant,
    ) -> Result<String, FetchError> {
        let budget = &Budget {
            client: &self.client,
            local: &self.local,
            priority,
            end,
        };
        match &self.source {
            CredentialSource::Aws(source) => {
                let mut aws = self.aws.lock().await;
                aws.token(source, &self.audience, budget).await
            }
            CredentialSource::Executable(source) => executable::token(source).await,
            CredentialSource::File(source) => file::token(source).await,
            CredentialSource::Url(source) => url::token(source, budget).await,
        }
    }

    /// Drops cached keys after the Security Token Service refused a token.
    pub(super) async fn rejected(&self) {
        self.aws.lock().await.forget();
    }

    /// Returns the time that a token needs in addition to requests to endpoints.
    pub(super) fn own_time(&self) -> Duration {
        match &self.source {
            CredentialSource::Executable(source) => source.timeout,
            _ => Duration::ZERO,
        }
    }
}

impl fmt::Display for SubjectTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            CredentialSource::Aws(_) => f.write_str("AWS"),
            CredentialSource::Executable(source) => f.write_str(&executable::named(source)),
            CredentialSource::File(source) => f.write_str(&file::named(source)),
            CredentialSource::Url(source) => write!(f, "{}", source.url),
        }
    }
}

/// Parses any bytes as the response of each source. It must not panic, return a value that cannot be sent, or repeat a
/// token in an error.
#[cfg(any(fuzzing, test))]
pub fn fuzz_subject_answers(answer: &[u8]) {
    aws::fuzz_aws_answers(answer);
    executable::fuzz_executable_answer(answer);
    format::fuzz_contents(answer);
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_response_in_the_fuzz_corpus_breaks_an_invariant() {
        let corpus = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fuzz/corpus/subject_token"
        );
        for entry in std::fs::read_dir(corpus).unwrap() {
            super::fuzz_subject_answers(&std::fs::read(entry.unwrap().path()).unwrap());
        }
    }
}
