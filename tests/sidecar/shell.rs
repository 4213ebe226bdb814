//! The command line: help, explanations, the demo, and the environment of every command.

use std::process::{Command, Output};

/// Every command, with its required arguments.
const COMMANDS: [&[&str]; 9] = [
    &["run"],
    &["exec"],
    &["explain"],
    &["token"],
    &["check"],
    &["health"],
    &["wait"],
    &["metadata-server"],
    &["demo"],
];

fn sidentity(args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sidentity"))
        .args(args)
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .unwrap()
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Copies the binary with another process. A process that writes a program cannot run it while another test has just
/// forked.
fn copy_binary(to: &std::path::Path) {
    let copied = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_sidentity"))
        .arg(to)
        .status();
    assert!(copied.unwrap().success());
}

fn explained(args: &[&str]) -> serde_json::Value {
    let output = sidentity(&[&["explain", "--json"], args].concat(), &[]);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", err(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn notes(explained: &serde_json::Value) -> String {
    explained["notes"].to_string()
}

#[test]
fn help_of_every_command_ends_with_two_examples() {
    let top: &[&str] = &[];
    for command in COMMANDS.into_iter().chain([top]) {
        let output = sidentity(&[command, &["--help"]].concat(), &[]);
        assert_eq!(output.status.code(), Some(0));
        let help = out(&output).trim_end();
        let (_, examples) = help
            .rsplit_once("\n\nExamples:\n")
            .unwrap_or_else(|| panic!("{command:?}: {help}"));
        let lines: Vec<_> = examples.lines().collect();
        assert_eq!(lines.len(), 2, "{command:?}: {examples}");
        let name = command.first().copied().unwrap_or("");
        for line in lines {
            let start = format!("  sidentity {name}");
            assert!(line.starts_with(start.trim_end()), "{line}");
        }
    }
}

#[test]
fn the_examples_in_the_help_are_valid() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["run", "check", "explain"] {
        let output = sidentity(&[command, "--help"], &[]);
        let (_, examples) = out(&output).rsplit_once("Examples:\n").unwrap();
        for line in examples.lines() {
            let mut words: Vec<_> = line
                .split_whitespace()
                .skip(1)
                .map(|word| word.trim_matches('\''))
                .collect();
            if command == "run" {
                words[0] = "check";
            }
            std::fs::write(folder.path().join("sidentity.yaml"), "proxy: 3128\n").unwrap();
            let output = Command::new(env!("CARGO_BIN_EXE_sidentity"))
                .args(words)
                .env_clear()
                .current_dir(folder.path())
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(0), "{line}: {}", err(&output));
        }
    }
}

#[test]
fn options_in_help_are_grouped_under_headings() {
    for command in ["run", "exec", "explain", "token", "check"] {
        let output = sidentity(&[command, "--help"], &[]);
        let help = out(&output);
        let mut before = 0;
        for (heading, options) in [
            (
                "Listeners:",
                &["--proxy ", "--admin ", "--allowed-host "][..],
            ),
            (
                "Routes and rules:",
                &["--route ", "--rule ", "--unmatched "],
            ),
            ("TLS interception:", &["--intercept", "--ca-dir "]),
            ("Tokens:", &["--credentials ", "--token-timeout "]),
            ("Upstreams:", &["--connect-to ", "--upstream-ca "]),
            ("Limits:", &["--max-connections ", "--max-memory "]),
            ("Logging:", &["--log-format ", "--access-log "]),
        ] {
            let at = help
                .find(&format!("\n\n{heading}\n"))
                .unwrap_or_else(|| panic!("{command}: {heading}: {help}"));
            assert!(at > before, "{command}: {heading}");
            before = at;
            let group = &help[at + 2..];
            let group = group.split("\n\n").next().unwrap();
            for option in options {
                assert!(group.contains(option), "{command}: {option} in {group}");
            }
        }
        // Only the command's own options are without a group.
        let ungrouped = help.split("\n\nOptions:\n").nth(1).unwrap();
        let ungrouped = ungrouped.split("\n\n").next().unwrap();
        let count = ungrouped.matches("--").count();
        assert!(count <= 4, "{command}: {ungrouped}");
    }
}

#[test]
fn the_usage_line_shows_the_command_as_optional() {
    let output = sidentity(&["--help"], &[]);
    let usage = out(&output).lines().find(|line| line.starts_with("Usage:"));
    assert_eq!(usage, Some("Usage: sidentity [COMMAND] [OPTIONS]"));
    assert!(!out(&output).contains("<COMMAND>"), "{}", out(&output));
}

