//! `sidentity explain URL`: which credential a call to the URL gets, and how the app must make it.

use std::io::Write;
use std::sync::Arc;

use super::ACCOUNT_TIMEOUT;
use super::exit::Exit;
use super::flags::Flags;
use super::load::load;
use super::runtime::{block_on, runtime};
use crate::app;
use crate::config::{Config, Env};
use crate::explain;
use crate::policy;

/// An account, and its project if it is known.
type Account = (Arc<str>, Option<Arc<str>>);

/// Say which credential a call to URL gets, by which rule, and how it must be called; no token is fetched
#[derive(Debug, clap::Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    flags: Flags,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// The URL as the app would call it
    url: String,
}

pub(super) fn run(args: ExplainArgs, env: &Env) -> Result<(), Exit> {
    let config = load(args.flags, env)?;
    let universe = config
        .universe
        .as_deref()
        .unwrap_or(policy::DEFAULT_UNIVERSE);
    let mut explanation = explain::explain(
        &args.url,
        &app::policy(&config),
        universe,
        // The project and region are not requested from the metadata server.
        &policy::ServiceLocation::default(),
        &app::configured_entry_points(&config),
    )
    .map_err(|error| Exit::misused("URL", error.to_string()))?;
    if explanation.needs_account()
        && let Some((email, project)) = account(&config)?
    {
        explanation.name_account(&email, project.as_deref());
    }
    let text = if args.json {
        serde_json::to_string(&explanation).map_err(|error| Exit::failed(error.to_string()))?
    } else {
        explanation.to_string()
    };
    writeln!(std::io::stdout(), "{}", text.trim_end())
        .map_err(|error| Exit::failed(format!("cannot write: {error}")))
}

/// Returns the account in use and its project, if a metadata server responds in time.
fn account(config: &Config) -> Result<Option<Account>, Exit> {
    if config.metadata.disabled {
        return Ok(None);
    }
    let provider = app::provider(config, Default::default(), &Default::default())
        .map_err(|error| Exit::failed(error.to_string()))?;
    let asked = async {
        let instance = provider.instance();
        let email = instance.email(&policy::Principal::Attached);
        let both = async { tokio::join!(email, instance.project_id()) };
        let (email, project) = tokio::time::timeout(ACCOUNT_TIMEOUT, both).await.ok()?;
        Some((email.ok()?, project.ok()))
    };
    Ok(block_on(&runtime(1)?, asked))
}
