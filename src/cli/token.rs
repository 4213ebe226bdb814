//! `sidentity token URL`: the token itself, for scripts.

use std::io::Write;
use std::time::Duration;

use http::HeaderMap;

use super::exit::{Exit, complain};
use super::load::load;
use super::options::Options;
use super::run::runtime;
use crate::app;
use crate::config::{Config, Diagnostic, Env};
use crate::destination::Destination;
use crate::explain::{Asked, account_warning};
use crate::policy::{CredentialGrant, Placement, Principal, select_header};
use crate::proxy::Decider;

/// How long the account's name may take.
const PATIENCE: Duration = Duration::from_millis(500);

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
    let asked = Asked::parse(&args.url, &app::policy(&config), &app::ways(&config))
        .map_err(|error| Exit::misused("URL", error.to_string()))?;
    if let Some(note) = asked.note {
        complain(&Diagnostic::new("note", note));
    }
    runtime(1)?.block_on(print(&config, asked.destination))
}

async fn print(config: &Config, asked: Destination) -> Result<(), Exit> {
    let decider = app::decider(config, Default::default())
        .map_err(|error| Exit::failed(error.to_string()))?;
    let ways = app::ways(config);
    let failed = |error: crate::error::Error| Exit::failed(error.to_string());
    let (destination, resolved) = match ways.find(&asked) {
        Some((way, mut upstream)) => {
            if let Some(service) = &way.service {
                upstream.origin = decider.locate(service).await.map_err(failed)?;
            }
            let resolved = decider.resolve_route_surely(&way.name, &way.options, &upstream);
            let resolved = resolved.await.map_err(failed)?;
            (upstream, resolved)
        }
        None => {
            let destination = decider.discover(asked).await.map_err(failed)?;
            let resolved = decider.resolve_surely(&destination).await;
            (destination, resolved.map_err(failed)?)
        }
    };
    let decision = &resolved.decision;
    let none = |why: &str| {
        Err(Exit::failed(format!(
            "a call to {} gets no token: {why}",
            destination.origin
        )))
    };
    let placeholders = decider.policy().placeholders();
    let target = placeholders.remove_from_query(&destination.target);
    if let Some(Placement::Skip(reason)) =
        select_header(decision, &HeaderMap::new(), target.query())
    {
        return none(reason.why());
    }
    let Some(slot) = resolved.slot else {
        return match &decision.grant {
            CredentialGrant::None(why) | CredentialGrant::Deny(why) => none(why),
            CredentialGrant::Token(_) => Ok(()),
        };
    };
    let token = slot.token().await.map_err(failed)?;
    name_account(&decider, &slot.key().principal).await;
    writeln!(std::io::stdout(), "{}", token.reveal())
        .map_err(|error| Exit::failed(format!("cannot write: {error}")))
}

/// Says on stderr whose token it is, where that is known at once.
async fn name_account(decider: &Decider, principal: &Principal) {
    let credential = decider.policy().credential_name();
    let say = |text: String| {
        // A script reads the token alone.
        let _ = writeln!(std::io::stderr(), "{text}");
    };
    if principal.via().is_some() {
        return say(format!(
            "the token is the one of {principal}; the base credential is {credential}"
        ));
    }
    if credential.is_file() {
        return say(format!("the token comes from {credential}"));
    }
    let instance = decider.instance();
    let asked = async { tokio::join!(instance.email(principal), instance.project_id()) };
    let Ok((Ok(email), project)) = tokio::time::timeout(PATIENCE, asked).await else {
        return;
    };
    let project = project.map_or_else(|_| String::new(), |id| format!(" of the project {id}"));
    say(format!(
        "the token is the one of {email} from {credential}{project}"
    ));
    if let Some(warning) = account_warning(&email) {
        say(warning);
    }
}
