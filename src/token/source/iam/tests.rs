use super::*;

fn account(delegates: &[&str]) -> TargetAccount {
    let delegates = delegates.iter().map(|email| Arc::from(*email)).collect();
    TargetAccount::of_universe("example.goog", "t@p.example", &delegates)
}

#[test]
fn the_account_is_a_part_of_the_url_of_its_universe() {
    let account = account(&["a@p.example"]);
    let url = "https://iamcredentials.example.goog/v1/projects/-/serviceAccounts/t@p.example";
    assert_eq!(&*account.url, url);
    assert_eq!(account.to_string(), "iamcredentials.example.goog");
    assert_eq!(
        account.delegates(),
        ["projects/-/serviceAccounts/a@p.example"]
    );
}

#[test]
fn only_the_method_of_a_files_url_is_replaced() {
    let url =
        "https://iam.eu-west1.rep.example.goog:8443/v1/projects/-/serviceAccounts/t%40p.example";
    let account = TargetAccount::of_url(
        &format!("{url}:generateAccessToken"),
        "t@p.example",
        [].into(),
        LIFETIME,
    );
    assert_eq!(&*account.url, url);
}

#[test]
fn a_403_names_the_hop_that_lacks_the_permission() {
    let chain = account(&["a@p.example", "b@p.example"]);
    let named = |reason| {
        let hops = chain.hops("me", reason);
        grants(&hops, RequiredRole::TokenCreator, chain.ends())
            .replace("roles/iam.serviceAccountTokenCreator", "role")
    };
    let target = "role on t@p.example to b@p.example";
    let delegates = "role on a@p.example to me, and role on b@p.example to a@p.example";
    assert_eq!(
        named("Permission 'iam.serviceAccounts.getAccessToken' denied"),
        target
    );
    assert_eq!(
        named("Permission 'iam.serviceAccounts.getOpenIdToken' denied"),
        target
    );
    assert_eq!(
        named("Permission 'iam.serviceAccounts.signJwt' denied"),
        target
    );
    assert_eq!(
        named("Permission 'iam.serviceAccounts.implicitDelegation' denied"),
        delegates
    );
    assert_eq!(
        named("implicitDelegation denied on resource projects/-/serviceAccounts/b@p.example"),
        "role on b@p.example to a@p.example"
    );
    assert_eq!(named("forbidden"), format!("{delegates}, and {target}"));
}

#[test]
fn a_federated_caller_needs_its_own_role_on_the_first_account_only() {
    let chain = account(&["a@p.example"]);
    let hops = chain.hops("principal://x", "forbidden");
    assert_eq!(
        grants(&hops, RequiredRole::WorkloadIdentityUser, chain.ends()),
        "roles/iam.workloadIdentityUser on a@p.example to principal://x (with delegates \
         roles/iam.serviceAccountTokenCreator too), and \
         roles/iam.serviceAccountTokenCreator on t@p.example to a@p.example"
    );
}
