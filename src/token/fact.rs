//! The facts that a source may know.

use crate::policy::Principal;

/// A fact that a source may know.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fact<'a> {
    /// The e-mail address of a principal.
    Email(&'a Principal),
    ProjectId,
    ProjectNumber,
    Region,
    Universe,
}
