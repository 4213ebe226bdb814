//! Paths that servers read in different ways: the explanation agrees with the decision, and says which reading decided.

use super::*;

const UNIVERSE: &str = "googleapis.com";
const FUNCTIONS: &str = "https://us-p.cloudfunctions.net";

fn policy(rules: &[&str]) -> Policy {
    let rules = rules
        .iter()
        .map(|text| {
            let (pattern, credential) = text.split_once('=').unwrap();
            Rule {
                pattern: Pattern::parse(pattern).unwrap(),
                options: options(&[("credential", credential)]),
                name: format!("--rule {text}").into(),
            }
        })
        .collect();
    Policy::new(rules, Settings::default())
}

fn explained(policy: &Policy, url: &str) -> Explanation {
    explain(
        url,
        policy,
        UNIVERSE,
        &ServiceLocation::default(),
        &EntryPoints::default(),
    )
    .unwrap()
}

#[test]
fn the_credential_shown_is_that_of_the_decision() {
    let denied = policy(&["a.example/admin=deny", "a.example=access"]);
    let granted = policy(&["a.example/pub=access"]);
    for path in [
        "/admin",
        "/admin%2fx",
        "//admin",
        "/admin;x=1/y",
        "/;x/admin",
        "/%61dmin%2f",
        "/pub/../admin",
        "/pub/..;/admin",
        "/pub%2f..%2fadmin",
        "/pub/..%5cadmin",
        "/pub/%252e%252e/admin",
        "/admin%252fx",
        "/%5Cadmin",
        "/x/..;y=/%61dmin%3bz",
        "/pub",
        "/pub/x",
        "/other",
    ] {
        let url = format!("https://a.example{path}");
        let destination = Destination::parse(&url).unwrap();
        for policy in [&denied, &granted] {
            let decision = policy.decide(&destination, UNIVERSE);
            let explained = explained(policy, &url);
            assert_eq!(explained.credential, decision.credential(), "{url}");
        }
    }
}

#[test]
fn an_ambiguous_function_path_is_explained_with_its_reading() {
    let notes = explained(&policy(&[]), &format!("{FUNCTIONS}/fn1/../fn2"))
        .notes
        .join("\n");
    assert!(notes.contains("no one first segment"), "{notes}");
    assert!(notes.contains("\"/fn2\""), "{notes}");
}

#[test]
fn the_decisive_reading_is_named_once() {
    let policy = policy(&["a.example.com/admin=deny", "b.example.com/pub=access"]);
    for url in [
        "https://a.example.com/x/..%2fadmin",
        "https://b.example.com/pub/..;/x",
    ] {
        let notes = explained(&policy, url).notes.join("\n");
        for once in ["some servers read", "the strictest reading decides"] {
            assert_eq!(notes.matches(once).count(), 1, "{notes}");
        }
    }
}
