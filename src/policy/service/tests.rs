use proptest::prelude::*;

use super::*;
use crate::policy::{Credential, Pattern, Rule, RuleOptions, Settings};

fn home() -> ServiceLocation {
    ServiceLocation {
        project_number: Some("424242".into()),
        region: Some("us-central1".into()),
    }
}

fn found(url: &str) -> Option<Result<String, String>> {
    let found = ServiceName::of(&Destination::parse(url).unwrap())?;
    Some(
        found
            .and_then(|service| service.at(&home()))
            .map(|origin| origin.to_string())
            .map_err(|error| error.to_string()),
    )
}

#[test]
fn a_name_is_a_service_of_this_region_or_of_its_own() {
    for (url, expected) in [
        (
            "http://billing/v1",
            "https://billing-424242.us-central1.run.app",
        ),
        (
            "http://BILLING./",
            "https://billing-424242.us-central1.run.app",
        ),
        (
            "https://billing/",
            "https://billing-424242.us-central1.run.app",
        ),
        (
            "http://billing.europe-west12",
            "https://billing-424242.europe-west12.run.app",
        ),
        (
            "http://billing.europe-west1.run.internal",
            "https://billing-424242.europe-west1.run.app",
        ),
        // A region that was opened after this release.
        (
            "http://b.atlantis-deep-south7",
            "https://b-424242.atlantis-deep-south7.run.app",
        ),
        (
            "http://canary---billing",
            "https://canary---billing-424242.us-central1.run.app",
        ),
    ] {
        assert_eq!(found(url), Some(Ok(expected.to_owned())), "{url}");
    }
}

#[test]
fn names_with_another_meaning_are_not_services() {
    for url in [
        "http://example.com",
        "http://a.b.c",
        "http://billing.internal",
        "http://billing.run",
        "http://billing.europe-west",
        "http://billing.europe1",
        "http://billing.xn--p1ai",
        "http://billing.europe-west1.example",
        "http://billing.run.internal.example",
        "http://notrun.internal",
        "http://billing:8080",
        "https://billing:80",
        "http://u:p@billing",
        "http://localhost",
        "http://a.localhost",
        "http://127.0.0.1",
        "http://2130706433",
        "http://[::1]",
    ] {
        assert_eq!(found(url), None, "{url}");
    }
}

#[test]
fn an_impossible_service_name_is_an_error_with_the_reason() {
    let long = format!("http://{}", "a".repeat(57));
    for (url, why) in [
        (
            "http://my_service",
            "lower-case letters, digits and hyphens",
        ),
        ("http://9lives", "begin with a letter"),
        ("http://billing-", "not end with a hyphen"),
        (
            "http://metadata.europe-west1",
            "that is the metadata server",
        ),
        ("http://localhost.europe-west1", "that is this machine"),
        (
            "http://billing.run.internal",
            "write SERVICE.REGION.run.internal",
        ),
        ("http://run.internal", "write SERVICE.REGION.run.internal"),
        ("http://a.b.europe-west1.run.internal", "must be a region"),
        (&long, "with the project's number it has 64 characters"),
    ] {
        let error = found(url).unwrap().unwrap_err();
        assert!(error.contains(why), "{url}: {error}");
    }
    assert!(
        found(&format!("http://{}", "a".repeat(56)))
            .unwrap()
            .is_ok()
    );
}

#[test]
fn unknown_parts_of_a_service_host_are_in_capitals() {
    let service = ServiceName::parse("billing").unwrap();
    assert_eq!(
        service.at(&ServiceLocation::default()).unwrap().to_string(),
        "https://billing-PROJECTNUMBER.REGION.run.app"
    );
}

#[test]
fn a_rule_for_the_service_name_takes_precedence() {
    let rule = |pattern: &str| Rule {
        pattern: Pattern::parse(pattern).unwrap(),
        options: RuleOptions {
            credential: Some(Credential::None),
            ..RuleOptions::default()
        },
        name: pattern.into(),
    };
    let discovers = |rules: &[&str], discover, url: &str| {
        let settings = Settings {
            discover,
            ..Settings::default()
        };
        Policy::new(
            rules.iter().map(|pattern| rule(pattern)).collect(),
            settings,
        )
        .service(&Destination::parse(url).unwrap())
        .is_some()
    };
    assert!(discovers(&[], true, "http://billing/"));
    assert!(!discovers(&[], false, "http://billing/"));
    assert!(!discovers(&["billing"], true, "http://billing/"));
    assert!(!discovers(
        &["*.run.internal"],
        true,
        "http://a.us-east1.run.internal/"
    ));
    assert!(discovers(&["billing/v1"], true, "http://billing/v2"));
    assert!(discovers(&["*.run.app"], true, "http://billing/"));
    for url in ["http://metadata/", "http://metadata.google.internal/"] {
        assert!(!discovers(&[], true, url), "{url}");
    }
}

proptest! {
    /// A service is always a host under run.app, with the name and the number in one label.
    #[test]
    fn a_service_is_always_a_host_under_run_app(text in "[a-zA-Z0-9._-]{1,80}") {
        let Ok(destination) = Destination::parse(&format!("http://{text}/")) else { return Ok(()) };
        let Some(Ok(service)) = ServiceName::of(&destination) else { return Ok(()) };
        let Ok(origin) = service.at(&home()) else { return Ok(()) };
        let host = origin.host.to_string();
        prop_assert_eq!(Host::parse(&host), Ok(origin.host.clone()));
        let labels: Vec<_> = host.split('.').collect();
        prop_assert_eq!(labels.len(), 4);
        prop_assert!(labels[0].ends_with("-424242") && labels[0].len() <= 63);
        prop_assert!(is_region(labels[1]));
        prop_assert_eq!(&labels[2..], ["run", "app"]);
        prop_assert_eq!(ServiceName::parse(&service.to_string()), Ok(service));
    }
}
