//! The service manager: sd_notify(3), and the signals by which an instance is frozen and resumed.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use super::started;
use super::support::app::{get, proxied};
use super::support::metadata::Metadata;
use super::support::service::Service;
use super::support::sidecar::Sidecar;

const URL: &str = "http://storage.googleapis.com/";

/// The manager's end of the socket.
struct Supervisor(UnixDatagram);

impl Supervisor {
    fn bind(address: &SocketAddr) -> Self {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        Self(socket)
    }

    /// Returns the lines of the next message.
    async fn told(&self) -> Vec<String> {
        let socket = self.0.try_clone().unwrap();
        let received = tokio::task::spawn_blocking(move || {
            let mut message = [0; 4096];
            let length = socket.recv(&mut message).expect("a message");
            String::from_utf8(message[..length].to_vec()).unwrap()
        });
        received.await.unwrap().lines().map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn systemd_is_notified_of_start_reload_and_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let name = format!("sidentity-test-{}", std::process::id());
    for (address, socket) in [
        (
            SocketAddr::from_pathname(&path).unwrap(),
            path.display().to_string(),
        ),
        (
            SocketAddr::from_abstract_name(&name).unwrap(),
            format!("@{name}"),
        ),
    ] {
        let manager = Supervisor::bind(&address);
        let metadata = Metadata::start().await;
        let mut sidecar = Sidecar::start_with(&metadata, &[], &[("NOTIFY_SOCKET", &socket)]).await;
        let ready = manager.told().await;
        assert_eq!(ready[0], "READY=1");
        let status = format!(
            "STATUS=serving: proxy {}, admin {}; routes: 0",
            sidecar.proxy(),
            sidecar.admin()
        );
        assert_eq!(ready[1], status);
        assert_eq!(get(sidecar.admin(), "/startup").await.status(), 200);

        sidecar.signal("HUP");
        let reloading = manager.told().await;
        assert_eq!(reloading[0], "RELOADING=1");
        let micros: u64 = reloading[1]
            .strip_prefix("MONOTONIC_USEC=")
            .unwrap()
            .parse()
            .unwrap();
        assert!(micros > 0);
        assert_eq!(manager.told().await[0], "READY=1");

        sidecar.signal("TERM");
        assert_eq!(manager.told().await[0], "STOPPING=1");
        assert_eq!(sidecar.ended().await.code(), Some(0));
    }
}

#[tokio::test]
async fn the_systemd_watchdog_is_notified() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = Supervisor::bind(&SocketAddr::from_pathname(&path).unwrap());
    let metadata = Metadata::start().await;
    let socket = path.display().to_string();
    let env = [("NOTIFY_SOCKET", &*socket), ("WATCHDOG_USEC", "200000")];
    let _sidecar = Sidecar::start_with(&metadata, &[], &env).await;
    assert_eq!(manager.told().await[0], "READY=1");
    for _ in 0..3 {
        assert_eq!(manager.told().await, ["WATCHDOG=1"]);
    }
}

#[tokio::test]
async fn systemd_is_notified_of_an_end_requested_by_quitquitquit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = Supervisor::bind(&SocketAddr::from_pathname(&path).unwrap());
    let metadata = Metadata::start().await;
    let socket = path.display().to_string();
    let sidecar = Sidecar::start_with(
        &metadata,
        &["--quitquitquit"],
        &[("NOTIFY_SOCKET", &socket)],
    )
    .await;
    assert_eq!(manager.told().await[0], "READY=1");
    let post = http::Request::post("/quitquitquit")
        .header("host", "localhost")
        .body(bytes::Bytes::new());
    super::support::app::send(sidecar.admin(), post.unwrap()).await;
    assert_eq!(manager.told().await[0], "STOPPING=1");
}

#[tokio::test]
async fn a_missing_service_manager_does_not_stop_the_sidecar() {
    let metadata = Metadata::start().await;
    let sidecar =
        Sidecar::start_with(&metadata, &[], &[("NOTIFY_SOCKET", "/nowhere/notify")]).await;
    assert_eq!(get(sidecar.admin(), "/startup").await.status(), 200);
}

#[tokio::test]
async fn a_migrated_instance_opens_new_connections() {
    let service = Service::start().await;
    let (_metadata, sidecar) = super::started_with(&service, &[]).await;
    proxied(sidecar.proxy(), URL, &[]).await;
    sidecar.signal("TSTP");
    sidecar
        .logged(|line| {
            line["message"]
                .as_str()
                .unwrap_or("")
                .starts_with("SIGTSTP")
        })
        .await;
    assert_eq!(proxied(sidecar.proxy(), URL, &[]).await.status(), 200);
    sidecar
        .counted("sidentity_upstream_connects_total{outcome=\"ok\"} 1")
        .await;
    sidecar.signal("CONT");
    sidecar
        .logged(|line| {
            line["message"]
                .as_str()
                .unwrap_or("")
                .starts_with("SIGCONT")
        })
        .await;
    sidecar.counted("sidentity_upstream_connections 0").await;
    assert_eq!(proxied(sidecar.proxy(), URL, &[]).await.status(), 200);
    sidecar
        .counted("sidentity_upstream_connects_total{outcome=\"ok\"} 2")
        .await;
}

#[tokio::test]
async fn a_reload_does_not_delay_the_end() {
    let (_metadata, _service, mut sidecar) = started(&[]).await;
    sidecar.signal("TERM");
    sidecar
        .logged(|line| {
            line["message"]
                .as_str()
                .unwrap_or("")
                .starts_with("draining")
        })
        .await;
    sidecar.signal("HUP");
    sidecar
        .logged(|line| {
            line["message"]
                .as_str()
                .unwrap_or("")
                .starts_with("SIGHUP ignored")
        })
        .await;
    assert_eq!(sidecar.ended().await.code(), Some(0));
}

/// The file system that has the configuration does not respond: a pipe without a writer.
#[tokio::test]
async fn a_hanging_reload_does_not_block_calls_the_watchdog_or_the_exit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = Supervisor::bind(&SocketAddr::from_pathname(&path).unwrap());
    let file = folder.path().join("sidentity.yaml");
    std::fs::write(&file, "rules: []\n").unwrap();
    let metadata = Metadata::start().await;
    let socket = path.display().to_string();
    let env = [("NOTIFY_SOCKET", &*socket), ("WATCHDOG_USEC", "200000")];
    let args = ["--config", file.to_str().unwrap()];
    let mut sidecar = Sidecar::start_with(&metadata, &args, &env).await;
    let told = async |wanted: &str| while manager.told().await[0] != wanted {};
    told("READY=1").await;
    std::fs::remove_file(&file).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&file).status();
    assert!(made.unwrap().success());
    sidecar.signal("HUP");
    told("RELOADING=1").await;
    for _ in 0..3 {
        told("WATCHDOG=1").await;
    }
    assert_eq!(get(sidecar.admin(), "/readiness").await.status(), 200);
    sidecar.signal("HUP");
    sidecar
        .logged(|line| line.to_string().contains("still being read"))
        .await;
    sidecar.signal("TERM");
    assert_eq!(sidecar.ended().await.code(), Some(0));
}
