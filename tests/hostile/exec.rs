//! Other users of the machine who attack the listeners of `sidentity exec`, while its command makes calls.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::flood::{Flood, Reading};
use super::observe::{BETWEEN_PROBES, LATENCY, descriptors, memory, probe, upstream};
use super::support::metadata::Metadata;
use super::wire::PREFACE;
use super::{ALONE, started};

/// The variable with the upstream's address. It makes this test binary act as the command of `exec`.
const UPSTREAM: &str = "HOSTILE_TEST_UPSTREAM";

/// The command's calls on each port.
const CALLS: usize = 40;

/// The limits of resident memory in MiB, and of descriptors.
const PEAK: u64 = 64;
const DESCRIPTORS: usize = 400;

/// A running `exec`, and the output of its command.
struct Running {
    exec: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Running {
    /// Starts `exec`, and returns the ports of the proxy, the one for Java last. The command then waits for a line.
    fn start(metadata: &Metadata) -> (Self, [SocketAddr; 2]) {
        let mut exec = Command::new(env!("CARGO_BIN_EXE_sidentity"))
            .args(["exec", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["exec::command", "--exact", "--nocapture"])
            .env("GCE_METADATA_HOST", metadata.address().to_string())
            .env(UPSTREAM, upstream().to_string())
            .env_remove("JAVA_TOOL_OPTIONS")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(exec.stdout.take().unwrap()).lines();
        let mut running = Self { exec, lines };
        let ports = running.line("ports ");
        let mut ports = ports.split(' ').map(|port| port.parse().unwrap());
        let ports = [ports.next().unwrap(), ports.next().unwrap()];
        (running, ports)
    }

    /// Returns the next line with this prefix.
    fn line(&mut self, start: &str) -> String {
        loop {
            let line = self.lines.next().expect("the command has ended").unwrap();
            if let Some(rest) = line.strip_prefix(start) {
                return rest.to_owned();
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.exec.kill();
        let _ = self.exec.wait();
    }
}

/// Acts as the command: calls by the proxy's URL, and without its password, like Java.
#[test]
fn command() {
    if std::env::var_os(UPSTREAM).is_none() {
        return;
    }
    let variable = |name: &str| std::env::var_os(name).unwrap().into_string().unwrap();
    let upstream = variable(UPSTREAM);
    let url = variable("HTTP_PROXY");
    let (credentials, proxy) = url
        .strip_prefix("http://")
        .unwrap()
        .split_once('@')
        .unwrap();
    let java = variable("JAVA_TOOL_OPTIONS");
    let port = java
        .split(' ')
        .find_map(|option| option.strip_prefix("-Dhttp.proxyPort="));
    let java = format!("127.0.0.1:{}", port.unwrap());
    println!("ports {proxy} {java}");
    let _ = std::io::stdin().lock().read_line(&mut String::new());
    let credentials = base64(credentials.as_bytes());
    for (address, fields) in [
        (
            proxy,
            format!("Proxy-Authorization: Basic {credentials}\r\n"),
        ),
        (&*java, String::new()),
    ] {
        let request = format!(
            "GET http://{upstream}/ HTTP/1.1\r\nHost: {upstream}\r\nConnection: close\r\n{fields}\r\n"
        );
        let (mut slowest, mut failed) = (Duration::ZERO, String::new());
        for _ in 0..CALLS {
            let began = Instant::now();
            if let Err(error) = probe(address.parse().unwrap(), &request) {
                let _ = write!(failed, "after {:?}: {error}; ", began.elapsed());
            }
            slowest = slowest.max(began.elapsed());
            std::thread::sleep(BETWEEN_PROBES);
        }
        println!("slowest {}", slowest.as_millis());
        println!("failed {failed}");
    }
    // The test measures the process now.
    let _ = std::io::stdin().lock().read_line(&mut String::new());
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Attacks both ports while the command makes its calls.
async fn attacked(scenario: &str, attack: impl FnOnce(&mut Flood, [SocketAddr; 2])) {
    let _alone = ALONE.lock().await;
    let (metadata, sidecar) = started(&[]).await;
    drop(sidecar);
    let (mut running, ports) = Running::start(&metadata);
    let mut flood = Flood::new();
    attack(&mut flood, ports);
    flood.written(Duration::from_secs(2)).await;
    let pid = running.exec.id();
    writeln!(running.exec.stdin.as_mut().unwrap()).unwrap();
    let lines = tokio::task::spawn_blocking(move || {
        let mut line = |start| running.line(start);
        let lines = [(); 2].map(|()| (line("slowest "), line("failed ")));
        (running, lines)
    });
    let mut most = 0;
    while !lines.is_finished() {
        most = most.max(descriptors(pid));
        tokio::time::sleep(BETWEEN_PROBES).await;
    }
    let (mut running, lines) = lines.await.unwrap();
    let peak = memory(pid, "VmHWM:");
    eprintln!("{scenario}: peak {peak} MiB, {most} descriptors");
    assert!(peak < PEAK, "{scenario}: {peak} MiB");
    assert!(most <= DESCRIPTORS, "{scenario}: {most} descriptors");
    for (port, (slowest, failed)) in ["proxy", "Java"].into_iter().zip(lines) {
        eprintln!("{scenario}, {port}: slowest {slowest} ms, failed: {failed}");
        assert_eq!(failed, "", "{scenario}, {port}");
        let slowest = Duration::from_millis(slowest.parse().unwrap());
        assert!(slowest < LATENCY, "{scenario}, {port}: {slowest:?}");
    }
    drop(flood);
    // A killed process would leave its directory behind.
    drop(running.exec.stdin.take());
    assert!(running.exec.wait().unwrap().success(), "{scenario}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn silent_unauthenticated_clients_of_the_ports_of_exec() {
    attacked("silent strangers", |flood, ports| {
        for port in ports {
            flood.open(port, 300, Reading::Nothing, PREFACE[..9].to_vec());
        }
    })
    .await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn unauthenticated_clients_that_reconnect_to_the_ports_of_exec() {
    attacked("strangers that come back", |flood, ports| {
        let request = b"GET http://a.example.com/ HTTP/1.1\r\nHost: a.example.com\r\n\r\n";
        for port in ports {
            flood.churn(port, 100, request.as_slice());
        }
    })
    .await;
}
