//! The project whose quota is used (`x-goog-user-project`): sent with access tokens and to the IAM Credentials API.

use serde_json::{Value, json};

use super::authorized_user;
use super::federation::file_sourced;
use super::impersonation::Setup;
use super::support::app::{proxied, text};
use super::support::google::{Endpoint, Endpoints, Recorded};
use super::support::sidecar::Sidecar;

const API: &str = "http://storage.googleapis.com/b";
const SERVICE: &str = "http://billing.a.run.app/";

const VARIABLE: &str = "GOOGLE_CLOUD_QUOTA_PROJECT";

/// Calls an API and a service, and returns the quota projects that the IAM Credentials API, the API and the service
/// received.
async fn told(setup: &Setup, sidecar: &Sidecar) -> [Option<String>; 3] {
    for url in [API, SERVICE] {
        let answer = proxied(sidecar.proxy(), url, &[]).await;
        assert_eq!(answer.status(), 200, "{}", text(&answer));
    }
    let project = |asked: &Recorded| asked.header("x-goog-user-project").map(str::to_owned);
    let google = &setup.google;
    let access = project(&google.only(Endpoint::GenerateAccessToken));
    let id = project(&google.only(Endpoint::GenerateIdToken));
    assert_eq!(access, id);
    let sent = google.requests(Endpoint::Api);
    // Token endpoints get no quota project.
    for endpoint in [Endpoint::Token, Endpoint::StsExchange, Endpoint::StsRefresh] {
        for asked in google.requests(endpoint) {
            assert_eq!(project(&asked), None, "{endpoint:?}");
        }
    }
    [access, project(&sent[0]), project(&sent[1])]
}

async fn told_of(
    file: impl FnOnce(&Setup) -> Value,
    impersonate: bool,
    env: &[(&str, &str)],
) -> [Option<String>; 3] {
    let setup = Setup::new().await;
    let file = file(&setup);
    let path = setup.google.file("quota.json", &file);
    let target = setup.address("target");
    let mut args = vec!["--credentials", path.to_str().unwrap()];
    if impersonate {
        args.extend(["--impersonate-service-account", &target]);
    }
    let sidecar = setup.sidecar_with(&args, env).await;
    told(&setup, &sidecar).await
}

fn some(project: &str) -> Option<String> {
    Some(project.to_owned())
}

/// Like Google's libraries: without it, APIs respond with 403 to many logins.
#[tokio::test]
async fn a_login_that_impersonates_names_its_quota_project() {
    let login = |setup: &Setup| {
        let mut file = authorized_user(&setup.google);
        file["quota_project_id"] = "of-the-login".into();
        file
    };
    let project = some("of-the-login");
    assert_eq!(
        told_of(login, true, &[]).await,
        [project.clone(), project, None]
    );
    let env = [(VARIABLE, "of-the-variable")];
    let project = some("of-the-variable");
    assert_eq!(
        told_of(login, true, &env).await,
        [project.clone(), project, None]
    );
    let without = |setup: &Setup| {
        let mut file = authorized_user(&setup.google);
        file.as_object_mut().unwrap().remove("quota_project_id");
        file
    };
    assert_eq!(told_of(without, true, &[]).await, [None, None, None]);
}

#[tokio::test]
async fn the_inner_of_nested_files_is_billed_for_impersonation() {
    let nested = |setup: &Setup| {
        let mut source = authorized_user(&setup.google);
        source["quota_project_id"] = "inner".into();
        let mut file = setup
            .google
            .impersonated(&Endpoints::default(), &source, &[]);
        file["quota_project_id"] = json!("outer");
        file
    };
    assert_eq!(
        told_of(nested, false, &[]).await,
        [some("inner"), some("outer"), None]
    );
    let env = [(VARIABLE, "of-the-variable")];
    assert_eq!(
        told_of(nested, false, &env).await,
        [some("inner"), some("of-the-variable"), None]
    );
}

#[tokio::test]
async fn federation_names_the_quota_project_of_its_file() {
    let federated = |setup: &Setup| {
        let mut file = file_sourced(&setup.google).0;
        file["quota_project_id"] = "of-the-file".into();
        file
    };
    let project = some("of-the-file");
    assert_eq!(
        told_of(federated, false, &[]).await,
        [project.clone(), project, None]
    );
}

/// The attached account of an instance already belongs to a project.
#[tokio::test]
async fn the_metadata_servers_account_names_no_quota_project_when_it_impersonates() {
    let setup = Setup::new().await;
    let target = setup.address("target");
    let args = ["--impersonate-service-account", &target];
    let env = [(VARIABLE, "of-the-variable")];
    let sidecar = setup.sidecar_with(&args, &env).await;
    assert_eq!(
        told(&setup, &sidecar).await,
        [None, some("of-the-variable"), None]
    );
}