#[test]
fn variables_of_the_quick_start_break_no_command() {
    let folder = tempfile::tempdir().unwrap();
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().to_string()
    };
    let cases: [(&[&str], i32); 8] = [
        (&["check"], 0),
        (&["explain", "https://a.run.app"], 0),
        (&["exec", "--", "true"], 0),
        (&["demo", "--once"], 0),
        // Nothing listens on the port, and no metadata server answers: these commands fail at their work, not because
        // of the environment.
        (&["health", "--admin", &port], 1),
        (&["wait", "--max", "1ms", "--admin", &port], 1),
        (&["token", "https://a.run.app"], 1),
        (
            &[
                "run",
                "--proxy",
                "off",
                "--admin",
                "off",
                "--route",
                "unix:/nowhere/at/all.sock=https://a.run.app",
            ],
            1,
        ),
    ];
    for (args, status) in cases {
        let output = Command::new(env!("CARGO_BIN_EXE_sidentity"))
            .args(args)
            .env_clear()
            .env("SIDENTITY_IMAGE", "registry/sidentity:1")
            .env("GCE_METADATA_HOST", &port)
            .env("NO_GCE_CHECK", "true")
            .env("PATH", "/usr/bin:/bin")
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert_eq!(
            output.status.code(),
            Some(status),
            "{args:?}: {}",
            err(&output)
        );
        let warned = "environment SIDENTITY_IMAGE: is not an option of sidentity and is ignored";
        assert!(err(&output).contains(warned), "{args:?}: {}", err(&output));
    }
}

#[test]
fn a_misspelt_variable_stops_every_command() {
    let url = "https://a.run.app";
    let cases: [&[&str]; 9] = [
        &["run"],
        &["exec", "--", "true"],
        &["explain", url],
        &["token", url],
        &["check"],
        &["health"],
        &["wait", "--max", "1ms"],
        &["metadata-server", "--listen", "0"],
        &["demo", "--once"],
    ];
    for args in cases {
        let output = sidentity(args, &[("SIDENTITY_ADMN", "9091")]);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {}", err(&output));
        assert_eq!(
            err(&output),
            "sidentity: environment SIDENTITY_ADMN: is not an option: did you mean SIDENTITY_ADMIN?\n",
            "{args:?}"
        );
    }
}

#[test]
fn a_url_without_a_scheme_is_explained_as_https_with_a_note() {
    for (url, destination) in [
        ("example.com", "https://example.com"),
        ("svc.a.run.app/x?y=1", "https://svc.a.run.app"),
        ("example.com:8443/x", "https://example.com:8443"),
        ("storage.googleapis.com", "https://storage.googleapis.com"),
        ("//svc.a.run.app/x", "https://svc.a.run.app"),
    ] {
        let said = explained(&[url]);
        assert_eq!(said["url"], url);
        assert_eq!(said["destination"], destination, "{url}");
        assert!(notes(&said).contains("https:// is assumed"), "{said}");
    }
    assert!(!notes(&explained(&["https://example.com"])).contains("assumed"));
}

#[test]
fn a_route_url_without_a_scheme_is_explained_as_http() {
    let route = ["--route", "8081/v1=https://svc.a.run.app"];
    for url in ["localhost:8081/v1/x", "127.0.0.1:8081/v1/x"] {
        let said = explained(&[&route[..], &[url]].concat());
        assert_eq!(said["destination"], "https://svc.a.run.app", "{said}");
        assert!(notes(&said).contains("http:// is assumed"), "{said}");
    }
}

#[test]
fn a_websocket_url_is_explained_as_its_http_request() {
    for (url, destination, note) in [
        (
            "ws://svc.a.run.app/x",
            "https://svc.a.run.app",
            "ws:// is http:// to the sidecar",
        ),
        (
            "wss://svc.a.run.app/x",
            "https://svc.a.run.app",
            "wss:// is https:// to the sidecar",
        ),
        (
            "WSS://example.com",
            "https://example.com",
            "wss:// is https:// to the sidecar",
        ),
        (
            "ws://example.com:81",
            "http://example.com:81",
            "ws:// is http:// to the sidecar",
        ),
    ] {
        let said = explained(&[url]);
        assert_eq!(said["destination"], destination, "{url}");
        assert!(notes(&said).contains(note), "{said}");
    }
    assert_eq!(explained(&["wss://svc.a.run.app/x"])["credential"], "id");
}

#[test]
fn an_invalid_url_is_an_error_that_quotes_it() {
    for url in [
        "ftp://example.com",
        "not a url",
        "mailto:jane@example.com",
        "",
        "/etc/passwd",
    ] {
        for command in ["explain", "token"] {
            let output = sidentity(&[command, url], &[]);
            assert_eq!(output.status.code(), Some(64), "{url}: {}", out(&output));
            assert_eq!(err(&output).lines().count(), 1, "{}", err(&output));
            let shown = url.split("jane@").next().unwrap().trim_end_matches(':');
            let shown = shown.trim_end_matches("://example.com");
            assert!(err(&output).contains(shown), "{url}: {}", err(&output));
        }
    }
}

