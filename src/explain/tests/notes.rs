//! Notes: why there is no token, lookalike hosts, cleartext.

use super::*;

#[test]
fn a_key_or_signature_in_the_url_is_explained_as_no_token() {
    for (query, reason) in [
        ("key=x", "API key"),
        ("X-Goog-Signature=x", "signed"),
        ("upload_id=x", "resumable upload"),
    ] {
        let said = said(&format!("https://storage.googleapis.com/b?{query}"));
        assert_eq!((said.credential, said.header), (Credential::None, None));
        assert!(said.scopes.is_empty());
        assert!(said.notes[0].contains(reason), "{:?}", said.notes);
    }
}

#[test]
fn notes_explain_special_cases() {
    let run = notes("https://t---svc.a.run.app/");
    for part in [
        "X-Serverless-Authorization",
        "without the tag \"t\"",
        "if IAP guards",
        "roles/run.invoker",
    ] {
        assert!(run.contains(part), "{part}: {run}");
    }
    assert!(!notes("https://svc.a.run.app/").contains("tag"));
    assert!(notes("https://r-p.cloudfunctions.net/").contains("function's name"));
    assert!(notes("https://r-p.cloudfunctions.net/fn").contains("cloudfunctions.invoker"));
    assert!(notes("https://storage.googleapis.com/").contains("no token is added"));
    let iap = notes("https://iap.test/");
    assert!(
        iap.contains("Proxy-Authorization") && iap.contains("roles/iap.httpsResourceAccessor"),
        "{iap}"
    );
    assert!(notes("https://own.test/").contains("in addition to the token"));
    assert!(notes("https://dev.test/").contains("a@b.c"));
    assert!(
        notes("http://port.test:8080/")
            .contains("`--rule port.test:443` is for port 443, this URL for port 8080")
    );
    assert!(notes("https://storage.googleapis.com:8443/").contains("not for 8443"));
    assert!(notes("https://u@svc.a.run.app/").contains("user-info"));
    assert!(notes("https://10.0.0.1/").contains("address"));
    assert!(
        notes("https://eu-docker.pkg.dev/")
            .contains("--rule eu-docker.pkg.dev=access,scheme=basic")
    );
    assert!(notes("https://example.com/").contains("--rule example.com=id"));
    assert!(notes("https://oauth2.googleapis.com/token").contains("OAuth endpoint"));
    let other = explain(
        "https://storage.googleapis.com/",
        &policy(),
        "s3nsapis.fr",
        &ServiceLocation::default(),
        &entry_points(),
    )
    .unwrap();
    assert!(
        other
            .notes
            .iter()
            .any(|note| note.contains("the universe is s3nsapis.fr"))
    );
}

#[test]
fn lookalike_hosts_are_named_as_such() {
    for (url, domain) in [
        ("https://googleapis.com.evil.test/", "googleapis.com"),
        ("https://evilgoogleapis.com/", "googleapis.com"),
        ("https://svc.a.run.app.evil.test/", "run.app"),
        ("https://myrun.app/", "run.app"),
        ("https://x-cloudfunctions.net/", "cloudfunctions.net"),
    ] {
        assert!(
            notes(url).contains(&format!("only looks like a host under {domain}")),
            "{url}"
        );
    }
    let denied = Policy::new(
        Vec::new(),
        Settings {
            unmatched_denied: true,
            ..Settings::default()
        },
    );
    let said = explain(
        "https://evilrun.app/",
        &denied,
        "googleapis.com",
        &ServiceLocation::default(),
        &entry_points(),
    )
    .unwrap();
    assert_eq!(said.credential, Credential::Deny);
    assert!(
        said.notes
            .iter()
            .any(|note| note.contains("only looks like"))
    );
}

#[test]
fn cleartext_is_mentioned_if_the_user_allowed_it() {
    let said = said("http://dev.test:8080/");
    assert_eq!(said.destination, "http://dev.test:8080");
    assert!(said.how.contains("cleartext"), "{}", said.how);
    assert!(said.notes.iter().any(|note| note.contains("cleartext")));
    assert!(!notes("https://dev.test/").contains("cleartext"));
}
