//! gRPC from outside: a tonic client, the real binary, and a service behind TLS that speaks HTTP/2 and permits 100
//! streams per connection.

// A failed assertion must name the place and the value.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used)]

mod client;
mod echo;
mod errors;
mod kinds;
mod lifetime;
#[path = "../support/mod.rs"]
mod support;

use client::Client;
use echo::Echo;
use support::metadata::{Answer, Kind, Metadata};
use support::sidecar::Sidecar;

/// The URL of every call. It gets an ID token.
const HOST: &str = "svc.a.run.app";

/// The servers of a test, which run until this is dropped.
struct Setting {
    service: Echo,
    metadata: Metadata,
    sidecar: Sidecar,
}

async fn started(args: &[&str]) -> Setting {
    let service = Echo::start().await;
    let metadata = Metadata::start().await;
    metadata.script(Kind::Access, [Answer::access("T1", 3600)]);
    metadata.script(Kind::Identity, [Answer::identity(3600)]);
    let flags = service.flags();
    let route = format!("127.0.0.1:0=https://{HOST}");
    let args: Vec<&str> = flags
        .iter()
        .map(String::as_str)
        .chain(["--route", &route, "--log-level", "info"])
        .chain(args.iter().copied())
        .collect();
    let sidecar = Sidecar::start(&metadata, &args).await;
    Setting {
        service,
        metadata,
        sidecar,
    }
}

impl Setting {
    /// Returns a client through the forward proxy's port, with prior knowledge of HTTP/2.
    fn proxied(&self) -> Client {
        Client::new(self.sidecar.proxy(), &format!("http://{HOST}"))
    }

    /// Returns a client of the route.
    fn routed(&self) -> Client {
        let address = self.sidecar.address("127.0.0.1:0");
        Client::new(address, &format!("http://{address}"))
    }
}
