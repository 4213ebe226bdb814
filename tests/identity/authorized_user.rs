//! A person's login.

use serde_json::json;

use super::federation::{call, called_as, called_until, sidecar};
use super::support::app::text;
use super::support::google::{Endpoint, Endpoints, Fault, Google, Jwt};
use super::{IAP, RUN_APP, STORAGE, authorized_user, run_with};

const RUN_APP_CALL: &str = "http://private-424242.us-central1.run.app/";
const REMEDY: &str = "--impersonate-service-account";

#[tokio::test]
async fn a_google_api_gets_an_access_token_for_the_refresh_token() {
    let google = Google::start().await;
    let file = authorized_user(&google);
    let ran = run_with(&google, &file, &["token", STORAGE]).await;
    assert_eq!(ran.status, Some(0), "{ran:?}");
    let form = google.only(Endpoint::Token).form();
    for name in ["client_id", "client_secret", "refresh_token"] {
        assert_eq!(form[name], file[name]);
    }
    assert_eq!(form["grant_type"], "refresh_token");
    assert_eq!(form.len(), 4, "{form:?}");
}

#[tokio::test]
async fn a_rotated_refresh_token_is_kept_in_memory_only() {
    let google = Google::start().await;
    google.rotate_refresh_tokens(true);
    let short = Fault::edit(|json| json["expires_in"] = 10.into());
    google.always(Endpoint::Token, short);
    let file = authorized_user(&google);
    let sidecar = sidecar(&google, &file, &[]).await;
    called_as(&sidecar).await;
    called_until(&sidecar, &google, Endpoint::Token, 2).await;
    // An unchanged file changes nothing.
    let before = sidecar.log().len();
    sidecar.signal("HUP");
    let reloaded = |line: &serde_json::Value| line.to_string().contains("reload");
    sidecar.logged_since(before, reloaded).await;
    called_until(&sidecar, &google, Endpoint::Token, 3).await;
    let refreshes = google.requests(Endpoint::Token);
    let used: Vec<_> = refreshes
        .iter()
        .map(|request| (request.field("refresh_token"), request.status))
        .collect();
    assert_eq!(file["refresh_token"], *used[0].0);
    // The endpoint accepts each refresh token once.
    assert!(used.iter().all(|(_, status)| *status == 200), "{used:?}");
    assert!(used.windows(2).all(|two| two[0].0 != two[1].0), "{used:?}");
    let path = google.ca().with_file_name("credentials.json");
    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(written, file);
}

#[tokio::test]
async fn without_a_scope_explain_says_that_the_login_determines_the_scopes() {
    let google = Google::start().await;
    let file = authorized_user(&google);
    let scope = "https://s.example";
    let rule = format!("--rule=storage.googleapis.com=access,scope={scope}");
    for (options, scopes) in [(&[] as &[&str], json!([])), (&[&*rule], json!([scope]))] {
        let args = [&["explain", "--json"], options, &[STORAGE]].concat();
        let explained = run_with(&google, &file, &args).await;
        let explained: serde_json::Value = serde_json::from_str(&explained.out).unwrap();
        assert_eq!(explained["scopes"], scopes);
        let notes = explained["notes"].to_string();
        let of_login = notes.contains("the scopes are those that the login was made with");
        assert_eq!(of_login, options.is_empty(), "{notes}");
    }
}

#[tokio::test]
async fn the_access_log_shows_the_scopes_of_a_login_as_explain_does() {
    let google = Google::start().await;
    let file = authorized_user(&google);
    let scope = "https://www.googleapis.com/auth/cloud-platform";
    let rule = format!("storage.googleapis.com=access,scope={scope}");
    for (options, scopes) in [
        (&[] as &[&str], json!(null)),
        (&["--rule", &rule], json!(scope)),
    ] {
        let args = [&["--access-log", "all"], options].concat();
        let sidecar = sidecar(&google, &file, &args).await;
        called_as(&sidecar).await;
        let line = sidecar
            .logged(|line| line["httpRequest"]["status"] == 200)
            .await;
        assert_eq!(line["credential"], "access");
        assert_eq!(line["scopes"], scopes, "{line}");
    }
}

