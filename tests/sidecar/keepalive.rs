//! The time for which an app's connection is kept. The server runs in this process, because the test sets the time.

use std::time::Duration;

use sidentity::app::App;
use sidentity::config::{self, Env, OptionKey, RawConfig};

use super::support::metadata::Metadata;
use super::support::wire::{Port, Wire};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::test]
async fn an_idle_connection_outlives_the_connection_pools_of_apps() {
    let metadata = Metadata::start().await;
    let env: Env = [("GCE_METADATA_HOST", metadata.address().to_string())]
        .into_iter()
        .collect();
    let mut raw = RawConfig::default();
    raw.set_flag(OptionKey::Proxy, ["127.0.0.1:0".to_owned()]);
    raw.set_flag(OptionKey::Admin, ["off".to_owned()]);
    let app = App::build(config::load(&raw, &env).unwrap()).await.unwrap();
    let proxy = app.proxy_address().unwrap();
    tokio::spawn(app.run(std::future::pending()));

    let port = Port::open().await;
    let at = port.address();
    let get = format!("GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\n\r\n");
    let mut used = Wire::open(proxy).await;
    used.send(&get).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    upstream.send(OK).await;
    assert_eq!(used.message().await.1, "ok");

    used.silent().await;
    tokio::time::pause();
    tokio::time::advance(DAY).await;
    tokio::time::resume();
    used.silent().await;
    used.send(&get).await;
    // The clocks that determine the age of upstream connections have not advanced.
    upstream.head().await;
    upstream.send(OK).await;
    assert_eq!(used.message().await.1, "ok");
}
