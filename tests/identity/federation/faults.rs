//! Errors of subject tokens, of the Security Token Service, and of the account.

use std::time::{Duration, Instant};

use super::{API, account, call, called_as, detail, file_sourced, sidecar, without_account};
use crate::support::app::{get, text};
use crate::support::google::{Endpoint, Endpoints, Fault, Google, Role, SubjectSource};

/// Returns the error of a call with these responses of an endpoint.
async fn error(google: &Google, endpoint: Endpoint, fault: Fault) -> String {
    google.always(endpoint, fault);
    let (file, subject) = file_sourced(google);
    let sidecar = sidecar(google, &file, &[]).await;
    let said = detail(&call(&sidecar, API).await);
    assert!(!said.contains(&subject), "{said}");
    said
}

#[tokio::test]
async fn an_expired_subject_token_is_reported_with_its_source() {
    let google = Google::start().await;
    let path = google.text_file("subject", &google.expired_subject());
    let file = google.external_account(&Endpoints::default(), SubjectSource::File(&path));
    let sidecar = sidecar(&google, &file, &[]).await;
    let said = detail(&call(&sidecar, API).await);
    for part in [
        "sts.googleapis.com",
        "invalid_grant",
        "is stale to sign-in",
        path.to_str().unwrap(),
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(
        google.count(Endpoint::StsExchange),
        1,
        "it is not tried again"
    );
}

#[tokio::test]
async fn a_subject_token_file_without_a_token_is_reported_with_the_reason() {
    let google = Google::start().await;
    let (file, _) = file_sourced(&google);
    let path = file["credential_source"]["file"]
        .as_str()
        .unwrap()
        .to_owned();
    for (content, expected) in [
        (None, "No such file"),
        (Some(vec![]), "it is empty"),
        (Some(vec![b'\n'; 3]), "it is empty"),
        (Some(vec![0xff; 3]), "it is not text in UTF-8"),
        (Some(b"SECRET TOKEN".to_vec()), "white space"),
        (Some(vec![b'a'; 64 * 1024 + 1]), "longer than 64 KiB"),
    ] {
        let _ = std::fs::remove_file(&path);
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let sidecar = sidecar(&google, &file, &[]).await;
        let said = detail(&call(&sidecar, API).await);
        assert!(
            said.contains(&path) && said.contains(expected),
            "{expected}: {said}"
        );
        assert!(!said.contains("SECRET"), "{said}");
    }
    assert_eq!(google.count(Endpoint::StsExchange), 0);
}

#[tokio::test]
async fn a_missing_field_in_a_subject_token_file_is_named() {
    let google = Google::start().await;
    let (mut file, _) = file_sourced(&google);
    let path = google.text_file("subject", r#"{"token": "SECRET"}"#);
    file["credential_source"]["format"] =
        serde_json::json!({ "type": "json", "subject_token_field_name": "access_token" });
    let sidecar = sidecar(&google, &file, &[]).await;
    let said = detail(&call(&sidecar, API).await);
    assert!(
        said.contains("\"access_token\"") && said.contains(path.to_str().unwrap()),
        "{said}"
    );
    assert!(!said.contains("SECRET"), "{said}");
}

#[tokio::test]
async fn a_url_that_fails_is_named_without_its_query() {
    let google = Google::start().await;
    let base = google.base();
    let file = google.external_account(&Endpoints::default(), SubjectSource::Url(&base));
    for (fault, expected) in [
        (Fault::status(404, "not here"), "404"),
        (
            Fault::redirect("http://127.0.0.1:1/"),
            "redirects are not followed",
        ),
        (Fault::status(200, "junk"), "not a JSON object"),
        (
            Fault::status(200, "a".repeat(64 * 1024 + 1)),
            "longer than 64 KiB",
        ),
    ] {
        google.always(Endpoint::SubjectToken, fault);
        let sidecar = sidecar(&google, &file, &[]).await;
        let said = detail(&call(&sidecar, API).await);
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(said.contains(&format!("{base}/actions/id-token")), "{said}");
        assert!(!said.contains("audience="), "{said}");
    }
    assert_eq!(google.count(Endpoint::StsExchange), 0);
}

/// Some identity endpoints quote the request in their errors.
#[tokio::test]
async fn no_error_repeats_the_headers_of_a_subject_token_url() {
    let google = Google::start().await;
    let base = google.base();
    let mut file = google.external_account(&Endpoints::default(), SubjectSource::Url(&base));
    for (name, value, secret) in [
        ("Authorization", "Bearer ba0384ab5521", "ba0384ab5521"),
        ("Authorization", "Basic dXNlcjpwYTU1dzByZA==", "pa55w0rd"),
        (
            "Authorization",
            "Basic dXNlcjpwYTU1dzByZA==",
            "dXNlcjpwYTU1dzByZA==",
        ),
        ("X-Api-Key", "AIzaSyD4F6", "AIzaSyD4F6"),
    ] {
        file["credential_source"]["headers"] = serde_json::json!({ name: value });
        let fault = Fault::oauth("unauthorized", &format!("bad value: {value} or {secret}"));
        google.always(Endpoint::SubjectToken, fault);
        let sidecar = sidecar(&google, &file, &[]).await;
        let response = call(&sidecar, API).await;
        assert!(
            detail(&response).contains("bad value: […]"),
            "{}",
            text(&response)
        );
        let status = get(sidecar.admin(), "/status").await;
        let ready = get(sidecar.admin(), "/readiness").await;
        let log = sidecar
            .log()
            .iter()
            .map(ToString::to_string)
            .collect::<String>();
        assert!(log.contains("bad value"), "{log}");
        for shown in [text(&response), text(&status), text(&ready), &log] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

#[tokio::test]
async fn a_refusal_names_the_endpoint_the_codes_and_what_to_check() {
    let google = Google::start().await;
    for (error, expected) in [
        ("unauthorized_client", "attribute condition"),
        ("invalid_request", "provider of the file's audience"),
        ("invalid_target", "provider of the file's audience"),
        ("invalid_client", "client_id and client_secret"),
    ] {
        let fault = Fault::oauth(error, "said by Google");
        let said = self::error(&google, Endpoint::StsExchange, fault).await;
        for part in [error, "said by Google", "sts.googleapis.com", expected] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}

#[tokio::test]
async fn a_response_without_a_token_fails_the_call() {
    let google = Google::start().await;
    for (fault, expected) in [
        (Fault::torn_json(), "not a JSON object"),
        (
            Fault::redirect("https://evil.example/"),
            "redirects are not followed",
        ),
        (Fault::status(200, "<html>"), "not a JSON object"),
        (
            Fault::edit(|json| json["token_type"] = "mac".into()),
            "token_type",
        ),
        (Fault::status(401, "no"), "401"),
    ] {
        let said = error(&google, Endpoint::StsExchange, fault).await;
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(
        google
            .all_requests()
            .iter()
            .all(|request| request.host != "evil.example")
    );
    assert_eq!(google.count(Endpoint::GenerateAccessToken), 0);
}

#[tokio::test]
async fn transient_errors_are_retried() {
    let google = Google::start().await;
    for fault in [
        Fault::status(500, "oops"),
        Fault::status(503, "starting"),
        Fault::close(),
        Fault::cut_short(),
        Fault::never(),
    ] {
        let google = Google::start().await;
        google.script(Endpoint::StsExchange, [fault.clone()]);
        google.script(Endpoint::GenerateAccessToken, [Fault::status(502, "oops")]);
        let sidecar = sidecar(&google, &file_sourced(&google).0, &[]).await;
        assert_eq!(called_as(&sidecar).await, account(&google));
        assert_eq!(google.count(Endpoint::StsExchange), 2);
    }
    google.script(Endpoint::StsExchange, [Fault::rate_limited(1)]);
    let sidecar = sidecar(&google, &file_sourced(&google).0, &[]).await;
    let start = Instant::now();
    assert_eq!(called_as(&sidecar).await, account(&google));
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn expires_in_may_be_a_string() {
    let google = Google::start().await;
    google.always(
        Endpoint::StsExchange,
        Fault::edit(|json| json["expires_in"] = "3599".into()),
    );
    let sidecar = sidecar(&google, &without_account(file_sourced(&google).0), &[]).await;
    called_as(&sidecar).await;
    called_as(&sidecar).await;
    assert_eq!(google.count(Endpoint::StsExchange), 1);
}

#[tokio::test]
async fn a_principal_without_the_role_gets_its_name_and_the_account() {
    let google = Google::start().await;
    let target = google.directory().address("target");
    google.revoke(&target);
    let (file, _) = file_sourced(&google);
    let sidecar = sidecar(&google, &file, &[]).await;
    for url in [API, super::SERVICE] {
        let said = detail(&call(&sidecar, url).await);
        for part in ["403", "roles/iam.workloadIdentityUser", &target] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}

#[tokio::test]
async fn a_rejected_federated_token_is_exchanged_again() {
    let google = Google::start().await;
    let rejected = Fault::api(
        401,
        "UNAUTHENTICATED",
        "Request had invalid authentication credentials.",
    );
    google.script(Endpoint::GenerateAccessToken, [rejected]);
    let (file, _) = file_sourced(&google);
    // A new sidecar with a new token, because the first one has expired by the server's clock.
    google.skew(-60);
    google.script(Endpoint::StsExchange, [Fault::none()]);
    let sidecar = sidecar(&google, &file, &[]).await;
    google.skew(0);
    assert_eq!(called_as(&sidecar).await, account(&google));
    assert_eq!(google.count(Endpoint::StsExchange), 2);
}

/// Returns the sidecar's error for a call of a federated principal without a role.
async fn refused(google: &Google, file: &serde_json::Value, args: &[&str], url: &str) -> String {
    let sidecar = sidecar(google, file, args).await;
    detail(&call(&sidecar, url).await)
}

#[tokio::test]
async fn a_federated_principal_that_may_not_impersonate_gets_the_role_to_grant() {
    let google = Google::start().await;
    let isolated = google.directory().address("isolated");
    let pool = google.directory().pool();
    let rule = format!("--rule=storage.googleapis.com=access,impersonate={isolated}");
    let global = format!("--impersonate-service-account={isolated}");
    let workload = without_account(file_sourced(&google).0);
    let workforce = google.external_account_authorized_user(&Endpoints::default());
    let nested = {
        let mut file = google.impersonated(&Endpoints::default(), &workload, &[]);
        let url = file["service_account_impersonation_url"].as_str().unwrap();
        let target = google.directory().address("target");
        file["service_account_impersonation_url"] = url.replace(&target, &isolated).into();
        file
    };
    for (file, args, who) in [
        (&workload, &[&*global] as &[&str], &*pool),
        (&workload, &[&*rule], &*pool),
        (&workforce, &[&*global], "workforce"),
        (&workforce, &[&*rule], "workforce"),
        (&nested, &[], &*pool),
    ] {
        let said = refused(&google, file, args, API).await;
        let grant = format!("grant roles/iam.workloadIdentityUser on {isolated} to ");
        let (_, whom) = said
            .split_once(&grant)
            .unwrap_or_else(|| panic!("{args:?}: {said}"));
        assert!(whom.contains(who), "{said}");
        assert!(!said.contains("TokenCreator"), "{said}");
        assert!(!said.contains("the base credential"), "{said}");
    }
}

#[tokio::test]
async fn a_delegate_that_may_not_impersonate_gets_the_role_to_grant() {
    let google = Google::start().await;
    let file = without_account(file_sourced(&google).0);
    let (target, isolated) = (
        google.directory().address("target"),
        google.directory().address("isolated"),
    );
    let pool = google.directory().pool();
    let member = format!("principalSet:{pool}/*");
    google.grant(&member, &target, Role::TokenCreator);
    let said = refused(
        &google,
        &file,
        &[&format!(
            "--impersonate-service-account={target},{isolated}"
        )],
        API,
    )
    .await;
    let grant = format!("grant roles/iam.serviceAccountTokenCreator on {isolated} to {target}");
    assert!(said.ends_with(&grant), "{said}");
    let said = refused(
        &google,
        &file,
        &[&format!(
            "--impersonate-service-account={isolated},{target}"
        )],
        API,
    )
    .await;
    assert!(
        said.contains("grant roles/iam.workloadIdentityUser"),
        "{said}"
    );
    assert!(
        said.contains(&format!("on {isolated} to ")) && said.contains(&pool),
        "{said}"
    );
}

/// The principal of the pool has `roles/iam.workloadIdentityUser` on the account, which does not include `signJwt`.
#[tokio::test]
async fn the_account_of_a_federated_principal_signs_or_gets_the_role_to_grant() {
    let google = Google::start().await;
    let target = google.directory().address("target");
    let jwt = "--rule=iap.example.com=id,token=jwt";
    let subject = "--rule=www.googleapis.com=access,scope=https://www.googleapis.com/auth/calendar,subject=user@example.com";
    let federated = file_sourced(&google).0;
    let nested = google.impersonated(
        &Endpoints::default(),
        &without_account(file_sourced(&google).0),
        &[],
    );
    let calls = [
        (jwt, "http://iap.example.com/"),
        (subject, "http://www.googleapis.com/calendar/v3"),
    ];
    for file in [&federated, &nested] {
        for (rule, url) in calls {
            let said = refused(&google, file, &[rule], url).await;
            let grant =
                format!("grant roles/iam.serviceAccountTokenCreator on {target} to {target}");
            assert!(said.ends_with(&grant), "{said}");
            assert!(said.contains("iam.serviceAccounts.signJwt"), "{said}");
        }
    }
    google.grant(
        &format!("serviceAccount:{target}"),
        &target,
        Role::TokenCreator,
    );
    for file in [&federated, &nested] {
        for (rule, url) in calls {
            let sidecar = sidecar(&google, file, &[rule]).await;
            let response = call(&sidecar, url).await;
            assert_eq!(response.status(), 200, "{rule}: {}", text(&response));
        }
    }
}

#[tokio::test]
async fn explain_names_the_role_that_a_federated_principal_needs() {
    let google = Google::start().await;
    let file = without_account(file_sourced(&google).0);
    let chain = "--impersonate-service-account=a@p.example,t@p.example";
    let ran = crate::run_with(&google, &file, &["explain", "--json", chain, API]).await;
    let explained: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let notes = explained["notes"].to_string();
    for part in [
        "needs roles/iam.workloadIdentityUser on a@p.example",
        "a@p.example needs roles/iam.serviceAccountTokenCreator on t@p.example",
        &google.directory().pool(),
    ] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
}
