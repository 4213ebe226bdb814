//! The rules of the token cache, for impersonated tokens.

use std::time::Duration;

use serde_json::json;

use crate::impersonation::Setup;
use crate::support::app::proxied;
use crate::support::google::{Endpoint, Fault};
use crate::support::metadata::Gate;
use crate::support::sidecar::Sidecar;

const API: &str = "http://storage.googleapis.com/b";

/// Returns a response with a token that is valid for this number of seconds.
fn valid_for(seconds: u64) -> Fault {
    let expires = std::time::SystemTime::now() + Duration::from_secs(seconds);
    let expires = humantime::format_rfc3339(expires).to_string();
    Fault::edit(move |json| json["expireTime"] = json!(expires))
}

async fn impersonating(setup: &Setup) -> Sidecar {
    let target = setup.address("target");
    setup
        .sidecar(&["--impersonate-service-account", &target])
        .await
}

#[tokio::test]
async fn an_expiring_impersonated_token_is_used_while_it_is_refreshed() {
    let setup = Setup::new().await;
    let gate = Gate::new();
    let held = Fault::none().behind(&gate);
    setup
        .google
        .script(Endpoint::GenerateAccessToken, [valid_for(100), held]);
    let sidecar = impersonating(&setup).await;
    for _ in 0..3 {
        assert_eq!(proxied(sidecar.proxy(), API, &[]).await.status(), 200);
    }
    setup.google.arrived(Endpoint::GenerateAccessToken, 2).await;
    let sent = setup.google.requests(Endpoint::Api);
    assert!(sent.iter().all(|call| call.bearer() == sent[0].bearer()));
    gate.open();
    assert_eq!(setup.google.count(Endpoint::GenerateAccessToken), 2);
}

#[tokio::test]
async fn an_impersonated_token_is_used_while_it_cannot_be_refreshed() {
    let setup = Setup::new().await;
    setup
        .google
        .script(Endpoint::GenerateAccessToken, [valid_for(100)]);
    setup.google.always(
        Endpoint::GenerateAccessToken,
        Fault::api(403, "PERMISSION_DENIED", "no"),
    );
    let sidecar = impersonating(&setup).await;
    for _ in 0..4 {
        assert_eq!(proxied(sidecar.proxy(), API, &[]).await.status(), 200);
    }
    setup.google.arrived(Endpoint::GenerateAccessToken, 2).await;
    assert_eq!(proxied(sidecar.proxy(), API, &[]).await.status(), 200);
}

#[tokio::test]
async fn an_impersonated_token_that_the_upstream_rejects_is_replaced_once() {
    let setup = Setup::new().await;
    setup.google.script(Endpoint::Api, [Fault::status(401, "")]);
    let sidecar = impersonating(&setup).await;
    assert_eq!(proxied(sidecar.proxy(), API, &[]).await.status(), 200);
    assert_eq!(setup.google.count(Endpoint::GenerateAccessToken), 2);
    let sent = setup.google.requests(Endpoint::Api);
    assert_eq!(sent.len(), 2);
    assert_ne!(sent[0].bearer(), sent[1].bearer());
}
