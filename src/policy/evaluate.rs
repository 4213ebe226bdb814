//! From a destination to a decision.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use http::HeaderValue;

use super::audience::HostKind;
use super::base::{BaseCredential, CredentialName};
use super::build::{RuleInput, Texts, UNMATCHED_DENY};
use super::builtin::{self, DEFAULT_UNIVERSE};
use super::decision::Decision;
use super::impersonation::Impersonation;
use super::pattern::Pattern;
use super::placeholder::Placeholders;
use super::principal::Principal;
use super::resolved_options::ResolvedOptions;
use super::rule::{Options, Rule};
use super::strictest::PathView;
use crate::destination::{Destination, Host, Origin, Scheme, equivalents};

/// The user's rules and settings, ready to decide.
#[derive(Clone, Debug)]
pub struct Policy {
    /// More specific before less; where that is equal, as the user ordered them.
    pub(super) rules: Vec<CompiledRule>,
    pub(crate) settings: Settings,
    /// What the table says where the user says nothing.
    defaults: ResolvedOptions,
    pub(super) texts: Texts,
}

/// What else decides, beside the rules.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `--unmatched deny`.
    pub unmatched_denied: bool,
    /// `--metadata-access deny`.
    pub metadata_denied: bool,
    /// The configured metadata server, beside the well-known spellings.
    pub metadata: Option<(Host, u16)>,
    /// `x-goog-user-project` of access tokens where no rule or route says another.
    pub quota_project: Option<HeaderValue>,
    /// What the base credential can be issued.
    pub base: BaseCredential,
    /// What the base credential is called.
    pub credential_name: CredentialName,
    /// `--discover`: the forward proxy takes the names of Cloud Run services.
    pub discover: bool,
    /// `--impersonate-service-account`.
    pub impersonate: Option<Impersonation>,
    /// `--placeholder`: the values that count as no credential.
    pub placeholders: Placeholders,
}

#[derive(Clone, Debug)]
pub(super) struct CompiledRule {
    pub(super) pattern: Pattern,
    pub(super) options: ResolvedOptions,
    pub(super) name: Arc<str>,
}

// === impl CompiledRule ===

impl CompiledRule {
    /// Whether the rule is for this origin, or for the one that its calls go to after the upgrade to TLS.
    pub(super) fn names(&self, origin: &Origin) -> bool {
        self.pattern.matches_origin(origin)
            || (!self.options.plaintext
                && origin.scheme == Scheme::Http
                && self.pattern.matches_origin(&origin.upgraded()))
    }
}

// === impl Policy ===

impl Policy {
    /// Makes rules and settings ready; the order of `rules` counts only between equal patterns.
    pub fn new(rules: Vec<Rule>, settings: Settings) -> Self {
        let mut rules: Vec<_> = rules
            .into_iter()
            .map(|rule| CompiledRule {
                options: ResolvedOptions::new(&rule.options, settings.impersonate.as_ref()),
                pattern: rule.pattern,
                name: rule.name,
            })
            .collect();
        rules.sort_by_key(|rule| rule.pattern.specificity());
        Self {
            rules,
            defaults: ResolvedOptions::new(&Options::default(), settings.impersonate.as_ref()),
            settings,
            texts: Texts::new(),
        }
    }

    /// What the base credential is called.
    pub fn credential_name(&self) -> &CredentialName {
        &self.settings.credential_name
    }

    /// What a call through the forward proxy gets; `universe` is the universe domain, `googleapis.com` for most.
    pub fn decide(&self, destination: &Destination, universe: &str) -> Decision {
        self.strictest(destination, universe, |path| {
            self.decide_as(destination, path, universe)
        })
    }

    fn decide_as(&self, destination: &Destination, path: PathView<'_>, universe: &str) -> Decision {
        let rule = self.rule_for(destination, path);
        if self.is_metadata(&destination.origin) {
            if self.settings.metadata_denied {
                return self.refused(
                    "--metadata-access deny",
                    "--metadata-access deny forbids it",
                );
            }
            return self.metadata(rule.map(|rule| (rule.options.credential, &rule.name)));
        }
        let input = RuleInput {
            destination,
            universe,
            path,
        };
        if let Some(rule) = rule {
            return self.build(&rule.options, Arc::clone(&rule.name), input);
        }
        match self.built_in(&self.defaults, input) {
            Some(decision) => decision,
            None if self.settings.unmatched_denied => self.refused(
                UNMATCHED_DENY,
                "no rule names it, and --unmatched deny forbids what no rule names",
            ),
            None => self.none(&self.texts.no_rule, &self.texts.unmatched),
        }
    }

    /// What a call through the route `LISTEN` (its `route_name`) gets, whose upstream is `destination`.
    ///
    /// The route's options override, one by one, what the rules and the table say of the upstream; a rule for another
    /// credential than the route's own says nothing of it. `--unmatched` and `--metadata-access` are the forward
    /// proxy's: the user named a route's upstream.
    pub fn decide_route(
        &self,
        route_name: &str,
        options: &Options,
        destination: &Destination,
        universe: &str,
    ) -> Decision {
        let own = ResolvedOptions::new(options, self.settings.impersonate.as_ref());
        // The route says it for every path, and its rule only adds to that.
        if own.is_complete() {
            return self.decide_route_as(
                route_name,
                &own,
                destination,
                PathView::written(destination.path()),
                universe,
            );
        }
        self.strictest(destination, universe, |path| {
            self.decide_route_as(route_name, &own, destination, path, universe)
        })
    }

