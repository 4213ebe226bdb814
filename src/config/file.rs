//! Reads the YAML file, up to a maximum size, into a [`RawConfig`], key by key.

use std::collections::HashSet;
use std::io::Read;
use std::sync::Arc;

use serde_saphyr::Location;

use super::diagnostic::{Diagnostic, DiagnosticId, quote, suggestion};
use super::entry::{self, EntrySyntax};
use super::node::{self, Node, SpannedNode};
use super::option_spec::Repeat;
use super::options::OptionKey;
use super::raw::{RawConfig, RawEntry, RawFields, Spanned};

/// Maximum size of the file in MiB. A configuration of a thousand routes has a tenth of this size.
const MAX_MEBIBYTES: u64 = 1;

/// Reads the file that `path` names.
pub(super) fn read(path: &Spanned, diagnostics: &mut Vec<Diagnostic>) -> RawConfig {
    let name = &path.value;
    let bytes = match read_limited(name, MAX_MEBIBYTES) {
        Ok(bytes) => bytes,
        Err(message) => {
            diagnostics.push(path.diagnostic(DiagnosticId::InvalidFile, message));
            return RawConfig::default();
        }
    };
    match String::from_utf8(bytes) {
        Ok(source) => parse(name, &source, diagnostics),
        Err(_) => {
            let message = "the file must be UTF-8 text";
            diagnostics.push(Diagnostic::new(DiagnosticId::NotUtf8, name, message));
            RawConfig::default()
        }
    }
}

/// Returns a file's bytes.
///
/// # Errors
///
/// Fails if the file cannot be read, or is larger than `mebibytes`, such as a device that never ends.
pub(super) fn read_limited(name: &str, mebibytes: u64) -> Result<Vec<u8>, String> {
    let largest = mebibytes * 1024 * 1024;
    let mut bytes = Vec::new();
    std::fs::File::open(name)
        .and_then(|file| file.take(largest + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot read {}: {error}", quote(name)))?;
    if bytes.len() as u64 > largest {
        return Err(format!("{} must be at most {mebibytes} MiB", quote(name)));
    }
    Ok(bytes)
}

/// Like [`read_limited`], for regular files only: opening a named pipe may block forever, and reading it consumes its
/// content.
pub(super) fn read_regular_limited(name: &str, mebibytes: u64) -> Result<Vec<u8>, String> {
    match std::fs::metadata(name) {
        Ok(about) if !about.is_file() => Err(format!("{} is not a regular file", quote(name))),
        _ => read_limited(name, mebibytes),
    }
}

/// Parses the text of a file called `name`.
pub(super) fn parse(name: &str, source: &str, diagnostics: &mut Vec<Diagnostic>) -> RawConfig {
    let mut walk = FileParser {
        file: name,
        source,
        raw: RawConfig::default(),
        diagnostics,
    };
    match node::parse(source) {
        Ok(node) => walk.root(node),
        Err(error) => walk.diagnostics.push(Diagnostic::new(
            DiagnosticId::InvalidYaml,
            match error.line {
                0 => name.to_owned(),
                line => format!("{name}:{line}:{}", error.column),
            },
            format!("not YAML: {}", error.message),
        )),
    }
    walk.raw
}

type Pair = (SpannedNode, SpannedNode);

/// A key as written, and in the spelling of flags.
struct Key {
    text: String,
    name: String,
    at: Location,
}

/// Returns the keys of the options that are in the mapping `group`.
fn keys_inside(group: &str) -> impl Iterator<Item = &'static str> {
    let inside = OptionKey::ALL
        .iter()
        .filter_map(|option| option.spec().inside());
    inside.filter_map(move |(within, key)| (within == group).then_some(key))
}

struct FileParser<'a> {
    file: &'a str,
    source: &'a str,
    raw: RawConfig,
    diagnostics: &'a mut Vec<Diagnostic>,
}

// === impl FileParser ===

