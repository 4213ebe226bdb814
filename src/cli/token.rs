//! `sidentity token URL`: the token itself, for scripts.

use std::io::Write;

use super::options::Options;
use super::run::runtime;
use super::{Exit, load};
use crate::app;
use crate::config::{Config, Env};
use crate::destination::Destination;
use crate::policy::Grant;

/// Print the token that a call to URL would carry
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    options: Options,
    /// The URL as the app would call it
    url: String,
}

pub(super) fn run(args: Args, env: &Env) -> Result<(), Exit> {
    let config = load(args.options, env)?;
    let destination =
        Destination::parse(&args.url).map_err(|error| Exit::misused("URL", error.to_string()))?;
    runtime(1)?.block_on(print(&config, destination))
}

async fn print(config: &Config, destination: Destination) -> Result<(), Exit> {
    let decider = app::decider(config, Default::default());
    let failed = |error: crate::error::Error| Exit::failed(error.to_string());
    let destination = decider.discover(destination).await.map_err(failed)?;
    let resolved = decider.resolve_surely(&destination).await.map_err(failed)?;
    let Some(slot) = resolved.slot else {
        let why = match &resolved.decision.grant {
            Grant::None(why) | Grant::Deny(why) => why,
            Grant::Token(_) => return Ok(()),
        };
        return Err(Exit::failed(format!(
            "a call to {} gets no token: {why}",
            destination.origin
        )));
    };
    let token = slot.token().await.map_err(failed)?;
    writeln!(std::io::stdout(), "{}", token.reveal())
        .map_err(|error| Exit::failed(format!("cannot write: {error}")))
}
