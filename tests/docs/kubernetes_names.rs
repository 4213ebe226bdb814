//! Every name in a Kubernetes manifest, in deploy/ and in the documents, is valid.

use std::fs;

use serde_json::{Map, Value};

use super::google_names::files;
use super::path;

/// Returns whether it is a label of RFC 1123: at most 63 lower-case letters, digits and hyphens.
fn is_label(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Returns whether it is a service name of RFC 6335 in lower case: at most 15 characters, at least one letter, no two
/// hyphens in a row.
fn is_port_name(name: &str) -> bool {
    is_label(name)
        && name.len() <= 15
        && name.bytes().any(|b| b.is_ascii_lowercase())
        && !name.contains("--")
}

/// Returns whether it is the value of a label: empty, or at most 63 letters, digits, `-`, `_` and `.`.
fn is_label_value(value: &str) -> bool {
    value.len() <= 63
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && !value.starts_with(['-', '_', '.'])
        && !value.ends_with(['-', '_', '.'])
}

/// Returns whether it is the key of a label or annotation: a label value, with an optional subdomain before a slash.
fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.rsplit_once('/').unwrap_or(("kubernetes.io", key));
    is_subdomain(prefix) && !name.is_empty() && is_label_value(name)
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Collects the invalid names, each with its key.
fn check(value: &Value, wrong: &mut Vec<String>) {
    let mut expect = |what: &str, name: &str, is_right: fn(&str) -> bool| {
        if !is_right(name) {
            wrong.push(format!("{what} {name:?}"));
        }
    };
    let Value::Object(object) = value else {
        if let Value::Array(items) = value {
            items.iter().for_each(|item| check(item, wrong));
        }
        return;
    };
    if let Some(Value::Object(metadata)) = object.get("metadata") {
        text(metadata, "name").inspect(|name| expect("metadata.name", name, is_subdomain));
        text(metadata, "namespace").inspect(|name| expect("metadata.namespace", name, is_label));
    }
    for key in ["labels", "matchLabels", "selector", "annotations"] {
        for (label, value) in object
            .get(key)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            if let Some(value) = value.as_str() {
                expect(key, label, is_label_key);
                if key != "annotations" {
                    expect(key, value, is_label_value);
                }
            }
        }
    }
    for (key, is_right) in [
        ("containers", is_label as fn(&str) -> bool),
        ("initContainers", is_label),
        ("volumes", is_label),
        ("volumeMounts", is_label),
        ("ports", is_port_name),
        ("env", is_variable),
    ] {
        for item in object
            .get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let item = item.as_object();
            item.and_then(|item| text(item, "name"))
                .inspect(|name| expect(key, name, is_right));
        }
    }
    for key in ["port", "targetPort"] {
        text(object, key).inspect(|name| expect(key, name, is_port_name));
    }
    for (key, is_right) in [
        ("serviceAccountName", is_subdomain as fn(&str) -> bool),
        ("secretName", is_subdomain),
    ] {
        // Cloud Run has a Google account in this field, whose address is not a Kubernetes name.
        text(object, key)
            .filter(|name| !name.contains('@'))
            .inspect(|name| expect(key, name, is_right));
    }
    object.values().for_each(|value| check(value, wrong));
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

/// Returns the manifests of a YAML file, or of the code blocks of a page. A name that the reader replaces becomes `x`.
fn manifests(file: &str, text: &str) -> Vec<Value> {
    let blocks: Vec<&str> = if file.ends_with(".md") {
        text.split("\n```yaml\n")
            .skip(1)
            .map(|block| block.split("\n```").next().unwrap())
            .collect()
    } else {
        vec![text]
    };
    let mut found = Vec::new();
    for block in blocks {
        let mut filled = String::new();
        for (index, part) in block.split("${").enumerate() {
            match part.split_once('}') {
                Some((_, rest)) if index > 0 => filled.extend(["x", rest]),
                _ => filled.push_str(part),
            }
        }
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&filled).unwrap_or_else(|error| panic!("{file}: {error}"));
        found.extend(
            documents
                .into_iter()
                // The collector of Cloud Run reads its file itself; its ports have other rules.
                .filter(|document| {
                    document.get("apiVersion").is_some() && document["kind"] != "RunMonitoring"
                }),
        );
    }
    found
}

#[test]
fn every_kubernetes_name_in_a_manifest_is_valid() {
    let mut texts = Vec::new();
    for folder in ["docs", "deploy"] {
        files(&path(folder), &mut texts);
    }
    texts.push(format!(
        "README.md\n{}",
        fs::read_to_string(path("README.md")).unwrap()
    ));
    let (mut seen, mut wrong) = (0, Vec::new());
    for text in &texts {
        let (file, text) = text.split_once('\n').unwrap();
        if !file.ends_with(".md") && !file.ends_with(".yaml") {
            continue;
        }
        for manifest in manifests(file, text) {
            seen += 1;
            let mut here = Vec::new();
            check(&manifest, &mut here);
            wrong.extend(here.into_iter().map(|found| format!("{file}: {found}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen > 20, "{seen} manifests");
}

#[test]
fn an_invalid_kubernetes_name_is_found_anywhere() {
    for (yaml, name) in [
        ("metadata: {name: Shop}", "Shop"),
        ("metadata: {name: a, namespace: a.b}", "a.b"),
        ("metadata: {labels: {app: -x}}", "-x"),
        ("metadata: {labels: {example.com/: x}}", "example.com/"),
        (
            "spec: {template: {spec: {containers: [{name: my_app}]}}}",
            "my_app",
        ),
        (
            "spec: {containers: [{name: a, ports: [{name: a-name-of-16-chars}]}]}",
            "a-name-of-16-chars",
        ),
        (
            "spec: {containers: [{name: a, ports: [{name: \"8080\"}]}]}",
            "8080",
        ),
        ("spec: {containers: [{name: a, env: [{name: 1X}]}]}", "1X"),
        (
            "spec: {initContainers: [{name: a, livenessProbe: {httpGet: {port: My}}}]}",
            "My",
        ),
        ("spec: {volumes: [{name: a.b}]}", "a.b"),
    ] {
        let mut wrong = Vec::new();
        for manifest in manifests("x.yaml", &format!("apiVersion: v1\n{yaml}\n")) {
            check(&manifest, &mut wrong);
        }
        assert!(
            matches!(&wrong[..], [found] if found.contains(name)),
            "{yaml}: {wrong:?}"
        );
    }
}
