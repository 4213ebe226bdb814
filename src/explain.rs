//! Explains which credential a call to a URL gets, for `sidentity explain` and the form of the status page.

mod account;
mod egress;
mod how;
mod intercept;
mod named;
mod notes;
mod own_listeners;
mod requested_url;
mod wrap;

use std::fmt;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, header};
use serde::Serialize;

use crate::destination::{Destination, InvalidDestination, Origin, Scheme, hide_user_info};
use crate::policy::{
    Credential, CredentialGrant, Decision, InvalidService, NO_RULE, Placement, Policy, Principal,
    ServiceLocation, SkipReason, TokenKind, WIDEN, narrow_scopes, select_header,
};

pub(crate) use account::account_warning;
pub(crate) use egress::Egress;
pub(crate) use how::{EntryPoints, RouteEntry};
pub(crate) use intercept::Intercept;
pub(crate) use own_listeners::OwnListeners;
pub(crate) use requested_url::RequestedUrl;

/// The explanation. Its JSON has exactly these keys, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Explanation {
    /// The URL as the user wrote it.
    pub(crate) url: String,
    /// The origin of the connection, after the upgrade to TLS.
    pub(crate) destination: String,
    /// `access`, `id`, `none` or `deny`.
    pub(crate) credential: Credential,
    /// The ID token's audience.
    pub(crate) audience: Option<String>,
    /// The access token's scopes, if they are known.
    pub(crate) scopes: Vec<String>,
    /// The header that carries the token if the app sends none, in its usual capitalisation.
    pub(crate) header: Option<&'static str>,
    /// The rule that decided.
    pub(crate) rule: String,
    /// How the app must make the call.
    pub(crate) how: String,
    /// Further advice.
    pub(crate) notes: Vec<String>,
    /// Whether another universe would change the decision.
    #[serde(skip)]
    needs_universe: bool,
    /// Set if the token belongs to the metadata server's account or is issued through that account.
    #[serde(skip)]
    through_metadata_account: Option<Through>,
}

/// The relation of a token to the metadata server's account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Through {
    /// The token belongs to the account.
    Itself,
    /// The account obtains the token for another account.
    Chain,
}

/// The input of an explanation: a decision and the values that it was made from.
struct Case<'a> {
    /// The URL that the app calls, if it differs from the destination because it has a service name.
    named: Option<Destination>,
    destination: Destination,
    decision: Decision,
    /// The reason that this URL gets no token although its destination gets one.
    skipped: Option<SkipReason>,
    /// Whether the call leads to a listener of the sidecar itself.
    leads_here: bool,
    /// Whether the forward proxy rejects a tunnel to the host, although it does not deny this URL.
    tunnel_denied_by: Option<Arc<str>>,
    /// How a call to the URL itself differs from the explained one, if it is the URL of a listener.
    at_listener: Option<AtListener>,
    /// Whether the query has a placeholder.
    has_placeholder: bool,
    /// The route of the call.
    route: Option<&'a RouteEntry>,
    universe: &'a str,
}

/// The URL of a route's listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtListener {
    /// No route of the listener has the path.
    NoRoute,
    /// A route has the path. The forward proxy refuses the URL.
    Route,
}

