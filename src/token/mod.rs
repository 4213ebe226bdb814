//! Tokens: their sources, their lifetimes, and the cache that fetches each at most once at a time.
//!
//! [`TokenCache`] keeps one [`Slot`] per key. A slot holds the current [`Token`] behind an atomic pointer, so that a
//! hit takes no lock and does not wait. It has at most one fetch in flight, in its own task. Nothing here runs on a
//! timer, because an idle instance may get no CPU. Requests, the start and the liveness probe start the fetches. A
//! [source](TokenSources) issues the tokens of a principal. [`Facts`] are the project, region, universe and accounts.

mod backoff;
mod cache;
mod clock;
mod fact;
mod facts;
mod fetch_error;
mod logins;
mod parse;
mod priority;
mod retry;
mod rfc3339;
mod slot;
mod source;
mod value;

pub use cache::TokenCache;
pub(crate) use clock::Deadline;
pub use clock::Now;
pub use facts::Facts;
pub use logins::Logins;
#[cfg(any(fuzzing, test))]
pub use parse::fuzz_answers;
pub use slot::Slot;
pub use slot::SlotState;
pub(crate) use slot::SlotStatus;
pub use source::MetadataClient;
pub use source::TokenSources;
#[cfg(any(fuzzing, test))]
pub use source::fuzz_subject_answers;
pub(crate) use value::Token;