#[test]
fn an_explanation_has_no_long_lines() {
    let output = sidentity(
        &["explain", "https://billing-424242.us-central1.run.app/"],
        &[],
    );
    let text = out(&output);
    for line in text.lines() {
        assert!(
            line.chars().count() <= 100,
            "{}: {line}",
            line.chars().count()
        );
    }
    // Each way to make the call begins on its own line.
    for start in [
        "how          Call http://",
        "             An https:// URL ",
        "             Or add a route: ",
    ] {
        assert!(
            text.lines().any(|line| line.starts_with(start)),
            "{start} in {text}"
        );
    }
    let how = explained(&["https://billing-424242.us-central1.run.app/"])["how"].clone();
    assert!(!how.as_str().unwrap().contains('\n'), "{how}");
}

#[test]
fn the_demo_names_the_status_page() {
    let text = super::commands::demo_until(|line| line.starts_with("In a browser"));
    let named: Vec<_> = text
        .lines()
        .filter(|line| line.contains("status page"))
        .collect();
    assert_eq!(named.len(), 2, "{text}");
    for line in named {
        assert!(line.contains("http://127.0.0.1:"), "{line}");
    }
}

/// Returns a sidecar with one route on a unix socket. It is ended after 20 s, in case it starts.
fn serving_unix(binary: &std::path::Path, socket: &str) -> Command {
    let mut command = Command::new("timeout");
    command
        .arg("20")
        .arg(binary)
        .args([
            "run",
            "--proxy",
            "off",
            "--admin",
            "off",
            "--sandbox",
            "off",
        ])
        .args(["--log-format", "text"])
        .args(["--route", &format!("unix:{socket}=https://a.run.app")])
        .env_clear()
        .env("NO_GCE_CHECK", "true")
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/");
    command
}

/// As root, the test runs the sidecar as another user.
#[test]
fn a_unix_socket_that_cannot_be_created_is_an_error_with_the_reason() {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65_534;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let root = rustix::process::geteuid().is_root();
    for (name, mode) in [("closed", 0o600), ("readonly", 0o555)] {
        let path = folder.path().join(name);
        std::fs::DirBuilder::new().mode(mode).create(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    std::fs::write(folder.path().join("file"), "").unwrap();
    // The binary's own directory may be closed to that user.
    let binary = folder.path().join("sidentity");
    copy_binary(&binary);
    std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    for (path, reason) in [
        (
            at("closed/x.sock"),
            format!("this user may not enter the directory {:?}", at("closed")),
        ),
        (
            at("readonly/x.sock"),
            format!(
                "this user may not write to the directory {:?}",
                at("readonly")
            ),
        ),
        (
            at("absent/x.sock"),
            format!("the directory {:?} does not exist", at("absent")),
        ),
        (
            at("file/x.sock"),
            format!("{:?} is not a directory", at("file")),
        ),
        (at("file"), "another file exists at this path".to_owned()),
    ] {
        let mut command = serving_unix(&binary, &path);
        if root {
            command.uid(NOBODY).gid(NOBODY);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{path}: {}", err(&output));
        let last = err(&output).lines().last().unwrap();
        assert_eq!(
            last,
            format!("sidentity: error: cannot listen on unix:{path}: {reason}")
        );
        assert!(!last.contains("1024"), "{last}");
    }
}

/// Root may connect to every socket, so this test needs another user.
#[test]
fn a_unix_socket_of_another_user_is_not_replaced() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    // Every user may remove files in it.
    mode(folder.path(), 0o777);
    let path = folder.path().join("x.sock");
    let _listening = std::os::unix::net::UnixListener::bind(&path).unwrap();
    mode(&path, 0o600);
    let binary = folder.path().join("sidentity");
    copy_binary(&binary);
    mode(&binary, 0o755);
    let output = serving_unix(&binary, &path.display().to_string())
        .uid(65_534)
        .gid(65_534)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    let reason = "another user's socket is there";
    assert!(err(&output).contains(reason), "{}", err(&output));
    assert!(path.exists());
}

#[tokio::test]
async fn the_start_warns_about_a_rule_that_is_too_wide() {
    let (_metadata, _service, sidecar) = super::started(&["--rule", "*.co.uk=access"]).await;
    let line = sidecar
        .logged(|line| {
            let message = line["message"].as_str().unwrap_or_default();
            message.contains("*.co.uk reaches beyond one organisation's domain")
        })
        .await;
    assert_eq!(line["severity"], "WARNING");
}
