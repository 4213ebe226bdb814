//! Notes that accompany a decision.

use super::how::WITHOUT_PROXY;
use super::{AtListener, Case, Egress, EntryPoints, OwnListeners, account_warning, named};
use crate::destination::{Destination, Host};
use crate::policy::{
    BaseCredential, Credential, CredentialGrant, DEFAULT_UNIVERSE, Decision, Existing, FUNCTIONS,
    FileChain, HeaderMode, HostKind, NO_RULE, Placeholders, Policy, Principal, RUN_APP, SkipReason,
    TokenKey, TokenKind, UNMATCHED_DENY, is_client_id, is_gcloud_client, is_google_api, is_under,
    tagged, user_id_tokens, without_own,
};

/// Hosts of Google that get a token only by a rule, and the rule that is usually meant.
const BY_RULE_ONLY: [(&str, &str); 6] = [
    ("pkg.dev", "access,scheme=basic"),
    ("gcr.io", "access,scheme=basic"),
    ("gateway.dev", "id,audience=AUDIENCE"),
    ("cloud.goog", "id,audience=AUDIENCE"),
    (
        "appspot.com",
        "id,audience=CLIENT_ID.apps.googleusercontent.com",
    ),
    ("googleusercontent.com", "access"),
];

const IN_PROXY_AUTHORIZATION: &str =
    "if the app sends an Authorization, it is kept, and the token goes into Proxy-Authorization";

/// The role that impersonates an account.
const TOKEN_CREATOR: &str = "roles/iam.serviceAccountTokenCreator";

/// The role with which a federated principal gets an account's tokens.
const FEDERATED_USER: &str = "roles/iam.workloadIdentityUser";

/// The role that Identity-Aware Proxy requires.
const IAP_ROLE: &str = "roles/iap.httpsResourceAccessor";

/// Returns advice on the role that the receiver requires of the caller's service account if it answers 403.
fn role_hint(destination: &Destination, decision: &Decision) -> Option<&'static str> {
    let audience = match &decision.grant {
        CredentialGrant::Token(TokenKey {
            kind: TokenKind::Id { audience },
            ..
        }) => audience,
        CredentialGrant::Token(TokenKey {
            kind: TokenKind::Jwt { .. },
            ..
        }) => return Some(IAP_ROLE),
        _ => return None,
    };
    if is_client_id(audience) && !decision.of_user {
        return Some(IAP_ROLE);
    }
    match HostKind::of(&destination.origin.host) {
        HostKind::CloudRun => Some("roles/run.invoker"),
        HostKind::Functions => {
            Some("roles/run.invoker (first generation: roles/cloudfunctions.invoker)")
        }
        HostKind::Other => None,
    }
}

pub(super) fn notes(case: &Case<'_>, policy: &Policy, entry_points: &EntryPoints) -> Vec<String> {
    let mut notes = Vec::new();
    at_listener(&mut notes, case, entry_points);
    if case.leads_here {
        return notes;
    }
    match &case.decision.grant {
        CredentialGrant::Token(key) => match case.skipped {
            Some(reason) => {
                notes.push(format!("no token for this URL: {}", reason.why()));
                if reason == SkipReason::ApiKey {
                    notes.push(format!(
                        "with key={word} instead, a token is added: {word} is a placeholder",
                        word = Placeholders::WORD
                    ));
                }
            }
            None => {
                let host = &case.destination.origin.host;
                if let Some(why) = policy.base().unobtainable(key, host) {
                    notes.push(format!("this token cannot be obtained: {why}"));
                }
                token(&mut notes, case, policy, key);
            }
        },
        CredentialGrant::None(why) => {
            notes.push(format!("no token: {why}"));
            unnamed(&mut notes, case, policy);
        }
        CredentialGrant::Deny(why) => {
            notes.push(format!("denied: {why}"));
            unnamed(&mut notes, case, policy);
        }
    }
    named::notes(&mut notes, case, policy);
    notes.extend(case.decision.notes.iter().map(|note| (**note).to_owned()));
    if case.route.is_some() {
        other_way(&mut notes, case, policy);
    }
    notes.extend(
        entry_points
            .egress
            .as_ref()
            .and_then(|proxy| egress(case, proxy)),
    );
    notes
}

