//! Evaluates the rules and the built-in table for a destination.

use std::sync::Arc;

use http::HeaderValue;

use super::audience::HostKind;
use super::base::BaseCredential;
use super::build::{RuleInput, Texts, UNMATCHED_DENY};
use super::builtin::{self, DEFAULT_UNIVERSE};
use super::credential_name::CredentialName;
use super::decision::Decision;
use super::impersonation::Impersonation;
use super::pattern::Pattern;
use super::placeholder::Placeholders;
use super::principal::Principal;
use super::resolved_options::ResolvedOptions;
use super::rule::{Rule, RuleOptions};
use super::strictest::PathView;
use crate::destination::{Destination, Host, Origin, Scheme, equivalents, is_metadata_address};

/// The user's rules and settings, compiled.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The more specific rules first. Equally specific rules keep the user's order.
    pub(super) rules: Vec<CompiledRule>,
    pub(crate) settings: Settings,
    /// The options of the built-in table.
    defaults: ResolvedOptions,
    pub(super) texts: Texts,
}

/// The settings that decide in addition to the rules.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `--unmatched deny`.
    pub(crate) unmatched_denied: bool,
    /// `--metadata-access deny`.
    pub(crate) metadata_denied: bool,
    /// The configured metadata server, in addition to the well-known spellings.
    pub(crate) metadata: Option<(Host, u16)>,
    /// `x-goog-user-project` of access tokens, unless a rule or route names another.
    pub(crate) quota_project: Option<HeaderValue>,
    /// Which tokens the base credential can get.
    pub(crate) base: BaseCredential,
    /// The name of the base credential in messages.
    pub(crate) credential_name: CredentialName,
    /// `--discover`: the forward proxy accepts the names of Cloud Run services.
    pub(crate) discover: bool,
    /// `--impersonate-service-account`.
    pub(crate) impersonate: Option<Impersonation>,
    /// `--placeholder`: the values that count as no credential.
    pub(crate) placeholders: Placeholders,
}

#[derive(Clone, Debug)]
pub(super) struct CompiledRule {
    pub(super) pattern: Pattern,
    pub(super) options: ResolvedOptions,
    pub(super) name: Arc<str>,
}

// === impl CompiledRule ===

impl CompiledRule {
    /// Returns whether the rule matches this origin, or the origin after the upgrade to TLS.
    pub(super) fn matches_origin(&self, origin: &Origin) -> bool {
        self.pattern.matches_origin(origin)
            || (!self.options.plaintext
                && origin.scheme == Scheme::Http
                && self.pattern.matches_origin(&origin.upgraded()))
    }
}

// === impl Policy ===

