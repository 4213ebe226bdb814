//! The program `sidentity`: passes the arguments to [`sidentity::cli`] and returns the exit status.

fn main() -> std::process::ExitCode {
    sidentity::cli::main(std::env::args_os(), &sidentity::config::Env::from_process())
}