#[tokio::test]
async fn the_log_of_a_failed_fetch_names_its_source_as_the_metrics_do() {
    let google = Google::start().await;
    google.always(Endpoint::Token, Fault::invalid_rapt());
    let sidecar = sidecar(&google, &authorized_user(&google), &[]).await;
    assert_eq!(call(&sidecar, RUN_APP_CALL).await.status(), 502);
    let line = sidecar.logged(|line| line["credential"] == "id").await;
    assert_eq!(line["source"], "authorized_user");
    // A login has ID tokens for its OAuth client only.
    let audience = line["audience"].as_str().unwrap();
    assert!(audience.ends_with(".apps.googleusercontent.com"), "{line}");
    // The name of the person is not known, and no account of the metadata server is used.
    assert_eq!(line["account"], json!(null), "{line}");
}

#[tokio::test]
async fn scopes_of_a_rule_are_requested() {
    let google = Google::start().await;
    let scope = "https://www.googleapis.com/auth/cloud-platform";
    let rule = format!("--rule=storage.googleapis.com=access,scope={scope}");
    let ran = run_with(
        &google,
        &authorized_user(&google),
        &["token", &rule, STORAGE],
    )
    .await;
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert_eq!(google.only(Endpoint::Token).field("scope"), scope);
}

#[tokio::test]
async fn cloud_run_gets_an_id_token_for_the_logins_oauth_client() {
    let google = Google::start().await;
    let file = authorized_user(&google);
    let ran = run_with(&google, &file, &["token", RUN_APP]).await;
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert_eq!(Jwt::read(ran.out.trim()).claims["aud"], file["client_id"]);
    let explained = run_with(&google, &file, &["explain", "--json", RUN_APP]).await;
    let explained: serde_json::Value = serde_json::from_str(&explained.out).unwrap();
    assert_eq!(explained["credential"], "id");
    assert_eq!(explained["audience"], file["client_id"]);
    let notes = explained["notes"].to_string();
    assert!(
        notes.contains("grant the person who logged in roles/run.invoker"),
        "{notes}"
    );
    assert!(
        notes.contains("the token comes from the authorized_user file"),
        "{notes}"
    );
}

/// Cloud Run and functions accept gcloud's OAuth clients only. Start, `explain` and the log of a 401 say the same.
#[tokio::test]
async fn a_login_of_another_oauth_client_is_refused_by_cloud_run_everywhere_alike() {
    const CLIENT: &str = "1-x.apps.googleusercontent.com";
    let google = Google::start().await;
    let mut file = authorized_user(&google);
    file["client_id"] = json!(CLIENT);
    let checked = run_with(&google, &file, &["check"]).await;
    let warned = "is of an OAuth client other than gcloud's: Cloud Run and functions refuse its ID tokens; log in with";
    assert!(checked.err.contains(warned), "{checked:?}");
    let refused = "Cloud Run and functions accept gcloud's client only, and this is another";
    let explained = run_with(&google, &file, &["explain", RUN_APP]).await;
    assert!(explained.out.contains(refused), "{explained:?}");
    for word in ["functions accept it", "roles/run.invoker"] {
        assert!(!explained.out.contains(word), "{explained:?}");
    }
    let token = crate::support::metadata::jwt(CLIENT, crate::support::metadata::in_seconds(3600));
    let answer = json!({"id_token": token, "access_token": "ya29.x", "expires_in": 3599});
    google.always(Endpoint::Token, Fault::status(200, answer.to_string()));
    google.always(Endpoint::Api, Fault::status(401, "no"));
    let sidecar = sidecar(&google, &file, &[]).await;
    let response = call(&sidecar, "http://x-1.us-central1.run.app/").await;
    assert_eq!(response.status(), 401, "{}", text(&response));
    let line = sidecar
        .logged(|line| line["status"] == 401 && line["audience"].is_string())
        .await;
    assert!(line.to_string().contains(refused), "{line}");
}

