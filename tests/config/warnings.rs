//! Valid configurations with warnings.

use std::path::Path;

use crate::Setup;

#[test]
fn a_ca_dir_in_a_directory_that_others_can_write_to_gets_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let top = tempfile::tempdir().unwrap();
    let (open, mine) = (top.path().join("open"), top.path().join("mine"));
    for (folder, mode) in [(&open, 0o1777), (&mine, 0o755)] {
        std::fs::create_dir(folder).unwrap();
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let stderr = |folder: &Path| {
        let ca_dir = folder.join("ca");
        let checked = Setup::new().check(&["--intercept", "--ca-dir", ca_dir.to_str().unwrap()]);
        assert_eq!(checked.status, Some(0), "{checked:?}");
        checked.stderr
    };
    let warning = format!("other users can write to {open:?} (mode 1777, owner ");
    assert!(stderr(&open).contains(&warning), "{}", stderr(&open));
    assert!(!stderr(&mine).contains("can write to"), "{}", stderr(&mine));
}

#[test]
fn a_trusted_url_in_cleartext_gets_a_warning() {
    for (url, is_warned) in [
        ("http://sts.example:8080/", true),
        ("http://10.0.0.7/token", true),
        ("http://localhost.example/", true),
        ("https://sts.example/", false),
        ("http://127.0.0.1:8980/", false),
        ("http://localhost/", false),
        ("http://169.254.169.254/", false),
    ] {
        let checked = Setup::new().check(&["--trust-credential-url", url]);
        assert_eq!(checked.status, Some(0), "{checked:?}");
        let warning = format!(
            "sidentity: warning: --trust-credential-url {url}: everyone on the network between can read and change what is \
             sent there and what it returns, such as the credential and its tokens: write https\n"
        );
        let expected = if is_warned { &*warning } else { "" };
        assert_eq!(checked.stderr, expected);
    }
}

#[test]
fn an_interception_without_effect_gets_a_warning() {
    let setup = Setup::new();
    for (args, warned) in [
        (&["--intercept"][..], "without --ca-dir"),
        (
            &[
                "--intercept",
                "--proxy",
                "off",
                "--route",
                "8081=https://x.run.app",
            ],
            "--intercept has no effect",
        ),
        (&["--intercept", "--ca-dir", "."], ""),
    ] {
        let checked = setup.check(args);
        assert_eq!(checked.status, Some(0));
        assert!(checked.stderr.contains(warned), "{checked:?}");
        assert_eq!(checked.stderr.is_empty(), warned.is_empty(), "{checked:?}");
    }
}

