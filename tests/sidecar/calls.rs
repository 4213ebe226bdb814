//! Which token a call carries.

use std::time::{Duration, Instant};

use futures::join_all;

use super::support::app::{get, proxied, text};
use super::support::metadata::{Answer, Gate, Kind, Metadata};
use super::support::service::Service;
use super::{beside, is_for, started};

mod futures {
    /// Runs all futures concurrently, each in its own task.
    pub(super) async fn join_all<T: Send + 'static>(
        futures: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
    ) -> Vec<T> {
        let tasks: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
        let mut all = Vec::new();
        for task in tasks {
            all.push(task.await.unwrap());
        }
        all
    }
}

#[tokio::test]
async fn a_google_api_gets_one_access_token_over_tls() {
    let (metadata, service, sidecar) = started(&[]).await;
    let response = proxied(sidecar.proxy(), "http://storage.googleapis.com/b", &[]).await;
    assert_eq!(
        (response.status().as_u16(), text(&response)),
        (200, "hello")
    );
    let seen = service.only();
    assert_eq!(seen.header("authorization"), Some("Bearer T1"));
    assert_eq!(
        (&*seen.host, &*seen.target),
        ("storage.googleapis.com", "/b")
    );
    let asked = metadata.requests(Kind::Access);
    assert_eq!(asked.len(), 1);
    assert_eq!(
        asked[0].path,
        "/computeMetadata/v1/instance/service-accounts/default/token"
    );
    assert_eq!(asked[0].query, None);
    assert_eq!(asked[0].header("metadata-flavor"), Some("Google"));
    assert_eq!(asked[0].header("x-forwarded-for"), None);
}

#[tokio::test]
async fn the_second_call_uses_the_cached_token() {
    let (metadata, service, sidecar) = started(&[]).await;
    for _ in 0..2 {
        proxied(sidecar.proxy(), "http://storage.googleapis.com/b", &[]).await;
    }
    assert_eq!(metadata.count(Kind::Access), 1);
    for seen in service.seen() {
        assert_eq!(seen.header("authorization"), Some("Bearer T1"));
    }
}

#[tokio::test]
async fn scopes_of_a_rule_are_requested_and_cached_separately() {
    let rule = "drive.example.com=access,scope=https://www.googleapis.com/auth/drive,scope=b";
    let (metadata, _service, sidecar) = started(&["--rule", rule]).await;
    proxied(sidecar.proxy(), "http://drive.example.com/", &[]).await;
    proxied(sidecar.proxy(), "http://storage.googleapis.com/", &[]).await;
    let asked = metadata.requests(Kind::Access);
    assert_eq!(asked.len(), 2);
    let query = asked[0].query.as_deref().unwrap();
    assert!(
        query.starts_with("scopes=") && query.contains("%2C"),
        "{query}"
    );
    assert_eq!(
        asked[0].parameter("scopes").as_deref(),
        Some("b,https://www.googleapis.com/auth/drive")
    );
}

#[tokio::test]
async fn a_private_service_gets_an_id_token_for_itself() {
    let (metadata, service, sidecar) = started(&[]).await;
    metadata.script(
        Kind::Identity,
        [Answer::with(|request| {
            let token = super::support::metadata::jwt(
                &request.parameter("audience").unwrap(),
                super::support::metadata::in_seconds(3600),
            );
            Answer::ok(format!("{token}\n"))
        })],
    );
    proxied(
        sidecar.proxy(),
        "http://svc-abc-uc.a.run.app/p%2Fq?q=1&r=%20",
        &[],
    )
    .await;
    let seen = service.only();
    assert_eq!(seen.target, "/p%2Fq?q=1&r=%20");
    assert_eq!(seen.host, "svc-abc-uc.a.run.app");
    assert!(is_for(
        seen.header("authorization"),
        "https://svc-abc-uc.a.run.app"
    ));
    let asked = &metadata.requests(Kind::Identity)[0];
    assert_eq!(asked.parameter("format").as_deref(), Some("full"));
}

