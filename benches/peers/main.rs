//! The Rust programs of `benches/peers/run`: certificates, an upstream, two bare hops, and the load. `run` shows
//! their arguments.

#![allow(missing_docs, unreachable_pub, clippy::indexing_slicing)]

#[path = "../support/mod.rs"]
mod support;

mod load;
mod relay;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use http::HeaderValue;
use http::uri::Authority;
use tokio::net::TcpListener;

use support::hop::{Bare, Origin, Pool};
use support::{Failure, hop, sidecar, tls, upstream};

#[derive(Parser)]
enum Command {
    /// Writes certificates into a directory
    Certificates { folder: PathBuf },
    /// Serves bytes over TLS, HTTP/1.1 and HTTP/2
    Upstream {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        certificates: PathBuf,
        /// Milliseconds before each response
        #[arg(long, default_value_t = 0)]
        delay: u64,
    },
    /// Only forwards requests
    Hop(HopArgs),
    /// Only copies bytes, each connection of the app over one of its own
    Relay(UpstreamArgs),
    /// Sends requests, and prints the CPU time of the given processes
    Load(load::Args),
}

#[derive(clap::Args)]
struct UpstreamArgs {
    #[arg(long)]
    port: u16,
    #[arg(long)]
    certificates: PathBuf,
    #[arg(long)]
    upstream: SocketAddr,
    #[arg(long)]
    authority: Authority,
    #[arg(long)]
    http2: bool,
}

#[derive(clap::Args)]
struct HopArgs {
    #[command(flatten)]
    to: UpstreamArgs,
    /// The value of `Authorization`
    #[arg(long)]
    token: HeaderValue,
    /// Sends through the sidecar's pool
    #[arg(long)]
    ours: bool,
}

fn main() -> Result<(), Failure> {
    let command = Command::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match command {
            Command::Certificates { folder } => tls::make(&folder),
            Command::Upstream {
                port,
                certificates,
                delay,
            } => {
                let tls = tls::server(&certificates)?;
                let delay = Duration::from_millis(delay);
                Ok(upstream::serve(listen(port).await?, Some(tls), delay).await?)
            }
            Command::Hop(args) => {
                let listener = listen(args.to.port).await?;
                Ok(hop::serve(listener, pool(&args)?, args.token).await?)
            }
            Command::Relay(args) => {
                let listener = listen(args.port).await?;
                Ok(relay::serve(listener, origin(&args)?).await?)
            }
            Command::Load(args) => load::run(args).await,
        }
    })
}

async fn listen(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await
}

fn pool(args: &HopArgs) -> Result<Pool, Failure> {
    let origin = origin(&args.to)?;
    if args.ours {
        sidecar::pool(&origin, &args.to.certificates.join(tls::CA))
    } else {
        Ok(Pool::Bare(Arc::new(Bare::new(origin))))
    }
}

fn origin(args: &UpstreamArgs) -> Result<Origin, Failure> {
    Ok(Origin {
        address: args.upstream,
        authority: args.authority.clone(),
        tls: Some(tls::client(&args.certificates.join(tls::CA), args.http2)?),
        http2: args.http2,
    })
}