#[test]
fn a_rule_beyond_one_organisations_domain_gets_a_warning() {
    let beyond = |place: &str, pattern: &str, owner: &str| {
        format!(
            "sidentity: warning: flag --rule {place}: {pattern} reaches beyond one organisation's domain: {owner}"
        )
    };
    let anyone =
        "anyone can register a name below it and would receive this token; name your own domain";
    let customers = "customers of a provider have names below it and would receive this token; name your own hosts";
    for (rule, pattern) in [
        ("*.org=id", "*.org"),
        ("*.INFO.=id", "*.info"),
        ("*.co.uk=access", "*.co.uk"),
        ("*.com.au=id,audience=x", "*.com.au"),
        ("*.example=access", "*.example"),
        ("*.dev=id", "*.dev"),
        ("*.net:8443/v1=access", "*.net:8443/v1"),
        ("*.xn--p1ai=id", "*.xn--p1ai"),
        ("*.co.jp=access", "*.co.jp"),
        ("*.de=id", "*.de"),
    ] {
        let checked = Setup::new().check(&["--rule", rule]);
        let place = rule.split('=').next().unwrap();
        let line = beyond(place, pattern, anyone) + "\n";
        assert_eq!((checked.status, &*checked.stderr), (Some(0), &*line));
    }
    for rule in [
        "*.run.app=access",
        "*.run.app=id,audience=123-x.apps.googleusercontent.com",
        "*.a.run.app=access",
        "*.europe-west1.run.app=access",
        "*.appspot.com=id,audience=123-x.apps.googleusercontent.com",
        "*.uc.r.appspot.com=id",
        "*.cloudfunctions.net=access",
        "*.googleusercontent.com=access",
        "*.web.app=access",
        "*.github.io=id",
        "*.herokuapp.com=access",
        "*.s3.amazonaws.com=access",
    ] {
        let checked = Setup::new().check(&["--rule", rule]);
        let pattern = rule.split('=').next().unwrap();
        assert_eq!(
            checked.stderr,
            beyond(pattern, pattern, customers) + "\n",
            "{rule}"
        );
    }
    for rule in [
        "*.example.com=access",
        "*.example.co.uk=access",
        "*.internal.example=id",
        "*.internal=id",
        "*.corp=id",
        "*.cluster.local=id",
        "*.run.app=id",
        "*.a.run.app=id",
        "*.cloudfunctions.net=id",
        "*.my-project.cloud.goog=id",
        "*.pkg.dev=access,scheme=basic",
        "*.com=deny",
        "*.com=none",
        "billing=id",
        "example.com=access",
        "x.run.app=access",
        "*.my-app.run.app=none",
    ] {
        let checked = Setup::new().check(&["--rule", rule]);
        assert_eq!((checked.status, &*checked.stderr), (Some(0), ""), "{rule}");
    }
}

