//! Builds the decision of a rule, a route or a row of the built-in table.

use std::sync::Arc;

use super::audience::{HostKind, audience};
use super::builtin::{self, BuiltinRule};
use super::decision::{Credential, CredentialGrant, Decision, TokenKey, TokenKind};
use super::evaluate::Policy;
use super::resolved_options::ResolvedOptions;
use super::rule::AuthScheme;
use super::strictest::PathView;
use crate::destination::Destination;

/// [`Decision::rule`] if no rule matched.
pub(crate) const NO_RULE: &str = "no rule";
/// [`Decision::rule`] if no rule matched and `--unmatched deny` is set.
pub(crate) const UNMATCHED_DENY: &str = "--unmatched deny";

/// The input of a rule.
#[derive(Clone, Copy)]
pub(super) struct RuleInput<'a> {
    pub(super) destination: &'a Destination,
    pub(super) universe: &'a str,
    pub(super) path: PathView<'a>,
}

/// Texts that decisions share, so that a decision allocates nothing.
#[derive(Clone, Debug)]
pub(super) struct Texts {
    cloud_run: Arc<str>,
    functions: Arc<str>,
    google_apis: Arc<str>,
    metadata: Arc<str>,
    metadata_gets_none: Arc<str>,
    loopback: Arc<str>,
    loopback_gets_none: Arc<str>,
    pub(super) no_rule: Arc<str>,
    pub(super) unmatched: Arc<str>,
    none_by_rule: Arc<str>,
}

// === impl Policy ===

impl Policy {
    /// Builds the decision for the metadata server. It never gets a token, whatever a rule or route says.
    pub(super) fn metadata(&self, asked: Option<(Option<Credential>, &Arc<str>)>) -> Decision {
        let texts = &self.texts;
        match asked {
            Some((Some(Credential::Deny), name)) => self.denied_by(name),
            Some((Some(Credential::None), name)) => self.none(name, &texts.none_by_rule),
            Some((Some(Credential::Access | Credential::Id), name)) => {
                let mut decision = self.none(&texts.metadata, &texts.metadata_gets_none);
                decision.notes.push(
                    format!("`{name}` asks for a token, but the metadata server never gets one")
                        .into(),
                );
                decision
            }
            Some((None, _)) | None => self.none(&texts.metadata, &texts.metadata_gets_none),
        }
    }

    pub(super) fn built_in(
        &self,
        options: &ResolvedOptions,
        input: RuleInput<'_>,
    ) -> Option<Decision> {
        let texts = &self.texts;
        if input.destination.origin.host.is_loopback() {
            return Some(self.none(&texts.loopback, &texts.loopback_gets_none));
        }
        let (credential, name) = match builtin::find(input.destination, input.path, input.universe)?
        {
            BuiltinRule::NoToken(row) => {
                let name = format!("built-in {row}").into();
                return Some(self.none(&name, &row.why.into()));
            }
            BuiltinRule::GoogleApi(domain) if domain == builtin::DEFAULT_UNIVERSE => {
                (Credential::Access, Arc::clone(&texts.google_apis))
            }
            BuiltinRule::GoogleApi(domain) => {
                (Credential::Access, format!("built-in *.{domain}").into())
            }
            BuiltinRule::CloudRun => (Credential::Id, Arc::clone(&texts.cloud_run)),
            BuiltinRule::Functions => (Credential::Id, Arc::clone(&texts.functions)),
        };
        Some(self.build_as(credential, options, name, input))
    }

    pub(super) fn build(
        &self,
        options: &ResolvedOptions,
        name: Arc<str>,
        input: RuleInput<'_>,
    ) -> Decision {
        self.build_as(
            options.credential.unwrap_or(Credential::None),
            options,
            name,
            input,
        )
    }

    fn build_as(
        &self,
        credential: Credential,
        options: &ResolvedOptions,
        name: Arc<str>,
        input: RuleInput<'_>,
    ) -> Decision {
        let host = &input.destination.origin.host;
        let kind = match credential {
            Credential::None => return self.none(&name, &self.texts.none_by_rule),
            Credential::Deny => return self.denied_by(&name),
            Credential::Access => TokenKind::Access {
                scopes: Arc::clone(&options.scopes),
            },
            Credential::Id if options.jwt => TokenKind::Jwt {
                audience: options
                    .audience
                    .clone()
                    .unwrap_or_else(|| format!("https://{host}/*").into()),
            },
            Credential::Id => match options
                .audience
                .clone()
                .map_or_else(|| audience(input.destination, input.path), Ok)
            {
                Ok(audience) => TokenKind::Id { audience },
                Err(why) => return self.none(&name, &why.into()),
            },
        };
        let mut key = TokenKey {
            kind,
            principal: options.principal().clone(),
        };
        let is_access = credential == Credential::Access;
        Decision {
            of_user: self
                .settings
                .base
                .adjust(&mut key, host, options.audience.is_some()),
            grant: CredentialGrant::Token(key),
            header: options.header.unwrap_or_default(),
            existing: options.existing.unwrap_or_default(),
            scheme: if is_access {
                options.scheme.unwrap_or_default()
            } else {
                AuthScheme::Bearer
            },
            quota_project: is_access
                .then(|| {
                    options
                        .quota_project
                        .as_ref()
                        .or(self.settings.quota_project.as_ref())
                })
                .flatten()
                .cloned(),
            plaintext: options.plaintext,
            google_api: is_access && builtin::is_google_api(host, input.universe),
            cloud_run: !is_access && HostKind::of(host) == HostKind::CloudRun,
            rule: name,
            notes: Vec::new(),
        }
    }

    pub(super) fn none(&self, rule: &Arc<str>, why: &Arc<str>) -> Decision {
        Decision::without_token(CredentialGrant::None(Arc::clone(why)), Arc::clone(rule))
    }

    pub(super) fn denied(&self, rule: &str, why: &str) -> Decision {
        Decision::without_token(CredentialGrant::Deny(why.into()), rule.into())
    }

    pub(super) fn denied_by(&self, rule: &Arc<str>) -> Decision {
        Decision::without_token(
            CredentialGrant::Deny(format!("`{rule}` forbids it").into()),
            Arc::clone(rule),
        )
    }
}

// === impl Texts ===

impl Texts {
    pub(super) fn new() -> Self {
        Self {
            cloud_run: "built-in *.run.app".into(),
            functions: "built-in *.cloudfunctions.net".into(),
            google_apis: "built-in *.googleapis.com".into(),
            metadata: "built-in metadata server".into(),
            metadata_gets_none: "the metadata server gets no token".into(),
            loopback: "built-in loopback".into(),
            loopback_gets_none: "it is this machine; only a rule that names it gives it a token"
                .into(),
            no_rule: NO_RULE.into(),
            unmatched: "no rule matches it".into(),
            none_by_rule: "the rule says so".into(),
        }
    }
}
