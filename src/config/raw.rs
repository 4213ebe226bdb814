//! The configuration as written: unparsed texts with their locations.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::diagnostic::{Diagnostic, DiagnosticId, MISPLACED_CREDENTIAL};
use super::env::Env;
use super::option_spec::Repeat;
use super::options::OptionKey;
use super::unknown::unknown_variables;
use crate::credentials::{is_credential, is_key};

/// A text and its location.
#[derive(Clone, PartialEq, Eq)]
pub struct Spanned {
    /// The text as the user wrote it.
    pub value: String,
    /// The location, as in [`Diagnostic::place`].
    pub place: Arc<str>,
}

/// A route or a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawEntry {
    /// The form of a flag: `LISTEN=URL,OPTION…` or `PATTERN=CREDENTIAL,OPTION…`.
    Line(Spanned),
    /// The form of a file: a mapping.
    Fields(RawFields),
}

/// The fields of a mapping in their order, with the names that flags use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFields {
    /// The location of the mapping.
    pub place: Arc<str>,
    /// Names and values. A list is repeated fields of one name.
    pub fields: Vec<(String, Spanned)>,
    /// A field was invalid and is not in the list. It was reported, so a missing field is not reported again.
    pub broken: bool,
}

/// The options of one source (flags, environment or file), or of several merged by precedence.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RawConfig {
    /// `--config`.
    pub file: Option<Spanned>,
    values: BTreeMap<OptionKey, Spanned>,
    lists: BTreeMap<OptionKey, Vec<Spanned>>,
    /// The credentials that `--proxy-auth random` stands for. Only `exec` sets them, because it can pass them to the
    /// app.
    pub random_auth: Option<String>,
    /// The directory of the CA without `--ca-dir`.
    pub private_folder: Option<PathBuf>,
    /// `--route`.
    pub routes: Vec<RawEntry>,
    /// `--rule`.
    pub rules: Vec<RawEntry>,
}

/// Names a variable of the environment as a location.
pub(super) fn variable_place(variable: &str) -> String {
    format!("environment {variable}")
}

// === impl OptionKey ===

impl OptionKey {
    /// Returns whether the text looks like a credential, and the option accepts none.
    fn refuses(self, text: &str) -> bool {
        match self {
            Self::Placeholder => is_key(text),
            Self::ProxyAuth => false,
            Self::UpstreamProxy => {
                let without_user_info = text.rsplit_once('@').map_or(text, |(_, host)| host);
                is_credential(without_user_info)
            }
            _ => is_credential(text),
        }
    }
}

// === impl RawEntry ===

impl RawEntry {
    /// Returns the texts of the entry.
    fn texts(&self) -> impl Iterator<Item = &Spanned> {
        let (line, fields) = match self {
            Self::Line(line) => (Some(line), None),
            Self::Fields(fields) => (None, Some(&fields.fields)),
        };
        line.into_iter()
            .chain(fields.into_iter().flatten().map(|(_, text)| text))
    }
}

// === impl Spanned ===

impl Spanned {
    /// Creates a text with its location.
    pub fn new(value: impl Into<String>, place: impl Into<Arc<str>>) -> Self {
        Self {
            value: value.into(),
            place: place.into(),
        }
    }

    /// Returns a diagnostic for the location of this text.
    pub(super) fn diagnostic(&self, id: DiagnosticId, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(id, &*self.place, message)
    }
}

/// Shows only the location, because the text may be a password.
impl fmt::Debug for Spanned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Spanned").field(&self.place).finish()
    }
}

/// Shows only the locations of texts, because one may be a password.
impl fmt::Debug for RawConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawConfig")
            .field("file", &self.file)
            .field("values", &self.values)
            .field("lists", &self.lists)
            .field("routes", &self.routes)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

// === impl RawConfig ===

impl RawConfig {
    /// Sets `--config`, from the command line.
    pub fn set_file(&mut self, path: Option<String>) {
        self.file = path.map(|path| Spanned::new(path, "flag --config"));
    }

    /// Returns the path of the configuration file that [`load`](super::load) reads with these flags.
    pub fn file_path(&self, env: &Env) -> Option<PathBuf> {
        let named = match &self.file {
            Some(file) => Some(file.value.as_str()),
            None => env.text("SIDENTITY_CONFIG").ok().flatten(),
        };
        named.map(PathBuf::from)
    }

    /// Adds the texts of a flag.
    pub fn set_flag(&mut self, name: OptionKey, texts: impl IntoIterator<Item = String>) {
        let place: Arc<str> = format!("flag --{}", name.as_str()).into();
        for text in texts {
            self.add(name, Spanned::new(text, Arc::clone(&place)));
        }
    }

