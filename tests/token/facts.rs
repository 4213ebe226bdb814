//! Facts of the metadata server about the instance.

use sidentity::error::ErrorKind;
use sidentity::policy::Principal;
use sidentity::token::{Facts, TokenSources};
use tokio::task::JoinSet;

use super::support::metadata::{ACCOUNTS, Answer, Kind, Metadata};
use super::{TIMEOUT, client_for, instance};

#[tokio::test]
async fn the_universe_is_googleapis_com_if_the_server_names_none() {
    for (answer, expected) in [
        (Answer::status(404, "not found"), "googleapis.com"),
        (Answer::ok(""), "googleapis.com"),
        (Answer::ok("s3nsapis.fr\n"), "s3nsapis.fr"),
    ] {
        let server = Metadata::start().await;
        server.script(Kind::Universe, [answer]);
        let instance = instance(&server);
        assert_eq!(instance.universe_if_known(), None);
        for _ in 0..2 {
            assert_eq!(&*instance.universe().await.unwrap(), expected);
        }
        assert_eq!(instance.universe_if_known().as_deref(), Some(expected));
        let path = "/computeMetadata/v1/universe/universe-domain";
        assert_eq!(server.requests(Kind::Universe)[0].path, path);
        assert_eq!(server.count(Kind::Universe), 1);
    }
}

#[tokio::test]
async fn a_configured_universe_is_not_requested() {
    let server = Metadata::start().await;
    let sources = TokenSources::metadata_only(client_for(server.address(), TIMEOUT));
    let instance = Facts::new(sources, Some("s3nsapis.fr".into()));
    assert_eq!(&*instance.universe().await.unwrap(), "s3nsapis.fr");
    assert_eq!(server.all_requests().len(), 0);
}

#[tokio::test]
async fn an_unavailable_universe_is_requested_again() {
    let server = Metadata::start().await;
    server.script(
        Kind::Universe,
        [
            Answer::ok("<html>no universe</html>"),
            Answer::status(500, ""),
            Answer::status(500, ""),
            Answer::ok("s3nsapis.fr"),
        ],
    );
    let instance = instance(&server);
    let failed = instance.universe().await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::TokenRefused);
    let held_off = instance.universe().await.unwrap_err();
    assert_eq!(held_off.detail(), failed.detail());
    assert_eq!(server.count(Kind::Universe), 1);
    assert_eq!(instance.universe_if_known(), None);
    tokio::time::sleep(held_off.wait().unwrap()).await;
    assert_eq!(&*instance.universe().await.unwrap(), "s3nsapis.fr");
    assert_eq!(server.count(Kind::Universe), 4);
}

#[tokio::test]
async fn project_and_accounts_are_requested_once() {
    let server = Metadata::start().await;
    let other = format!("{ACCOUNTS}/other@x.example/email");
    server.script_path(&other, [Answer::ok("other@x.example")]);
    let other = Principal::Account("other@x.example".into());
    let instance = instance(&server);
    assert_eq!(instance.project_id_if_known(), None);
    assert_eq!(instance.email_if_known(&Principal::Attached), None);
    let mut questions = JoinSet::new();
    for _ in 0..10 {
        let instance = instance.clone();
        questions.spawn(async move { instance.project_id().await.unwrap() });
    }
    assert!(
        questions
            .join_all()
            .await
            .iter()
            .all(|id| &**id == "test-project")
    );
    for _ in 0..2 {
        let email = instance.email(&Principal::Attached).await.unwrap();
        assert_eq!(&*email, "default@test-project.iam.gserviceaccount.com");
        let email = instance.email(&other).await.unwrap();
        assert_eq!(&*email, "other@x.example");
    }
    assert_eq!(
        instance.project_id_if_known().as_deref(),
        Some("test-project")
    );
    let other = instance.email_if_known(&other);
    assert_eq!(other.as_deref(), Some("other@x.example"));
    assert_eq!(server.count(Kind::ProjectId), 1);
    assert_eq!(server.count(Kind::Email), 2);
}
