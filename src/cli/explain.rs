//! `sidentity explain URL`: which credential a call to the URL gets, and how the app must make it.

use std::sync::Arc;

use super::ACCOUNT_TIMEOUT;
use super::exit::{Exit, write_output};
use super::flags::Flags;
use super::load::load;
use super::runtime::runtime;
use crate::app;
use crate::config::{Config, Env};
use crate::explain;
use crate::policy;

/// What is known of the identity.
#[derive(Debug, Default)]
struct KnownFacts {
    /// The account's e-mail address, and its project.
    account: Option<(Arc<str>, Option<Arc<str>>)>,
    universe: Option<Arc<str>>,
    /// The scopes that the machine permits the account.
    scopes: Option<Arc<str>>,
}

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
    let policy = app::policy(&config);
    let entry_points = app::configured_entry_points(&config);
    let explain = |universe: &str| {
        // The project's number and the region are not requested from the metadata server.
        let home = policy::ServiceLocation::default();
        explain::explain(&args.url, &policy, universe, &home, &entry_points)
            .map_err(|error| Exit::misused("URL", error.to_string()))
    };
    let mut explanation = explain(
        config
            .universe
            .as_deref()
            .unwrap_or(policy::DEFAULT_UNIVERSE),
    )?;
    let needs_universe = config.universe.is_none() && explanation.needs_universe();
    if needs_universe || explanation.needs_account() {
        let known = facts(&config)?;
        if let Some(universe) = known.universe.filter(|_| needs_universe) {
            explanation = explain(&universe)?;
        }
        if let Some((email, project)) = known.account.filter(|_| explanation.needs_account()) {
            explanation.name_account(&email, project.as_deref());
        }
        if let Some(scopes) = known.scopes {
            explanation.name_machine_scopes(&scopes);
        }
    }
    if explanation.needs_account()
        && let Some(why) = config.no_credentials()
    {
        explanation.add_note(format!("this token cannot be obtained: {why}"));
    }
    let text = if args.json {
        serde_json::to_string(&explanation).map_err(|error| Exit::failed(error.to_string()))?
    } else {
        explanation.to_string()
    };
    write_output("the explanation", format_args!("{}\n", text.trim_end()))
}

/// Returns what a metadata server says in time.
fn facts(config: &Config) -> Result<KnownFacts, Exit> {
    if config.metadata.disabled {
        return Ok(KnownFacts::default());
    }
    let provider = app::provider(config, Default::default(), &Default::default())
        .map_err(|error| Exit::failed(error.to_string()))?;
    let facts = provider.facts();
    let fetched = async {
        let all = async {
            tokio::join!(
                facts.email(&policy::Principal::Attached),
                facts.project_id(),
                facts.universe(),
                facts.scopes(&policy::Principal::Attached)
            )
        };
        let Ok((email, project, universe, scopes)) =
            tokio::time::timeout(ACCOUNT_TIMEOUT, all).await
        else {
            return KnownFacts::default();
        };
        KnownFacts {
            account: email.ok().map(|email| (email, project.ok())),
            universe: universe.ok(),
            scopes: scopes.ok(),
        }
    };
    Ok(runtime(1)?.block_on(fetched))
}
