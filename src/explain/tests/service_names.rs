//! Names of Cloud Run services.

use super::*;

fn named(
    url: &str,
    discover: bool,
    rules: &[&str],
    home: &ServiceLocation,
) -> Result<Explanation, ExplainError> {
    let rules = rules
        .iter()
        .map(|pattern| Rule {
            pattern: Pattern::parse(pattern).unwrap(),
            options: options(&[("credential", "none")]),
            name: format!("--rule {pattern}=none").into(),
        })
        .collect();
    let settings = Settings {
        discover,
        ..Settings::default()
    };
    let mut entry_points = entry_points();
    let mut route = route(
        "9000",
        Some("http://localhost:9000"),
        "https://mail/v1",
        &[],
    );
    route.service = Some(ServiceName::parse("mail").unwrap());
    entry_points.routes.push(route);
    explain(
        url,
        &Policy::new(rules, settings),
        "googleapis.com",
        home,
        &entry_points,
    )
}

#[test]
fn a_service_name_is_explained_without_resolving_it() {
    let said = named(
        "http://billing/v1?a=b",
        true,
        &[],
        &ServiceLocation::default(),
    )
    .unwrap();
    assert_eq!(
        said.destination,
        "https://billing-PROJECTNUMBER.REGION.run.app"
    );
    assert_eq!(said.credential, Credential::Id);
    assert_eq!(
        said.audience.as_deref(),
        Some("https://billing-PROJECTNUMBER.REGION.run.app")
    );
    assert_eq!(said.rule, "built-in *.run.app");
    assert!(
        said.how
            .starts_with("Call http://billing/v1?a=b with HTTP_PROXY=http://127.0.0.1:3128: "),
        "{}",
        said.how
    );
    assert!(
        said.how
            .contains("run://billing, and call http://localhost:"),
        "{}",
        said.how
    );
    let notes = said.notes.concat();
    assert!(
        notes.contains("come from the metadata server at the first call"),
        "{notes}"
    );

    let home = ServiceLocation {
        project_number: Some("42".into()),
        region: Some("us-east1".into()),
    };
    let said = named("https://billing.europe-west1/", true, &[], &home).unwrap();
    assert_eq!(said.destination, "https://billing-42.europe-west1.run.app");
    assert!(
        said.how
            .starts_with("Call http://billing.europe-west1/ with"),
        "{}",
        said.how
    );
    assert!(
        said.how
            .contains("Write http://: no certificate can be issued for billing.europe-west1")
    );
}

#[test]
fn a_route_to_a_service_name_is_explained_without_discover() {
    for url in ["http://localhost:9000/x", "http://mail/v1/x"] {
        let said = named(url, false, &[], &ServiceLocation::default()).unwrap();
        assert_eq!(
            said.destination, "https://mail-PROJECTNUMBER.REGION.run.app",
            "{url}"
        );
        assert_eq!(said.credential, Credential::Id, "{url}");
        assert_eq!(
            said.how,
            "Call http://localhost:9000/x: the route 9000 adds the token and sends it over TLS."
        );
    }
}

#[test]
fn an_invalid_service_name_is_explained() {
    let notes = |url: &str, discover, rules: &[&str]| {
        let said = named(url, discover, rules, &ServiceLocation::default()).unwrap();
        assert_eq!(said.credential, Credential::None, "{url}");
        said.notes.concat()
    };
    assert!(
        notes("http://billing/", false, &[]).contains(
            "with --discover on, it is the name of a Cloud Run service: https://billing-PROJECTNUMBER.REGION.run.app"
        )
    );
    assert!(
        notes("http://billing/", true, &["billing"]).contains("your rule matches billing itself")
    );
    assert!(
        notes("http://billing:8080/", true, &[]).contains("with port 8080: write http://billing/")
    );
    for url in [
        "http://metadata/",
        "http://localhost/",
        "http://example.com/",
    ] {
        let notes = notes(url, true, &[]);
        assert!(!notes.contains("PROJECTNUMBER"), "{url}: {notes}");
    }
    for url in ["http://my_service/", "http://metadata.us-east1/"] {
        let error = named(url, true, &[], &ServiceLocation::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("is not the name of a Cloud Run service"),
            "{error}"
        );
    }
}
