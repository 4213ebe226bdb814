//! Import cycles between files.
//!
//! A path such as `crate::proxy::Stack` leads to the file that defines the item, not to the `mod.rs` that re-exports
//! it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::{module, without_comments};

/// The segments of a path, or the names of a module and its parents.
type Segments = Vec<String>;

/// A module, as its file declares it.
struct Module {
    file: PathBuf,
    children: HashSet<String>,
    imports: Vec<Import>,
    /// Paths outside of `use`, and their lines.
    paths: Vec<(usize, Segments)>,
}

/// One name that a `use` declares.
struct Import {
    line: usize,
    path: Segments,
    name: String,
    is_public: bool,
}

/// The modules of a crate.
struct Modules(BTreeMap<Segments, Module>);

/// The files that a file uses, and the first line of each use.
type Graph = BTreeMap<PathBuf, BTreeMap<PathBuf, usize>>;

/// Uses that are ignored: the folder of the using file, and the used file. A token source may need tokens and facts of
/// other sources (impersonation). It uses them through weak references (`token/source/context.rs`), because cache and
/// facts are made from the sources.
const BACK_REFERENCES: [(&str, &str); 3] = [
    ("token/source", "token/cache.rs"),
    ("token/source", "token/facts.rs"),
    ("token/source", "token/slot.rs"),
];

/// Returns each import cycle that leads through files of different folders, as text. Paths are relative to `src`.
pub(super) fn cycles(files: &[(PathBuf, String)]) -> Vec<String> {
    let modules = files
        .iter()
        .filter(|(file, _)| file != Path::new("lib.rs") && file != Path::new("main.rs"))
        .map(|(file, source)| (module(file), Module::parse(file, source)));
    let graph = Modules(modules.collect()).graph();
    let reach: BTreeMap<&PathBuf, BTreeSet<&PathBuf>> = graph
        .keys()
        .map(|file| (file, reachable(&graph, file)))
        .collect();
    let mut found = BTreeMap::new();
    for (file, reached) in &reach {
        let cycle: BTreeSet<&PathBuf> = reached
            .iter()
            .copied()
            .filter(|other| reach[other].contains(*file))
            .collect();
        if !in_one_folder(&cycle) {
            found.insert(cycle.clone(), describe(&graph, &cycle));
        }
    }
    found.into_values().collect()
}

/// Returns the files that a file uses, directly or indirectly.
fn reachable<'a>(graph: &'a Graph, file: &PathBuf) -> BTreeSet<&'a PathBuf> {
    let mut found = BTreeSet::new();
    let mut next: Vec<&PathBuf> = graph[file].keys().collect();
    while let Some(file) = next.pop() {
        if found.insert(file) {
            next.extend(graph[file].keys());
        }
    }
    found
}

/// Returns whether all files are in one folder. `x.rs` and `x/mod.rs` belong to the folder `x` as well as to its
/// parent.
fn in_one_folder(cycle: &BTreeSet<&PathBuf>) -> bool {
    let folders = |file: &PathBuf| {
        let own: PathBuf = module(file).iter().collect();
        let around = own.parent().map(Path::to_owned).unwrap_or_default();
        HashSet::from([own, around])
    };
    let mut shared = cycle.iter().map(|file| folders(file));
    let Some(first) = shared.next() else {
        return true;
    };
    !shared
        .fold(first, |all, folders| &all & &folders)
        .is_empty()
}

fn describe(graph: &Graph, cycle: &BTreeSet<&PathBuf>) -> String {
    let mut text = String::from("import cycle:\n");
    for file in cycle {
        for (used, line) in graph[*file].iter().filter(|(used, _)| cycle.contains(used)) {
            let (file, used) = (file.display(), used.display());
            text.push_str(&format!("  src/{file}:{line} uses src/{used}\n"));
        }
    }
    text
}

// === impl Module ===

impl Module {
    fn parse(file: &Path, source: &str) -> Self {
        let code = without_tests(&without_comments(source));
        let mut parsed = Self {
            file: file.to_owned(),
            children: HashSet::new(),
            imports: Vec::new(),
            paths: Vec::new(),
        };
        let mut rest = String::new();
        let mut lines = code.lines().enumerate();
        while let Some((at, line)) = lines.next() {
            let item = without_visibility(line.trim());
            if let Some(name) = item.strip_prefix("mod ").and_then(|m| m.strip_suffix(';')) {
                parsed.children.insert(name.to_owned());
            } else if item.starts_with("use ") {
                let mut statement = item.to_owned();
                while !statement.ends_with(';') {
                    let (_, line) = lines.next().expect("a `use` ends with a semicolon");
                    statement.push_str(line.trim());
                    rest.push('\n');
                }
                let tree = statement[4..].trim_end_matches(';');
                let is_public = line.trim().starts_with("pub");
                expand(tree, &[], &mut |path, name| {
                    parsed.imports.push(Import {
                        line: at + 1,
                        path,
                        name,
                        is_public,
                    });
                });
            } else {
                rest.push_str(line);
            }
            rest.push('\n');
        }
        parsed.paths = paths(&rest);
        parsed
    }
}

