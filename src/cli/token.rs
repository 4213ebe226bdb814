//! `sidentity token URL`: prints the token, for scripts.

use std::io::Write as _;

use http::HeaderMap;

use super::ACCOUNT_TIMEOUT;
use super::exit::{Exit, complain, write_output};
use super::flags::Flags;
use super::load::load;
use super::runtime::runtime;
use crate::app;
use crate::config::{Config, Env};
use crate::destination::Destination;
use crate::explain::{self, OwnListeners, RequestedUrl, account_warning};
use crate::policy::{CredentialGrant, Placement, Principal, TokenKey, TokenKind, select_header};
use crate::proxy::CredentialProvider;

/// Print the token that a call to URL would carry
#[derive(Debug, clap::Args)]
pub(super) struct TokenArgs {
    #[command(flatten)]
    flags: Flags,
    /// The URL as the app would call it
    url: String,
}

pub(super) fn run(args: TokenArgs, env: &Env) -> Result<(), Exit> {
    let config = load(args.flags, env)?;
    let asked = RequestedUrl::parse(
        &args.url,
        &app::policy(&config),
        &app::configured_entry_points(&config),
    )
    .map_err(|error| Exit::misused("URL", error.to_string()))?;
    if let Some(note) = asked.note {
        complain("note", &note);
    }
    let runtime = runtime(1)?;
    let printed = runtime.block_on(print(&config, asked.destination));
    // A resolver or file system that hangs must not delay the exit.
    runtime.shutdown();
    printed
}

async fn print(config: &Config, asked: Destination) -> Result<(), Exit> {
    let provider = app::provider(config, Default::default(), &Default::default())
        .map_err(|error| Exit::failed(error.to_string()))?;
    let entry_points = app::configured_entry_points(config);
    let failed = |error: crate::error::Error| Exit::failed(error.to_string());
    let (destination, resolved) = match entry_points.find(&asked) {
        Some((route, mut upstream)) => {
            if let Some(service) = &route.service {
                upstream.origin = provider.fetch_location(service).await.map_err(failed)?;
            }
            let resolved =
                provider.fetch_universe_and_decide_route(&route.name, &route.options, &upstream);
            let resolved = resolved.await.map_err(failed)?;
            (upstream, resolved)
        }
        None => {
            let destination = provider.resolve_service(asked).await.map_err(failed)?;
            let resolved = provider.fetch_universe_and_decide_call(&destination).await;
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
    if explain::leads_here(&destination, decision, &entry_points) {
        return none(&format!(
            "it is {}, and a call to it is rejected with 508",
            OwnListeners::DESCRIPTION
        ));
    }
    let placeholders = provider.policy().placeholders();
    let target = placeholders.remove_from_query(&destination.target);
    if let Some(Placement::Skip(reason)) =
        select_header(decision, &HeaderMap::new(), target.query())
    {
        return none(reason.why());
    }
    let Some(slot) = resolved.slot else {
        return match &decision.grant {
            CredentialGrant::None(why) | CredentialGrant::Deny(why) => none(why),
            CredentialGrant::Token(_) => none("its token has no slot"),
        };
    };
    let token = slot.token().await.map_err(failed)?;
    name_account(&provider, slot.key()).await;
    write_output("the token", format_args!("{}\n", token.reveal()))
}

/// Writes the token's account to stderr, if it is known in time, and a note on its scopes.
async fn name_account(provider: &CredentialProvider, key: &TokenKey) {
    let principal = &key.principal;
    let credential = provider.policy().credential_name();
    let say = |text: String| {
        // Stdout has only the token, for scripts.
        let _ = writeln!(std::io::stderr(), "{text}");
    };
    if credential.is_file() {
        say(match principal.chain_clause() {
            None => format!("the token comes from {credential}"),
            Some(_) => format!(
                "the token belongs to {}; the base credential is {credential}",
                principal.name_of(credential.holder_or_default())
            ),
        });
        if let TokenKind::Access { scopes } = &key.kind
            && let Some(note) = credential.scopes_note(principal, scopes)
        {
            say(note.to_owned());
        }
        return;
    }
    let base = match principal.chain_clause() {
        None => principal,
        Some(_) => &Principal::Attached,
    };
    let facts = provider.facts();
    let asked = async { tokio::join!(facts.email(base), facts.project_id()) };
    let Ok((Ok(email), project)) = tokio::time::timeout(ACCOUNT_TIMEOUT, asked).await else {
        return say(match principal.chain_clause() {
            None => format!("the token comes from {credential}"),
            Some(_) => {
                format!("the token belongs to {principal}; the base credential is {credential}")
            }
        });
    };
    let project = project.map_or_else(|_| String::new(), |id| format!(" of the project {id}"));
    say(match principal.chain_clause() {
        None => format!("the token belongs to {email} from {credential}{project}"),
        Some(_) => format!(
            "the token belongs to {}; the base credential is {email} from {credential}{project}",
            principal.name_of(&email)
        ),
    });
    if let Some(warning) = account_warning(&email) {
        say(warning);
    }
}
