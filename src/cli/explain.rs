//! `sidentity explain URL`: what would this call get, and how must it be made?

use std::io::Write;

use super::options::Options;
use super::{Exit, load};
use crate::app;
use crate::config::Env;
use crate::policy;

/// Say which credential a call to URL gets, by which rule, and how it must be called; no token is fetched
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    options: Options,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// The URL as the app would call it
    url: String,
}

pub(super) fn run(args: Args, env: &Env) -> Result<(), Exit> {
    let config = load(args.options, env)?;
    let universe = config
        .universe
        .as_deref()
        .unwrap_or(policy::DEFAULT_UNIVERSE);
    let explanation = policy::explain(
        &args.url,
        &app::policy(&config),
        universe,
        // The metadata server is not asked.
        &policy::Home::default(),
        &app::ways(&config),
    )
    .map_err(|error| Exit::misused("URL", error.to_string()))?;
    let text = if args.json {
        serde_json::to_string(&explanation).map_err(|error| Exit::failed(error.to_string()))?
    } else {
        explanation.to_string()
    };
    writeln!(std::io::stdout(), "{}", text.trim_end())
        .map_err(|error| Exit::failed(format!("cannot write: {error}")))
}
