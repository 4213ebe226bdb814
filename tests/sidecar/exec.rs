//! `sidentity exec`: runs a command with a sidecar.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

use super::support::app::proxied;
use super::support::metadata::{Answer, Kind, Metadata};
use super::support::service::Service;

/// Set if this test binary is the command that `exec` runs.
pub(super) const CHILD: &str = "SIDECAR_TEST_CHILD";

/// Set if it calls without a password, like Java. Its value is the parent that must have ended first, if any.
const JAVA: &str = "SIDECAR_TEST_JAVA";

/// Longer than any step takes.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The variables of a child's certificates.
const CERTIFICATES: [&str; 11] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "NPM_CONFIG_CAFILE",
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "DENO_CERT",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
];

/// A running `exec` whose child reads its standard input to the end.
struct Running {
    child: std::process::Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Returns the child's next line.
    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.unwrap().success());
    }

    /// Ends the child's input, and returns the exit status of `exec`.
    fn end(&mut self) -> Option<i32> {
        drop(self.child.stdin.take());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a condition is true.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < TIMEOUT, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

/// Makes one call without a password through a proxy. Returns the first line of the response.
fn passwordless(proxy: &str) -> String {
    let mut stream = TcpStream::connect(proxy).unwrap();
    let request = "GET http://storage.googleapis.com/b HTTP/1.1\r\nHost: storage.googleapis.com\r\n\
                   Connection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    text(&answer).lines().next().unwrap_or_default().to_owned()
}

/// Returns the port in `JAVA_TOOL_OPTIONS`.
fn java_port(options: &str) -> u16 {
    let mut options = options.split(' ');
    let port = options.find_map(|option| option.strip_prefix("-Dhttps.proxyPort="));
    port.unwrap().parse().unwrap()
}

/// Returns `sidentity exec` for these two servers. The caller adds `--` and the command.
pub(super) fn exec(metadata: &Metadata, service: &Service) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidentity"));
    command
        .arg("exec")
        .args(service.flags())
        .env("GCE_METADATA_HOST", metadata.address().to_string())
        .env_remove("JAVA_TOOL_OPTIONS")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // The sidecar would use these proxies.
    for name in ["HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"] {
        command.env_remove(name);
    }
    command
}

pub(super) async fn world() -> (Metadata, Service) {
    let metadata = Metadata::start().await;
    metadata.script(Kind::Access, [Answer::access("T1", 3600)]);
    metadata.script(Kind::Identity, [Answer::identity(3600)]);
    (metadata, Service::start().await)
}

pub(super) async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The child: an app that reads proxies and certificates only from its environment, without code for Google Cloud.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let variable = |name: &str| std::env::var_os(name).unwrap().into_string().unwrap();
    let url: Uri = variable("HTTPS_PROXY").parse().unwrap();
    let authority = url.authority().unwrap().as_str();
    let (userinfo, proxy) = authority.split_once('@').expect("a proxy with credentials");
    let credentials: Vec<u8> = percent_encoding::percent_decode_str(userinfo).collect();
    let mut stream = TcpStream::connect(proxy).unwrap();
    let credentials = STANDARD.encode(credentials);
    let host = "storage.googleapis.com";
    write!(
        stream,
        "CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\nProxy-Authorization: Basic {credentials}\r\n\r\n"
    )
    .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", text(&head));
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(variable("SSL_CERT_FILE")).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host).unwrap();
    let mut session = rustls::ClientConnection::new(Arc::new(tls), name).unwrap();
    let mut tls = rustls::Stream::new(&mut session, &mut stream);
    write!(
        tls,
        "GET /b HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    let _ = tls.read_to_end(&mut answer);
    println!("{}", text(&answer));
}

