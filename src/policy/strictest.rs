//! Decides for ambiguous paths. Servers read them in different ways; the strictest decision of all readings applies.

use std::borrow::Cow;

use super::decision::{Credential, CredentialGrant, Decision};
use super::evaluate::{CompiledRule, Policy};
use super::path::{self, Readings};
use crate::destination::Destination;

/// [`Decision::rule`] if the ambiguous path decided.
const AMBIGUOUS: &str = "ambiguous path";
const SEVERAL_TOKENS: &str = "servers read this path in different ways (escapes, `;`, `\\`, `//` or dot segments), and the readings get \
     different tokens; write the path without them";
const TOO_MANY: &str = "servers read this path in too many ways to determine the audience of a token; write it with fewer escapes, `;`, \
     `\\`, `//` and dot segments";

/// The path of a destination as one server reads it.
#[derive(Clone, Copy)]
pub(super) struct PathView<'a> {
    /// The path as the app wrote it.
    pub(super) written: &'a str,
    /// The plain reading and one of the readings, or `None` if the path has only one.
    pub(super) reading: Option<(&'a str, &'a str)>,
}

// === impl PathView ===

impl<'a> PathView<'a> {
    /// Creates the view of a path that has one reading, or whose reading does not matter.
    pub(super) fn written(path: &'a str) -> Self {
        Self {
            written: path,
            reading: None,
        }
    }

    /// Returns the text that prefixes are compared with.
    pub(super) fn text(self) -> Cow<'a, str> {
        match self.reading {
            Some((_, reading)) => Cow::Borrowed(reading),
            None => path::normalize(self.written),
        }
    }
}

impl PathView<'_> {
    /// Returns whether the plain reading is below the first prefix, which is the user's.
    ///
    /// A prefix may be ambiguous too. A rule that denies matches all of its readings, a rule that grants only the
    /// first.
    fn is_plainly_below(self, prefixes: &[String]) -> bool {
        let plain = match self.reading {
            Some((plain, _)) => Cow::Borrowed(plain),
            None => path::normalize(self.written),
        };
        prefixes
            .first()
            .is_some_and(|prefix| path::is_below(&plain, prefix))
    }
}

// === impl Policy ===

impl Policy {
    /// Decides for every reading of the path and returns the strictest decision: a denial, else no token, else the
    /// token that all readings get.
    pub(super) fn strictest(
        &self,
        destination: &Destination,
        universe: &str,
        decide: impl Fn(PathView<'_>) -> Decision,
    ) -> Decision {
        let written = destination.path();
        let readings = match self.readings(destination, universe) {
            Readings::One => return decide(PathView::written(written)),
            Readings::Unknown => return self.unreadable(destination),
            Readings::Several(readings) => readings,
        };
        let mut views = views(written, &readings);
        let Some(first) = views.next() else {
            return self.unreadable(destination);
        };
        let mut strictest = decide(first);
        let mut deciding = None;
        for view in views {
            let other = decide(view);
            match (rank(&strictest), rank(&other)) {
                (so_far, more) if more > so_far => {
                    strictest = other;
                    deciding = view.reading.map(|(_, reading)| reading);
                }
                (0, 0) if !same_token(&strictest, &other) => {
                    strictest = self.none(&strictest.rule, &SEVERAL_TOKENS.into());
                    deciding = view.reading.map(|(_, reading)| reading);
                }
                _ => {}
            }
        }
        if let Some(reading) = deciding {
            let reading: String = reading.chars().take(80).collect();
            let note = format!("some servers read this path as {reading:?}");
            let note = format!("{note}, and the strictest reading decides");
            // The note is in one place only, because `explain` shows both.
            if let CredentialGrant::Deny(why) = &mut strictest.grant {
                *why = format!("{why}: {note}").into();
            } else {
                strictest.notes.push(note.into());
            }
        }
        strictest
    }

    /// Returns whether `holds` is true for any reading of the path.
    pub(super) fn any_reading(
        &self,
        destination: &Destination,
        universe: &str,
        holds: impl Fn(PathView<'_>) -> bool,
    ) -> bool {
        let written = destination.path();
        match self.readings(destination, universe) {
            Readings::One => holds(PathView::written(written)),
            Readings::Several(readings) => views(written, &readings).any(holds),
            Readings::Unknown => true,
        }
    }

    fn readings(&self, destination: &Destination, universe: &str) -> Readings {
        // For most paths, this scan is the only cost.
        if !path::is_suspicious(destination.path())
            || !self.depends_on_path(&destination.origin, universe)
        {
            return Readings::One;
        }
        path::readings(destination.path())
    }

    /// Decides for a path with too many readings. Every rule with a path may match: those that deny apply, those that
    /// grant do not.
    fn unreadable(&self, destination: &Destination) -> Decision {
        for rule in &self.rules {
            if rule.matches_origin(&destination.origin) {
                if rule.options.credential == Some(Credential::Deny) {
                    return self.denied_by(&rule.name);
                }
                if !rule.pattern.has_path() {
                    return self.none(&rule.name, &TOO_MANY.into());
                }
            }
        }
        if self.settings.unmatched_denied {
            self.denied(AMBIGUOUS, TOO_MANY)
        } else {
            self.none(&AMBIGUOUS.into(), &TOO_MANY.into())
        }
    }

    /// Returns the first rule that matches this reading of the path.
    pub(super) fn rule_for(
        &self,
        destination: &Destination,
        path: PathView<'_>,
    ) -> Option<&CompiledRule> {
        let mut text = None;
        self.rules.iter().find(|rule| {
            rule.matches_origin(&destination.origin)
                && rule.pattern.paths().is_none_or(|prefixes| {
                    let text = text.get_or_insert_with(|| path.text());
                    prefixes.iter().any(|prefix| path::is_below(text, prefix))
                        && (prefixes.len() == 1
                            || !rule.grants()
                            || path.is_plainly_below(prefixes))
                })
        })
    }
}

fn views<'a>(written: &'a str, readings: &'a [String]) -> impl Iterator<Item = PathView<'a>> {
    let plain = readings.first().map_or(written, String::as_str);
    readings.iter().map(move |reading| PathView {
        written,
        reading: Some((plain, reading)),
    })
}

fn rank(decision: &Decision) -> u8 {
    match decision.grant {
        CredentialGrant::Token(_) => 0,
        CredentialGrant::None(_) => 1,
        CredentialGrant::Deny(_) => 2,
    }
}

/// Returns whether both decisions send the same token in the same way, even by different rules.
fn same_token(one: &Decision, other: &Decision) -> bool {
    let Decision {
        grant,
        header,
        existing,
        scheme,
        quota_project,
        plaintext,
        google_api,
        cloud_run,
        of_user,
        rule: _,
        notes: _,
    } = one;
    *grant == other.grant
        && *header == other.header
        && *existing == other.existing
        && *scheme == other.scheme
        && *quota_project == other.quota_project
        && *plaintext == other.plaintext
        && *google_api == other.google_api
        && *cloud_run == other.cloud_run
        && *of_user == other.of_user
}

#[cfg(test)]
mod tests;
