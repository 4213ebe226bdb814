use proptest::prelude::*;

use super::*;

const UNIVERSE: &str = "s3nsapis.fr";

fn row(url: &str, universe: &str) -> String {
    let destination = Destination::parse(url).unwrap();
    match find(
        &destination,
        PathView::written(destination.path()),
        universe,
    ) {
        None => "-".to_owned(),
        Some(BuiltinRule::NoToken(row)) => format!("none {row}"),
        Some(BuiltinRule::GoogleApi(domain)) => format!("access {domain}"),
        Some(BuiltinRule::CloudRun) => "run".to_owned(),
        Some(BuiltinRule::Functions) => "function".to_owned(),
    }
}

#[test]
fn the_built_in_table_is_complete() {
    for (url, expected) in [
        ("https://storage.googleapis.com/", "access googleapis.com"),
        ("http://storage.googleapis.com/", "access googleapis.com"),
        (
            "http://storage.googleapis.com:443/",
            "access googleapis.com",
        ),
        (
            "https://us-west1-aiplatform.googleapis.com/",
            "access googleapis.com",
        ),
        (
            "https://x.us-east1.rep.googleapis.com/",
            "access googleapis.com",
        ),
        (
            "https://iamcredentials.googleapis.com/",
            "access googleapis.com",
        ),
        (
            "https://www.googleapis.com/storage/v1",
            "access googleapis.com",
        ),
        (
            "https://www.googleapis.com/oauth2x",
            "access googleapis.com",
        ),
        (
            "https://maps.storage.googleapis.com/",
            "access googleapis.com",
        ),
        ("https://mtls.googleapis.com/", "access googleapis.com"),
        (
            "https://oauth2.googleapis.com/token",
            "none oauth2.googleapis.com",
        ),
        (
            "https://sts.googleapis.com/v1/token",
            "none sts.googleapis.com",
        ),
        (
            "https://sts.us-east1.rep.googleapis.com/",
            "none sts.googleapis.com",
        ),
        (
            "https://securetoken.googleapis.com/",
            "none securetoken.googleapis.com",
        ),
        (
            "https://identitytoolkit.googleapis.com/",
            "none identitytoolkit.googleapis.com",
        ),
        ("https://fonts.googleapis.com/", "none fonts.googleapis.com"),
        ("https://ajax.googleapis.com/", "none ajax.googleapis.com"),
        ("https://maps.googleapis.com/", "none maps.googleapis.com"),
        (
            "https://storage.mtls.googleapis.com/",
            "none *.mtls.googleapis.com",
        ),
        (
            "https://storage.mtls.sandbox.googleapis.com/",
            "none *.mtls.googleapis.com",
        ),
        (
            "https://www.googleapis.com/oauth2/v3/certs",
            "none www.googleapis.com/oauth2/*",
        ),
        (
            "https://www.googleapis.com/x/../oauth2/v3/certs",
            "none www.googleapis.com/oauth2/*",
        ),
        (
            "https://www.googleapis.com/%6Fauth2/v1",
            "none www.googleapis.com/oauth2/*",
        ),
        (
            "https://accounts.google.com/o/oauth2",
            "none accounts.google.com",
        ),
        ("https://svc-abc-uc.a.run.app/", "run"),
        ("https://svc-1.us-central1.run.app/", "run"),
        ("https://us-central1-p.cloudfunctions.net/fn", "function"),
        ("https://x.googleusercontent.com/", "-"),
        ("https://x.appspot.com/", "-"),
        ("https://eu-docker.pkg.dev/", "-"),
        ("https://gcr.io/", "-"),
        ("https://googleapis.com/", "-"),
        ("https://run.app/", "-"),
        ("https://google.com/", "-"),
    ] {
        assert_eq!(row(url, DEFAULT_UNIVERSE), expected, "{url}");
    }
}

#[test]
fn lookalikes_other_ports_addresses_and_user_info_match_no_row() {
    for url in [
        "https://evilgoogleapis.com/",
        "https://storage.googleapis.com.evil.test/",
        "https://storage.googleapis.com:8443/",
        "https://storage.googleapis.com:80/",
        "https://199.36.153.8/",
        "http://storage.googleapis.com@evil.test/",
        "https://user:password@storage.googleapis.com/",
        "https://svc.a.run.app:8443/",
        "https://evilrun.app/",
        "https://u@svc.a.run.app/",
        "https://oauth2.googleapis.com:8443/",
    ] {
        assert_eq!(row(url, DEFAULT_UNIVERSE), "-", "{url}");
    }
}

#[test]
fn another_universe_has_its_own_apis_and_no_token_for_the_default_one() {
    for (url, expected) in [
        ("https://storage.s3nsapis.fr/", "access s3nsapis.fr"),
        ("https://oauth2.s3nsapis.fr/", "none oauth2.s3nsapis.fr"),
        ("https://x.mtls.s3nsapis.fr/", "none *.mtls.s3nsapis.fr"),
        (
            "https://www.s3nsapis.fr/oauth2/v1",
            "none www.s3nsapis.fr/oauth2/*",
        ),
        ("https://storage.googleapis.com/", "-"),
        (
            "https://oauth2.googleapis.com/",
            "none oauth2.googleapis.com",
        ),
        ("https://svc.a.run.app/", "run"),
        ("https://evils3nsapis.fr/", "-"),
    ] {
        assert_eq!(row(url, UNIVERSE), expected, "{url}");
        assert_eq!(row(url, "S3NSapis.FR."), expected, "{url}");
    }
}

#[test]
fn a_universe_that_is_not_a_domain_matches_nothing() {
    for universe in ["", ".", "com", "com.", ".com", "..", ".run.app"] {
        assert_eq!(
            row("https://storage.example.com/", universe),
            "-",
            "{universe:?}"
        );
    }
    // A universe that is a domain of customers matches nothing either.
    assert_eq!(row("https://svc.a.run.app/", "run.app"), "run");
    assert_eq!(row("https://svc.a.run.app/", "a.run.app"), "run");
}

proptest! {
    #[test]
    fn a_suffix_without_a_dot_never_matches(
        glued in "[a-z0-9]{1,12}",
        domain in prop::sample::select(vec!["googleapis.com", "run.app", "cloudfunctions.net", "s3nsapis.fr"]),
    ) {
        prop_assert_eq!(row(&format!("https://{glued}{domain}/fn"), UNIVERSE), "-");
        prop_assert_eq!(row(&format!("https://{glued}{domain}/fn"), DEFAULT_UNIVERSE), "-");
    }

    #[test]
    fn rows_without_a_universe_are_the_same_in_every_universe(
        host in prop::sample::select(vec![
            "a.run.app", "r-p.cloudfunctions.net", "oauth2.googleapis.com", "www.googleapis.com", "storage.googleapis.com",
            "accounts.google.com", "x.test", "storage.s3nsapis.fr", "oauth2.s3nsapis.fr", "10.0.0.1",
        ]),
        path in prop::sample::select(vec!["/", "/oauth2/x"]),
        port in prop::sample::select(vec!["", ":8443"]),
        universes in ("[a-z]{0,3}(\\.[a-z]{1,3}){0,2}", prop::sample::select(vec!["run.app", "google.com", "cloudfunctions.net", "x.test", "s3nsapis.fr", "googleapis.com"])),
    ) {
        let url = format!("https://{host}{port}{path}");
        let destination = Destination::parse(&url).unwrap();
        if !needs_universe(&destination, PathView::written(destination.path())) {
            prop_assert_eq!(row(&url, &universes.0), row(&url, universes.1));
        }
    }
}