/// The child that calls without a password, like Java.
#[test]
fn java() {
    let Some(parent) = std::env::var_os(JAVA) else {
        return;
    };
    until("its parent is gone", || {
        parent.is_empty() || *std::os::unix::process::parent_id().to_string() != *parent
    });
    let variable = |name: &str| std::env::var_os(name).unwrap().into_string().unwrap();
    let port = java_port(&variable("JAVA_TOOL_OPTIONS"));
    println!("java {}", passwordless(&format!("127.0.0.1:{port}")));
    let proxy = variable("HTTP_PROXY");
    println!("others {}", passwordless(proxy.rsplit('@').next().unwrap()));
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn java_needs_no_password_but_other_callers_do() {
    let (metadata, service) = world().await;
    let itself = std::env::current_exe().unwrap();
    let call = format!("{} exec::java --exact --nocapture", itself.display());
    // The command itself, a process that it starts, and a process that outlives its parent.
    for script in [
        format!("{JAVA}= exec {call}"),
        format!("{JAVA}= {call}; true"),
        format!("sh -c '{JAVA}=$$ {call} & true'"),
    ] {
        let script = format!("({script}) & echo $JAVA_TOOL_OPTIONS; read line; exit 5");
        let mut command = exec(&metadata, &service);
        let mut running = Running::start(command.args(["--", "sh", "-c", &script]));
        let mut port = None;
        let (mut own, mut others) = (None, None);
        while port.is_none() || own.is_none() || others.is_none() {
            let line = running.line();
            if line.contains("proxyPort") {
                port = Some(java_port(&line));
            } else if let Some(status) = line.strip_prefix("java ") {
                own = Some(status.to_owned());
            } else if let Some(status) = line.strip_prefix("others ") {
                others = Some(status.to_owned());
            }
        }
        assert_eq!(own.as_deref(), Some("HTTP/1.1 200 OK"), "{script}");
        let asked = "HTTP/1.1 407 Proxy Authentication Required";
        assert_eq!(others.as_deref(), Some(asked), "{script}");
        // This process is not a descendant of `exec`.
        let address = SocketAddr::from(([127, 0, 0, 1], port.unwrap()));
        let stranger = proxied(address, "http://storage.googleapis.com/", &[]).await;
        assert_eq!(stranger.status(), 407);
        assert_eq!(running.end(), Some(5));
    }
    assert_eq!(service.seen().len(), 3);
}

#[tokio::test]
async fn the_environment_configures_every_client() {
    let (metadata, service) = world().await;
    let mut command = exec(&metadata, &service);
    command
        .args(["--", "env"])
        .env("ALL_PROXY", "socks5://elsewhere:1080")
        .env("all_proxy", "socks5://elsewhere:1080")
        .env("NO_PROXY", "db.internal")
        .env("JAVA_TOOL_OPTIONS", "-Xmx1g")
        .env("HTTPS_PROXY", "http://elsewhere:3128");
    let output = text(&output(command).await.stdout);
    let value = |name: &str| {
        let mut lines = output.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    };
    let proxy = value("HTTP_PROXY").unwrap();
    assert!(proxy.starts_with("http://sidentity:"), "{proxy}");
    for name in ["HTTPS_PROXY", "http_proxy", "https_proxy"] {
        assert_eq!(value(name), Some(proxy), "{name}");
    }
    for name in ["ALL_PROXY", "all_proxy"] {
        assert_eq!(value(name), None, "{name}");
    }
    for name in ["NO_PROXY", "no_proxy"] {
        let list: Vec<_> = value(name).unwrap().split(',').collect();
        for host in [
            "db.internal",
            "localhost",
            "127.0.0.1",
            "::1",
            "metadata.google.internal",
            "169.254.169.254",
        ] {
            assert!(list.contains(&host), "{host} in {list:?}");
        }
    }
    assert_eq!(value("NODE_USE_ENV_PROXY"), Some("1"));
    let folder = Path::new(value("SSL_CERT_FILE").unwrap()).parent().unwrap();
    for name in CERTIFICATES {
        let path = Path::new(value(name).unwrap());
        assert_eq!(path.parent(), Some(folder), "{name}");
    }
    let java = value("JAVA_TOOL_OPTIONS").unwrap();
    assert!(
        java.starts_with("-Xmx1g -Dhttp.proxyHost=127.0.0.1 "),
        "{java}"
    );
    let store = folder.join("truststore.p12");
    assert!(
        java.contains(&format!("-Djavax.net.ssl.trustStore={}", store.display())),
        "{java}"
    );
}

#[tokio::test]
async fn an_app_that_uses_https_gets_its_identity() {
    let (metadata, service) = world().await;
    let mut command = exec(&metadata, &service);
    command
        .arg("--")
        .arg(std::env::current_exe().unwrap())
        .args(["exec::child", "--exact", "--nocapture"])
        .env(CHILD, "1");
    let output = output(command).await;
    assert!(text(&output.stdout).contains("hello"), "{output:?}");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(service.only().header("authorization"), Some("Bearer T1"));
}

#[tokio::test]
async fn a_password_cannot_change_the_host_of_the_proxy_url() {
    let (metadata, service) = world().await;
    for credentials in [
        "proxy.example:1#rest",
        "user@proxy.example:pass",
        "u:a@proxy.example:1/b?c",
        "u:p:q",
        "j\u{fc}rgen:100%25 s\u{fc}\u{df}",
    ] {
        let mut command = exec(&metadata, &service);
        command
            .args(["--proxy-auth", credentials, "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["exec::child", "--exact", "--nocapture"])
            .env(CHILD, "1");
        let output = output(command).await;
        assert!(
            text(&output.stdout).contains("hello"),
            "{credentials}: {output:?}"
        );
    }
}

#[tokio::test]
async fn exec_ends_with_the_status_of_the_command() {
    let (metadata, service) = world().await;
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain.txt");
    std::fs::write(&plain, "no program").unwrap();
    for (arguments, status) in [
        (vec!["sh", "-c", "exit 0"], 0),
        (vec!["sh", "-c", "exit 7"], 7),
        (vec!["sh", "-c", "kill -TERM $$"], 128 + 15),
        (vec!["sh", "-c", "kill -KILL $$"], 128 + 9),
        (vec!["no-such-command-here"], 127),
        (vec![plain.to_str().unwrap()], 126),
    ] {
        let mut command = exec(&metadata, &service);
        command.arg("--").args(&arguments);
        let output = output(command).await;
        assert_eq!(
            output.status.code(),
            Some(status),
            "{arguments:?}: {output:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_signal_that_can_be_caught_reaches_the_command() {
    const NAMES: [&str; 12] = [
        "HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "ALRM", "CONT", "TSTP", "WINCH", "URG",
        "PROF",
    ];
    let (metadata, service) = world().await;
    // A shell cannot trap a signal that it ignored from its start, as when the tests run under nohup(1).
    let is_usable = |name: &&&str| **name != "HUP" || !ignores_hangups();
    let traps: String = NAMES
        .iter()
        .filter(is_usable)
        .map(|name| format!("trap 'echo {name}' {name}; "))
        .collect();
    let script = format!("{traps} trap 'exit 3' IO; echo ready; while :; do sleep 0.02; done");
    let mut command = exec(&metadata, &service);
    let mut running = Running::start(command.args(["--", "sh", "-c", &script]));
    assert_eq!(running.line(), "ready");
    for name in NAMES.iter().filter(is_usable) {
        running.signal(name);
        assert_eq!(running.line(), *name);
    }
    running.signal("IO");
    assert_eq!(running.end(), Some(3));
}

/// Returns whether this process ignores SIGHUP (proc_pid_status(5)).
fn ignores_hangups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_ends_no_command_under_nohup() {
    let (metadata, service) = world().await;
    let plain = exec(&metadata, &service);
    let mut command = Command::new("nohup");
    command.arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.args(["--", "sh", "-c", "kill -HUP $$; echo alive"]);
    command.stdin(Stdio::null());
    let output = output(command).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "alive\n");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_command_can_be_stopped_and_continued() {
    let (metadata, service) = world().await;
    let mut command = exec(&metadata, &service);
    // It needs its own process group, because SIGTSTP has no effect in an orphaned group.
    command.process_group(0);
    let mut running = Running::start(command.args(["--", "sh", "-c", "echo $$; read line"]));
    let child = running.line();
    let is_stopped = || {
        let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap();
        state.rsplit(") ").next().unwrap().starts_with('T')
    };
    running.signal("TSTP");
    until("it stops", is_stopped);
    running.signal("CONT");
    until("it goes on", || !is_stopped());
    // This is the end of its input.
    assert_eq!(running.end(), Some(1));
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn orphans_of_the_command_are_reaped() {
    let (metadata, service) = world().await;
    let mut command = exec(&metadata, &service);
    let script = "sh -c 'sleep 0.3 >&- & echo $!'; read line";
    let mut running = Running::start(command.args(["--", "sh", "-c", script]));
    let orphan = PathBuf::from(format!("/proc/{}", running.line()));
    let parent = format!("PPid:\t{}\n", running.child.id());
    until("it is adopted", || {
        let status = std::fs::read_to_string(orphan.join("status"));
        status.map_or(true, |status| status.contains(&parent))
    });
    until("it is reaped", || !orphan.exists());
    running.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn others_cannot_use_the_proxy_and_no_secret_is_on_disk() {
    let (metadata, service) = world().await;
    // The directories that a process may write to by default.
    let place = tempfile::tempdir().unwrap();
    let mut command = exec(&metadata, &service);
    for name in ["HOME", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME"] {
        command.env(name, place.path());
    }
    let script = "echo $HTTP_PROXY; echo $SSL_CERT_FILE; read line; exit 6";
    command.current_dir(&place).args(["--", "sh", "-c", script]);
    let mut running = Running::start(&mut command);
    let (proxy, bundle) = (running.line(), running.line());
    let (credentials, address) = proxy.rsplit_once('@').unwrap();
    let address = address.parse().unwrap();
    let password = credentials.rsplit(':').next().unwrap();
    assert!(password.len() >= 32, "{password}");
    for headers in [
        &[][..],
        &[("proxy-authorization", "Basic c2lkZW50aXR5Og==")],
    ] {
        let url = "http://storage.googleapis.com/";
        assert_eq!(proxied(address, url, headers).await.status(), 407);
    }
    let folder = Path::new(&bundle).parent().unwrap();
    assert_eq!(folder.parent().unwrap(), place.path());
    let about = std::fs::metadata(folder).unwrap();
    assert_eq!(about.permissions().mode() & 0o777, 0o700);
    assert_eq!(about.uid(), std::fs::metadata(&place).unwrap().uid());
    let written = files(place.path());
    let names: Vec<_> = written
        .iter()
        .map(|path| path.strip_prefix(folder).unwrap().to_str().unwrap())
        .collect();
    assert_eq!(names, ["bundle.pem", "ca.pem", "truststore.p12", "wgetrc"]);
    for path in &written {
        let bytes = std::fs::read(path).unwrap();
        for private in [
            b"PRIVATE KEY".as_slice(),
            password.as_bytes(),
            // Keys of P-256 in DER (PKCS #8 and SEC 1), and the PKCS #12 bag that contains keys.
            b"\x02\x01\x01\x04\x20",
            b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x02",
        ] {
            let found = bytes.windows(private.len()).any(|part| part == private);
            assert!(!found, "{}", path.display());
        }
    }
    assert_eq!(running.end(), Some(6));
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
    assert!(service.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_files_are_left_when_the_command_ends_or_cannot_start() {
    let (metadata, service) = world().await;
    let place = tempfile::tempdir().unwrap();
    let started = |arguments: &[&str]| {
        let mut command = exec(&metadata, &service);
        command.env("XDG_RUNTIME_DIR", place.path());
        Running::start(command.args(arguments))
    };
    let script = "trap 'sleep 0.1; exit 9' TERM; echo ready; while :; do sleep 0.02; done";
    let mut running = started(&["--", "sh", "-c", script]);
    assert_eq!(running.line(), "ready");
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 1);
    running.signal("TERM");
    assert_eq!(running.end(), Some(9));
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
    for (arguments, status) in [
        (&["--", "no-such-command-here"][..], 127),
        (&["--proxy", "off", "--", "true"], 64),
        (&["--workers", "many", "--", "true"], 64),
    ] {
        assert_eq!(started(arguments).end(), Some(status), "{arguments:?}");
        assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_exec_while_it_reads_its_configuration() {
    let (metadata, service) = world().await;
    let place = tempfile::tempdir().unwrap();
    let pipe = place.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let folder = tempfile::tempdir().unwrap();
    for (signal, status) in [("TERM", 143), ("INT", 130)] {
        let mut command = exec(&metadata, &service);
        command.env("XDG_RUNTIME_DIR", folder.path());
        let arguments = ["--config", pipe.to_str().unwrap(), "--", "true"];
        let mut running = Running::start(command.args(arguments));
        // Signals are caught before the directory is created.
        until("the folder is there", || {
            std::fs::read_dir(&folder).unwrap().count() == 1
        });
        running.signal(signal);
        until("the signal ends it", || {
            running.child.try_wait().unwrap().is_some()
        });
        assert_eq!(running.end(), Some(status), "{signal}");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn without_interception_the_command_keeps_its_own_certificates() {
    let (metadata, service) = world().await;
    let mut command = exec(&metadata, &service);
    let script = "echo ${HTTP_PROXY:+proxied} ${SSL_CERT_FILE:-its own}";
    command
        .env_remove("SSL_CERT_FILE")
        .args(["--intercept=false", "--", "sh", "-c", script]);
    let output = output(command).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "proxied its own\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chosen_proxy_password_is_required_and_off_requires_none() {
    let (metadata, service) = world().await;
    for (auth, credentials, status) in [
        ("app:s3cret", "app:s3cret@", 407),
        ("random", "sidentity:", 407),
        ("off", "", 200),
    ] {
        let mut command = exec(&metadata, &service);
        let script = "echo $HTTP_PROXY; read line";
        let arguments = ["--proxy-auth", auth, "--", "sh", "-c", script];
        let mut running = Running::start(command.args(arguments));
        let proxy = running.line();
        let rest = proxy.strip_prefix("http://").unwrap();
        assert!(rest.starts_with(credentials), "{proxy}");
        let address = rest.rsplit('@').next().unwrap().parse().unwrap();
        let answer = proxied(address, "http://storage.googleapis.com/", &[]).await;
        assert_eq!(answer.status(), status, "{auth}");
        running.end();
    }
}
