//! How many descriptors the process may open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit that the process was started with. A child is started with it too: a program may loop over all descriptors
/// that it could have, or use `select`, which knows 1024.
#[derive(Clone, Debug)]
pub struct DescriptorLimit(Rlimit);

/// Raises the soft limit to the hard one: each connection costs a descriptor on either side.
pub fn raise_descriptor_limit() -> DescriptorLimit {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    // Without it the process serves as many as it may.
    let _ = setrlimit(Resource::Nofile, raised);
    DescriptorLimit(before)
}

// === impl DescriptorLimit ===

impl DescriptorLimit {
    /// Runs `start` under the limit from before.
    pub fn restored<T>(self, start: impl FnOnce() -> T) -> T {
        let _ = setrlimit(Resource::Nofile, self.0);
        let started = start();
        raise_descriptor_limit();
        started
    }
}