    /// Adds texts for an option from another variable than its own.
    pub fn set_variable(
        &mut self,
        name: OptionKey,
        variable: &str,
        texts: impl IntoIterator<Item = String>,
    ) {
        let place: Arc<str> = variable_place(variable).into();
        for text in texts {
            self.add(name, Spanned::new(text, Arc::clone(&place)));
        }
    }

    /// Reads the `SIDENTITY_*` variables.
    pub(super) fn from_env(
        env: &Env,
        warnings: &mut Vec<String>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut raw = Self::default();
        let mut text = |variable: &str| match env.text(variable) {
            Ok(text) => text.map(|text| Spanned::new(text, format!("environment {variable}"))),
            Err(diagnostic) => {
                diagnostics.push(diagnostic);
                None
            }
        };
        raw.file = text("SIDENTITY_CONFIG");
        for name in OptionKey::ALL.iter().copied() {
            let Some(text) = text(&name.variable()) else {
                continue;
            };
            if name.spec().repeat != Repeat::Once {
                // A credential with white space, such as a PEM file, is refused as a whole.
                let words: Vec<&str> = match name.refuses(&text.value) {
                    true => vec![&text.value],
                    false => text.value.split_whitespace().collect(),
                };
                for word in words {
                    raw.add(name, Spanned::new(word, Arc::clone(&text.place)));
                }
            } else {
                raw.add(name, text);
            }
        }
        match unknown_variables(env) {
            Ok(ignored) => warnings.extend(ignored),
            Err(found) => diagnostics.extend(found),
        }
        raw
    }

    /// Merges this with a source of lower precedence. Its values apply only if this has none; lists are joined.
    pub(super) fn over(mut self, lower: Self) -> Self {
        self.file = self.file.or(lower.file);
        self.random_auth = self.random_auth.or(lower.random_auth);
        self.private_folder = self.private_folder.or(lower.private_folder);
        for (name, text) in lower.values {
            self.values.entry(name).or_insert(text);
        }
        for (name, texts) in lower.lists {
            self.lists.entry(name).or_default().extend(texts);
        }
        self.routes.extend(lower.routes);
        self.rules.extend(lower.rules);
        self
    }

    /// Like [`over`](Self::over). A list of hosts to call without a proxy belongs to that proxy: it applies only with
    /// it, and only if no other list is given.
    pub(super) fn over_defaults(self, mut lower: Self) -> Self {
        if self.values.contains_key(&OptionKey::UpstreamProxy)
            || self.lists.contains_key(&OptionKey::NoUpstreamProxy)
        {
            lower.lists.remove(&OptionKey::NoUpstreamProxy);
        }
        self.over(lower)
    }

    /// Returns a diagnostic for each value that looks like a credential, where the option accepts none. Such a value must
    /// not be used, because messages, the log and the output of `check` repeat values.
    pub(super) fn misplaced_credentials(&self) -> Vec<Diagnostic> {
        let file = self.file.iter().filter(|text| is_credential(&text.value));
        let values = self.values.iter().map(|(name, text)| (*name, text));
        let lists = self
            .lists
            .iter()
            .flat_map(|(name, texts)| texts.iter().map(|text| (*name, text)));
        let routes = self.routes.iter().flat_map(RawEntry::texts);
        let rules = self.rules.iter().flat_map(RawEntry::texts);
        let entries = routes
            .map(|text| (OptionKey::Route, text))
            .chain(rules.map(|text| (OptionKey::Rule, text)));
        let refused = values
            .chain(lists)
            .chain(entries)
            .filter(|(name, text)| name.refuses(&text.value));
        file.chain(refused.map(|(_, text)| text))
            .map(|text| text.diagnostic(DiagnosticId::InvalidValue, MISPLACED_CREDENTIAL))
            .collect()
    }

    /// Returns the option's text.
    pub(super) fn value(&self, name: OptionKey) -> Option<&Spanned> {
        self.values.get(&name)
    }

    /// Returns the list's texts.
    pub(super) fn list(&self, name: OptionKey) -> &[Spanned] {
        self.lists.get(&name).map_or(&[], Vec::as_slice)
    }

    pub(super) fn add(&mut self, name: OptionKey, text: Spanned) {
        match name {
            OptionKey::Route => self.routes.push(RawEntry::Line(text)),
            OptionKey::Rule => self.rules.push(RawEntry::Line(text)),
            _ if name.spec().repeat == Repeat::List => {
                self.lists.entry(name).or_default().push(text)
            }
            _ => {
                self.values.insert(name, text);
            }
        }
    }
}