/// Removes items under `#[cfg(test)]`. Lines keep their numbers.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        if !["#[cfg(test)]", "#[cfg(all(test,"]
            .iter()
            .any(|cfg| line.trim().starts_with(cfg))
        {
            kept.push_str(line);
            kept.push('\n');
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        kept.push('\n');
        for line in lines.by_ref() {
            kept.push('\n');
            let is_outer = line.len() - line.trim_start().len() == indent;
            if is_outer && (line.ends_with(';') || line.ends_with('}') || line.ends_with(',')) {
                break;
            }
        }
    }
    kept
}

fn without_visibility(item: &str) -> &str {
    match item.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ").map_or(item, |(_, rest)| rest),
        Some(rest) => rest.trim_start(),
        None => item,
    }
}

/// Calls `add` with the path and the name of each leaf of a `use` tree.
fn expand(tree: &str, prefix: &[String], add: &mut impl FnMut(Segments, String)) {
    let (head, group) = match tree.split_once('{') {
        Some((head, rest)) => (head, Some(rest.trim_end().trim_end_matches('}'))),
        None => (tree, None),
    };
    let (head, alias) = match head.split_once(" as ") {
        Some((head, alias)) => (head, Some(alias.trim().to_owned())),
        None => (head, None),
    };
    let mut path = prefix.to_vec();
    path.extend(
        head.split("::")
            .map(str::trim)
            .filter(|s| !s.is_empty())
            .map(str::to_owned),
    );
    let Some(group) = group else {
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let name = alias.or_else(|| path.last().cloned()).unwrap_or_default();
        return add(path, name);
    };
    let (mut depth, mut from) = (0, 0);
    // A nested group keeps its own closing brace.
    let group = format!(
        "{group}{}",
        "}".repeat(group.matches('{').count() - group.matches('}').count())
    );
    for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = group[from..at].trim();
                if !part.is_empty() {
                    expand(part, &path, add);
                }
                from = at + 1;
            }
            _ => {}
        }
    }
}

/// Returns every path of two or more segments in code.
fn paths(code: &str) -> Vec<(usize, Segments)> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (line, text) in code.lines().enumerate() {
        let mut rest = text;
        while let Some(start) = rest.find(is_name) {
            let continues = rest[..start].ends_with("::") || rest[..start].ends_with('.');
            let mut path = Vec::new();
            rest = &rest[start..];
            loop {
                let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
                path.push(rest[..end].to_owned());
                rest = &rest[end..];
                match rest.strip_prefix("::") {
                    Some(next) if next.starts_with(is_name) => rest = next,
                    _ => break,
                }
            }
            if path.len() > 1 && !continues {
                found.push((line + 1, path));
            }
        }
    }
    found
}

// === impl Modules ===

impl Modules {
    fn graph(&self) -> Graph {
        let mut graph = Graph::new();
        for (name, module) in &self.0 {
            let uses = graph.entry(module.file.clone()).or_default();
            // A re-export from a submodule gives it a name, and is not a use.
            let imports = module
                .imports
                .iter()
                .map(|import| (import.line, &import.path, import.is_public))
                .chain(module.paths.iter().map(|(line, path)| (*line, path, false)));
            for (line, path, is_public) in imports {
                let Some(used) = self.resolve(name, path, 0) else {
                    continue;
                };
                let used_file = &self.0[&used].file;
                let is_back = BACK_REFERENCES.iter().any(|(folder, file)| {
                    module.file.starts_with(folder) && used_file == Path::new(file)
                });
                let is_below = used.len() > name.len() && used.starts_with(name);
                if used != *name && !(is_public && is_below) && !is_back {
                    uses.entry(used_file.clone()).or_insert(line);
                }
            }
        }
        graph
    }

