//! Every relative link of the documents leads to a file, and every anchor to a heading.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::path;

/// Collects every Markdown file of the repository.
fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if !["target", "node_modules", ".git"].contains(&name) {
                documents(&path, found);
            }
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

/// Returns the text without fenced blocks and code spans.
fn prose(text: &str) -> String {
    let mut prose = String::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let spans = line.split('`').step_by(2);
            prose += &spans.collect::<Vec<_>>().join(" ");
            prose.push('\n');
        }
    }
    prose
}

/// Returns the anchors of a document, as GitHub makes them: those of headings, and explicit ones (`<a id="…">`).
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::<String, usize>::new();
    let mut anchors = BTreeSet::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        for id in line.split("<a id=\"").skip(1) {
            anchors.insert(id.split('"').next().unwrap().to_owned());
        }
        let heading = line.trim_start_matches('#');
        if fenced || heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        // The anchor of a heading with a link has the text of the link.
        let text = heading.split("](").fold(String::new(), |text, part| {
            let part = match part.split_once(')') {
                Some((_, rest)) if !text.is_empty() => rest,
                _ => part,
            };
            text + part
        });
        let slug: String = text
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let count = seen.entry(slug.clone()).or_default();
        anchors.insert(match *count {
            0 => slug,
            n => format!("{slug}-{n}"),
        });
        *count += 1;
    }
    anchors
}

/// Returns the targets of a document's links and images.
fn targets(text: &str) -> Vec<String> {
    prose(text)
        .split("](")
        .skip(1)
        .map(|rest| rest.split(')').next().unwrap().to_owned())
        .collect()
}

/// Returns the fault of a link from this file, if any.
fn broken(file: &Path, target: &str) -> Option<&'static str> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (page, anchor) = target.split_once('#').unwrap_or((target, ""));
    let page = match page {
        "" => file.to_owned(),
        _ => file.parent().unwrap().join(page),
    };
    if !page.exists() {
        return Some("no such file");
    }
    if anchor.is_empty() {
        return None;
    }
    let text = fs::read_to_string(&page).unwrap_or_default();
    (!anchors(&text).contains(anchor)).then_some("no such anchor")
}

#[test]
fn every_link_and_anchor_within_the_repository_exists() {
    let mut files = Vec::new();
    documents(&path(""), &mut files);
    let mut count = 0;
    let mut wrong = Vec::new();
    for file in &files {
        for target in targets(&fs::read_to_string(file).unwrap()) {
            count += 1;
            if let Some(why) = broken(file, &target) {
                wrong.push(format!("{}: {target}: {why}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count > 100, "{count} links in {} files", files.len());
}

#[test]
fn a_link_to_a_missing_file_or_heading_is_found() {
    let readme = path("README.md");
    assert_eq!(broken(&readme, "docs/nowhere.md"), Some("no such file"));
    assert_eq!(broken(&readme, "#nowhere"), Some("no such anchor"));
    assert_eq!(broken(&readme, "#limits"), None);
    assert_eq!(broken(&readme, "https://example.com/#x"), None);
    let text =
        "# A\n## It's `b` – c\n## A\n<a id=\"d-e\"></a>\n```\n# no\n```\n[x](y#z) `[not](one)`\n";
    let expected = ["a", "a-1", "its-b--c", "d-e"].map(str::to_owned);
    assert_eq!(anchors(text), BTreeSet::from(expected));
    assert_eq!(targets(text), ["y#z"]);
}

/// Returns every Markdown file below docs/, by its path there.
fn pages() -> BTreeSet<String> {
    let mut files = Vec::new();
    documents(&path("docs"), &mut files);
    let folder = path("docs");
    files
        .iter()
        .map(|file| file.strip_prefix(&folder).unwrap().display().to_string())
        .filter(|page| page != "SUMMARY.md")
        .collect()
}

#[test]
fn the_summary_of_the_site_has_every_page_once() {
    let listed = targets(&fs::read_to_string(path("docs/SUMMARY.md")).unwrap());
    let unique: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(listed.len(), unique.len(), "{listed:?}");
    assert_eq!(unique, pages());
}

#[test]
fn the_pages_of_the_site_link_to_each_other_and_to_the_repository() {
    let output = Command::new(path(".ci/site"))
        .args(["0.0.0-test", "main"])
        .env("MDBOOK", "none")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut files = Vec::new();
    documents(&path("target/site/pages"), &mut files);
    assert_eq!(files.len(), pages().len() + 1);
    let mut wrong = Vec::new();
    let repository = "https://github.com/sidentity/sidentity/blob/main/";
    for file in &files {
        for target in targets(&fs::read_to_string(file).unwrap()) {
            let why = match target.strip_prefix(repository) {
                Some(outside) => (!path(outside.split('#').next().unwrap()).exists())
                    .then_some("no such file in the repository"),
                None => broken(file, &target),
            };
            if let Some(why) = why {
                wrong.push(format!("{}: {target}: {why}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