    fn decide_route_as(
        &self,
        route_name: &str,
        own: &ResolvedOptions,
        destination: &Destination,
        path: PathView<'_>,
        universe: &str,
    ) -> Decision {
        let rule = self.rule_for(destination, path);
        let name = || -> Arc<str> { format!("route {route_name}").into() };
        if self.is_metadata(&destination.origin) {
            return match own.credential {
                Some(_) => self.metadata(Some((own.credential, &name()))),
                None => self.metadata(rule.map(|rule| (rule.options.credential, &rule.name))),
            };
        }
        let input = RuleInput {
            destination,
            universe,
            path,
        };
        match (own.credential, rule) {
            (Some(credential), Some(rule)) if rule.options.credential == Some(credential) => {
                self.build(&own.clone().over(&rule.options), name(), input)
            }
            (Some(_), _) => self.build(own, name(), input),
            (None, Some(rule)) => self.build(
                &own.clone().over(&rule.options),
                Arc::clone(&rule.name),
                input,
            ),
            (None, None) => self
                .built_in(own, input)
                .unwrap_or_else(|| self.none(&self.texts.no_rule, &self.texts.unmatched)),
        }
    }

    /// Whose token a call gets where no route or rule names an identity.
    pub fn default_principal(&self) -> &Principal {
        self.defaults.principal()
    }

    /// What the base credential can be issued.
    pub(crate) fn base(&self) -> &BaseCredential {
        &self.settings.base
    }

    /// The values that count as no credential where a token is due.
    pub fn placeholders(&self) -> &Placeholders {
        &self.settings.placeholders
    }

    /// Whether two paths of this origin may get different decisions; if not, one can be taken once, at start.
    pub fn depends_on_path(&self, origin: &Origin, universe: &str) -> bool {
        // The function's name is part of the audience, whoever asked for the ID token: table, rule or route.
        if HostKind::of(&origin.host) == HostKind::Functions {
            return true;
        }
        let first = self.rules.iter().find(|rule| rule.names(origin));
        match first {
            Some(rule) => rule.pattern.has_path(),
            None => builtin::depends_on_path(origin, universe),
        }
    }

    /// Whether the universe domain can change what this destination gets: no rule, and no row of the table that is
    /// the same in every universe, names it.
    pub fn needs_universe(&self, destination: &Destination) -> bool {
        let origin = &destination.origin;
        !self.is_metadata(origin)
            && !origin.host.is_loopback()
            && self.any_reading(destination, DEFAULT_UNIVERSE, |path| {
                self.rule_for(destination, path).is_none()
                    && builtin::needs_universe(destination, path)
            })
    }

    /// The metadata server, by its well-known names and addresses on any port, or as configured.
    ///
    /// Names do not show every address: ask again with each address that a name resolves to.
    pub fn is_metadata_server(&self, host: &Host, port: u16) -> bool {
        is_metadata_server(host, port, self.settings.metadata.as_ref())
    }

    /// The rules that name this host on another port, for `explain`.
    pub(crate) fn rules_of_another_port<'a>(
        &'a self,
        origin: &'a Origin,
    ) -> impl Iterator<Item = (&'a Arc<str>, u16)> {
        self.rules.iter().filter_map(|rule| {
            let port = rule.pattern.port().filter(|port| *port != origin.port)?;
            rule.pattern
                .matches_host(&origin.host)
                .then_some((&rule.name, port))
        })
    }

    pub(crate) fn is_metadata(&self, origin: &Origin) -> bool {
        self.is_metadata_server(&origin.host, origin.port)
    }

    /// A rule of the user's names it.
    pub(crate) fn has_rule_for(&self, destination: &Destination) -> bool {
        self.any_reading(destination, DEFAULT_UNIVERSE, |path| {
            self.rule_for(destination, path).is_some()
        })
    }
}

/// As [`Policy::is_metadata_server`].
pub(super) fn is_metadata_server(host: &Host, port: u16, configured: Option<&(Host, u16)>) -> bool {
    let well_known = match host {
        Host::Name(name) => matches!(
            &**name,
            "metadata.google.internal" | "metadata.goog" | "metadata"
        ),
        Host::Ip(address) => equivalents(*address).any(|address| match address {
            // Nothing else is meant by a link-local address.
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address == METADATA_V6,
        }),
    };
    well_known
        || configured.is_some_and(|(configured, its_port)| {
            *its_port == port && is_same_machine(configured, host)
        })
}

/// The metadata server's IPv6 address.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254);

/// `asked` is `configured`, by whatever spelling or translation.
fn is_same_machine(configured: &Host, asked: &Host) -> bool {
    let same = |asked: &Host| configured == asked || (is_local(configured) && is_local(asked));
    match asked {
        Host::Name(_) => same(asked),
        Host::Ip(address) => equivalents(*address).any(|address| same(&Host::Ip(address))),
    }
}

/// This machine, by every spelling.
fn is_local(host: &Host) -> bool {
    host.is_loopback() || matches!(host, Host::Ip(address) if address.is_unspecified())
}

#[cfg(test)]
mod tests;
