//! The making of a decision, once it is clear who decides: a rule, a route or a row of the table.

use std::sync::Arc;

use super::audience::{Shape, audience};
use super::builtin::{self, Row};
use super::decide::Policy;
use super::decision::{Credential, Decision, Grant, TokenKey, TokenKind};
use super::rule::AuthScheme;
use super::strictest::View;
use super::terms::Terms;
use crate::destination::Destination;

/// [`Decision::rule`] where nobody decided.
pub(crate) const NO_RULE: &str = "no rule";
/// [`Decision::rule`] where nobody decided, and that is refused.
pub(crate) const UNMATCHED_DENY: &str = "--unmatched deny";

/// What is decided on.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) destination: &'a Destination,
    pub(super) universe: &'a str,
    pub(super) path: View<'a>,
}

/// Texts that many decisions share.
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
    /// A token never goes to the metadata server, whatever a rule or route says.
    pub(super) fn metadata(&self, asked: Option<(Option<Credential>, &Arc<str>)>) -> Decision {
        let texts = &self.texts;
        match asked {
            Some((Some(Credential::Deny), name)) => self.refused_by(name),
            Some((Some(Credential::None), name)) => self.none(name, &texts.none_by_rule),
            Some((Some(Credential::Access | Credential::Id), name)) => {
                let mut decision = self.none(&texts.metadata, &texts.metadata_gets_none);
                decision.notes.push(
                    format!("`{name}` asks for a token; it gets none, as it would go to the metadata server").into(),
                );
                decision
            }
            Some((None, _)) | None => self.none(&texts.metadata, &texts.metadata_gets_none),
        }
    }

    pub(super) fn built_in(&self, terms: &Terms, place: Place<'_>) -> Option<Decision> {
        let texts = &self.texts;
        if place.destination.origin.host.is_loopback() {
            return Some(self.none(&texts.loopback, &texts.loopback_gets_none));
        }
        let (credential, name) = match builtin::find(place.destination, place.path, place.universe)?
        {
            Row::NoToken(row) => {
                let name = format!("built-in {row}").into();
                return Some(self.none(&name, &row.why.into()));
            }
            Row::GoogleApi(domain) if domain == builtin::DEFAULT_UNIVERSE => {
                (Credential::Access, Arc::clone(&texts.google_apis))
            }
            Row::GoogleApi(domain) => (Credential::Access, format!("built-in *.{domain}").into()),
            Row::CloudRun => (Credential::Id, Arc::clone(&texts.cloud_run)),
            Row::Functions => (Credential::Id, Arc::clone(&texts.functions)),
        };
        Some(self.issue_as(credential, terms, name, place))
    }

    pub(super) fn issue(&self, terms: &Terms, name: Arc<str>, place: Place<'_>) -> Decision {
        self.issue_as(
            terms.credential.unwrap_or(Credential::None),
            terms,
            name,
            place,
        )
    }

    fn issue_as(
        &self,
        credential: Credential,
        terms: &Terms,
        name: Arc<str>,
        place: Place<'_>,
    ) -> Decision {
        let host = &place.destination.origin.host;
        let kind = match credential {
            Credential::None => return self.none(&name, &self.texts.none_by_rule),
            Credential::Deny => return self.refused_by(&name),
            Credential::Access => TokenKind::Access {
                scopes: Arc::clone(&terms.scopes),
            },
            Credential::Id if terms.jwt => TokenKind::Jwt {
                audience: terms
                    .audience
                    .clone()
                    .unwrap_or_else(|| format!("https://{host}/*").into()),
            },
            Credential::Id => match terms
                .audience
                .clone()
                .map_or_else(|| audience(place.destination, place.path), Ok)
            {
                Ok(audience) => TokenKind::Id { audience },
                Err(why) => return self.none(&name, &why.into()),
            },
        };
        let mut key = TokenKey {
            kind,
            principal: terms.principal().clone(),
        };
        let is_access = credential == Credential::Access;
        Decision {
            of_user: self
                .settings
                .base
                .adjust(&mut key, host, terms.audience.is_some()),
            grant: Grant::Token(key),
            header: terms.header.unwrap_or_default(),
            existing: terms.existing.unwrap_or_default(),
            scheme: if is_access {
                terms.scheme.unwrap_or_default()
            } else {
                AuthScheme::Bearer
            },
            quota_project: is_access
                .then(|| {
                    terms
                        .quota_project
                        .as_ref()
                        .or(self.settings.quota_project.as_ref())
                })
                .flatten()
                .cloned(),
            plaintext: terms.plaintext,
            google_api: is_access && builtin::is_google_api(host, place.universe),
            cloud_run: !is_access && Shape::of(host) == Shape::CloudRun,
            rule: name,
            notes: Vec::new(),
        }
    }

    pub(super) fn none(&self, rule: &Arc<str>, why: &Arc<str>) -> Decision {
        Decision::without_token(Grant::None(Arc::clone(why)), Arc::clone(rule))
    }

    pub(super) fn refused(&self, rule: &str, why: &str) -> Decision {
        Decision::without_token(Grant::Deny(why.into()), rule.into())
    }

    pub(super) fn refused_by(&self, rule: &Arc<str>) -> Decision {
        Decision::without_token(
            Grant::Deny(format!("`{rule}` forbids it").into()),
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
            metadata_gets_none: "a token never goes to the metadata server".into(),
            loopback: "built-in loopback".into(),
            loopback_gets_none: "it is this machine; a rule that names it gives it a token".into(),
            no_rule: NO_RULE.into(),
            unmatched: "no rule names it".into(),
            none_by_rule: "the rule says so".into(),
        }
    }
}
