//! Properties that hold for every URL and every order of rules.

use super::*;

const RULES: [&str; 12] = [
    "a.test=id",
    "a.test:443=access",
    "a.test/x=deny",
    "a.test/x/y=none",
    "*.test=id,audience=t",
    "*.test/x=access,scope=s",
    "*.b.test=none",
    "*.b.test:8443=deny",
    "10.0.0.1=id",
    "svc.a.run.app=access",
    "r-p.cloudfunctions.net=id",
    "localhost=id,audience=l",
];

fn any_url() -> impl Strategy<Value = (&'static str, &'static str, &'static str)> {
    (
        prop::sample::select(vec![
            "a.test",
            "b.test",
            "c.b.test",
            "10.0.0.1",
            "svc.a.run.app",
            "t---svc.a.run.app",
            "r-p.cloudfunctions.net",
            "storage.googleapis.com",
            "www.googleapis.com",
            "oauth2.googleapis.com",
            "metadata",
            "localhost",
            "example.com",
            "storage.s3nsapis.fr",
        ]),
        prop::sample::select(vec!["", ":8443", ":80", ":443"]),
        prop::sample::select(vec![
            "/",
            "/x",
            "/x/y/z",
            "/xy",
            "/z/../x",
            "/%78",
            "/oauth2/v1",
            "/fn",
        ]),
    )
}

proptest! {
    #[test]
    fn the_order_of_rules_with_distinct_patterns_never_matters(
        order in Just(RULES.to_vec()).prop_shuffle(),
        (host, port, path) in any_url(),
    ) {
        let url = format!("https://{host}{port}{path}");
        prop_assert_eq!(
            policy(&order).decide(&at(&url), UNIVERSE),
            policy(&RULES).decide(&at(&url), UNIVERSE)
        );
    }

    #[test]
    fn case_trailing_dot_and_default_port_never_matter((host, port, path) in any_url(), ruled in any::<bool>()) {
        let policy = if ruled { policy(&RULES) } else { policy(&[]) };
        let plain = policy.decide(&at(&format!("https://{host}{port}{path}")), UNIVERSE);
        for url in [
            format!("HTTPS://{}{port}{path}", host.to_uppercase()),
            format!("https://{host}.{port}{path}"),
            format!("https://{host}{}{path}", if port.is_empty() { ":443" } else { port }),
        ] {
            prop_assert_eq!(&policy.decide(&at(&url), UNIVERSE), &plain, "{}", url);
        }
    }

    #[test]
    fn a_decision_that_does_not_depend_on_the_path_is_equal_for_all_paths(
        (host, port, path) in any_url(),
        rules in prop::sample::subsequence(RULES.to_vec(), 0..RULES.len()),
        own in prop::sample::select(vec!["", "id", "access", "none", "audience=x"]),
        universe in prop::sample::select(vec!["googleapis.com", "s3nsapis.fr"]),
    ) {
        let policy = policy(&rules);
        let (this, root) = (at(&format!("https://{host}{port}{path}")), at(&format!("https://{host}{port}/")));
        if !policy.depends_on_path(&root.origin, universe) {
            prop_assert_eq!(policy.decide(&this, universe), policy.decide(&root, universe));
            let route = |destination| policy.decide_route("r", &options(own), destination, universe);
            prop_assert_eq!(route(&this), route(&root));
        }
    }

    #[test]
    fn a_host_outside_the_universe_gets_the_same_credential_in_all(
        (host, port, path) in any_url(),
        rules in prop::sample::subsequence(RULES.to_vec(), 0..RULES.len()),
    ) {
        let policy = policy(&rules);
        let url = at(&format!("https://{host}{port}{path}"));
        if !policy.needs_universe(&url) {
            prop_assert_eq!(policy.decide(&url, "googleapis.com").grant, policy.decide(&url, "s3nsapis.fr").grant);
        }
    }

    #[test]
    fn no_input_makes_the_policy_panic(url in "https?://\\PC{1,40}", universe in "\\PC{0,20}", host in "[a-z.*]{1,12}") {
        let rules = [format!("{host}=id")];
        let rules: Vec<_> = rules.iter().map(String::as_str).filter(|_| Pattern::parse(&host).is_ok()).collect();
        if let Ok(destination) = Destination::parse(&url) {
            let policy = policy(&rules);
            let _ = policy.decide(&destination, &universe);
            let _ = policy.decide_route("r", &RuleOptions::default(), &destination, &universe);
            let _ = (policy.needs_universe(&destination), policy.depends_on_path(&destination.origin, &universe));
        }
    }
}
