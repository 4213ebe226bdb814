//! The real binary on free ports, with a scripted metadata server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::app::{get, text};
use super::metadata::Metadata;

/// Longer than any step takes. A test that waits this long has failed.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A running sidecar. It is killed when the test ends.
pub struct Sidecar {
    child: Child,
    log: Arc<Mutex<Vec<Value>>>,
    lines: watch::Receiver<usize>,
}

impl Sidecar {
    /// Starts `sidentity run` with these arguments, in addition to those of every test, and waits until it listens.
    pub async fn start(metadata: &Metadata, args: &[&str]) -> Self {
        Self::start_with(metadata, args, &[]).await
    }

    /// Like [`start`](Self::start), with environment variables.
    pub async fn start_with(metadata: &Metadata, args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::spawn(&[], metadata, args, env).await
    }

    /// Like [`start_with`](Self::start_with), through a program that executes its arguments.
    pub async fn start_under(program: &[&str], metadata: &Metadata, args: &[&str]) -> Self {
        Self::spawn(program, metadata, args, &[]).await
    }

    async fn spawn(
        program: &[&str],
        metadata: &Metadata,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Self {
        let line = [program, &[env!("CARGO_BIN_EXE_sidentity")]].concat();
        let mut command = Command::new(line[0]);
        command
            .args(&line[1..])
            .args(["run", "--log-format", "json"])
            .args(args)
            .env_clear()
            .env("GCE_METADATA_HOST", metadata.address().to_string())
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        for (flag, value) in [
            ("--admin", "127.0.0.1:0"),
            ("--proxy", "127.0.0.1:0"),
            ("--log-level", "debug"),
        ] {
            if !args.contains(&flag) {
                command.args([flag, value]);
            }
        }
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::<Mutex<Vec<Value>>>::default();
        let (count, lines) = watch::channel(0);
        let written = log.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                written.lock().unwrap().push(value);
                count.send_modify(|count| *count += 1);
            }
        });
        let sidecar = Self { child, log, lines };
        sidecar.logged(|line| line["listener"] == "admin").await;
        sidecar
    }

    /// Waits for a line of the log.
    pub async fn logged(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        self.logged_since(0, wanted).await
    }

    /// Like [`logged`](Self::logged), after this number of lines.
    pub async fn logged_since(&self, before: usize, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut lines = self.lines.clone();
        let found = async {
            loop {
                let log = self.log();
                if let Some(line) = log.iter().skip(before).find(|line| wanted(line)) {
                    return line.clone();
                }
                lines.changed().await.unwrap_or_else(|_| {
                    panic!("the sidecar ended without that line: {:#?}", self.log())
                });
            }
        };
        tokio::time::timeout(TIMEOUT, found)
            .await
            .unwrap_or_else(|_| panic!("that line was not logged: {:#?}", self.log()))
    }

    /// Waits until the metrics contain this line. A request is recorded shortly after its response.
    pub async fn counted(&self, line: &str) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let metrics = get(self.admin(), "/metrics").await;
            let metrics = text(&metrics);
            if metrics.lines().any(|counted| counted == line) {
                return;
            }
            assert!(Instant::now() < deadline, "{line} is not in {metrics}");
        }
    }

    /// Returns the log so far.
    pub fn log(&self) -> Vec<Value> {
        self.log.lock().unwrap().clone()
    }

    /// Returns the address of a listener: `proxy`, `admin`, or a route by its name.
    pub fn address(&self, listener: &str) -> SocketAddr {
        self.log()
            .iter()
            .find(|line| line["listener"] == listener && line["address"].is_string())
            .and_then(|line| {
                let address = line["address"].as_str()?.trim_start_matches("http://");
                address.split('/').next()?.parse().ok()
            })
            .unwrap_or_else(|| panic!("no listener {listener}: {:#?}", self.log()))
    }

    /// Returns the forward proxy's address.
    pub fn proxy(&self) -> SocketAddr {
        self.address("proxy")
    }

    /// Returns the admin port's address.
    pub fn admin(&self) -> SocketAddr {
        self.address("admin")
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().expect("running").to_string();
        let status = std::process::Command::new("kill")
            .args([&format!("-{name}"), &id])
            .status();
        assert!(status.unwrap().success());
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("running")
    }

    /// Waits for the end of the process.
    pub async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(TIMEOUT, self.child.wait())
            .await
            .expect("the sidecar did not end")
            .unwrap()
    }

    /// Returns the peak resident memory in KiB.
    pub fn peak_memory(&self) -> u64 {
        let status = PathBuf::from(format!("/proc/{}/status", self.pid()));
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let digits = line.unwrap().split_whitespace().nth(1).unwrap();
        digits.parse().unwrap()
    }
}
