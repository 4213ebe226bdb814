//! The YAML file: read, bounded, and walked key by key into a [`RawConfig`].

use std::collections::HashSet;
use std::io::Read;
use std::sync::Arc;

use serde_saphyr::{Location, Spanned};

use super::entry::{self, Shape};
use super::name::{Kind, Name};
use super::node::{self, Node};
use super::problem::{Problem, quote, suggestion};
use super::raw::{Entry, Fields, RawConfig, Text};

/// In MiB; a configuration of a thousand routes is a tenth of this.
const LARGEST: u64 = 1;

/// `proxy:` as a mapping.
const PROXY: &[(&str, Name)] = &[
    ("listen", Name::Proxy),
    ("unmatched", Name::Unmatched),
    ("metadata-access", Name::MetadataAccess),
    ("intercept", Name::Intercept),
    ("ca-dir", Name::CaDir),
    ("auth", Name::ProxyAuth),
    ("allow-non-loopback", Name::AllowNonLoopback),
];

/// `admin:` as a mapping.
const ADMIN: &[(&str, Name)] = &[
    ("listen", Name::Admin),
    ("quitquitquit", Name::Quitquitquit),
];

/// Reads the file that `path` names.
pub(super) fn read(path: &Text, problems: &mut Vec<Problem>) -> RawConfig {
    let name = &path.value;
    let bytes = match bounded(name, LARGEST) {
        Ok(bytes) => bytes,
        Err(message) => {
            problems.push(path.problem(message));
            return RawConfig::default();
        }
    };
    match String::from_utf8(bytes) {
        Ok(source) => parse(name, &source, problems),
        Err(_) => {
            problems.push(Problem::new(name, "the file must be UTF-8 text"));
            RawConfig::default()
        }
    }
}

/// A file's bytes; one that does not end within `mebibytes`, such as a device, is refused.
pub(super) fn bounded(name: &str, mebibytes: u64) -> Result<Vec<u8>, String> {
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

/// The same of a regular file only: to open a pipe may wait for ever, and what was read from it is gone.
pub(super) fn bounded_regular(name: &str, mebibytes: u64) -> Result<Vec<u8>, String> {
    match std::fs::metadata(name) {
        Ok(about) if !about.is_file() => Err(format!("{} is not a regular file", quote(name))),
        _ => bounded(name, mebibytes),
    }
}

/// Walks the text of a file called `name`.
pub(super) fn parse(name: &str, source: &str, problems: &mut Vec<Problem>) -> RawConfig {
    let mut walk = Walk {
        file: name,
        source,
        raw: RawConfig::default(),
        problems,
    };
    match node::parse(source) {
        Ok(node) => walk.root(node),
        Err(error) => walk.problems.push(Problem::new(
            match error.line {
                0 => name.to_owned(),
                line => format!("{name}:{line}:{}", error.column),
            },
            format!("not YAML: {}", error.message),
        )),
    }
    walk.raw
}

type Pair = (Spanned<Node>, Spanned<Node>);

/// A key as it is written, and in the spelling of flags.
struct Key {
    text: String,
    name: String,
    at: Location,
}

struct Walk<'a> {
    file: &'a str,
    source: &'a str,
    raw: RawConfig,
    problems: &'a mut Vec<Problem>,
}

// === impl Walk ===

