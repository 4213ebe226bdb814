//! The chain of an error's causes.

use std::error::Error as StdError;

/// Returns the first error of a type among `error` and its causes that is `wanted`.
pub(crate) fn cause<'a, E: StdError + 'static>(
    error: &'a (dyn StdError + 'static),
    wanted: impl Fn(&E) -> bool,
) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref().filter(|found| wanted(found)) {
            return Some(found);
        }
        next = error.source();
    }
    None
}