/// Explains how a call to the URL of a listener depends on whether the app uses the forward proxy.
fn at_listener(notes: &mut Vec<String>, case: &Case<'_>, entry_points: &EntryPoints) {
    match case.at_listener {
        Some(AtListener::NoRoute) => notes.push(format!(
            "called without the forward proxy it gets 404: no route has the path {:?}",
            case.destination.path()
        )),
        Some(AtListener::Route) if entry_points.proxy.is_some() => notes.push(format!(
            "the forward proxy rejects this URL with 508, because it is {}: {WITHOUT_PROXY}",
            OwnListeners::DESCRIPTION
        )),
        Some(AtListener::Route) | None => {}
    }
}

/// Explains how the call leaves the sidecar.
fn egress(case: &Case<'_>, egress: &Egress) -> Option<String> {
    if matches!(case.decision.grant, CredentialGrant::Deny(_)) {
        return None;
    }
    let proxy = &egress.proxy;
    Some(match egress.bypass(&case.sent_to()) {
        None => format!("the call uses the upstream proxy {proxy}"),
        Some(bypass) => format!(
            "the call does not use the upstream proxy {proxy}: {}",
            bypass.why()
        ),
    })
}

fn token(notes: &mut Vec<String>, case: &Case<'_>, policy: &Policy, key: &TokenKey) {
    let decision = &case.decision;
    let host = &case.destination.origin.host;
    notes.push(existing(decision, key).to_owned());
    notes.push(placeholder(case));
    match &key.kind {
        TokenKind::Access { scopes } if policy.credential_name().is_file() => {
            let note = policy.credential_name().scopes_note(&key.principal, scopes);
            notes.extend(note.map(str::to_owned));
        }
        TokenKind::Access { .. } if matches!(key.principal, Principal::Impersonated(_)) => {}
        TokenKind::Access { scopes } if scopes.is_empty() => notes.push(
            "the scopes are the service account's own; on Cloud Run that is cloud-platform"
                .to_owned(),
        ),
        TokenKind::Access { .. } => {}
        TokenKind::Jwt { .. } => notes.push(
            "the token is a JWT that the account signs itself, as IAP takes it (token=jwt)"
                .to_owned(),
        ),
        TokenKind::Id { audience } => {
            let tag = host.name().and_then(tagged);
            if let Some((tag, service)) = tag
                && audience.strip_prefix("https://") == Some(service)
            {
                notes.push(format!(
                    "the audience is the service's, without the tag {tag:?}"
                ));
            }
            if decision.of_user {
                notes.push(user_id_tokens(audience).to_owned());
            } else if is_client_id(audience) {
                notes.push("the audience is an OAuth client id, as IAP takes it".to_owned());
            } else if HostKind::of(host) == HostKind::CloudRun {
                notes.push(format!("if IAP guards this service: {}", iap_rule(host)));
            }
        }
    }
    let is_refused = decision.of_user && key.audience().is_some_and(|id| !is_gcloud_client(id));
    let is_obtainable = policy.base().unobtainable(key, host).is_none();
    if is_obtainable
        && !is_refused
        && let Some(role) = role_hint(&case.destination, decision)
    {
        let whom = match decision.of_user {
            true => "the person who logged in",
            false => "the service account",
        };
        notes.push(format!("on a 403, grant {whom} {role}"));
    }
    if policy.credential_name().is_file() {
        notes.push(match key.principal.chain_clause() {
            None => format!("the token comes from {}", policy.credential_name()),
            Some(_) => format!("the base credential is {}", policy.credential_name()),
        });
    }
    if let Some(account) = key.principal.account() {
        let holder = policy.credential_name().holder_or_default();
        notes.push(match key.principal.chain_clause_with(holder) {
            None => format!("the token belongs to {account}"),
            Some(via) => format!("the token belongs to {account}, {via}"),
        });
        notes.extend(account_warning(account));
    }
    let signs = matches!(key.kind, TokenKind::Jwt { .. });
    notes.extend(roles(&key.principal, policy, signs));
    if case.in_cleartext() {
        notes.push("plaintext=allow: the token travels in cleartext".to_owned());
    }
}

