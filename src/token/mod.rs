//! Tokens: where they come from, how long each may be used, and who waits for whom.
//!
//! [`TokenCache`] keeps one [`Slot`] a key. A slot holds the current [`Token`] behind an atomic pointer, so that a hit
//! takes no lock and never waits, and at most one fetch under way, in a task of its own. Nothing here runs on a timer:
//! requests, the start and the liveness probe are what makes it move, because an idle instance may get no CPU at all.
//! A [source](TokenSources) issues the tokens of a principal. [`Facts`] are what the sources know beside tokens.

mod cache;
mod clock;
mod fact;
mod facts;
mod failure;
mod parse;
mod priority;
mod retry;
mod rfc3339;
mod slot;
mod source;
mod value;

pub use cache::{Refresh, TokenCache};
pub use clock::{Deadline, Now};
pub use facts::Facts;
#[cfg(any(fuzzing, test))]
pub use parse::fuzz_answers;
pub use slot::{Slot, SlotState, SlotStatus};
#[cfg(any(fuzzing, test))]
pub use source::fuzz_subject_answers;
pub use source::{MetadataClient, TokenSources};
pub use value::Token;
