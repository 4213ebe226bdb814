use proptest::prelude::*;

use super::*;

fn of(url: &str) -> Result<String, &'static str> {
    let destination = Destination::parse(url).unwrap();
    audience(&destination, PathView::written(destination.path()))
        .map(|audience| audience.to_string())
}

#[test]
fn a_service_on_cloud_run_is_its_host_without_the_tag() {
    for (url, expected) in [
        (
            "http://svc-abc-uc.a.run.app/p?q=1",
            "https://svc-abc-uc.a.run.app",
        ),
        (
            "https://SVC-123.us-central1.run.app.:443/",
            "https://svc-123.us-central1.run.app",
        ),
        (
            "https://canary---svc-123.us-central1.run.app/",
            "https://svc-123.us-central1.run.app",
        ),
        (
            "https://svc-123.us-central1.run.app:8443/",
            "https://svc-123.us-central1.run.app",
        ),
        // Not exactly one separator with something on both sides.
        ("https://---svc.a.run.app/", "https://---svc.a.run.app"),
        ("https://svc---.a.run.app/", "https://svc---.a.run.app"),
        (
            "https://a---b---c.a.run.app/",
            "https://a---b---c.a.run.app",
        ),
        ("https://a----b.a.run.app/", "https://a----b.a.run.app"),
        ("https://svc.a---b.run.app/", "https://svc.a---b.run.app"),
    ] {
        assert_eq!(of(url).unwrap(), expected, "{url}");
    }
}

#[test]
fn a_function_is_its_host_and_its_name() {
    let host = "https://us-central1-p.cloudfunctions.net";
    for (path, function) in [
        ("/fn", "fn"),
        ("/fn/", "fn"),
        ("/fn/sub?x=1", "fn"),
        ("/Fn-2_b", "Fn-2_b"),
    ] {
        assert_eq!(
            of(&format!("{host}{path}")).unwrap(),
            format!("{host}/{function}")
        );
    }
    for path in ["", "/", "/?fn", "//fn"] {
        assert_eq!(of(&format!("{host}{path}")), Err(NO_FUNCTION), "{path:?}");
    }
    let long = format!("/{}", "f".repeat(64));
    for path in [
        "/1fn", "/-fn", "/%66n", "/fn%20", "/..", "/f.n", "/fn,x", &long,
    ] {
        assert_eq!(
            of(&format!("{host}{path}")),
            Err(NOT_A_FUNCTION),
            "{path:?}"
        );
    }
    assert!(of(&format!("{host}/{}", "f".repeat(63))).is_ok());
}

#[test]
fn any_other_host_is_its_own_audience() {
    assert_eq!(
        of("http://api.example.com:8080/x").unwrap(),
        "https://api.example.com"
    );
    assert_eq!(
        of("http://a---b.example.com/").unwrap(),
        "https://a---b.example.com"
    );
    assert_eq!(of("http://[::1]:8080/").unwrap(), "https://[::1]");
    assert_eq!(of("http://run.app/").unwrap(), "https://run.app");
}

#[test]
fn a_client_id_is_recognised_by_its_whole_labels() {
    assert!(is_client_id("123-x.apps.googleusercontent.com"));
    assert!(!is_client_id("apps.googleusercontent.com"));
    assert!(!is_client_id("123.evilapps.googleusercontent.com"));
    assert!(!is_client_id("https://123.apps.googleusercontent.com/"));
}

proptest! {
    #[test]
    fn an_audience_never_has_a_port_a_query_or_a_second_segment(
        host in prop::sample::select(vec!["svc.a.run.app", "t---s.a.run.app", "r-p.cloudfunctions.net", "x.test"]),
        port in 1_u16..,
        path in "/[!-~&&[^#]]{0,20}",
    ) {
        if let Ok(destination) = Destination::parse(&format!("http://{host}:{port}{path}"))
            && let Ok(audience) = audience(&destination, PathView::written(destination.path()))
        {
            let rest = audience.strip_prefix("https://").unwrap();
            prop_assert!(rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/')));
            prop_assert!(rest.matches('/').count() <= 1);
        }
    }
}