/// Returns the roles that a chain of impersonation or delegation requires. `signs`: the account signs a JWT, which the
/// role of a federated principal does not permit.
fn roles(principal: &Principal, policy: &Policy, signs: bool) -> Vec<String> {
    let name = policy.credential_name();
    let holder = name.holder_or_default();
    match principal {
        Principal::Attached => match &name.chain {
            Some(chain) => file_roles(chain, signs),
            None => Vec::new(),
        },
        Principal::Account(_) | Principal::Source => Vec::new(),
        Principal::Impersonated(impersonated) => {
            let chain = &impersonated.chain;
            let of_file = match &impersonated.base {
                Principal::Attached => name.chain.as_ref(),
                _ => None,
            };
            if let Some(of_file) = of_file
                && chain.delegates().is_empty()
                && of_file.accounts.last().map(|last| &**last) == Some(chain.target())
            {
                // The caller of the file impersonates its account itself.
                return file_roles(of_file, signs);
            }
            let own = impersonated.base.account().unwrap_or(holder);
            let delegates = without_own(chain.delegates(), Some(own)).map(|account| &**account);
            let accounts: Vec<&str> = delegates.chain([chain.target()]).collect();
            let is_federated = matches!(
                policy.base(),
                BaseCredential::Federated | BaseCredential::Workforce
            ) && impersonated.base == Principal::Attached;
            let mut notes = of_file.map_or_else(Vec::new, |of_file| file_roles(of_file, false));
            let caller = impersonated.base.name_of(holder);
            notes.extend(chain_roles(caller, &accounts, is_federated && !signs));
            notes
        }
        Principal::Delegated(delegated) => {
            let mut notes = roles(&delegated.issuer, policy, true);
            notes.push(format!(
                "the domain's administrator must allow the scopes to the client id of {} (domain-wide delegation)",
                delegated.issuer.name_of(holder)
            ));
            notes
        }
    }
}

/// Returns the roles that the chain in a credential file requires.
fn file_roles(chain: &FileChain, signs: bool) -> Vec<String> {
    let accounts: Vec<&str> = chain.accounts.iter().map(|account| &**account).collect();
    let mut notes = chain_roles(chain.caller.to_string(), &accounts, chain.is_federated);
    if let Some(account) = accounts.last()
        && signs
        && chain.is_federated
    {
        notes.push(format!(
            "{account} needs {TOKEN_CREATOR} on itself, to sign"
        ));
    }
    notes
}

/// Returns the role that each of these accounts needs on the next one.
fn chain_roles(mut caller: String, accounts: &[&str], is_federated: bool) -> Vec<String> {
    let mut notes = Vec::new();
    for (index, account) in accounts.iter().enumerate() {
        notes.push(match index == 0 && is_federated {
            false => format!("{caller} needs {TOKEN_CREATOR} on {account}"),
            true if accounts.len() == 1 => format!("{caller} needs {FEDERATED_USER} on {account}"),
            true => format!(
                "{caller} needs {FEDERATED_USER} on {account} (with delegates {TOKEN_CREATOR} too)"
            ),
        });
        (*account).clone_into(&mut caller);
    }
    notes
}

fn placeholder(case: &Case<'_>) -> String {
    let word = Placeholders::WORD;
    if case.has_placeholder {
        return "the placeholder in key= is removed from the URL, and the token is added"
            .to_owned();
    }
    format!(
        "if the app requires a key, give it the placeholder {word} (or a value of --placeholder): the token replaces it"
    )
}