/// The reason that a URL cannot be explained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExplainError {
    /// The text is not a URL.
    #[error(transparent)]
    Destination(#[from] InvalidDestination),
    /// The host must be a service name, and is not a valid one.
    #[error(transparent)]
    Service(#[from] InvalidService),
}

/// Explains a call to `url`, which is the URL of the upstream or the URL of a route.
///
/// A URL that a route covers is explained as called through the route, any other URL as called through the forward
/// proxy.
pub(crate) fn explain(
    url: &str,
    policy: &Policy,
    universe: &str,
    home: &ServiceLocation,
    entry_points: &EntryPoints,
) -> Result<Explanation, ExplainError> {
    let RequestedUrl {
        destination: asked,
        note: assumed,
    } = RequestedUrl::parse(url, policy, entry_points)?;
    let found = entry_points.find(&asked);
    let is_route = entry_points.is_entry(&asked) && entry_points.own.has(&asked.origin);
    let at_listener = is_route.then_some(match found {
        Some(_) => AtListener::Route,
        None => AtListener::NoRoute,
    });
    let (mut destination, route) = match found {
        Some((route, upstream)) => (upstream, Some(route)),
        None => (asked, None),
    };
    let service = match route {
        Some(route) => route.service.clone(),
        None => policy.service(&destination).transpose()?,
    };
    let mut named = None;
    if let Some(service) = service {
        let origin = service.at(home)?;
        named = Some(destination.clone());
        destination.origin = origin;
    }
    let decision = match route {
        Some(route) => policy.decide_route(&route.name, &route.options, &destination, universe),
        None => policy.decide(&destination, universe),
    };
    let leads_here = leads_here(&destination, &decision, entry_points);
    let target = policy.placeholders().remove_from_query(&destination.target);
    let (header, skipped) = match select_header(&decision, &HeaderMap::new(), target.query()) {
        Some(Placement::Inject(_)) if leads_here => (None, None),
        Some(Placement::Inject(header)) => (Some(canonical(&header)), None),
        Some(Placement::Skip(reason)) => (None, Some(reason)),
        None => (None, None),
    };
    let tunnel_denied_by = match route {
        None => tunnel_denied_by(&destination, policy, universe, entry_points),
        Some(_) => None,
    };
    let case = Case {
        named,
        leads_here,
        tunnel_denied_by,
        at_listener,
        has_placeholder: target != destination.target,
        destination,
        decision,
        skipped,
        route,
        universe,
    };
    let (audience, scopes) = match &case.decision.grant {
        CredentialGrant::Token(key) if skipped.is_none() && !leads_here => match &key.kind {
            TokenKind::Id { audience } | TokenKind::Jwt { audience } => {
                (Some(audience.to_string()), Vec::new())
            }
            TokenKind::Access { scopes } => {
                let known = policy.credential_name().scopes(&key.principal, scopes);
                (None, known.unwrap_or_default())
            }
        },
        _ => (None, Vec::new()),
    };
    Ok(Explanation {
        url: hide_user_info(url)
            .chars()
            .filter(|c| !c.is_control())
            .collect(),
        destination: case.sent_to().to_string(),
        credential: case.credential(),
        audience,
        scopes,
        header,
        rule: case.decision.rule.to_string(),
        how: how::how(&case, entry_points),
        notes: assumed
            .into_iter()
            .chain(notes::notes(&case, policy, entry_points))
            .collect(),
        needs_universe: policy.needs_universe(&case.destination),
        through_metadata_account: match &case.decision.grant {
            CredentialGrant::Token(key)
                if skipped.is_none() && !leads_here && !policy.credential_name().is_file() =>
            {
                Through::of(&key.principal)
            }
            _ => None,
        },
    })
}

/// Returns the rule for which the forward proxy rejects a `CONNECT` for this `https` URL: it denies another path of the
/// host. An intercepted tunnel is not rejected: the proxy sees the paths in it.
fn tunnel_denied_by(
    destination: &Destination,
    policy: &Policy,
    universe: &str,
    entry_points: &EntryPoints,
) -> Option<Arc<str>> {
    let origin = &destination.origin;
    let is_intercepted =
        entry_points.intercept.covers(&origin.host) && policy.may_grant(origin, universe);
    if origin.scheme == Scheme::Http || is_intercepted {
        return None;
    }
    let tunnel = Destination {
        target: PathAndQuery::from_static("/"),
        ..destination.clone()
    };
    policy.denying_rule(origin).cloned().or_else(|| {
        let decision = policy.decide(&tunnel, universe);
        let rule = match &*decision.rule {
            NO_RULE => "--unmatched deny".into(),
            _ => decision.rule.clone(),
        };
        matches!(decision.grant, CredentialGrant::Deny(_)).then_some(rule)
    })
}

/// Returns whether the call is refused because it leads to a listener of the sidecar itself.
pub(crate) fn leads_here(
    destination: &Destination,
    decision: &Decision,
    entry_points: &EntryPoints,
) -> bool {
    // A rule's refusal comes first.
    !matches!(decision.grant, CredentialGrant::Deny(_))
        && entry_points.own.has(&sent_to(destination, decision))
}

/// Returns the origin of the connection.
fn sent_to(destination: &Destination, decision: &Decision) -> Origin {
    let origin = &destination.origin;
    // The upgrade applies to the whole destination, even if this URL gets no token.
    if matches!(decision.grant, CredentialGrant::Token(_)) && !in_cleartext(destination, decision) {
        origin.upgraded()
    } else {
        origin.clone()
    }
}

/// Returns whether the user allowed cleartext and the URL uses it.
fn in_cleartext(destination: &Destination, decision: &Decision) -> bool {
    decision.plaintext && destination.origin.scheme == Scheme::Http
}

// === impl Through ===

impl Through {
    fn of(principal: &Principal) -> Option<Self> {
        match principal {
            Principal::Attached => Some(Self::Itself),
            Principal::Impersonated(impersonated) => {
                Self::of(&impersonated.base).map(|_| Self::Chain)
            }
            Principal::Delegated(delegated) => Self::of(&delegated.issuer).map(|_| Self::Chain),
            Principal::Account(_) | Principal::Source => None,
        }
    }
}

// === impl Case ===

impl Case<'_> {
    fn credential(&self) -> Credential {
        match self.skipped {
            Some(_) => Credential::None,
            None if self.leads_here => Credential::None,
            None => self.decision.credential(),
        }
    }

    fn in_cleartext(&self) -> bool {
        in_cleartext(&self.destination, &self.decision)
    }

    fn sent_to(&self) -> Origin {
        sent_to(&self.destination, &self.decision)
    }
}