    /// Returns the module that defines the item at a path; `None` for other crates, and for a module itself.
    fn resolve(&self, from: &Segments, path: &[String], depth: usize) -> Option<Segments> {
        let path = self.absolute(from, path, depth)?;
        let mut module = Segments::new();
        for (at, segment) in path.iter().enumerate() {
            let mut below = module.clone();
            below.push(segment.clone());
            if self.0.contains_key(&below) {
                module = below;
                continue;
            }
            let known = self.0.get(&module)?;
            let import = known.imports.iter().find(|import| import.name == *segment);
            return match import {
                Some(import) if depth < 9 => {
                    let mut target = import.path.clone();
                    target.extend_from_slice(&path[at + 1..]);
                    self.resolve(&module, &target, depth + 1)
                }
                _ => Some(module),
            };
        }
        None
    }

    /// Returns the path from the root of the crate.
    fn absolute(&self, from: &Segments, path: &[String], depth: usize) -> Option<Segments> {
        let (first, rest) = path.split_first()?;
        let known = self.0.get(from)?;
        let mut base = match first.as_str() {
            "crate" => Segments::new(),
            "self" => from.clone(),
            "super" => from[..from.len() - 1].to_vec(),
            name if known.children.contains(name) => [from.as_slice(), &path[..1]].concat(),
            name => {
                let import = known.imports.iter().find(|import| import.name == name)?;
                // `use x::x` would lead to itself.
                if depth > 9 || import.path.first().is_some_and(|first| first == name) {
                    return None;
                }
                self.absolute(from, &import.path, depth + 1)?
            }
        };
        for segment in rest {
            match segment.as_str() {
                "super" => drop(base.pop()),
                _ => base.push(segment.clone()),
            }
        }
        Some(base)
    }
}

fn planted(files: &[(&str, &str)]) -> Vec<String> {
    let files: HashMap<_, _> = files.iter().copied().collect();
    let files: Vec<_> = files
        .into_iter()
        .map(|(file, source)| (PathBuf::from(file), source.to_owned()))
        .collect();
    cycles(&files)
}

#[test]
fn an_import_cycle_is_found_in_every_spelling() {
    for uses in [
        "use crate::proxy::Body;",
        "\nuse crate::{error::Error, proxy::Body as B};",
        "use super::super::super::proxy::Body;",
        "use super::Body;\n",
        "use super::request;\nfn f(_: request::Body) {}",
        "fn f() -> crate::proxy::request::Body {}",
    ] {
        let found = planted(&[
            (
                "proxy/mod.rs",
                "mod request;\nmod layers;\npub use request::body::Body;",
            ),
            ("proxy/request/mod.rs", "pub mod body;\npub use body::Body;"),
            (
                "proxy/request/body.rs",
                "use crate::proxy::layers::stack::Stack;\npub struct Body;",
            ),
            (
                "proxy/layers/mod.rs",
                "pub mod stack;\npub use super::{Body, request};",
            ),
            ("proxy/layers/stack.rs", uses),
            ("error.rs", "pub struct Error;"),
        ]);
        assert_eq!(found.len(), 1, "{uses}: {found:?}");
        let line = 1 + uses
            .find("Body")
            .map_or(0, |at| uses[..at].matches('\n').count());
        let expected = format!("src/proxy/layers/stack.rs:{line} uses src/proxy/request/body.rs");
        assert!(found[0].contains(&expected), "{uses}: {found:?}");
    }
}

#[test]
fn imports_within_a_folder_are_not_cycles() {
    for files in [
        // In one folder.
        [
            ("a/x.rs", "use super::y::Y;"),
            ("a/y.rs", "use super::x::X;"),
        ],
        // Between a folder and its `mod.rs`.
        [
            ("a/x.rs", "use super::Z;"),
            ("a/mod.rs", "pub mod x;\nuse x::X;"),
        ],
        // Between a file and its own folder.
        [
            ("a/x.rs", "mod y;\nuse self::y::Y;"),
            ("a/x/y.rs", "use super::X;"),
        ],
        // In one direction.
        [
            ("a/x.rs", "use crate::b::y::Y;"),
            ("b/y.rs", "use crate::c::Z;"),
        ],
        // In tests and comments.
        [
            ("a/x.rs", "use crate::b::y::Y;"),
            (
                "b/y.rs",
                "// crate::a::x::X\n#[cfg(test)]\nmod tests {\n    use crate::a::x::X;\n}\n",
            ),
        ],
    ] {
        let mut all = vec![
            ("a/mod.rs", "pub mod x;\npub mod y;"),
            ("b/mod.rs", "pub mod y;"),
        ];
        all.extend(files);
        let found = planted(&all);
        assert!(found.is_empty(), "{found:?}");
    }
}
