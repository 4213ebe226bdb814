//! Impersonation, delegation and signed JWTs.

use super::*;

/// Explains a call to `x.test` under one rule with these options.
fn explained(all: &[(&str, &str)]) -> Explanation {
    let rule = Rule {
        pattern: Pattern::parse("x.test").unwrap(),
        options: options(all),
        name: "rule".into(),
    };
    let policy = Policy::new(vec![rule], Settings::default());
    explain(
        "https://x.test/a",
        &policy,
        "googleapis.com",
        &ServiceLocation::default(),
        &EntryPoints::default(),
    )
    .unwrap()
}

#[test]
fn an_impersonation_chain_is_explained_with_its_roles() {
    let explanation = explained(&[
        ("credential", "id"),
        ("impersonate", "t@p.example"),
        ("delegate", "a@p.example"),
    ]);
    for note in [
        "the token belongs to t@p.example, impersonated by the base credential through a@p.example",
        "the base credential needs roles/iam.serviceAccountTokenCreator on a@p.example",
        "a@p.example needs roles/iam.serviceAccountTokenCreator on t@p.example",
    ] {
        assert!(
            explanation.notes.iter().any(|other| other == note),
            "{explanation}"
        );
    }
    assert!(explanation.needs_account());
}

#[test]
fn delegation_is_explained_with_its_user_and_what_to_authorise() {
    let explanation = explained(&[
        ("credential", "access"),
        ("scope", "s"),
        ("subject", "jane@d.example"),
    ]);
    assert!(explanation.notes.iter().any(|note| note
        == "the token belongs to jane@d.example, on whose behalf the base credential acts"));
    assert!(
        explanation.to_string().contains("domain-wide delegation"),
        "{explanation}"
    );
}

#[test]
fn a_signed_jwt_is_explained_as_a_credential_for_iap() {
    let explanation = explained(&[("token", "jwt")]);
    assert_eq!(explanation.credential, Credential::Id);
    assert_eq!(explanation.audience.as_deref(), Some("https://x.test/*"));
    let text = explanation.notes.join("\n");
    assert!(
        text.contains("a JWT that the account signs itself"),
        "{text}"
    );
    assert!(text.contains("roles/iap.httpsResourceAccessor"), "{text}");
    assert!(text.contains("goes into Proxy-Authorization"), "{text}");
}