#[test]
fn a_wide_rule_that_covers_hosts_without_a_token_gets_a_warning() {
    let warning = |rules: &[&str]| {
        let flags: Vec<&str> = rules.iter().flat_map(|rule| ["--rule", *rule]).collect();
        let checked = Setup::new().check(&flags);
        assert_eq!(checked.status, Some(0), "{checked:?}");
        checked.stderr
    };
    assert_eq!(
        warning(&["*.googleapis.com=access,existing=replace"]),
        "sidentity: warning: flag --rule *.googleapis.com: it gives a token to hosts that get none by default, and replaces \
         the app's own credential there: oauth2.googleapis.com, sts.googleapis.com, securetoken.googleapis.com, \
         identitytoolkit.googleapis.com, fonts.googleapis.com, ajax.googleapis.com, maps.googleapis.com, \
         *.mtls.googleapis.com, www.googleapis.com/oauth2; name the intended hosts, or add --rule \
         oauth2.googleapis.com=none and similar rules\n"
    );
    let said = warning(&["*.googleapis.com=id"]);
    assert!(
        said.contains("oauth2.googleapis.com") && !said.contains("replaces"),
        "{said}"
    );
    let said = warning(&["*.google.com=access"]);
    assert!(
        said.contains("get none by default: accounts.google.com;"),
        "{said}"
    );
    let said = warning(&["*.com=access"]);
    assert_eq!(said.lines().count(), 2, "{said}");
    let said = warning(&[
        "*.googleapis.com=access",
        "oauth2.googleapis.com=none",
        "*.mtls.googleapis.com=none",
    ]);
    assert!(
        !said.contains("oauth2.googleapis.com,") && !said.contains("mtls.google"),
        "{said}"
    );
    assert!(said.contains("sts.googleapis.com"), "{said}");
    for quiet in [
        "*.googleapis.com=none",
        "*.googleapis.com:8443=access",
        "oauth2.googleapis.com=access",
        "*.mtls.googleapis.com=access",
        "storage.googleapis.com=access",
        "www.googleapis.com/oauth2=access",
        "*.storage.googleapis.com=access",
    ] {
        assert_eq!(warning(&[quiet]), "", "{quiet}");
    }
    // The check uses the path and the port of the rule.
    let said = warning(&["*.googleapis.com/token=access"]);
    assert!(said.contains("oauth2.googleapis.com"), "{said}");
    let said = warning(&["*.googleapis.com:80=access"]);
    assert!(said.contains("oauth2.googleapis.com"), "{said}");
    // Another universe has the same hosts.
    let setup = Setup::new().variable("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "example.goog");
    let said = setup.check(&["--rule", "*.example.goog=access"]).stderr;
    assert!(said.contains("sts.example.goog"), "{said}");
}

#[test]
fn a_wide_rule_for_regional_endpoints_or_another_universe_gets_a_warning() {
    let warning = |rules: &[&str]| {
        let flags: Vec<&str> = rules.iter().flat_map(|rule| ["--rule", *rule]).collect();
        // The default domain has the same hosts without a token in every universe.
        let setup = Setup::new().variable("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "example.goog");
        let said = setup.check(&flags).stderr;
        if !rules.iter().any(|rule| rule.contains("example.goog")) {
            assert_eq!(Setup::new().check(&flags).stderr, said, "{rules:?}");
        }
        said
    };
    for (rules, host) in [
        (
            &["*.us-east1.rep.googleapis.com=access"][..],
            "sts.us-east1.rep.googleapis.com",
        ),
        (
            &["*.us-east1.rep.googleapis.com=id"],
            "oauth2.us-east1.rep.googleapis.com",
        ),
        (
            &["*.rep.googleapis.com=access"],
            "sts.REGION.rep.googleapis.com",
        ),
        (
            &["*.us-east1.rep.example.goog=access"],
            "sts.us-east1.rep.example.goog",
        ),
        (
            &["*.rep.example.goog=access"],
            "sts.REGION.rep.example.goog",
        ),
        (
            &["*.sandbox.googleapis.com=access"],
            "*.mtls.sandbox.googleapis.com",
        ),
        (
            &["*.googleapis.com/oauth2/v3=access"],
            "www.googleapis.com/oauth2",
        ),
        (&["*.googleapis.com=access"], "sts.googleapis.com"),
        (
            &["*.googleapis.com=access", "sts.googleapis.com=none"],
            "sts.REGION.rep.googleapis.com",
        ),
    ] {
        let said = warning(rules);
        let named = |end: &str| said.contains(&format!(" {host}{end}"));
        assert!(named(",") || named(";"), "{rules:?}: {said}");
    }
    for quiet in [
        &["*.us-east1.rep.googleapis.com=none"][..],
        &["*.sts.googleapis.com=access"],
        &["sts.us-east1.rep.googleapis.com=access"],
        &["*.mtls.sandbox.googleapis.com=access"],
        &["*.storage.mtls.googleapis.com=access"],
    ] {
        assert_eq!(warning(quiet), "", "{quiet:?}");
    }
}

#[test]
fn a_warning_about_a_rule_of_the_file_has_its_place() {
    let setup = Setup::new().file("rules:\n  - host: '*.com'\n    credential: id\n");
    let checked = setup.check(&["--config", "c.yaml"]);
    assert!(
        checked
            .stderr
            .starts_with("sidentity: warning: c.yaml:2:5: rules[0]: *.com reaches beyond"),
        "{checked:?}"
    );
}

#[test]
fn a_route_to_the_metadata_server_that_asks_for_a_token_is_reported() {
    let route = "8081=http://metadata.google.internal/,credential=access,plaintext=allow";
    let checked = Setup::new().check(&["--route", route]);
    assert_eq!(checked.status, Some(0), "{checked:?}");
    assert!(checked.stderr.contains("get no token"), "{checked:?}");
}

#[test]
fn a_route_of_another_universe_gets_a_token_and_must_not_be_cleartext() {
    let setup = Setup::new().variable("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "apis-foo.example");
    let cleartext = setup.check(&["--route", "8081=http://storage.apis-foo.example"]);
    assert_eq!(cleartext.status, Some(64), "{cleartext:?}");
    assert!(cleartext.stderr.contains("in plaintext"), "{cleartext:?}");
    let checked = setup.check(&["--route", "8081=https://storage.apis-foo.example"]);
    assert_eq!(checked.stderr, "", "{checked:?}");
}