#[tokio::test]
async fn explain_advises_no_role_if_the_credential_has_no_id_tokens() {
    let google = Google::start().await;
    let workforce = google.external_account_authorized_user(&Endpoints::default());
    for file in [&workforce, &authorized_user(&google)] {
        for url in [
            "https://x-1.us-central1.run.app/",
            "https://us-central1-p.cloudfunctions.net/f",
        ] {
            let explained = run_with(&google, file, &["explain", url]).await;
            assert_eq!(explained.status, Some(0), "{explained:?}");
            let is_obtainable = file != &workforce;
            let has_role = explained.out.contains("roles/run.invoker");
            assert_eq!(has_role, is_obtainable, "{explained:?}");
        }
    }
}

#[tokio::test]
async fn a_client_id_cannot_write_to_the_terminal_of_explain() {
    let google = Google::start().await;
    let mut file = authorized_user(&google);
    file["client_id"] = json!("1\u{1b}]0;x\u{7}\nsidentity: all is well");
    let explained = run_with(&google, &file, &["explain", RUN_APP]).await;
    assert_eq!(explained.status, Some(64), "{explained:?}");
    assert_eq!(explained.out, "", "{explained:?}");
    let expected = "(authorized_user): client_id: a text of visible ASCII characters is expected\n";
    assert!(explained.err.ends_with(expected), "{explained:?}");
    assert_eq!(explained.err.lines().count(), 1, "{explained:?}");
}

#[tokio::test]
async fn a_rule_for_an_unobtainable_id_token_is_an_error_with_advice() {
    let google = Google::start().await;
    let file = authorized_user(&google);
    for command in ["check", "explain", "token"] {
        for rule in [
            "--rule=iap.example=id",
            "--rule=iap.example=id,audience=1.apps.googleusercontent.com",
            "--rule=x.run.app=id,token=jwt",
            "--route=8081=https://iap.example,credential=id",
        ] {
            let mut args = vec![command, rule];
            if command != "check" {
                args.push(IAP);
            }
            let ran = run_with(&google, &file, &args).await;
            assert_eq!(ran.status, Some(64), "{rule}: {ran:?}");
            assert!(
                ran.err.contains(REMEDY) && ran.err.contains("IAP"),
                "{ran:?}"
            );
        }
    }
    assert_eq!(google.called(), []);
}

/// The audience of a login's ID tokens is fixed, so a configured one would be ignored.
#[tokio::test]
async fn an_audience_that_a_login_cannot_have_is_an_error_with_advice() {
    let google = Google::start().await;
    let file = authorized_user(&google);
    let chosen = "audience=https://chosen.example";
    let yaml = google.text_file(
        "chosen.yaml",
        "rules:\n  - host: x-1.run.app\n    credential: id\n    audience: https://chosen.example\n",
    );
    let yaml = format!("--config={}", yaml.display());
    for option in [
        format!("--rule=x-1.run.app=id,{chosen}"),
        format!("--rule=*.run.app=id,{chosen}"),
        format!("--rule=us-central1-p.cloudfunctions.net=id,{chosen}"),
        "--rule=x-1.run.app=id,audience=https://x-1.run.app".to_owned(),
        "--rule=x-1.run.app=id,audience=2.apps.googleusercontent.com".to_owned(),
        format!("--route=8081=https://x-1.us-central1.run.app,{chosen}"),
        format!("--route=8081=https://us-central1-p.cloudfunctions.net/f,{chosen}"),
        format!("--route=8081=run://billing,{chosen}"),
        yaml,
    ] {
        for command in [
            &["check"] as &[&str],
            &["explain", RUN_APP],
            &["token", RUN_APP],
            &["run"],
            &["exec", "true"],
        ] {
            let args = [&command[..1], &[&option], &command[1..]].concat();
            let ran = run_with(&google, &file, &args).await;
            assert_eq!(ran.status, Some(64), "{args:?}: {ran:?}");
            for part in ["drop audience=", REMEDY, "gcloud's client id"] {
                assert!(ran.err.contains(part), "{args:?}: {ran:?}");
            }
            assert_eq!(ran.err.lines().count(), 1, "{args:?}: {ran:?}");
        }
    }
    assert_eq!(google.called(), []);
}

