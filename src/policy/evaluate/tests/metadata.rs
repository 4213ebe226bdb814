//! Calls to the metadata server.

use super::*;

#[test]
fn a_token_never_goes_to_the_metadata_server() {
    let policy = policy(&[
        "metadata.google.internal=access",
        "metadata.goog=access",
        "metadata=access",
        "169.254.169.254=id",
        "[fd20:ce::254]=access",
        "*.internal=access",
    ]);
    for url in [
        "http://metadata.google.internal/computeMetadata/v1/",
        "http://METADATA.google.internal.:8080/",
        "https://metadata.goog/",
        "http://metadata/",
        "http://169.254.169.254/",
        "http://2852039166/",
        "http://0xA9.254.169.254:81/",
        "http://[::ffff:169.254.169.254]/",
        "http://[fd20:ce::254]/",
        "http://169.254.0.1/",
        "http://user@169.254.169.254/",
    ] {
        let decision = policy.decide(&at(url), UNIVERSE);
        assert_eq!(say(&decision), "none by built-in metadata server", "{url}");
        let decision = policy.decide_route("8081", &options("access"), &at(url), UNIVERSE);
        assert_eq!(say(&decision), "none by built-in metadata server", "{url}");
        assert!(
            decision
                .notes
                .iter()
                .any(|note| note.contains("route 8081"))
        );
    }
    let decision = policy.decide(&at("http://metadata/"), UNIVERSE);
    assert!(
        decision
            .notes
            .iter()
            .any(|note| note.contains("--rule metadata=access"))
    );
}

#[test]
fn the_app_can_be_denied_the_metadata_server() {
    let settings = Settings {
        metadata_denied: true,
        metadata: Some((Host::parse("127.0.0.1").unwrap(), 8980)),
        ..Settings::default()
    };
    let closed = Policy::new(vec![rule("metadata=none")], settings);
    for url in [
        "http://metadata/",
        "http://169.254.169.254/",
        "http://127.0.0.1:8980/",
        "http://localhost:8980/",
        "http://[::1]:8980/",
        "http://0.0.0.0:8980/",
    ] {
        assert_eq!(
            say(&closed.decide(&at(url), UNIVERSE)),
            "deny by --metadata-access deny",
            "{url}"
        );
    }
    assert_eq!(
        say(&closed.decide(&at("http://127.0.0.1:8981/"), UNIVERSE)),
        "none by built-in loopback"
    );
    assert_eq!(
        say(&closed.decide(&at("http://notmetadata/"), UNIVERSE)),
        "none by no rule"
    );
    assert_eq!(
        decide(
            &["169.254.169.254/computeMetadata/v1/instance=deny"],
            "http://169.254.169.254/computeMetadata/v1/instance/x"
        ),
        "deny by --rule 169.254.169.254/computeMetadata/v1/instance=deny"
    );
    assert_eq!(
        decide(&["metadata=none"], "http://metadata/"),
        "none by --rule metadata=none"
    );
}