#[tokio::test]
async fn two_services_never_get_each_others_tokens() {
    let (metadata, service, sidecar) = started(&[]).await;
    for _ in 0..10 {
        for host in ["svc-a.a.run.app", "svc-b.a.run.app"] {
            proxied(sidecar.proxy(), &format!("http://{host}/"), &[]).await;
        }
    }
    assert_eq!(metadata.count(Kind::Identity), 2);
    for seen in service.seen() {
        assert!(is_for(
            seen.header("authorization"),
            &format!("https://{}", seen.host)
        ));
    }
}

#[tokio::test]
async fn the_token_is_added_beside_the_apps_own_authorization() {
    let (_metadata, service, sidecar) = started(&[]).await;
    let own = [("authorization", "Bearer user")];
    proxied(sidecar.proxy(), "http://svc.a.run.app/", &own).await;
    let seen = service.only();
    assert_eq!(seen.header("authorization"), Some("Bearer user"));
    assert!(is_for(
        seen.header("x-serverless-authorization"),
        "https://svc.a.run.app"
    ));
}

#[tokio::test]
async fn a_google_api_keeps_the_apps_own_authorization_and_gets_no_token() {
    let (metadata, service, sidecar) = started(&[]).await;
    let own = [("authorization", "GOOG4-HMAC-SHA256 Credential=x")];
    proxied(sidecar.proxy(), "http://storage.googleapis.com/", &own).await;
    let seen = service.only();
    assert_eq!(
        seen.header("authorization"),
        Some("GOOG4-HMAC-SHA256 Credential=x")
    );
    assert_eq!(seen.header("x-serverless-authorization"), None);
    assert_eq!(metadata.count(Kind::Access), 0);
}

#[tokio::test]
async fn a_token_that_cloud_run_has_emptied_is_removed() {
    let (_metadata, service, sidecar) = started(&[]).await;
    let dead = "Bearer h.p.SIGNATURE_REMOVED_BY_GOOGLE";
    for name in ["authorization", "x-serverless-authorization"] {
        proxied(sidecar.proxy(), "http://svc.a.run.app/", &[(name, dead)]).await;
    }
    for seen in service.seen() {
        assert!(is_for(
            seen.header("authorization"),
            "https://svc.a.run.app"
        ));
        assert!(!format!("{:?}", seen.headers).contains("SIGNATURE_REMOVED"));
    }
}

#[tokio::test]
async fn a_traffic_tag_is_not_in_the_audience() {
    let (_metadata, service, sidecar) = started(&[]).await;
    let host = "canary---svc-123.us-central1.run.app";
    proxied(sidecar.proxy(), &format!("http://{host}/"), &[]).await;
    let seen = service.only();
    assert_eq!(seen.host, host);
    assert!(is_for(
        seen.header("authorization"),
        "https://svc-123.us-central1.run.app"
    ));
}

#[tokio::test]
async fn the_audience_of_a_function_ends_with_its_name() {
    let (_metadata, service, sidecar) = started(&[]).await;
    let host = "us-central1-p.cloudfunctions.net";
    proxied(sidecar.proxy(), &format!("http://{host}/fn/sub?x=1"), &[]).await;
    let seen = service.only();
    assert_eq!(seen.target, "/fn/sub?x=1");
    assert!(is_for(
        seen.header("authorization"),
        &format!("https://{host}/fn")
    ));
}

#[tokio::test]
async fn iap_gets_its_token_beside_the_apps_own() {
    let audience = "123-x.apps.googleusercontent.com";
    let rule = format!("iap.example.com=id,audience={audience}");
    let (_metadata, service, sidecar) = started(&["--rule", &rule]).await;
    let headers = [
        ("authorization", "Bearer user"),
        ("proxy-authorization", "Basic anVuaw=="),
    ];
    proxied(sidecar.proxy(), "http://iap.example.com/", &headers).await;
    let seen = service.only();
    assert_eq!(seen.header("authorization"), Some("Bearer user"));
    assert!(is_for(seen.header("proxy-authorization"), audience));
}

