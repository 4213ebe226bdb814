use proptest::prelude::*;

use super::*;

fn set(name: &str, value: &str) -> Result<RuleOptions, String> {
    let mut options = RuleOptions::default();
    options.set(name, value).map(|()| options)
}

fn options(all: &[(&str, &str)]) -> RuleOptions {
    let mut options = RuleOptions::default();
    for (name, value) in all {
        options.set(name, value).unwrap();
    }
    options
}

#[test]
fn every_option_is_parsed() {
    let options = options(&[
        ("credential", "access"),
        ("scope", "b"),
        ("scope", "a"),
        ("header", "x-serverless-authorization"),
        ("existing", "replace"),
        ("account", "worker@p.iam.gserviceaccount.com"),
        ("quota-project", "s3ns:billing"),
        ("scheme", "basic"),
        ("plaintext", "allow"),
    ]);
    assert_eq!(
        options,
        RuleOptions {
            credential: Some(Credential::Access),
            audience: None,
            scopes: vec!["b".into(), "a".into()],
            header: Some(HeaderMode::XServerlessAuthorization),
            existing: Some(Existing::Replace),
            account: Some("worker@p.iam.gserviceaccount.com".into()),
            impersonate: None,
            delegates: Vec::new(),
            subject: None,
            jwt: false,
            quota_project: Some(HeaderValue::from_static("s3ns:billing")),
            scheme: Some(AuthScheme::Basic),
            plaintext: true,
        }
    );
    assert_eq!(
        set("audience", "https://x/?a=b&c")
            .unwrap()
            .audience
            .as_deref(),
        Some("https://x/?a=b&c")
    );
    for name in RuleOptions::NAMES {
        let error = set(name, "\u{7f} ,").unwrap_err();
        assert!(error.starts_with(name), "{error}");
    }
}

#[test]
fn a_wrong_word_is_an_error_that_lists_the_valid_ones() {
    assert_eq!(
        set("credential", "token").unwrap_err(),
        "credential \"token\" must be one of access, id, none, deny"
    );
    assert_eq!(
        set("header", "Authorization").unwrap_err(),
        "header \"Authorization\" must be one of auto, authorization, x-serverless-authorization, proxy-authorization"
    );
    assert_eq!(
        set("existing", "drop").unwrap_err(),
        "existing \"drop\" must be one of keep, replace"
    );
    assert_eq!(
        set("scheme", "").unwrap_err(),
        "scheme \"\" must be one of bearer, basic"
    );
    assert!(set("plaintext", "deny").unwrap_err().contains("allow"));
}

#[test]
fn an_unknown_option_is_an_error_with_the_known_ones_and_the_nearest() {
    let error = set("audiance", "x").unwrap_err();
    assert!(error.contains("did you mean audience?"), "{error}");
    assert!(
        error.contains("use one of credential, audience, scope"),
        "{error}"
    );
    assert!(
        set("scopes", "x")
            .unwrap_err()
            .contains("did you mean scope?")
    );
    assert!(
        set("quota_project", "x")
            .unwrap_err()
            .contains("did you mean quota-project?")
    );
    let error = set("zzzzzzzz", "x").unwrap_err();
    assert!(!error.contains("did you mean"), "{error}");
}

#[test]
fn values_that_would_break_a_header_or_url_are_rejected() {
    for audience in ["", "a b", "a\nb", "é", &"x".repeat(2049)] {
        assert!(set("audience", audience).is_err(), "{audience:?}");
    }
    assert!(set("audience", &"x".repeat(2048)).is_ok());
    for scope in ["", "a b", "a,b", "a\tb", "é"] {
        assert!(set("scope", scope).is_err(), "{scope:?}");
    }
    for account in [
        "",
        "me",
        "@b.c",
        "a@",
        "a@b",
        "a@b..c",
        "a@b@c.d",
        "a/b@c.d",
        "..",
        "a@b.c?x",
        "a@b.c/../x",
        "%2e@b.c",
        "a@b.c\n",
    ] {
        assert!(set("account", account).is_err(), "{account:?}");
    }
    assert!(set("account", "default").is_ok());
    for name in ["impersonate", "delegate"] {
        for account in [
            "",
            "default",
            "me",
            "a@b",
            "a/b@c.d",
            "a@b.c/../x",
            "a@b.c,d@e.f",
            "a@b.c:x",
            "%2e@b.c",
        ] {
            let error = set(name, account).unwrap_err();
            assert!(
                error.starts_with(name) && error.contains("iam.gserviceaccount.com"),
                "{error}"
            );
        }
    }
    for subject in [
        "",
        "jane",
        "@b.c",
        "jane@",
        "jane@b",
        "a b@c.d",
        "a\"@c.d",
        "a@b@c.d",
        "jane@b..c",
        "jane@b.c/x",
    ] {
        let error = set("subject", subject).unwrap_err();
        assert!(error.contains("such as jane@example.com"), "{error}");
    }
    assert!(set("subject", "o'neil+x@example.com").is_ok());
    for token in ["", "JWT", "id", "access"] {
        assert!(set("token", token).unwrap_err().contains("must be jwt"));
    }
    assert!(set("account", "1234-compute@developer.gserviceaccount.com").is_ok());
    for project in ["", "a b", "a\nb", "é"] {
        assert!(set("quota-project", project).is_err(), "{project:?}");
    }
}

