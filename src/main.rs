//! Arguments in, exit status out.

fn main() -> std::process::ExitCode {
    sidentity::cli::main(std::env::args_os(), &sidentity::config::Env::from_process())
}