#[tokio::test]
async fn the_audience_that_a_login_has_is_accepted() {
    let google = Google::start().await;
    let file = authorized_user(&google);
    let own = format!("audience={}", file["client_id"].as_str().unwrap());
    for option in [
        format!("--rule=*.run.app=id,{own}"),
        format!("--route=8081=https://x-1.us-central1.run.app,{own}"),
        format!("--route=8081=run://billing,{own}"),
        "--rule=x-1.run.app=id,audience=https://chosen.example,impersonate=a@p.iam.gserviceaccount.com".to_owned(),
    ] {
        let ran = run_with(&google, &file, &["check", &option]).await;
        assert_eq!(ran.status, Some(0), "{option}: {ran:?}");
    }
    // Only Cloud Run and functions accept a login's ID token.
    for option in [
        format!("--rule=iap.example=id,{own}"),
        format!("--route=8081=https://iap.example,{own}"),
    ] {
        let ran = run_with(&google, &file, &["check", &option]).await;
        assert_eq!(ran.status, Some(64), "{option}: {ran:?}");
        assert!(ran.err.contains("IAP"), "{ran:?}");
    }
}

#[tokio::test]
async fn a_workforce_login_has_no_audience() {
    let google = Google::start().await;
    let file = google.external_account_authorized_user(&Endpoints::default());
    for option in [
        "--rule=x-1.run.app=id,audience=https://chosen.example",
        "--route=8081=https://x-1.us-central1.run.app,audience=https://chosen.example",
        "--route=8081=https://x-1.us-central1.run.app",
        "--route=8081=run://billing",
        "--route=8081=run://billing,audience=https://chosen.example",
    ] {
        let ran = run_with(&google, &file, &["check", option]).await;
        assert_eq!(ran.status, Some(64), "{option}: {ran:?}");
        assert!(ran.err.contains(REMEDY), "{ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{option}: {ran:?}");
    }
}

#[tokio::test]
async fn a_workforce_login_gets_no_advice_about_a_field_that_its_file_cannot_have() {
    let google = Google::start().await;
    let file = google.external_account_authorized_user(&Endpoints::default());
    let route = "--route=8081=https://x-1.us-central1.run.app";
    for args in [&["check", route] as &[&str], &["token", RUN_APP]] {
        let ran = run_with(&google, &file, args).await;
        for part in [
            "a workforce login has no ID tokens of its own: impersonate",
            REMEDY,
        ] {
            assert!(ran.err.contains(part), "{ran:?}");
        }
        for part in ["service_account_impersonation_url", "federated"] {
            assert!(!ran.err.contains(part), "{ran:?}");
        }
    }
}

#[tokio::test]
async fn one_mistake_is_one_line() {
    let google = Google::start().await;
    let file = authorized_user(&google);
    for options in [
        &["--rule=iap.example.com=id,token=jwt"] as &[&str],
        &["--rule=x.run.app=id,token=jwt,audience=https://x"],
        &["--route=8081=https://iap.example.com,token=jwt"],
        &["--rule=iap.example.com=id,account=a@p.iam.gserviceaccount.com"],
        &["--route=8081=https://iap.example.com,credential=id,account=a@p.iam.gserviceaccount.com"],
        &["--rule=iap.example.com=id,token=jwt,account=a@p.iam.gserviceaccount.com"],
        &[
            "--rule=www.googleapis.com=access,scope=s,subject=j@d.example,account=a@p.iam.gserviceaccount.com",
        ],
        // The route does not name an audience.
        &[
            "--rule=iap.example.com=id",
            "--route=8081=https://iap.example.com",
        ],
        &[
            "--rule=iap.example.com=id,token=jwt",
            "--route=8081=https://iap.example.com",
        ],
        &[
            "--rule=x.run.app=id,audience=https://x",
            "--route=8081=https://x.run.app,header=authorization",
        ],
    ] {
        let ran = run_with(&google, &file, &[&["check"], options].concat()).await;
        assert_eq!(ran.status, Some(64), "{options:?}: {ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{options:?}: {ran:?}");
    }
}