#[tokio::test]
async fn reserved_characters_of_an_audience_are_preserved() {
    let audience = "https://x/?a=b&c=d#e+f%20g";
    let rule = format!("odd.example.com=id,audience={audience}");
    let (metadata, _service, sidecar) = started(&["--rule", &rule]).await;
    proxied(sidecar.proxy(), "http://odd.example.com/", &[]).await;
    let asked = &metadata.requests(Kind::Identity)[0];
    assert_eq!(asked.parameter("audience").as_deref(), Some(audience));
    assert_eq!(asked.query.as_deref().unwrap().matches('&').count(), 1);
}

#[tokio::test]
async fn a_hundred_cold_calls_share_one_fetch_and_a_thousand_warm_ones_need_none() {
    let (metadata, service, sidecar) = started(&[]).await;
    let gate = Gate::new();
    metadata.script(Kind::Access, [Answer::access("T1", 3600).behind(&gate)]);
    let proxy = sidecar.proxy();
    let call = move |_| async move {
        let response = proxied(proxy, "http://storage.googleapis.com/", &[]).await;
        response.status().as_u16()
    };
    let cold = tokio::spawn(join_all((0..100).map(call)));
    metadata.arrived(Kind::Access, 1).await;
    gate.open();
    assert_eq!(cold.await.unwrap(), [200; 100]);
    assert_eq!(metadata.count(Kind::Access), 1);
    for _ in 0..10 {
        assert_eq!(join_all((0..100).map(call)).await, [200; 100]);
    }
    assert_eq!(metadata.count(Kind::Access), 1);
    assert!(
        service
            .seen()
            .iter()
            .all(|seen| seen.header("authorization") == Some("Bearer T1"))
    );
}

#[tokio::test]
async fn a_hundred_cold_calls_share_one_error() {
    let (metadata, service, sidecar) = started(&[]).await;
    let gate = Gate::new();
    metadata.script(
        Kind::Access,
        [Answer::status(403, "Unauthenticated\n").behind(&gate)],
    );
    let proxy = sidecar.proxy();
    let calls = tokio::spawn(join_all((0..100).map(move |_| async move {
        let response = proxied(proxy, "http://storage.googleapis.com/", &[]).await;
        (
            response.status().as_u16(),
            text(&response).contains("Unauthenticated"),
        )
    })));
    metadata.arrived(Kind::Access, 1).await;
    gate.open();
    assert_eq!(calls.await.unwrap(), [(502, true); 100]);
    assert_eq!(metadata.count(Kind::Access), 1);
    assert!(
        service.seen().is_empty(),
        "the upstream was called without a token"
    );
}

#[tokio::test]
async fn a_dead_metadata_server_fails_no_call_while_a_token_is_valid() {
    let (mut metadata, service, sidecar) = started(&[]).await;
    proxied(sidecar.proxy(), "http://storage.googleapis.com/", &[]).await;
    metadata.stop().await;
    for _ in 0..20 {
        let response = proxied(sidecar.proxy(), "http://storage.googleapis.com/", &[]).await;
        assert_eq!(response.status(), 200);
    }
    assert_eq!(service.seen().len(), 21);
}

#[tokio::test]
async fn an_instance_that_was_frozen_sends_no_expired_token() {
    let (metadata, service, sidecar) = started(&[]).await;
    metadata.script(
        Kind::Access,
        [Answer::access("T1", 33), Answer::access("T2", 3600)],
    );
    let url = "http://storage.googleapis.com/";
    proxied(sidecar.proxy(), url, &[]).await;
    sidecar.signal("STOP");
    // Only the clock ages a token: less than 30 s are left after this wait.
    tokio::time::sleep(Duration::from_secs(4)).await;
    sidecar.signal("CONT");
    proxied(sidecar.proxy(), url, &[]).await;
    let sent: Vec<_> = service
        .seen()
        .iter()
        .map(|seen| seen.header("authorization").unwrap().to_owned())
        .collect();
    assert_eq!(sent, ["Bearer T1", "Bearer T2"]);
}

