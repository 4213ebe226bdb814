//! Invented hosts, each of which needs its own token.

use std::time::{Duration, Instant};

use super::ALONE;
use super::flood::{Flood, Reading};
use super::observe::{Bounds, Observer};
use super::support::app::get;
use super::support::metadata::{Answer, Kind, Metadata, in_seconds, jwt};
use super::support::service::Service;
use super::support::sidecar::Sidecar;
use super::wire;

const BOUNDS: Bounds = Bounds {
    peak: 64,
    descriptors: 900,
};

fn route_to(host: &str) -> String {
    format!("routes:\n  - {{listen: \"127.0.0.1:0\", upstream: \"https://{host}\"}}\n")
}

/// A reload configures the route, so that its first token is due during the flood.
#[tokio::test]
async fn a_configured_route_gets_its_first_token_despite_400_invented_hosts() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sidentity.yaml");
    std::fs::write(&file, route_to("first.a.run.app")).unwrap();
    let service = Service::start().await;
    let metadata = Metadata::start().await;
    metadata.script(Kind::Access, [Answer::access("T1", 3600)]);
    let answer = Answer::with(|request| {
        let audience = request.parameter("audience").unwrap_or_default();
        let answer = Answer::ok(jwt(&audience, in_seconds(3600)));
        if audience.contains("invented") {
            return answer.after(Duration::from_secs(1));
        }
        answer
    });
    metadata.script(Kind::Identity, [answer]);
    let mut args = service.flags();
    let path = file.display().to_string();
    args.extend(["--config", &path, "--log-level", "info"].map(String::from));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let sidecar = Sidecar::start(&metadata, &args).await;
    let observer = Observer::of_proxy(&sidecar, "");

    let mut bytes = wire::preface();
    for (number, stream) in wire::streams(400).enumerate() {
        let host = format!("invented-{number}.a.run.app");
        let block = wire::get(&host, "/", &[]);
        bytes.extend(wire::headers(stream, wire::END_STREAM, &block));
    }
    let mut flood = Flood::new();
    flood.open(sidecar.proxy(), 1, Reading::All, bytes);
    // One for the first route, and those that are fetched concurrently, at least two.
    metadata.arrived(Kind::Identity, 3).await;
    observer.probes(10).await;

    std::fs::write(&file, route_to("second.a.run.app")).unwrap();
    let before = sidecar.log().len();
    sidecar.signal("HUP");
    let reloaded = |line: &serde_json::Value| line.to_string().contains("reloaded: ");
    sidecar.logged_since(before, reloaded).await;
    let began = Instant::now();
    let answer = get(sidecar.address("127.0.0.1:0"), "/").await;
    let took = began.elapsed();
    let status = answer.status();
    eprintln!("first call of a route beside 400 invented hosts: {status} after {took:?}");
    assert_eq!(status, 200, "{took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    observer.within("400 invented hosts", BOUNDS);
}