#[tokio::test]
async fn an_ended_session_is_explained() {
    let google = Google::start().await;
    google.always(Endpoint::Token, Fault::invalid_rapt());
    let ran = run_with(&google, &authorized_user(&google), &["token", STORAGE]).await;
    assert_eq!(ran.status, Some(1), "{ran:?}");
    for part in [
        "oauth2.googleapis.com/token",
        "invalid_grant",
        "invalid_rapt",
        "the organisation ends sessions",
        "log in again: `gcloud auth application-default login`",
    ] {
        assert!(ran.err.contains(part), "{part}: {ran:?}");
    }
    // The fetch is not retried.
    assert_eq!(google.count(Endpoint::Token), 1);
}

#[tokio::test]
async fn an_error_in_a_response_of_status_200_is_named() {
    let google = Google::start().await;
    let body = r#"{"error": "invalid_grant", "error_description": "Bad Request"}"#;
    let fault = Fault::status(200, body).header("content-type", "application/json");
    google.always(Endpoint::Token, fault);
    let ran = run_with(&google, &authorized_user(&google), &["token", STORAGE]).await;
    assert_eq!(ran.status, Some(1), "{ran:?}");
    for part in [
        "oauth2.googleapis.com/token",
        r#"answered 200 OK: "invalid_grant" "Bad Request""#,
        "log in again",
    ] {
        assert!(ran.err.contains(part), "{part}: {ran:?}");
    }
}

#[tokio::test]
async fn a_response_without_an_id_token_is_an_error() {
    let google = Google::start().await;
    let without = Fault::edit(|json| {
        json.as_object_mut().unwrap().remove("id_token");
    });
    google.always(Endpoint::Token, without);
    let ran = run_with(&google, &authorized_user(&google), &["token", RUN_APP]).await;
    assert_eq!(ran.status, Some(1), "{ran:?}");
    assert!(
        ran.err.contains("not a JSON object with an ID token"),
        "{ran:?}"
    );
    google.always(
        Endpoint::Token,
        Fault::edit(|json| {
            // Another audience than the login's.
            let other = "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJvdGhlciIsImV4cCI6OTk5OTk5OTk5OX0.c2ln";
            json["id_token"] = json!(other);
        }),
    );
    let ran = run_with(&google, &authorized_user(&google), &["token", RUN_APP]).await;
    assert!(ran.err.contains("aud"), "{ran:?}");
    assert!(!ran.err.contains("eyJ"), "{ran:?}");
}

#[tokio::test]
async fn exec_calls_a_private_service_with_the_login() {
    let google = Google::start().await;
    let curl = ["exec", "--", "curl", "-sS", "--fail", RUN_APP];
    let ran = run_with(&google, &authorized_user(&google), &curl).await;
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert!(ran.out.contains("apps.googleusercontent.com"), "{ran:?}");
}

#[tokio::test]
async fn a_scope_that_a_login_may_not_get_is_named_with_the_remedy() {
    let google = Google::start().await;
    let file = authorized_user(&google);
    let scope = "https://www.googleapis.com/auth/drive.readonly";
    let rule = format!("--rule=www.googleapis.com=access,scope={scope}");
    let sidecar = sidecar(&google, &file, &[&rule]).await;
    let response = call(&sidecar, "http://www.googleapis.com/drive").await;
    assert_eq!(response.status(), 502, "{}", text(&response));
    let problem: serde_json::Value = serde_json::from_str(text(&response)).unwrap();
    let page = problem["type"].as_str().unwrap();
    assert!(
        page.ends_with("docs/errors.md#token-invalid-scope"),
        "{problem}"
    );
    assert_eq!(problem["title"], "The scope or audience is not accepted");
    let detail = problem["detail"].as_str().unwrap();
    for part in [
        "invalid_scope",
        "scope= of the rule",
        &format!("login --scopes={scope}"),
    ] {
        assert!(detail.contains(part), "{part}: {detail}");
    }
    let line = sidecar.logged(|line| line["advice"].is_string()).await;
    assert_eq!(line["help"], page, "{line}");
    let advice = line["advice"].as_str().unwrap();
    assert!(
        advice.contains("scope=") && !advice.contains("Log in again"),
        "{line}"
    );
}