#[tokio::test]
async fn a_stale_token_is_sent_while_a_new_one_is_fetched() {
    let (metadata, service, sidecar) = started(&[]).await;
    let gate = Gate::new();
    metadata.script(
        Kind::Access,
        [
            Answer::access("T1", 100),
            Answer::access("T2", 3600).behind(&gate),
        ],
    );
    let url = "http://storage.googleapis.com/";
    for _ in 0..3 {
        // None of these calls waits, because the new token is held back.
        assert_eq!(proxied(sidecar.proxy(), url, &[]).await.status(), 200);
    }
    metadata.arrived(Kind::Access, 2).await;
    assert!(
        service
            .seen()
            .iter()
            .all(|seen| seen.header("authorization") == Some("Bearer T1"))
    );
    gate.open();
    let deadline = Instant::now() + Duration::from_secs(10);
    while service.seen().last().unwrap().header("authorization") != Some("Bearer T2") {
        assert!(Instant::now() < deadline, "the new token was never used");
        proxied(sidecar.proxy(), url, &[]).await;
    }
    assert_eq!(metadata.count(Kind::Access), 2);
}

#[tokio::test]
async fn the_quota_project_is_set_unless_the_app_sets_one() {
    let rule = "*.googleapis.com=access,quota-project=billed-here";
    let (_metadata, service, sidecar) = started(&["--rule", rule]).await;
    let url = "http://storage.googleapis.com/";
    proxied(sidecar.proxy(), url, &[]).await;
    proxied(sidecar.proxy(), url, &[("x-goog-user-project", "apps-own")]).await;
    let projects: Vec<_> = service
        .seen()
        .iter()
        .map(|seen| seen.header("x-goog-user-project").unwrap().to_owned())
        .collect();
    assert_eq!(projects, ["billed-here", "apps-own"]);
}

#[tokio::test]
async fn a_registry_gets_the_token_as_a_basic_password() {
    let (_metadata, service, sidecar) =
        started(&["--rule", "registry.example.com=access,scheme=basic"]).await;
    proxied(sidecar.proxy(), "http://registry.example.com/v2/", &[]).await;
    let expected = "Basic b2F1dGgyYWNjZXNzdG9rZW46VDE=";
    assert_eq!(service.only().header("authorization"), Some(expected));
}

#[tokio::test]
async fn another_account_of_the_metadata_server_is_requested_by_name() {
    let rule = "*.a.run.app=id,account=robot@p.iam.gserviceaccount.com";
    let (metadata, _service, sidecar) = started(&["--rule", rule]).await;
    proxied(sidecar.proxy(), "http://svc.a.run.app/", &[]).await;
    let path = &metadata.requests(Kind::Identity)[0].path;
    assert!(
        path.contains("/robot@p.iam.gserviceaccount.com/identity"),
        "{path}"
    );
}

#[tokio::test]
async fn the_universe_domain_determines_the_google_apis() {
    let service = Service::start().await;
    let metadata = Metadata::start().await;
    metadata.script(
        Kind::Universe,
        [
            Answer::status(500, ""),
            Answer::status(500, ""),
            Answer::ok("s3nsapis.fr"),
        ],
    );
    metadata.script(Kind::Access, [Answer::access("T1", 3600)]);
    let sidecar = beside(&metadata, &service, &[]).await;
    for host in ["storage.s3nsapis.fr", "storage.googleapis.com"] {
        proxied(sidecar.proxy(), &format!("http://{host}/"), &[]).await;
    }
    let tokens: Vec<_> = service
        .seen()
        .iter()
        .map(|seen| seen.host.clone())
        .collect();
    assert_eq!(
        tokens,
        ["storage.s3nsapis.fr"],
        "only the universe's own hosts are upgraded to TLS"
    );
    assert_eq!(metadata.count(Kind::Universe), 3);
}

#[tokio::test]
async fn a_route_has_its_token_before_the_first_call() {
    let (metadata, service, sidecar) =
        started(&["--route", "127.0.0.1:0=https://svc.a.run.app"]).await;
    metadata.arrived(Kind::Identity, 1).await;
    let route = sidecar.address("127.0.0.1:0");
    assert_eq!(text(&get(route, "/x?y").await), "hello");
    let seen = service.only();
    assert_eq!((&*seen.host, &*seen.target), ("svc.a.run.app", "/x?y"));
    assert!(is_for(
        seen.header("authorization"),
        "https://svc.a.run.app"
    ));
    assert_eq!(metadata.count(Kind::Identity), 1);
}
