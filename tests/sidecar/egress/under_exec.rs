//! The upstream proxy of `sidentity exec`, read from the caller's environment.

use super::*;

/// Returns `exec` with this test binary as its command, which makes the calls of `exec::child`.
fn calling(metadata: &Metadata, service: &Service, env: &[(&str, String)]) -> Command {
    let mut command = exec(metadata, service);
    for (name, value) in env {
        command.env(name, value);
    }
    command
        .arg("--")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "exec::child", "--nocapture"])
        .env(crate::exec::CHILD, "1");
    command
}

async fn called(command: Command) -> String {
    let output = output(command).await;
    let said = lossy(&output.stderr);
    assert!(output.status.success(), "{said}{}", lossy(&output.stdout));
    said
}

#[track_caller]
fn one_line<'a>(said: &'a str, words: &str) -> &'a str {
    let lines: Vec<_> = said.lines().filter(|line| line.contains(words)).collect();
    let [line] = lines[..] else {
        panic!("{words}: not one line: {said}");
    };
    line
}

#[tokio::test]
async fn exec_adopts_the_callers_https_proxy_and_hides_its_password() {
    let (metadata, service) = world().await;
    let proxy = Proxy::asking(service.address(), "Basic dXNlcjpzM2NyZXQ=").await;
    let url = format!("http://user:s3cret@{}", proxy.address);
    let env = [("HTTPS_PROXY", url), ("NO_PROXY", "db.internal".to_owned())];
    let said = called(calling(&metadata, &service, &env)).await;
    assert!(!service.seen().is_empty());
    assert!(!proxy.lines().is_empty(), "{said}");
    let line = one_line(&said, "HTTPS_PROXY");
    let expected = format!("through HTTPS_PROXY ({}), but not db.internal", proxy.url());
    assert!(line.contains(&expected), "{line}");
    for secret in SECRETS {
        assert!(!said.contains(secret), "{said}");
    }
}

#[tokio::test]
async fn in_exec_the_callers_remote_proxy_is_not_used_for_an_upstream_on_this_machine() {
    let (metadata, service) = world().await;
    // No machine has this address, and `--connect-to` of the stage leads to loopback.
    let env = [("HTTPS_PROXY", "http://192.0.2.1:3128".to_owned())];
    called(calling(&metadata, &service, &env)).await;
    assert!(!service.seen().is_empty());
}

#[tokio::test]
async fn in_exec_an_option_overrides_the_callers_proxy() {
    let (metadata, service) = world().await;
    let trap = Port::open().await;
    let trapped = ("https_proxy", format!("http://{}", trap.address()));
    let proxy = Proxy::to(service.address()).await;
    let option = ("SIDENTITY_UPSTREAM_PROXY", proxy.url());
    let everything = ("NO_PROXY", "*".to_owned());
    let said = called(calling(
        &metadata,
        &service,
        &[trapped.clone(), option, everything],
    ))
    .await;
    assert!(!proxy.lines().is_empty(), "{said}");
    let off = ("SIDENTITY_UPSTREAM_PROXY", "off".to_owned());
    let before = service.seen().len();
    let said = called(calling(&metadata, &service, &[trapped, off])).await;
    assert!(service.seen().len() > before, "{said}");
    trap.untouched().await;
}

#[tokio::test]
async fn in_exec_an_unusable_proxy_is_reported_and_not_used() {
    let (metadata, service) = world().await;
    let env = [(
        "HTTPS_PROXY",
        "socks5://user:s3cret@proxy.example:1080".to_owned(),
    )];
    let said = called(calling(&metadata, &service, &env)).await;
    let line = one_line(&said, "HTTPS_PROXY");
    assert!(line.contains("connects to upstreams directly"), "{line}");
    assert!(
        line.contains("socks5:// proxies are not supported"),
        "{line}"
    );
    assert!(!said.contains("s3cret"), "{said}");
    assert!(!service.seen().is_empty());
}

#[tokio::test]
async fn in_exec_a_proxy_that_is_the_sidecar_itself_is_an_error() {
    let (metadata, service) = world().await;
    let free: SocketAddr = Port::open().await.address();
    let mut command = exec(&metadata, &service);
    command
        .args(["--proxy", &free.to_string(), "--", "true"])
        .env("HTTPS_PROXY", format!("http://user:s3cret@{free}"));
    let output = output(command).await;
    let said = lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("environment HTTPS_PROXY: "), "{said}");
    assert!(
        said.contains("is a listener of the sidecar itself"),
        "{said}"
    );
    assert!(!said.contains("s3cret"), "{said}");
}

#[tokio::test]
async fn a_nested_exec_goes_through_the_outer_one() {
    let (metadata, service) = world().await;
    let mut command = exec(&metadata, &service);
    command
        .args(["--", env!("CARGO_BIN_EXE_sidentity"), "exec", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "exec::child", "--nocapture"])
        .env(crate::exec::CHILD, "1");
    let said = called(command).await;
    assert_eq!(service.seen().len(), 1, "{said}");
    let line = one_line(&said, "HTTPS_PROXY");
    assert!(
        line.contains("through HTTPS_PROXY (http://127.0.0.1:"),
        "{line}"
    );
    assert!(!line.contains('@'), "{line}");
    let sent = service.seen();
    assert_eq!(authorization(&sent[0].headers), Some("Bearer T1"));
}
