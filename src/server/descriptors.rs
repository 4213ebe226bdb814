//! The limit on open descriptors of the process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The descriptor limit from before the raise. Child processes start with it: a program may loop over all possible
/// descriptors, or use `select`, which supports 1024.
#[derive(Clone, Debug)]
pub(crate) struct DescriptorLimit(Rlimit);

/// Raises the soft limit to the hard limit, because each connection needs a descriptor on either side.
pub(crate) fn raise_descriptor_limit() -> DescriptorLimit {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    // If it fails, the process serves fewer connections.
    let _ = setrlimit(Resource::Nofile, raised);
    DescriptorLimit(before)
}

// === impl DescriptorLimit ===

impl DescriptorLimit {
    /// Runs `start` under the original limit.
    pub(crate) fn restored<T>(self, start: impl FnOnce() -> T) -> T {
        let _ = setrlimit(Resource::Nofile, self.0);
        let started = start();
        raise_descriptor_limit();
        started
    }
}