impl Walk<'_> {
    fn root(&mut self, node: Spanned<Node>) {
        match node.value {
            Node::Null => {}
            Node::Map(pairs) => self.top(pairs),
            Node::Text(_) | Node::Plain | Node::List(_) => {
                let noun = node.value.noun();
                let message = format!("write a mapping, like \"proxy: 3128\", not {noun}");
                self.problem(node.referenced, "", message);
            }
        }
    }

    fn top(&mut self, pairs: Vec<Pair>) {
        for (key, node) in self.pairs("", pairs) {
            match (&*key.name, &node.value) {
                ("proxy", Node::Map(_)) => self.group("proxy.", PROXY, node),
                ("admin", Node::Map(_)) => self.group("admin.", ADMIN, node),
                ("route" | "routes", _) => self.entries(&key, Name::Route, &entry::ROUTE, node),
                ("rule" | "rules", _) => self.entries(&key, Name::Rule, &entry::RULE, node),
                _ => match Name::find(&key.name) {
                    Some(option) => self.option(&key.text, option, node),
                    None => self.unknown(
                        &key,
                        "",
                        Name::ALL
                            .iter()
                            .map(|name| name.as_str())
                            .chain(["routes", "rules"]),
                    ),
                },
            }
        }
    }

    fn group(&mut self, path: &str, keys: &[(&str, Name)], node: Spanned<Node>) {
        let Node::Map(pairs) = node.value else {
            return;
        };
        for (key, node) in self.pairs(path, pairs) {
            match keys.iter().find(|(known, _)| *known == key.name) {
                Some((_, option)) => self.option(&format!("{path}{}", key.text), *option, node),
                None => self.unknown(&key, path, keys.iter().map(|(known, _)| *known)),
            }
        }
    }

    /// A mapping's keys and values, without what is no key or a double.
    fn pairs(&mut self, path: &str, pairs: Vec<Pair>) -> Vec<(Key, Spanned<Node>)> {
        let (mut kept, mut seen) = (Vec::new(), HashSet::new());
        for (key, node) in pairs {
            let at = key.referenced;
            let text = match key.value {
                Node::Text(text) => text,
                Node::Plain => self.source_of(key.defined).to_owned(),
                Node::Null | Node::List(_) | Node::Map(_) => {
                    let message = format!("a key must be a text, not {}", key.value.noun());
                    self.problem(at, "", message);
                    continue;
                }
            };
            let name = text.replace('_', "-");
            if !seen.insert(name.clone()) {
                let message = "the key is there twice: keep one";
                self.problem(at, &format!("{path}{text}"), message);
                continue;
            }
            kept.push((Key { text, name, at }, node));
        }
        kept
    }

    fn unknown<'k>(&mut self, key: &Key, path: &str, known: impl Iterator<Item = &'k str>) {
        let near = suggestion(&key.name, known).replace('-', "_");
        let field = format!("{path}{}", key.text);
        self.problem(key.at, &field, format!("unknown key{near}"));
    }

    fn option(&mut self, field: &str, option: Name, node: Spanned<Node>) {
        if option.kind() == Kind::List {
            let items = self.items(field, node);
            for (field, item) in items {
                if let Some(text) = self.text(&field, item) {
                    self.raw.add(option, text);
                }
            }
            return;
        }
        // As `check --all` prints it.
        let is_null = matches!(node.value, Node::Null) && self.source_of(node.defined) == "null";
        if is_null && matches!(option, Name::CaDir | Name::ImpersonateServiceAccount) {
            return;
        }
        let (place, plain) = (node.referenced, matches!(node.value, Node::Plain));
        let Some(mut text) = self.text(field, node) else {
            return;
        };
        // `off` is false in YAML 1.1, and people write either.
        if plain && option.kind() == Kind::ValueOrOff && text.value.eq_ignore_ascii_case("false") {
            text.value = "off".to_owned();
        }
        if let Some(first) = self.raw.value(option) {
            let message = format!("already said at {}: keep one", first.place);
            self.problem(place, field, message);
        } else {
            self.raw.add(option, text);
        }
    }

    fn entries(&mut self, key: &Key, option: Name, shape: &Shape, node: Spanned<Node>) {
        let items = self.items(&key.text, node);
        for (field, item) in items {
            let entry = if let Node::Map(pairs) = item.value {
                let place = self.place(item.referenced, &field);
                Some(Entry::Fields(self.fields(place, &field, shape, pairs)))
            } else {
                self.text(&field, item).map(Entry::Line)
            };
            match option {
                Name::Route => self.raw.routes.extend(entry),
                _ => self.raw.rules.extend(entry),
            }
        }
    }

    fn fields(&mut self, place: Arc<str>, path: &str, shape: &Shape, pairs: Vec<Pair>) -> Fields {
        let path = format!("{path}.");
        let mut fields = Vec::new();
        let before = self.problems.len();
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
                        let word = Text::new(word, Arc::clone(&text.place));
                        fields.push((name.to_owned(), word));
                    }
                }
            } else if shape.known().any(|known| known == key.name) {
                fields.extend(self.text(&field, node).map(|text| (key.name, text)));
            } else {
                self.unknown(&key, &path, shape.known());
            }
        }
        Fields {
            place,
            fields,
            broken: self.problems.len() > before,
        }
    }

    /// A list's items, or the one item that stands for a list; each with its field.
    fn items(&self, field: &str, node: Spanned<Node>) -> Vec<(String, Spanned<Node>)> {
        match node.value {
            // A list whose items are all commented out.
            Node::Null => Vec::new(),
            Node::List(items) => items
                .into_iter()
                .enumerate()
                .map(|(index, item)| (format!("{field}[{index}]"), item))
                .collect(),
            Node::Text(_) | Node::Plain | Node::Map(_) => vec![(field.to_owned(), node)],
        }
    }

    fn text(&mut self, field: &str, node: Spanned<Node>) -> Option<Text> {
        let text = match node.value {
            Node::Text(text) => text,
            Node::Plain => self.source_of(node.defined).to_owned(),
            Node::Null => {
                let message = "nothing is written here: write a value, or leave the key out";
                self.problem(node.referenced, field, message);
                return None;
            }
            Node::List(_) | Node::Map(_) => {
                let message = format!("write a text, not {}", node.value.noun());
                self.problem(node.referenced, field, message);
                return None;
            }
        };
        Some(Text::new(text, self.place(node.referenced, field)))
    }

    /// A number exactly as it is written: 007 is no 7 where it is a project's name.
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

    fn problem(&mut self, at: Location, field: &str, message: impl Into<String>) {
        let place = self.place(at, field);
        self.problems.push(Problem::new(&*place, message));
    }
}