impl Policy {
    /// Compiles rules and settings. The order of `rules` matters only between equally specific patterns.
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
            defaults: ResolvedOptions::new(&RuleOptions::default(), settings.impersonate.as_ref()),
            settings,
            texts: Texts::new(),
        }
    }

    /// Returns the rules whose tokens belong to another identity than the default principal, with that identity.
    pub(crate) fn other_identities(&self) -> impl Iterator<Item = (&str, &Principal)> {
        let rules = self.rules.iter();
        let rules = rules.map(|rule| (&*rule.name, rule.options.principal()));
        rules.filter(|(_, principal)| *principal != self.defaults.principal())
    }

    /// Returns the name of the base credential.
    pub(crate) fn credential_name(&self) -> &CredentialName {
        &self.settings.credential_name
    }

    /// Returns the decision for a call through the forward proxy. `universe` is the universe domain, usually
    /// `googleapis.com`.
    pub fn decide(&self, destination: &Destination, universe: &str) -> Decision {
        self.strictest(destination, universe, |path| {
            self.decide_as(destination, path, universe)
        })
    }

    fn decide_as(&self, destination: &Destination, path: PathView<'_>, universe: &str) -> Decision {
        let rule = self.rule_for(destination, path);
        if self.is_metadata(&destination.origin) {
            if self.settings.metadata_denied {
                return self.denied(
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
            None if self.settings.unmatched_denied => self.denied(
                UNMATCHED_DENY,
                "no rule matches it, and --unmatched deny forbids unmatched destinations",
            ),
            None => self.none(&self.texts.no_rule, &self.texts.unmatched),
        }
    }

    /// Returns the decision for a call through the route `route_name` to the upstream `destination`.
    ///
    /// Each option of the route overrides that of the rule or table row for the upstream. A rule for another credential
    /// than the route's is ignored. `--unmatched` and `--metadata-access` do not apply, because the user named the
    /// upstream.
    pub(crate) fn decide_route(
        &self,
        route_name: &str,
        options: &RuleOptions,
        destination: &Destination,
        universe: &str,
    ) -> Decision {
        let own = ResolvedOptions::new(options, self.settings.impersonate.as_ref());
        // The route determines the token for every path. A rule can only add options.
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

    /// Returns the principal of calls whose route or rule names no identity.
    pub(crate) fn default_principal(&self) -> &Principal {
        self.defaults.principal()
    }

    /// Returns which tokens the base credential can get.
    pub(crate) fn base(&self) -> &BaseCredential {
        &self.settings.base
    }

    /// Returns the placeholders that do not count as a credential.
    pub fn placeholders(&self) -> &Placeholders {
        &self.settings.placeholders
    }

    /// Returns whether two paths of this origin may get different decisions. If not, the decision can be made once, at
    /// start.
    pub(crate) fn depends_on_path(&self, origin: &Origin, universe: &str) -> bool {
        // The function's name is part of the audience, whether table, rule or route names the credential.
        if HostKind::of(&origin.host) == HostKind::Functions {
            return true;
        }
        let first = self.rules.iter().find(|rule| rule.matches_origin(origin));
        match first {
            Some(rule) => rule.pattern.has_path(),
            None => builtin::depends_on_path(origin, universe),
        }
    }

    /// Returns whether the decision may depend on the universe domain: no rule matches the destination, and no table
    /// row that is the same in every universe.
    pub(crate) fn needs_universe(&self, destination: &Destination) -> bool {
        let origin = &destination.origin;
        !self.is_metadata(origin)
            && !origin.host.is_loopback()
            && self.any_reading(destination, DEFAULT_UNIVERSE, |path| {
                self.rule_for(destination, path).is_none()
                    && builtin::needs_universe(destination, path)
            })
    }

    /// Returns whether the host is the metadata server, by its well-known names and addresses on any port, or as
    /// configured.
    ///
    /// A name may resolve to the metadata server's address, so the caller also checks each resolved address.
    pub(crate) fn is_metadata_server(&self, host: &Host, port: u16) -> bool {
        is_metadata_server(host, port, self.settings.metadata.as_ref())
    }

    /// Returns the rules that match this host on another port, for `explain`.
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

    /// Returns whether a rule of the user matches the destination.
    pub(crate) fn has_rule_for(&self, destination: &Destination) -> bool {
        self.any_reading(destination, DEFAULT_UNIVERSE, |path| {
            self.rule_for(destination, path).is_some()
        })
    }
}

/// Like [`Policy::is_metadata_server`].
pub(super) fn is_metadata_server(host: &Host, port: u16, configured: Option<&(Host, u16)>) -> bool {
    let well_known = match host {
        Host::Name(name) => matches!(
            &**name,
            "metadata.google.internal" | "metadata.goog" | "metadata"
        ),
        Host::Ip(address) => equivalents(*address).any(is_metadata_address),
    };
    well_known
        || configured.is_some_and(|(configured, its_port)| {
            *its_port == port && is_same_machine(configured, host)
        })
}

/// Returns whether both hosts are the same, in any spelling or address translation.
fn is_same_machine(configured: &Host, asked: &Host) -> bool {
    let same = |asked: &Host| configured == asked || (is_local(configured) && is_local(asked));
    match asked {
        Host::Name(_) => same(asked),
        Host::Ip(address) => equivalents(*address).any(|address| same(&Host::Ip(address))),
    }
}

/// Returns whether the host is this machine, in any spelling.
fn is_local(host: &Host) -> bool {
    host.is_loopback() || matches!(host, Host::Ip(address) if address.is_unspecified())
}

#[cfg(test)]
mod tests;
