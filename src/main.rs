//! The program `sidentity`: passes the arguments to [`sidentity::cli`] and returns the exit status.

/// Returns memory to the system after a peak, which glibc's allocator does not. Its settings are in
/// `.cargo/config.toml`.
#[cfg(all(feature = "jemalloc", target_arch = "x86_64", target_os = "linux"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    sidentity::cli::main(std::env::args_os(), &sidentity::config::Env::from_process())
}
