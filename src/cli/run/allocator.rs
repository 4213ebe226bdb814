//! The return of free memory to the system.

/// Starts jemalloc's thread, which returns memory that is free for a while and sleeps otherwise. Without it memory is
/// only returned while calls allocate. A thread inherits the sandbox, so it must start after it.
#[cfg(all(feature = "jemalloc", target_arch = "x86_64", target_os = "linux"))]
pub(super) fn return_free_memory() {
    use tikv_jemalloc_ctl::{background_thread, max_background_threads};

    let started = max_background_threads::write(1).and_then(|()| background_thread::write(true));
    if let Err(error) = started {
        tracing::debug!("the allocator returns no memory while there are no calls: {error}");
    }
}

/// The allocator of the system has no thread.
#[cfg(not(all(feature = "jemalloc", target_arch = "x86_64", target_os = "linux")))]
pub(super) const fn return_free_memory() {}
