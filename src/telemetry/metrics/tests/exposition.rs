//! A strict reader of the text format, version 0.0.4: it panics on whatever a scraper could stumble over.

use std::collections::{BTreeMap, HashMap, HashSet};

/// Labels that Managed Service for Prometheus and its sidecar collector set themselves.
const RESERVED: [&str; 16] = [
    "project_id",
    "location",
    "cluster",
    "namespace",
    "job",
    "instance",
    "instanceId",
    "revision_name",
    "service_name",
    "configuration_name",
    "container",
    "pod",
    "node",
    "top_level_controller_name",
    "top_level_controller_type",
    "__address__",
];

#[derive(Debug, Default)]
pub(super) struct Exposition {
    pub(super) families: HashMap<String, MetricFamily>,
}

#[derive(Debug, Default)]
pub(super) struct MetricFamily {
    kind: String,
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Exposition {
    pub(super) fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has no end");
        let mut families: HashMap<String, MetricFamily> = HashMap::new();
        let mut current = String::new();
        let mut helped = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect(line);
                assert!(!help.is_empty() && !families.contains_key(name), "{line}");
                name.clone_into(&mut helped);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect(line);
                assert_eq!(helped, name, "HELP goes before TYPE");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                let family = MetricFamily {
                    kind: kind.to_owned(),
                    ..MetricFamily::default()
                };
                assert!(families.insert(name.to_owned(), family).is_none(), "{line}");
                name.clone_into(&mut current);
            } else {
                let sample = Sample::parse(line);
                let family = families.get_mut(&current).expect(line);
                family.expect_name(&current, &sample.name);
                family.samples.push(sample);
            }
        }
        for (name, family) in &families {
            family.check(name);
        }
        Self { families }
    }
}

impl MetricFamily {
    fn expect_name(&self, family: &str, sample: &str) {
        let suffix = sample.strip_prefix(family).expect(sample);
        match self.kind.as_str() {
            "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{sample}"),
            _ => assert_eq!(suffix, "", "{sample} in {family}"),
        }
    }

    fn check(&self, name: &str) {
        assert!(!self.samples.is_empty(), "{name} is empty");
        let mut seen = HashSet::new();
        for sample in &self.samples {
            assert!(
                seen.insert((&sample.name, &sample.labels)),
                "twice: {sample:?}"
            );
            if self.kind != "gauge" {
                assert!(sample.value >= 0.0, "{sample:?}");
            }
        }
        if self.kind == "histogram" {
            self.check_histograms(name);
        }
    }

    fn check_histograms(&self, name: &str) {
        // By the labels without `le`: the last bucket's bound and count, the count, whether there is a sum.
        let mut children: HashMap<_, (f64, f64, f64, bool)> = HashMap::new();
        for sample in &self.samples {
            let mut labels = sample.labels.clone();
            let le = labels.remove("le");
            let child = children
                .entry(labels)
                .or_insert((f64::NEG_INFINITY, 0.0, -1.0, false));
            match sample.name.strip_prefix(name) {
                Some("_bucket") => {
                    let le = number(&le.expect("a bucket has a bound"));
                    assert!(le > child.0 && sample.value >= child.1, "{sample:?}");
                    (child.0, child.1) = (le, sample.value);
                }
                Some("_sum") => child.3 = true,
                _ => child.2 = sample.value,
            }
        }
        for (labels, (bound, last, count, sum)) in children {
            assert!(
                bound == f64::INFINITY && last == count && sum,
                "{name} {labels:?}"
            );
        }
    }
}

impl Sample {
    fn parse(line: &str) -> Self {
        let end = line.find(['{', ' ']).expect(line);
        let (name, mut rest) = line.split_at(end);
        expect_name(name);
        let mut labels = BTreeMap::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            loop {
                let (label, after) = rest.split_once("=\"").expect(line);
                expect_name(label);
                assert!(
                    !label.starts_with("__") && !RESERVED.contains(&label),
                    "{line}"
                );
                let (value, after) = quoted(after);
                assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
                match after.strip_prefix(',') {
                    Some(after) => rest = after,
                    None => {
                        rest = after.strip_prefix('}').expect(line);
                        break;
                    }
                }
            }
        }
        Self {
            name: name.to_owned(),
            labels,
            value: number(rest.strip_prefix(' ').expect(line)),
        }
    }
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`.
fn expect_name(name: &str) {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = name.starts_with(|c: char| !c.is_ascii_digit());
    assert!(starts && name.chars().all(word), "{name:?} is no name");
}

/// The value up to its closing quote, and what comes after.
fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return (value, chars.as_str()),
            '\\' => match chars.next() {
                Some('n') => value.push('\n'),
                Some(c @ ('"' | '\\')) => value.push(c),
                other => panic!("{other:?} after a backslash in {text:?}"),
            },
            c => value.push(c),
        }
    }
    panic!("no closing quote in {text:?}");
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        text => {
            let digits = |c: char| c.is_ascii_digit() || c == '.' || c == '-';
            assert!(text.chars().all(digits), "{text:?} is no number");
            text.parse().expect(text)
        }
    }
}
