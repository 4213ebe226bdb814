//! `sidentity metadata-server`: the emulator as a command.

mod files;
mod real;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::exit::Exit;
use super::interruption::interruption;
use super::runtime::runtime;
use crate::config::Env;
use crate::emulator::{Email, Emulator, Identity, Lifetime, ProjectId, Region};

/// The project's number if none is given.
const PROJECT_NUMBER: u64 = 424_242;

/// Emulate the metadata server, for development and CI; with --credentials, serve real tokens.
///
/// Its tokens have the form of the real ones, but no Google service accepts them. A service under development can
/// verify the ID tokens with the keys at /oauth2/v3/certs (JWKS) or /oauth2/v1/certs (certificates); their issuer is
/// that of the real ones. The token endpoints of OAuth 2, STS and IAM Credentials are on the same port, with and
/// without TLS. They check every request as Google does; --write-credentials writes credential files for them.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct MetadataServerArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8980", value_parser = address)]
    listen: SocketAddr,
    /// The service account [default: emulator@PROJECT.iam.gserviceaccount.com]
    #[arg(long, value_name = "EMAIL")]
    email: Option<Email>,
    /// The project's id
    #[arg(long, value_name = "ID", default_value = "example-project")]
    project_id: ProjectId,
    /// The project's number, also of the project of --credentials [default: 424242; none with --credentials]
    #[arg(long, value_name = "N", value_parser = project_number)]
    project_number: Option<u64>,
    /// The region
    #[arg(long, value_name = "REGION", default_value = "us-central1")]
    region: Region,
    /// Lifetime of tokens, 1s to 12h; a token with less than 4m left is replaced
    #[arg(long, value_name = "TIME", default_value = "1h")]
    lifetime: Lifetime,
    /// Write a credential file of each kind, and a CA certificate, into this directory; keys are generated at start,
    /// and no other server accepts them
    #[arg(long, value_name = "DIR")]
    write_credentials: Option<PathBuf>,
    #[command(flatten)]
    real: real::RealArgs,
}

/// Serves until SIGINT or SIGTERM, and prints how to use it. The status is 1 if it cannot listen.
pub(super) fn run(args: MetadataServerArgs, env: &Env) -> Result<(), Exit> {
    if args.real.is_real() {
        return real::run(&args, env);
    }
    runtime(1)?.block_on(serve(args)).map_err(Exit::failed)
}

async fn serve(args: MetadataServerArgs) -> Result<(), String> {
    let listen = args.listen;
    let folder = args.write_credentials.clone();
    let identity = Identity::from(args);
    let interrupted =
        interruption().map_err(|error| format!("cannot wait for signals: {error}"))?;
    let emulator = Emulator::bind(listen, identity.clone())
        .await
        .map_err(|error| cannot_listen(listen, &error))?;
    let mut greeting = greeting(&identity, emulator.local_addr());
    if let Some(folder) = folder {
        let reachable = reachable(emulator.local_addr());
        greeting += &files::write(&folder, &emulator, reachable)
            .map_err(|error| cannot_write(&folder, &error))?;
    }
    let _ = io::stdout().write_all(greeting.as_bytes());
    emulator.run(interrupted).await;
    Ok(())
}

fn project_number(text: &str) -> Result<u64, String> {
    text.parse()
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| "write a number, such as 424242".to_owned())
}

fn cannot_listen(listen: SocketAddr, error: &io::Error) -> String {
    let hint = if error.kind() == io::ErrorKind::AddrInUse {
        "; choose another with --listen (port 0 takes a free one)"
    } else {
        ""
    };
    format!("--listen {listen}: {error}{hint}")
}

fn cannot_write(folder: &Path, error: &io::Error) -> String {
    format!("--write-credentials {}: {error}", folder.display())
}

fn greeting(identity: &Identity, address: SocketAddr) -> String {
    let reachable = reachable(address);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "\
Metadata server for {email} on {address}; tokens last {lifetime}.

Set this for the app (Python's libraries probe the second):

    export GCE_METADATA_HOST={reachable}
    export GCE_METADATA_IP={reachable}

Try:

    curl -H 'Metadata-Flavor: Google' 'http://{reachable}/computeMetadata/v1/instance/service-accounts/default/identity?audience=https://example.com'

Verify ID tokens with http://{reachable}/oauth2/v3/certs
",
        email = identity.email,
        lifetime = identity.lifetime,
    );
    text
}

/// Returns the address by which an app on this machine reaches the listener.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    text.parse()
        .map_err(|_| "write ADDR:PORT, such as 127.0.0.1:8980".to_owned())
}

// === impl Identity ===

impl From<MetadataServerArgs> for Identity {
    fn from(args: MetadataServerArgs) -> Self {
        Self {
            email: args
                .email
                .unwrap_or_else(|| Email::of_project(&args.project_id)),
            project_id: args.project_id,
            project_number: args.project_number.unwrap_or(PROJECT_NUMBER),
            region: args.region,
            lifetime: args.lifetime,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: MetadataServerArgs,
    }

    fn parsed(arguments: &[&str]) -> Result<MetadataServerArgs, String> {
        Command::try_parse_from([&["metadata-server"], arguments].concat())
            .map(|command| command.args)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_default_is_an_example_project_on_loopback() {
        let args = parsed(&[]).unwrap();
        assert_eq!(args.listen.to_string(), "127.0.0.1:8980");
        assert_eq!(Identity::from(args), Identity::default());
    }

    #[test]
    fn the_default_account_is_a_user_managed_one_of_the_project() {
        let args = parsed(&["--project-id", "shop-1"]).unwrap();
        assert_eq!(
            Identity::from(args).email.as_str(),
            "emulator@shop-1.iam.gserviceaccount.com"
        );
    }

    #[test]
    fn a_wrong_value_is_reported_with_its_flag_and_the_correct_form() {
        for (flag, value, right) in [
            ("--listen", "localhost", "127.0.0.1:8980"),
            ("--email", "app", "NAME@DOMAIN"),
            ("--project-id", "My Project", "example-project"),
            ("--project-number", "0", "424242"),
            ("--project-number", "my-project", "424242"),
            ("--region", "US", "us-central1"),
            ("--lifetime", "0s", "1s to 12h"),
        ] {
            let error = parsed(&[flag, value]).unwrap_err();
            assert!(error.contains(flag) && error.contains(right), "{error}");
        }
    }

    #[test]
    fn the_greeting_names_a_usable_address_when_listening_on_all_interfaces() {
        let text = greeting(&Identity::default(), "0.0.0.0:8980".parse().unwrap());
        assert!(text.contains("\n    export GCE_METADATA_HOST=127.0.0.1:8980\n"));
        let text = greeting(&Identity::default(), "[::]:1".parse().unwrap());
        assert!(text.contains("http://[::1]:1/oauth2/v3/certs"));
    }
}
