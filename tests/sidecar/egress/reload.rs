//! A reload that changes the upstream proxy.

use super::*;

#[tokio::test]
async fn sighup_changes_the_upstream_proxy() {
    let plain = Honest::start(Manner::default()).await;
    let (one, other) = (
        Proxy::to(plain.address).await,
        Proxy::to(plain.address).await,
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sidentity.yaml");
    std::fs::write(&file, format!("upstream_proxy: {}\n", one.url())).unwrap();
    let metadata = metadata().await;
    let sidecar = Sidecar::start(&metadata, &["--config", file.to_str().unwrap()]).await;
    let url = format!("http://{}/", plain.address);
    let call = async || assert_eq!(proxied(sidecar.proxy(), &url, &[]).await.status(), 200);
    let reload = async |yaml: String| {
        std::fs::write(&file, yaml).unwrap();
        let before = sidecar.log().len();
        sidecar.signal("HUP");
        let ended = |line: &serde_json::Value| {
            let message = line["message"].as_str().unwrap_or_default();
            message.starts_with("reloaded: ") || message.starts_with("reload failed")
        };
        let line = sidecar.logged_since(before, ended).await;
        line["message"].as_str().unwrap().starts_with("reloaded")
    };
    call().await;
    assert_eq!(one.asked().len(), 1);
    // The same proxy on another line keeps the connection.
    assert!(reload(format!("unmatched: pass\nupstream_proxy: {}\n", one.url())).await);
    call().await;
    let connections: Vec<_> = one.asked().iter().map(|asked| asked.connection).collect();
    assert_eq!(connections, [0, 0]);
    assert!(reload(format!("upstream_proxy: {}\n", other.url())).await);
    call().await;
    assert_eq!((one.asked().len(), other.asked().len()), (2, 1));
    // An invalid file changes nothing.
    assert!(!reload("upstream_proxy: socks5://p.example:1080\n".to_owned()).await);
    call().await;
    assert_eq!((one.asked().len(), other.asked().len()), (2, 2));
    assert!(reload("upstream_proxy: off\n".to_owned()).await);
    call().await;
    assert_eq!((one.asked().len(), other.asked().len()), (2, 2));
    assert_eq!(plain.seen().len(), 5);
}

#[tokio::test]
async fn sighup_changes_the_proxy_for_token_endpoints() {
    let service = issuer().await;
    let one = Proxy::to(service.address()).await;
    let other = Proxy::to(service.address()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sidentity.yaml");
    let write = |proxy: &Proxy, host: &str| {
        let target = "runner@example-project.iam.gserviceaccount.com";
        let yaml = format!(
            "upstream_proxy: {}\nrules:\n  - host: {host}\n    credential: access\n    scopes: [\"https://{host}/\"]\n    \
             impersonate: {target}\n",
            proxy.url()
        );
        std::fs::write(&file, yaml).unwrap();
    };
    write(&one, "one.example.com");
    let metadata = metadata().await;
    let ca = service.ca().to_str().unwrap().to_owned();
    let args = ["--config", file.to_str().unwrap(), "--upstream-ca", &ca];
    let sidecar = Sidecar::start(&metadata, &args).await;
    let response = proxied(sidecar.proxy(), "http://one.example.com/", &[]).await;
    assert_eq!(response.status(), 200, "{}", text(&response));
    let before = sidecar.log().len();
    write(&other, "other.example.com");
    sidecar.signal("HUP");
    let reloaded = |line: &serde_json::Value| {
        let message = line["message"].as_str().unwrap_or_default();
        message.starts_with("reloaded: ")
    };
    sidecar.logged_since(before, reloaded).await;
    let response = proxied(sidecar.proxy(), "http://other.example.com/", &[]).await;
    assert_eq!(response.status(), 200, "{}", text(&response));
    for (proxy, host) in [(&one, "one"), (&other, "other")] {
        let expected = [
            "CONNECT iamcredentials.googleapis.com:443".to_owned(),
            format!("CONNECT {host}.example.com:443"),
        ];
        assert_eq!(proxy.lines(), expected);
    }
}