// === impl Explanation ===

impl Explanation {
    /// Names the account of the metadata server, if the token belongs to it or is obtained by it.
    pub(crate) fn name_account(&mut self, email: &str, project: Option<&str>) {
        let what = match self.through_metadata_account {
            Some(Through::Itself) => "the token belongs to",
            Some(Through::Chain) => "the base credential is",
            None => return,
        };
        let project = project.map_or_else(String::new, |id| format!(" of the project {id}"));
        self.notes
            .push(format!("{what} {email} from the metadata server{project}"));
        self.notes.extend(account_warning(email));
    }

    /// Names the scopes that the machine permits the account of the metadata server, if they may be too narrow.
    pub(crate) fn name_machine_scopes(&mut self, scopes: &str) {
        if self.credential == Credential::Access
            && self.through_metadata_account == Some(Through::Itself)
            && let Some(scopes) = narrow_scopes(scopes)
        {
            self.notes.push(format!(
                "this machine permits its account only the scopes {scopes}, whatever is requested. To widen them, {WIDEN}"
            ));
        }
    }

    /// Adds advice.
    pub(crate) fn add_note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Returns whether another universe would change the decision.
    pub(crate) const fn needs_universe(&self) -> bool {
        self.needs_universe
    }

    /// Returns whether the account of the metadata server adds to the explanation.
    pub(crate) const fn needs_account(&self) -> bool {
        self.through_metadata_account.is_some()
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |key: &str, value: &str| wrap::write(f, key, value);
        line("url", &self.url)?;
        line("destination", &self.destination)?;
        line("credential", self.credential.as_str())?;
        if let Some(audience) = &self.audience {
            line("audience", audience)?;
        }
        for scope in &self.scopes {
            line("scope", scope)?;
        }
        if let Some(header) = self.header {
            line("header", header)?;
        }
        line("rule", &self.rule)?;
        // Each sentence starts a new line.
        for (index, sentence) in wrap::sentences(&self.how).enumerate() {
            line(if index == 0 { "how" } else { "" }, sentence)?;
        }
        for note in &self.notes {
            line("note", note)?;
        }
        Ok(())
    }
}

/// Returns the name of a header in its usual capitalisation.
fn canonical(name: &HeaderName) -> &'static str {
    if name == header::AUTHORIZATION {
        "Authorization"
    } else if name == header::PROXY_AUTHORIZATION {
        "Proxy-Authorization"
    } else {
        "X-Serverless-Authorization"
    }
}

#[cfg(test)]
mod tests;
