//! Modules depend on each other in one direction, that of the list in `src/lib.rs`. Files of different folders do not
//! import each other in a cycle.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice
)]

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "layering/cycles.rs"]
mod cycles;

/// The sentence of `src/lib.rs` that the list follows.
const LIST_FOLLOWS: &str = "A module uses only modules listed below it:";

/// A path to another module.
#[derive(Debug, PartialEq, Eq)]
struct Use {
    line: usize,
    module: String,
}

/// A use of a module further up.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    file: PathBuf,
    line: usize,
    from: String,
    to: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            from,
            to,
        } = self;
        let file = file.display();
        write!(
            f,
            "src/{file}:{line}: `{from}` uses `{to}`, which stands above it in the list of src/lib.rs"
        )
    }
}

/// Returns the modules from top to bottom, as the crate's documentation lists them.
fn order(lib: &str) -> Vec<String> {
    let docs: String = lib
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .collect();
    let (_, list) = docs
        .split_once(LIST_FOLLOWS)
        .expect("src/lib.rs says in which order its modules stand");
    let (list, _) = list
        .split_once('.')
        .expect("the list ends with a full stop");
    let names = list.split('`').skip(1).step_by(2);
    names.map(str::to_owned).collect()
}

/// Returns the modules that `src/lib.rs` declares.
fn declared(lib: &str) -> Vec<&str> {
    lib.lines()
        .filter_map(|line| {
            line.trim_start_matches("pub ")
                .strip_prefix("mod ")?
                .strip_suffix(';')
        })
        .collect()
}

/// Returns the module path of a file below `src`: `proxy/stack.rs` is `[proxy, stack]`, `proxy/mod.rs` is `[proxy]`.
fn module(file: &Path) -> Vec<String> {
    let mut path: Vec<String> = file
        .with_extension("")
        .iter()
        .map(|part| part.to_str().unwrap().to_owned())
        .collect();
    if path.last().is_some_and(|last| last == "mod") {
        path.pop();
    }
    path
}

/// Returns every path from the crate's root in a file, in the forms `crate::x`, `crate::{x, y}` and `super::super::x`.
fn uses(source: &str, depth: usize) -> Vec<Use> {
    let code = without_comments(source);
    let root = "crate::";
    let up = "super::".repeat(depth);
    let mut found = Vec::new();
    for start in [root, &up] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            // `mycrate::x`, and a longer chain of `super::`, are other paths.
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || (c == ':' && start == up))
            {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            found.extend(first_segments(&code[at + start.len()..], line));
        }
    }
    found.sort_by_key(|found| found.line);
    found
}

/// Returns the next segment of a path, or all names at the top level of its braces.
fn first_segments(rest: &str, line: usize) -> Vec<Use> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let Some(group) = rest.strip_prefix('{') else {
        let module: String = rest.chars().take_while(|c| is_name(*c)).collect();
        return vec![Use { line, module }];
    };
    let (mut depth, mut line, mut begins, mut found) = (0, line, true, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            '\n' => line += 1,
            c if begins && is_name(c) => {
                let module = group[at..].chars().take_while(|c| is_name(*c)).collect();
                found.push(Use { line, module });
                begins = false;
            }
            _ => {}
        }
    }
    found
}