fn existing(decision: &Decision, key: &TokenKey) -> &'static str {
    match (decision.header, decision.existing, &key.kind) {
        (HeaderMode::XServerlessAuthorization | HeaderMode::ProxyAuthorization, ..) => {
            "an Authorization that the app sends is kept in addition to the token"
        }
        (_, Existing::Replace, _) => {
            "an Authorization that the app sends is replaced (existing=replace)"
        }
        (HeaderMode::Authorization, ..) | (_, _, TokenKind::Access { .. }) => {
            "if the app sends an Authorization, it is kept and no token is added (existing=replace changes that)"
        }
        (HeaderMode::Auto, _, TokenKind::Jwt { .. }) => IN_PROXY_AUTHORIZATION,
        (HeaderMode::Auto, _, TokenKind::Id { audience })
            if is_client_id(audience) && !decision.of_user =>
        {
            IN_PROXY_AUTHORIZATION
        }
        (HeaderMode::Auto, _, TokenKind::Id { .. }) => {
            "if the app sends an Authorization, it is kept, and the token goes into X-Serverless-Authorization"
        }
    }
}

/// Explains why a host gets no token although a user may expect one.
fn unnamed(notes: &mut Vec<String>, case: &Case<'_>, policy: &Policy) {
    let origin = &case.destination.origin;
    for (rule, port) in policy.rules_of_another_port(origin) {
        notes.push(format!(
            "`{rule}` is for port {port}, this URL for port {}",
            origin.port
        ));
    }
    if !matches!(&*case.decision.rule, NO_RULE | UNMATCHED_DENY) {
        return;
    }
    let host = &origin.host;
    let Some(name) = host.name() else {
        notes.push("only your own rules match an address".to_owned());
        return;
    };
    let known = [case.universe, DEFAULT_UNIVERSE, RUN_APP, FUNCTIONS];
    if let Some(domain) = known.into_iter().find(|domain| is_under(name, domain)) {
        if domain == DEFAULT_UNIVERSE && !is_google_api(host, case.universe) {
            notes.push(format!(
                "the universe is {}, and its tokens are not sent to another universe",
                case.universe
            ));
        } else if case.destination.userinfo {
            notes.push("only your own rules match a URL with user-info".to_owned());
        } else {
            notes.push(format!(
                "the built-in *.{domain} is for port 443 (80 before the upgrade), not for {}",
                origin.port
            ));
        }
        return;
    }
    if let Some(domain) = known
        .into_iter()
        .find(|domain| !domain.is_empty() && name.contains(domain))
    {
        notes.push(format!(
            "{name} only looks like a host under {domain}, but is not one"
        ));
        return;
    }
    let by_rule = BY_RULE_ONLY
        .into_iter()
        .find(|(domain, _)| name == *domain || is_under(name, domain));
    notes.push(match by_rule {
        Some((domain, rule)) => format!("hosts under {domain} get a token by rule only, such as --rule {name}={rule}"),
        None => format!(
            "if a Cloud Run service answers under this name: --rule {name}=id,audience=AUDIENCE; {}",
            format_args!("if IAP guards it: {}", iap_rule(host))
        ),
    });
}

fn iap_rule(host: &Host) -> String {
    format!("--rule {host}=id,audience=CLIENT_ID.apps.googleusercontent.com")
}

/// Explains the same call through the forward proxy, if the route's options change the result.
fn other_way(notes: &mut Vec<String>, case: &Case<'_>, policy: &Policy) {
    let proxied = policy.decide(&case.destination, case.universe);
    if proxied.grant != case.decision.grant {
        notes.push(format!(
            "through the forward proxy it would get {} ({})",
            match proxied.credential() {
                Credential::None => "no token",
                Credential::Deny => "a denial",
                Credential::Id => "an ID token by another rule",
                Credential::Access => "an access token by another rule",
            },
            proxied.rule
        ));
    }
}