#[test]
fn an_option_given_twice_is_an_error() {
    for name in ["audience", "impersonate", "subject"] {
        let mut options = options(&[(name, "a@b.c")]);
        assert!(options.set(name, "d@e.f").unwrap_err().contains("twice"));
    }
}

#[test]
fn delegates_keep_their_order() {
    let options = options(&[
        ("delegate", "b@p.example"),
        ("impersonate", "t@p.example"),
        ("delegate", "a@p.example"),
    ]);
    options.validate().unwrap();
    let chain = options.impersonation().unwrap();
    assert_eq!(chain.to_string(), "b@p.example,a@p.example,t@p.example");
}

#[test]
fn contradicting_options_are_an_error() {
    let why = |all: &[(&str, &str)]| options(all).validate().unwrap_err();
    assert!(
        why(&[("credential", "none"), ("audience", "a")])
            .contains("credential=none does not accept the audience")
    );
    assert!(
        why(&[("credential", "deny"), ("scope", "a")])
            .contains("credential=deny does not accept the scope")
    );
    assert!(why(&[("credential", "access"), ("audience", "a")]).contains("no audience"));
    assert!(why(&[("credential", "id"), ("scope", "a")]).contains("no scope"));
    assert!(why(&[("credential", "id"), ("scheme", "basic")]).contains("bearer"));
    assert!(why(&[("audience", "a"), ("scheme", "basic")]).contains("bearer"));
    assert!(why(&[("audience", "a"), ("scope", "a")]).contains("remove one"));
    assert!(why(&[("delegate", "a@b.c")]).contains("needs impersonate=TARGET"));
    assert!(
        why(&[("credential", "none"), ("impersonate", "a@b.c")])
            .contains("credential=none does not accept impersonate \"a@b.c\"")
    );
    assert!(
        why(&[("credential", "deny"), ("token", "jwt")]).contains("does not accept token \"jwt\"")
    );
    assert!(
        why(&[("credential", "none"), ("subject", "a@b.c")]).contains("does not accept subject")
    );
    assert!(why(&[("credential", "access"), ("token", "jwt")]).contains("write credential=id"));
    assert!(why(&[("scope", "a"), ("token", "jwt")]).contains("no scope"));
    assert!(why(&[("scheme", "basic"), ("token", "jwt")]).contains("bearer"));
    assert!(why(&[("subject", "a@b.c")]).contains("add scope="));
    assert!(why(&[("credential", "access"), ("subject", "a@b.c")]).contains("add scope="));
    assert!(why(&[("credential", "id"), ("subject", "a@b.c")]).contains("for access tokens"));
    assert!(why(&[("audience", "x"), ("subject", "a@b.c")]).contains("for access tokens"));
    assert!(why(&[("token", "jwt"), ("subject", "a@b.c")]).contains("for access tokens"));
    for right in [
        &[][..],
        &[("credential", "none")],
        &[("audience", "a")],
        &[("scope", "a"), ("scheme", "basic")],
        &[("account", "a@b.c"), ("impersonate", "d@e.f")],
        &[("impersonate", "a@b.c")],
        &[
            ("scope", "a"),
            ("subject", "a@b.c"),
            ("impersonate", "d@e.f"),
        ],
        &[("token", "jwt")],
        &[
            ("credential", "id"),
            ("token", "jwt"),
            ("audience", "a"),
            ("impersonate", "d@e.f"),
        ],
        &[
            ("credential", "id"),
            ("audience", "a"),
            ("header", "proxy-authorization"),
        ],
    ] {
        options(right).validate().unwrap();
    }
}

#[test]
fn an_audience_implies_an_id_token_and_a_scope_an_access_token() {
    assert_eq!(options(&[]).effective_credential(), None);
    assert_eq!(
        options(&[("audience", "a")]).effective_credential(),
        Some(Credential::Id)
    );
    assert_eq!(
        options(&[("scope", "a")]).effective_credential(),
        Some(Credential::Access)
    );
    assert_eq!(
        options(&[("token", "jwt")]).effective_credential(),
        Some(Credential::Id)
    );
    assert_eq!(
        options(&[("credential", "deny")]).effective_credential(),
        Some(Credential::Deny)
    );
}

proptest! {
    #[test]
    fn no_value_makes_the_parser_panic_and_accepted_ones_are_safe(name in prop::sample::select(RuleOptions::NAMES.to_vec()), value in "\\PC{0,40}|[ -~\\n]{0,40}") {
        if let Ok(options) = set(name, &value) {
            prop_assert!(options.audience.iter().chain(&options.scopes).chain(&options.account).all(|text| is_visible(text)));
            let _ = options.validate();
        }
        let _ = set(&value, "x");
    }
}