/// Removes comments, because a link in a comment is not a dependency. Lines keep their numbers.
fn without_comments(source: &str) -> String {
    source
        .lines()
        .map(|line| match line.find("//") {
            // The `//` of a URL does not begin a comment.
            Some(at) if !line[..at].ends_with(':') => &line[..at],
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// Returns the uses of modules further up in one file.
fn violations(order: &[String], file: &Path, source: &str) -> Vec<Violation> {
    let module = module(file);
    let rank = |module: &str| order.iter().position(|name| name == module);
    let Some(own) = rank(&module[0]) else {
        // `lib.rs` and `main.rs` are not in the list.
        return Vec::new();
    };
    uses(source, module.len())
        .into_iter()
        .filter(|found| rank(&found.module).is_some_and(|other| other < own))
        .map(|found| Violation {
            file: file.to_owned(),
            line: found.line,
            from: module[0].clone(),
            to: found.module,
        })
        .collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn modules_import_only_modules_below_them() {
    let order = order(&fs::read_to_string(src().join("lib.rs")).unwrap());
    let files = sources(&src());
    assert!(files.len() > 2, "{files:?}");
    let violations: Vec<String> = files
        .iter()
        .flat_map(|path| {
            let source = fs::read_to_string(path).unwrap();
            violations(&order, path.strip_prefix(src()).unwrap(), &source)
        })
        .map(|violation| violation.to_string())
        .collect();
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn files_of_different_folders_do_not_import_each_other_in_a_cycle() {
    let files: Vec<(PathBuf, String)> = sources(&src())
        .into_iter()
        .map(|path| {
            let source = fs::read_to_string(&path).unwrap();
            (path.strip_prefix(src()).unwrap().to_owned(), source)
        })
        .collect();
    let cycles = cycles::cycles(&files);
    assert!(cycles.is_empty(), "\n{}", cycles.join("\n"));
}

#[test]
fn every_module_is_in_the_list() {
    let lib = fs::read_to_string(src().join("lib.rs")).unwrap();
    let order = order(&lib);
    let declared = declared(&lib);
    assert!(!declared.is_empty());
    for name in declared {
        assert!(
            order.iter().any(|module| module == name),
            "src/lib.rs declares `{name}`, which its list leaves out"
        );
    }
}

#[test]
fn the_table_in_the_documents_has_the_same_order() {
    let order = order(&fs::read_to_string(src().join("lib.rs")).unwrap());
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let text = fs::read_to_string(docs).unwrap();
    let (_, table) = text.split_once("## The modules").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let rows: Vec<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert_eq!(rows, order);
}

#[test]
fn every_file_that_the_architecture_page_names_exists() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let text = fs::read_to_string(docs).unwrap();
    let mut paths = 0;
    for name in text.split('`').skip(1).step_by(2) {
        let is_path = name.ends_with(".rs") && name.contains('/') && !name.contains(' ');
        if !is_path {
            continue;
        }
        paths += 1;
        // Short forms name a file beside the one of the row, such as `metadata/client.rs`.
        let exists = ["", "token/source", "proxy"]
            .iter()
            .any(|folder| src().join(folder).join(name).exists());
        let in_root = Path::new(env!("CARGO_MANIFEST_DIR")).join(name).exists();
        assert!(exists || in_root, "{name}");
    }
    assert!(paths > 20, "{paths}");
}

#[test]
fn a_token_source_is_named_only_below_its_registry() {
    let token = src().join("token");
    let registry = token.join("source.rs");
    let files = sources(&token);
    let below: Vec<_> = sources(&token.join("source"));
    let named: Vec<_> = below
        .iter()
        .filter(|path| path.parent() == Some(&token.join("source")))
        .map(|path| format!("source::{}", path.file_stem().unwrap().to_str().unwrap()))
        .collect();
    assert!(named.len() > 1, "{named:?}");
    for path in files {
        let is_test = path.ends_with("tests.rs");
        if is_test || path == registry || below.contains(&path) {
            continue;
        }
        let code = without_comments(&fs::read_to_string(&path).unwrap());
        for source in &named {
            assert!(!code.contains(source), "{}: {source}", path.display());
        }
    }
}

#[test]
fn an_import_violation_is_found_in_every_spelling() {
    let order = ["cli", "proxy", "token", "error"].map(str::to_owned);
    let found = |file: &str, source: &str| -> Vec<(usize, String)> {
        violations(&order, Path::new(file), source)
            .into_iter()
            .map(|violation| (violation.line, violation.to))
            .collect()
    };
    let proxy = |line| vec![(line, "proxy".to_owned())];
    for (file, source, expected) in [
        ("token/slot.rs", "use crate::proxy::Stack;", proxy(1)),
        ("token/mod.rs", "\npub(crate) use crate::proxy;", proxy(2)),
        (
            "token/mod.rs",
            "fn f() {\n    crate::proxy::run() }",
            proxy(2),
        ),
        (
            "token/mod.rs",
            "use crate::{\n    error::{A, B},\n    proxy::C,\n};",
            proxy(3),
        ),
        ("token/mod.rs", "use super::proxy::Stack;", proxy(1)),
        ("token/slot.rs", "use super::super::proxy;", proxy(1)),
        ("error.rs", "use crate::proxy as p; // not so", proxy(1)),
        (
            "error.rs",
            "let url = \"http://x\"; crate::proxy::f(url)",
            proxy(1),
        ),
        // These are no violations: uses of lower modules, of the same module, outside the crate, and in comments.
        (
            "proxy/mod.rs",
            "use crate::token::Slot; use crate::error;",
            vec![],
        ),
        (
            "token/slot.rs",
            "use super::proxy::Stack; use crate::token;",
            vec![],
        ),
        (
            "token/mod.rs",
            "use mycrate::proxy; use crate::Other;",
            vec![],
        ),
        (
            "token/mod.rs",
            "//! See [`x`](crate::proxy::x).\n// crate::cli",
            vec![],
        ),
        ("token/mod.rs", "use crate::error::{proxy, cli};", vec![]),
        ("main.rs", "use crate::proxy;", vec![]),
    ] {
        assert_eq!(found(file, source), expected, "{file}: {source}");
    }
}

#[test]
fn an_import_violation_names_file_line_and_both_modules() {
    let order = ["proxy", "token"].map(str::to_owned);
    let violations = violations(&order, Path::new("token/slot.rs"), "\nuse crate::proxy;");
    assert_eq!(
        violations[0].to_string(),
        "src/token/slot.rs:2: `token` uses `proxy`, which stands above it in the list of src/lib.rs"
    );
}
