//! Workforce pools: the user project, client authentication, and a person's login.

use serde_json::{Value, json};

use super::{API, SERVICE, call, called_as, detail, file_sourced, sidecar, without_account};
use crate::run_with;
use crate::support::app::json;
use crate::support::google::{Endpoint, Endpoints, Fault, Google};

/// `workforce-client:` with its secret.
fn basic(google: &Google) -> String {
    use base64::Engine;
    let file = google.external_account_authorized_user(&Endpoints::default());
    let text = |name: &str| file[name].as_str().unwrap().to_owned();
    let pair = format!("{}:{}", text("client_id"), text("client_secret"));
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(pair)
    )
}

fn workforce_file(google: &Google) -> Value {
    let mut file = without_account(file_sourced(google).0);
    let pool = google.directory().workforce_pool();
    file["audience"] = format!("{pool}/providers/oidc").into();
    file
}

#[tokio::test]
async fn a_workforce_pool_is_billed_to_the_user_project() {
    let google = Google::start().await;
    let mut file = workforce_file(&google);
    file["workforce_pool_user_project"] = google.directory().project_id().into();
    let sidecar = sidecar(&google, &file, &[]).await;
    call(&sidecar, API).await;
    let exchange = google.requests(Endpoint::StsExchange).remove(0);
    let options: Value = serde_json::from_str(&exchange.field("options")).unwrap();
    assert_eq!(
        options,
        json!({ "userProject": google.directory().project_id() })
    );
    assert_eq!(exchange.header("authorization"), None);
}

#[tokio::test]
async fn an_oauth_client_authenticates_and_replaces_the_user_project() {
    let google = Google::start().await;
    let mut file = workforce_file(&google);
    let login = google.external_account_authorized_user(&Endpoints::default());
    file["workforce_pool_user_project"] = google.directory().project_id().into();
    file["client_id"] = login["client_id"].clone();
    file["client_secret"] = login["client_secret"].clone();
    let sidecar = sidecar(&google, &file, &[]).await;
    call(&sidecar, API).await;
    let exchange = google.requests(Endpoint::StsExchange).remove(0);
    assert_eq!(exchange.form().get("options"), None);
    assert_eq!(exchange.header("authorization"), Some(&*basic(&google)));
}

#[tokio::test]
async fn a_login_is_refreshed_with_basic_client_authentication() {
    let google = Google::start().await;
    let file = google.external_account_authorized_user(&Endpoints::default());
    let sidecar = sidecar(&google, &file, &[]).await;
    let member = called_as(&sidecar).await;
    assert!(
        member
            .as_str()
            .unwrap()
            .ends_with("/subject/workforce-user"),
        "{member}"
    );
    let refresh = google.only(Endpoint::StsRefresh);
    assert_eq!(refresh.path, "/v1/oauthtoken");
    assert_eq!(refresh.header("authorization"), Some(&*basic(&google)));
    let form: Value = refresh.form().into_iter().collect();
    assert_eq!(
        form,
        json!({ "grant_type": "refresh_token", "refresh_token": file["refresh_token"] })
    );
}

#[tokio::test]
async fn a_rotated_refresh_token_replaces_the_one_of_the_file() {
    let google = Google::start().await;
    google.rotate_refresh_tokens(true);
    let file = google.external_account_authorized_user(&Endpoints::default());
    google.always(
        Endpoint::StsRefresh,
        Fault::edit(|json| json["expires_in"] = 10.into()),
    );
    let sidecar = sidecar(&google, &file, &[]).await;
    called_as(&sidecar).await;
    super::called_until(&sidecar, &google, Endpoint::StsRefresh, 2).await;
    let used: Vec<_> = google
        .requests(Endpoint::StsRefresh)
        .iter()
        .map(|request| (request.field("refresh_token"), request.status))
        .collect();
    assert!(used.len() > 1 && used[0].0 != used[1].0, "{used:?}");
    assert!(used.iter().all(|(_, status)| *status == 200), "{used:?}");
}

#[tokio::test]
async fn a_login_has_no_id_tokens_and_the_error_has_advice() {
    let google = Google::start().await;
    let file = google.external_account_authorized_user(&Endpoints::default());
    let plain = sidecar(&google, &file, &[]).await;
    let said = detail(&call(&plain, SERVICE).await);
    assert!(said.contains("--impersonate-service-account"), "{said}");
    let target = google.directory().address("target");
    let member = called_as(&plain).await;
    google.grant(
        member.as_str().unwrap(),
        &target,
        crate::support::google::Role::TokenCreator,
    );
    let remedied = sidecar(&google, &file, &["--impersonate-service-account", &target]).await;
    assert_eq!(
        json(&call(&remedied, SERVICE).await)["id_token"]["email"],
        target
    );
}

#[tokio::test]
async fn explain_and_token_say_that_a_login_determines_its_scopes() {
    let google = Google::start().await;
    let file = google.external_account_authorized_user(&Endpoints::default());
    let rule = "--rule=storage.googleapis.com=access,scope=https://s.example";
    for (options, note) in [
        (&[] as &[&str], "the scopes are those that the login"),
        (
            &[rule],
            "scope= has no effect: a token of a workforce login",
        ),
    ] {
        let args = [&["explain", "--json"], options, &[API]].concat();
        let explained = run_with(&google, &file, &args).await;
        let explained: Value = serde_json::from_str(&explained.out).unwrap();
        assert_eq!(explained["scopes"], json!([]), "{options:?}: {explained}");
        let notes = explained["notes"].to_string();
        assert!(notes.contains(note), "{options:?}: {notes}");
        let printed = run_with(&google, &file, &[&["token"], options, &[API]].concat()).await;
        assert!(printed.err.contains(note), "{options:?}: {printed:?}");
    }
    // The account that it impersonates gets the requested scopes.
    let target = google.directory().address("target");
    let args = [
        "explain",
        "--json",
        "--impersonate-service-account",
        &target,
        rule,
        API,
    ];
    let explained = run_with(&google, &file, &args).await;
    let explained: Value = serde_json::from_str(&explained.out).unwrap();
    assert_eq!(explained["scopes"], json!(["https://s.example"]));
    assert!(!explained["notes"].to_string().contains("no effect"));
}

#[tokio::test]
async fn an_ended_session_is_explained() {
    let google = Google::start().await;
    google.always(Endpoint::StsRefresh, Fault::invalid_rapt());
    let file = google.external_account_authorized_user(&Endpoints::default());
    let sidecar = sidecar(&google, &file, &[]).await;
    let said = detail(&call(&sidecar, API).await);
    for part in ["invalid_rapt", "ends sessions", "login --login-config=FILE"] {
        assert!(said.contains(part), "{said}");
    }
}

#[tokio::test]
async fn an_expired_login_is_reported_with_advice_to_log_in_again() {
    let google = Google::start().await;
    let mut file = google.external_account_authorized_user(&Endpoints::default());
    file["refresh_token"] = "revoked".into();
    let sidecar = sidecar(&google, &file, &[]).await;
    let said = detail(&call(&sidecar, API).await);
    assert!(said.contains("invalid_grant"), "{said}");
    assert!(
        said.contains("gcloud auth application-default login"),
        "{said}"
    );
}
