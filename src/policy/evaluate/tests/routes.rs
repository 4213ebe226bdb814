//! Options of routes.

use super::*;

#[test]
fn options_of_a_route_override_rules_and_table() {
    let run = "https://t---svc.a.run.app/";
    assert_eq!(
        say(&route(&[], "", run)),
        "id https://svc.a.run.app by built-in *.run.app"
    );
    assert_eq!(
        say(&route(&[], "audience=own", run)),
        "id own by route 8081"
    );
    assert_eq!(say(&route(&[], "none", run)), "none by route 8081");
    assert_eq!(say(&route(&[], "deny", run)), "deny by route 8081");
    assert_eq!(
        say(&route(&[], "id", run)),
        "id https://svc.a.run.app by route 8081"
    );
    assert_eq!(
        say(&route(
            &[],
            "scope=b,scope=a",
            "https://storage.googleapis.com/"
        )),
        "access [a b] by route 8081"
    );
    assert_eq!(
        say(&route(&[], "id", "https://own.test:8443/")),
        "id https://own.test by route 8081"
    );
    assert_eq!(
        say(&route(&["own.test=id,audience=x"], "", "https://own.test/")),
        "id x by --rule own.test=id,audience=x"
    );
    assert_eq!(
        say(&route(
            &["own.test=id,audience=x"],
            "access",
            "https://own.test/"
        )),
        "access [] by route 8081"
    );
    assert_eq!(
        say(&route(&["own.test=deny"], "", "https://own.test/")),
        "deny by --rule own.test=deny"
    );

    let beside = route(&[], "header=x-serverless-authorization,account=a@b.c", run);
    assert_eq!(
        say(&beside),
        "id https://svc.a.run.app by built-in *.run.app"
    );
    assert_eq!(beside.header, HeaderMode::XServerlessAuthorization);
    assert!(
        matches!(&beside.grant, CredentialGrant::Token(key) if key.principal.account().is_some())
    );

    let rules = ["own.test=id,audience=x,header=proxy-authorization,account=a@b.c,plaintext=allow"];
    let merged = route(&rules, "id,audience=y,account=default", "https://own.test/");
    assert_eq!(say(&merged), "id y by route 8081");
    assert_eq!(merged.header, HeaderMode::ProxyAuthorization);
    assert!(merged.plaintext);
    assert!(
        matches!(&merged.grant, CredentialGrant::Token(key) if key.principal.account().is_none())
    );
    // The user allowed cleartext for another credential.
    let other = route(&rules, "access", "https://own.test/");
    assert_eq!((other.plaintext, other.header), (false, HeaderMode::Auto));
}

#[test]
fn an_id_token_is_never_basic_and_has_no_google_api_rules() {
    let id = route(&[], "scheme=basic", "https://svc.a.run.app/");
    assert_eq!(id.scheme, AuthScheme::Bearer);
    let id = route(&[], "id,audience=x", "https://storage.googleapis.com/");
    assert!(!id.google_api);
}
