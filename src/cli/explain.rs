//! `sidentity explain URL`: what would this call get, and how must it be made?

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use super::exit::Exit;
use super::load::load;
use super::options::Options;
use super::run::runtime;
use crate::app;
use crate::config::{Config, Env};
use crate::explain;
use crate::policy;

/// How long the metadata server may take: on a machine without one, the explanation is not held up by more.
const PATIENCE: Duration = Duration::from_millis(500);

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
    let mut explanation = explain::explain(
        &args.url,
        &app::policy(&config),
        universe,
        // Of these the metadata server is not asked.
        &policy::ServiceLocation::default(),
        &app::entry_points(&config),
    )
    .map_err(|error| Exit::misused("URL", error.to_string()))?;
    if explanation.needs_account()
        && let Some(email) = account(&config)?
    {
        explanation.name_account(&email);
    }
    let text = if args.json {
        serde_json::to_string(&explanation).map_err(|error| Exit::failed(error.to_string()))?
    } else {
        explanation.to_string()
    };
    writeln!(std::io::stdout(), "{}", text.trim_end())
        .map_err(|error| Exit::failed(format!("cannot write: {error}")))
}

/// The account in use, where a metadata server tells it at once.
fn account(config: &Config) -> Result<Option<Arc<str>>, Exit> {
    if config.metadata.disabled {
        return Ok(None);
    }
    let provider = app::provider(config, Default::default())
        .map_err(|error| Exit::failed(error.to_string()))?;
    let asked = async {
        tokio::time::timeout(
            PATIENCE,
            provider.instance().email(&policy::Principal::Attached),
        )
        .await
    };
    Ok(runtime(1)?.block_on(asked).ok().and_then(Result::ok))
}