impl FileParser<'_> {
    fn root(&mut self, node: SpannedNode) {
        match node.value {
            Node::Null => {}
            Node::Map(pairs) => self.top(pairs),
            Node::Text(_) | Node::Scalar | Node::List(_) => {
                let noun = node.value.kind_name();
                let message = format!("write a mapping, like \"proxy: 3128\", not {noun}");
                self.diagnostic(DiagnosticId::WrongType, node.referenced, "", message);
            }
        }
    }

    fn top(&mut self, pairs: Vec<Pair>) {
        for (key, node) in self.pairs("", pairs) {
            let singular = match &*key.name {
                "routes" => "route",
                "rules" => "rule",
                name => name,
            };
            if matches!(node.value, Node::Map(_)) && keys_inside(&key.name).next().is_some() {
                self.group(&key.name, node);
            } else if let Some(option) = OptionKey::find(singular) {
                match option {
                    OptionKey::Route => self.entries(&key, option, &entry::ROUTE, node),
                    OptionKey::Rule => self.entries(&key, option, &entry::RULE, node),
                    option => self.option(&key.text, option, node),
                }
            } else {
                let names = OptionKey::ALL.iter().map(|option| option.as_str());
                self.unknown(&key, "", names.chain(["routes", "rules"]));
            }
        }
    }

    /// Parses a mapping that contains several options.
    fn group(&mut self, name: &str, node: SpannedNode) {
        let Node::Map(pairs) = node.value else {
            return;
        };
        let path = format!("{name}.");
        for (key, node) in self.pairs(&path, pairs) {
            let mut all = OptionKey::ALL.iter().copied();
            match all.find(|option| option.spec().is_inside(name, &key.name)) {
                Some(option) => self.option(&format!("{path}{}", key.text), option, node),
                None => self.unknown(&key, &path, keys_inside(name)),
            }
        }
    }

    /// Returns a mapping's keys and values, without invalid and duplicate keys, which it reports.
    fn pairs(&mut self, path: &str, pairs: Vec<Pair>) -> Vec<(Key, SpannedNode)> {
        let (mut kept, mut seen) = (Vec::new(), HashSet::new());
        for (key, node) in pairs {
            let at = key.referenced;
            let text = match key.value {
                Node::Text(text) => text,
                Node::Scalar => self.source_of(key.defined).to_owned(),
                Node::Null | Node::List(_) | Node::Map(_) => {
                    let message = format!("a key must be a text, not {}", key.value.kind_name());
                    self.diagnostic(DiagnosticId::WrongType, at, "", message);
                    continue;
                }
            };
            let name = text.replace('_', "-");
            if !seen.insert(name.clone()) {
                let message = "the key is given twice: keep one";
                self.diagnostic(
                    DiagnosticId::Duplicate,
                    at,
                    &format!("{path}{text}"),
                    message,
                );
                continue;
            }
            kept.push((Key { text, name, at }, node));
        }
        kept
    }

    fn unknown<'k>(&mut self, key: &Key, path: &str, known: impl Iterator<Item = &'k str>) {
        let near = suggestion(&key.name, known).replace('-', "_");
        let field = format!("{path}{}", key.text);
        let message = format!("unknown key{near}");
        self.diagnostic(DiagnosticId::UnknownKey, key.at, &field, message);
    }

    fn option(&mut self, field: &str, option: OptionKey, node: SpannedNode) {
        if option.spec().repeat == Repeat::List {
            let items = self.items(field, node);
            for (field, item) in items {
                if let Some(text) = self.text(&field, item) {
                    self.raw.add(option, text);
                }
            }
            return;
        }
        // `check --all` prints null for an option without a value.
        let is_null = matches!(node.value, Node::Null) && self.source_of(node.defined) == "null";
        if is_null && option.spec().takes_null() {
            return;
        }
        let (place, plain) = (node.referenced, matches!(node.value, Node::Scalar));
        let Some(mut text) = self.text(field, node) else {
            return;
        };
        // YAML 1.1 reads `off` as false, so both are written.
        if plain && option.spec().takes_off() && text.value.eq_ignore_ascii_case("false") {
            text.value = "off".to_owned();
        }
        if let Some(first) = self.raw.value(option) {
            let message = format!("already given at {}: keep one", first.place);
            self.diagnostic(DiagnosticId::Duplicate, place, field, message);
        } else {
            self.raw.add(option, text);
        }
    }

    fn entries(&mut self, key: &Key, option: OptionKey, syntax: &EntrySyntax, node: SpannedNode) {
        let items = self.items(&key.text, node);
        for (field, item) in items {
            let entry = if let Node::Map(pairs) = item.value {
                let place = self.place(item.referenced, &field);
                Some(RawEntry::Fields(self.fields(place, &field, syntax, pairs)))
            } else {
                self.text(&field, item).map(RawEntry::Line)
            };
            match option {
                OptionKey::Route => self.raw.routes.extend(entry),
                _ => self.raw.rules.extend(entry),
            }
        }
    }

    fn fields(
        &mut self,
        place: Arc<str>,
        path: &str,
        syntax: &EntrySyntax,
        pairs: Vec<Pair>,
    ) -> RawFields {
        let path = format!("{path}.");
        let mut fields = Vec::new();
        let before = self.diagnostics.len();
        for (key, node) in self.pairs(&path, pairs) {
            let field = format!("{path}{}", key.text);
            let list = match &*key.name {
                "scope" | "scopes" => Some("scope"),
                "delegate" | "delegates" => Some("delegate"),
                _ => None,
            };
            if let Some(name) = list {
                let items = self.items(&field, node);
                for (field, item) in items {
                    let Some(text) = self.text(&field, item) else {
                        continue;
                    };
                    for word in text.value.split_whitespace() {
                        let word = Spanned::new(word, Arc::clone(&text.place));
                        fields.push((name.to_owned(), word));
                    }
                }
            } else if syntax.known().any(|known| known == key.name) {
                fields.extend(self.text(&field, node).map(|text| (key.name, text)));
            } else {
                self.unknown(&key, &path, syntax.known());
            }
        }
        RawFields {
            place,
            fields,
            broken: self.diagnostics.len() > before,
        }
    }

    /// Returns the items of a list, or the one item instead of a list, each with the path of its field.
    fn items(&self, field: &str, node: SpannedNode) -> Vec<(String, SpannedNode)> {
        match node.value {
            // The value is null if all items of a list are commented out.
            Node::Null => Vec::new(),
            Node::List(items) => items
                .into_iter()
                .enumerate()
                .map(|(index, item)| (format!("{field}[{index}]"), item))
                .collect(),
            Node::Text(_) | Node::Scalar | Node::Map(_) => vec![(field.to_owned(), node)],
        }
    }

    fn text(&mut self, field: &str, node: SpannedNode) -> Option<Spanned> {
        let text = match node.value {
            Node::Text(text) => text,
            Node::Scalar => self.source_of(node.defined).to_owned(),
            Node::Null => {
                let message = "the value is missing: write one, or remove the key";
                self.diagnostic(DiagnosticId::MissingValue, node.referenced, field, message);
                return None;
            }
            Node::List(_) | Node::Map(_) => {
                let message = format!("write a text, not {}", node.value.kind_name());
                self.diagnostic(DiagnosticId::WrongType, node.referenced, field, message);
                return None;
            }
        };
        Some(Spanned::new(text, self.place(node.referenced, field)))
    }

    /// Returns a number exactly as written: as the name of a project, 007 differs from 7.
    fn source_of(&self, location: Location) -> &str {
        let span = location.span();
        let (Some(start), Some(len)) = (span.byte_offset(), span.byte_len()) else {
            return "";
        };
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        self.source
            .get(start..start.saturating_add(len))
            .unwrap_or("")
            .trim()
    }

    fn place(&self, at: Location, field: &str) -> Arc<str> {
        let colon = if field.is_empty() { "" } else { ": " };
        let (line, column) = (at.line(), at.column());
        format!("{}:{line}:{column}{colon}{field}", self.file).into()
    }

    fn diagnostic(
        &mut self,
        id: DiagnosticId,
        at: Location,
        field: &str,
        message: impl Into<String>,
    ) {
        let place = self.place(at, field);
        self.diagnostics.push(Diagnostic::new(id, &*place, message));
    }
}
