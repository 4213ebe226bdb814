//! The limit of idle connections to all upstreams together.

use sidentity::config::HttpVersion;
use sidentity::destination::Scheme;
use sidentity::upstream::Target;

use crate::client::{Client, Setting, target};
use crate::support::upstream::{Honest, Manner};

fn named(name: &str, http: HttpVersion) -> Target {
    target(Scheme::Http, &format!("{name}.example"), http)
}

async fn call(client: &Client, name: &str, http: HttpVersion) {
    client.get(&named(name, http), "/").await.unwrap();
}

#[tokio::test]
async fn over_the_cap_the_least_recently_used_idle_connection_is_closed() {
    for http in [HttpVersion::Http1, HttpVersion::Http2] {
        let server = Honest::start(Manner::default()).await;
        let client = Setting::new(server.address, None)
            .with(|setting| setting.config.max_idle = 2)
            .client();
        for name in ["a", "b", "a", "c"] {
            call(&client, name, http).await;
        }
        client.connections(2).await;
        server.open(2).await;
        assert_eq!(server.accepted(), 3, "{http:?}");
        // The second was closed, because it was used before the first.
        for name in ["a", "c"] {
            call(&client, name, http).await;
        }
        assert_eq!(server.accepted(), 3, "{http:?}");
        call(&client, "b", http).await;
        assert_eq!(server.accepted(), 4, "{http:?}");
        client.connections(2).await;
    }
}

#[tokio::test]
async fn connections_in_use_do_not_count_as_idle() {
    let server = Honest::start(Manner::default()).await;
    let client = Setting::new(server.address, None)
        .with(|setting| setting.config.max_idle = 1)
        .client();
    let names = ["a", "b", "c"];
    let held = names.map(|name| {
        let target = named(name, HttpVersion::Http1);
        let sent = client.upstream.send(&target, crate::client::get("/hold"));
        tokio::spawn(async move { crate::client::whole(sent.await.unwrap()).await })
    });
    server.held(3).await;
    call(&client, "d", HttpVersion::Http1).await;
    client.connections(4).await;
    server.release();
    for held in held {
        assert_eq!(&*held.await.unwrap(), b"held");
    }
    client.connections(1).await;
    server.open(1).await;
}
