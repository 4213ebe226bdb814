//! Hosts that an app invents must not use up the permits and cache entries of those that the configuration names.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::started;
use super::support::app::{get, proxied};
use super::support::metadata::{Answer, Kind, in_seconds, jwt};

const ROUTE: &str = "127.0.0.1:0";
const API: &str = "http://storage.googleapis.com/";

#[tokio::test]
async fn a_route_gets_its_first_token_within_3_s_despite_400_invented_hosts() {
    let args = [
        "--route",
        "127.0.0.1:0=https://europe-west1-p.cloudfunctions.net",
    ];
    let (metadata, service, sidecar) = started(&args).await;
    metadata.script(
        Kind::Identity,
        [Answer::with(|request| {
            let audience = request.parameter("audience").unwrap();
            Answer::ok(jwt(&audience, in_seconds(3600))).after(Duration::from_millis(200))
        })],
    );
    let proxy = sidecar.proxy();
    let mut invented = JoinSet::new();
    for n in 0..400 {
        invented.spawn(async move {
            let url = format!("http://invented-{n}-uc.a.run.app/");
            proxied(proxy, &url, &[]).await.status()
        });
    }
    metadata.arrived(Kind::Identity, 2).await;
    // The audience depends on the function, so no token was fetched at the start.
    let start = Instant::now();
    let response = get(sidecar.address(ROUTE), "/fn").await;
    assert_eq!(response.status(), 200);
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    let start = Instant::now();
    assert_eq!(proxied(proxy, API, &[]).await.status(), 200);
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    invented.shutdown().await;
    drop(service);
}

#[tokio::test]
async fn invented_hosts_evict_no_access_token() {
    let (metadata, _service, sidecar) = started(&[]).await;
    let proxy = sidecar.proxy();
    assert_eq!(proxied(proxy, API, &[]).await.status(), 200);
    let mut invented = JoinSet::new();
    for n in 0..1_300 {
        if invented.len() == 100 {
            invented.join_next().await.unwrap().unwrap();
        }
        invented.spawn(async move {
            let url = format!("http://invented-{n}-uc.a.run.app/");
            proxied(proxy, &url, &[]).await
        });
    }
    invented.join_all().await;
    assert_eq!(proxied(proxy, API, &[]).await.status(), 200);
    assert_eq!(metadata.count(Kind::Access), 1);
}
