//! The other commands, with their arguments and output.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use super::started;
use super::support::metadata::{Answer, Kind, Metadata, audience_of};
use super::support::wire::Port;

fn sidentity(args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sidentity"))
        .args(args)
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .unwrap()
}

/// Runs a command on another thread, because the test's thread serves the command's requests.
async fn sidentity_meanwhile(args: &[&str], env: &[(&str, &str)]) -> Output {
    let own = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let args = own(args);
    let env: Vec<_> = env
        .iter()
        .map(|(n, v)| (n.to_string(), v.to_string()))
        .collect();
    tokio::task::spawn_blocking(move || {
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let env: Vec<_> = env.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        sidentity(&args, &env)
    })
    .await
    .unwrap()
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap().trim()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap().trim()
}

#[test]
fn the_demo_shows_a_refused_call_and_the_same_call_answered() {
    let output = sidentity(&["demo", "--once"], &[]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}{}",
        out(&output),
        err(&output)
    );
    let text = out(&output);
    for wanted in [
        "401 Unauthorized",
        "200 OK",
        "an ID token of",
        "an access token of",
        // These lines are about workload identity federation, with a credential file.
        "an ID token of target@example-project.iam.gserviceaccount.com",
        // Behind Identity-Aware Proxy.
        "a JWT that emulator@example-project.iam.gserviceaccount.com signed for this URL",
    ] {
        assert!(text.contains(wanted), "{wanted} in {text}");
    }
}

/// Returns the output of `demo` up to a matching line. After SIGTERM it must end with status 0.
pub(super) fn demo_until(is_last: impl Fn(&str) -> bool) -> String {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_sidentity"))
        .arg("demo")
        .env_clear()
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let mut text = String::new();
    loop {
        let line = lines.next().expect("it says more");
        text += &line;
        text.push('\n');
        if is_last(&line) {
            break;
        }
    }
    let kill = Command::new("kill").arg(demo.id().to_string()).status();
    assert!(kill.unwrap().success());
    // The rest is read so that `demo` does not block on a full pipe.
    for _ in lines {}
    assert_eq!(demo.wait().unwrap().code(), Some(0));
    text
}

#[test]
fn a_running_demo_ends_with_status_0_at_sigterm() {
    // This is the first of the suggested commands.
    demo_until(|line| line.contains("curl -i"));
}

#[test]
fn explain_prints_every_key() {
    let url = "https://canary---svc-1.us-central1.run.app/x";
    let output = sidentity(&["explain", "--json", url], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let explained: serde_json::Value = serde_json::from_str(out(&output)).unwrap();
    assert_eq!(explained["url"], url);
    assert_eq!(explained["credential"], "id");
    assert_eq!(explained["audience"], "https://svc-1.us-central1.run.app");
    let keys: Vec<_> = explained.as_object().unwrap().keys().cloned().collect();
    let mut wanted = [
        "url",
        "destination",
        "credential",
        "audience",
        "scopes",
        "header",
        "rule",
        "how",
        "notes",
    ];
    wanted.sort_unstable();
    assert_eq!(keys, wanted);
    let output = sidentity(&["explain", "not a url"], &[]);
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(err(&output).lines().count(), 1);
}

#[tokio::test]
async fn the_token_command_prints_the_token_of_a_call() {
    let metadata = Metadata::start().await;
    metadata.script(Kind::Identity, [Answer::identity(3600)]);
    let address = metadata.address().to_string();
    let env = [("GCE_METADATA_HOST", address.as_str())];
    let output = sidentity_meanwhile(&["token", "https://t---svc.a.run.app/x"], &env).await;
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(audience_of(out(&output)), "https://svc.a.run.app");
    let output = sidentity_meanwhile(&["token", "https://example.com/"], &env).await;
    assert_eq!((output.status.code(), out(&output)), (Some(1), ""));
    assert!(err(&output).contains("no token"), "{}", err(&output));
    let signed = "https://storage.googleapis.com/b?X-Goog-Signature=1";
    let output = sidentity_meanwhile(&["token", signed], &env).await;
    assert_eq!((output.status.code(), out(&output)), (Some(1), ""));
    assert!(err(&output).contains("it is signed"), "{}", err(&output));
    metadata.script(Kind::Identity, [Answer::identity(3600)]);
    let route = ["--route", "8081/v1=https://svc.a.run.app,audience=custom"];
    let args = ["token", route[0], route[1], "http://localhost:8081/v1/x"];
    let output = sidentity_meanwhile(&args, &env).await;
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(audience_of(out(&output)), "custom");
}

#[tokio::test]
async fn explain_names_the_scopes_of_a_machine_without_cloud_platform() {
    let metadata = Metadata::start().await;
    let path = "/computeMetadata/v1/instance/service-accounts/default/scopes";
    let address = metadata.address().to_string();
    let env = [("GCE_METADATA_HOST", &*address)];
    let told = "permits its account only the scopes logging.write, whatever is requested";
    for (scope, url, is_told) in [
        ("logging.write", "https://storage.googleapis.com/b", true),
        ("cloud-platform", "https://storage.googleapis.com/b", false),
        // The scopes limit access tokens only.
        ("logging.write", "https://billing.a.run.app/", false),
    ] {
        let scope = format!("https://www.googleapis.com/auth/{scope}");
        metadata.script_path(path, [Answer::ok(&scope)]);
        let output = sidentity_meanwhile(&["explain", "--json", url], &env).await;
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        assert_eq!(out(&output).contains(told), is_told, "{}", out(&output));
    }
}

#[tokio::test]
async fn health_and_wait_probe_a_running_sidecar() {
    let (metadata, _service, sidecar) =
        started(&["--route", "127.0.0.1:0=https://svc.a.run.app"]).await;
    let admin = sidecar.admin().to_string();
    let waited = sidentity_meanwhile(&["wait", "--max", "20s", "--admin", &admin], &[]).await;
    assert_eq!(waited.status.code(), Some(0), "{}", err(&waited));
    assert_eq!(metadata.count(Kind::Identity), 1);
    for args in [
        &["health", "--admin", &admin][..],
        &["health", "--ready", "--admin", &admin],
    ] {
        assert_eq!(sidentity_meanwhile(args, &[]).await.status.code(), Some(0));
    }
    let env = [("SIDENTITY_ADMIN", &*admin)];
    let output = sidentity_meanwhile(&["health"], &env).await;
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let output = sidentity(&["health"], &[("SIDENTITY_ADMIN", "off")]);
    assert_eq!(output.status.code(), Some(64));
    drop(sidecar);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed_port = closed.local_addr().unwrap().to_string();
    drop(closed);
    let output = sidentity(&["health", "--admin", &closed_port], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(err(&output).lines().count(), 1, "{}", err(&output));
    let output = sidentity(&["wait", "--max", "300ms", "--admin", &closed_port], &[]);
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn health_and_wait_do_not_accept_the_answer_of_another_server() {
    for (status, body) in [("200 OK", "ok\n"), ("200 OK", ""), ("404 Not Found", "no")] {
        let port = Port::open().await;
        let address = port.address().to_string();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let serving = tokio::spawn(async move {
            loop {
                let mut wire = port.accept().await;
                wire.head().await;
                wire.send(&answer).await;
            }
        });
        for args in [
            &["health", "--admin", &address][..],
            &["health", "--ready", "--admin", &address],
            &["wait", "--max", "300ms", "--admin", &address],
        ] {
            let output = sidentity_meanwhile(args, &[]).await;
            assert_eq!(output.status.code(), Some(1), "{args:?}");
            let said = format!("something else listens on {address}");
            assert!(err(&output).contains(&said), "{}", err(&output));
        }
        serving.abort();
    }
}

#[tokio::test]
async fn wait_probes_once_without_time_and_never_longer_than_its_time() {
    let (_metadata, _service, sidecar) = started(&[]).await;
    let admin = sidecar.admin().to_string();
    let ready = sidentity_meanwhile(&["wait", "--max", "0s", "--admin", &admin], &[]).await;
    assert_eq!(ready.status.code(), Some(0), "{}", err(&ready));
    // It accepts connections and answers none, and a probe alone would take 5 s.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().map(|at| (silent, at.to_string()));
    let (_listener, address) = silent.unwrap();
    let began = std::time::Instant::now();
    let args = ["wait", "--max", "300ms", "--admin", &address];
    let waited = sidentity_meanwhile(&args, &[]).await;
    assert_eq!(waited.status.code(), Some(1), "{}", err(&waited));
    assert!(began.elapsed() < std::time::Duration::from_secs(4));
    for max in ["300ms", "0s"] {
        let args = ["wait", "--max", max, "--admin", &address];
        let waited = sidentity_meanwhile(&args, &[]).await;
        let said = format!(
            "sidentity: error: not ready after {max}: http://{address}/readiness: no response"
        );
        assert_eq!(err(&waited), said);
    }
}

/// The message is that of every other duration.
#[test]
fn a_wrong_time_of_wait_is_answered_with_the_form_of_a_time() {
    for (time, words) in [
        ("x", "is not a duration: write 5s, 500ms or 1m30s"),
        ("5", "has no unit: write 5s"),
    ] {
        let output = sidentity(&["wait", "--max", time], &[]);
        assert_eq!(output.status.code(), Some(64));
        assert!(err(&output).contains(words), "{}", err(&output));
    }
}

#[test]
fn a_port_in_use_is_reported_on_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = sidentity(&["run", "--proxy", &address, "--log-format", "text"], &[]);
    assert_eq!(output.status.code(), Some(1));
    let last = err(&output).lines().last().unwrap();
    assert!(last.contains(&address) && last.contains("in use"), "{last}");
    let route = format!("{address}=https://svc.a.run.app");
    let named = format!("--route {address}=…");
    for (args, option) in [
        (&["--proxy", &*address][..], "--proxy"),
        (&["--proxy=off", "--route", &route], &named),
        (&["--proxy=127.0.0.1:0", "--admin", &address], "--admin"),
    ] {
        let args = [&["run", "--log-format=text"], args].concat();
        let output = sidentity(&args, &[]);
        let last = err(&output).lines().last().unwrap();
        let remedy = format!("; choose another with {option} (port 0 takes a free one)");
        assert!(last.ends_with(&remedy), "{last}");
    }
}

/// The collector of the log parses each line.
#[test]
fn with_a_json_log_a_failed_start_is_a_json_line_too() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = sidentity(&["run", "--proxy", &address, "--log-format", "json"], &[]);
    assert_eq!(output.status.code(), Some(1));
    let lines = err(&output).lines();
    let lines: Vec<serde_json::Value> = lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .collect();
    let last = lines.last().unwrap();
    assert_eq!(last["severity"], "ERROR");
    let message = last["message"].as_str().unwrap();
    let begin = format!("the start failed: cannot listen on {address}: ");
    assert!(message.starts_with(&begin), "{message}");
    let help = last["help"].as_str().unwrap();
    assert!(help.ends_with("#log-start-failed"), "{help}");
    // The format is not known before the configuration is.
    let output = sidentity(&["run", "--log-format", "json", "--workers", "0"], &[]);
    assert_eq!(output.status.code(), Some(64));
    assert!(err(&output).starts_with("sidentity: "), "{}", err(&output));
}

#[test]
fn help_and_version_fail_if_the_disk_of_stdout_is_full() {
    for flag in ["--help", "--version"] {
        let full = std::fs::File::create("/dev/full").unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_sidentity"))
            .arg(flag)
            .stdout(full)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{flag}");
        assert!(
            err(&output).contains("cannot write the text: No space"),
            "{}",
            err(&output)
        );
    }
}

#[test]
fn help_with_a_command_prints_the_help_of_that_command() {
    for (args, usage) in [
        (&["help"][..], "Usage: sidentity [COMMAND]"),
        (&["help", "wait"], "Usage: sidentity wait [OPTIONS]"),
    ] {
        let output = sidentity(args, &[]);
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        assert!(out(&output).contains(usage), "{}", out(&output));
    }
}

#[test]
fn unknown_flags_and_commands_are_reported_on_one_line() {
    for args in [
        &["run", "--prxy", "x"][..],
        &["--nonsense"],
        &["nonsense"],
        &["run", "--discover"],
        &["run", "--intercept", "--ca-dir", "/dev/null/ca"],
        &["explain"],
        &["wait", "--max", "soon"],
        &["run", "--proxy", "0.0.0.0:3128"],
        &["run", "--route", "8081"],
    ] {
        let output = sidentity(args, &[]);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {}", err(&output));
        assert_eq!(
            err(&output).lines().count(),
            1,
            "{args:?}: {}",
            err(&output)
        );
        assert!(err(&output).starts_with("sidentity: "), "{}", err(&output));
    }
}

#[test]
fn explain_and_token_say_that_a_call_to_the_sidecar_itself_is_refused() {
    let env = [("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "googleapis.com")];
    let flags = [
        "--proxy=3128",
        "--admin=0.0.0.0:9090",
        "--allow-non-loopback",
        "--route=127.0.0.1:8081/v1=https://svc.a.run.app",
        "--route=8082=http://127.0.0.1:3128",
        "--rule=localhost=access,plaintext=allow",
        "--connect-to=dev.example:80:127.0.0.1:3128",
        "--connect-to=localhost:9099:127.0.0.1:9100",
    ];
    for url in [
        "http://127.0.0.1:3128/",
        "http://localhost:3128/",
        "http://[::1]:3128/",
        "http://[::ffff:127.0.0.1]:3128/",
        "http://0.0.0.0:3128/",
        "http://127.1:9090/",
        "https://127.0.0.9:9090/",
        "http://localhost:8081/v2",
        "http://localhost:8082/",
        "http://dev.example/",
    ] {
        let explained = sidentity(&[&["explain"], &flags[..], &[url]].concat(), &env);
        assert!(
            out(&explained).contains("rejects this call with 508"),
            "{url}: {}",
            out(&explained)
        );
        assert!(
            out(&explained).contains("credential   none"),
            "{url}: {}",
            out(&explained)
        );
        let token = sidentity(&[&["token"], &flags[..], &[url]].concat(), &env);
        assert_eq!(token.status.code(), Some(1), "{url}");
        let why = "it is a listener of the sidecar itself, and a call to it is rejected with 508";
        assert!(err(&token).contains(why), "{url}: {}", err(&token));
    }
    for url in [
        "http://127.0.0.1:3129/",
        "http://127.0.0.2:3128/",
        "http://localhost:9099/",
        "http://localhost:8081/v1",
    ] {
        let explained = sidentity(&[&["explain"], &flags[..], &[url]].concat(), &env);
        assert!(
            !out(&explained).contains("this call with 508"),
            "{url}: {}",
            out(&explained)
        );
    }
}

#[tokio::test]
async fn explain_and_token_use_the_route_whose_prefix_is_exactly_the_url() {
    let metadata = Metadata::start().await;
    let address = metadata.address().to_string();
    let env = [("GCE_METADATA_HOST", &*address)];
    for (path, host) in [
        ("", "all"),
        ("/v1", "v1"),
        ("/v1?q", "v1"),
        ("/v1/", "v1"),
        ("/v1/x", "x"),
        ("/v1/x/", "x"),
        ("/v10", "all"),
    ] {
        let url = format!("http://localhost:8081{path}");
        let args = |command: &'static str| {
            [
                command,
                "--route",
                "8081=https://all.a.run.app",
                "--route",
                "8081/v1=https://v1.a.run.app",
                "--route",
                "8081/v1/x=https://x.a.run.app",
            ]
        };
        let audience = format!("https://{host}.a.run.app");
        let explained = [&args("explain")[..], &["--json", &url]].concat();
        let explained = sidentity_meanwhile(&explained, &env).await;
        let explained: serde_json::Value = serde_json::from_str(out(&explained)).unwrap();
        assert_eq!(explained["destination"], *audience, "{url}");
        let token = sidentity_meanwhile(&[&args("token")[..], &[&*url]].concat(), &env).await;
        assert_eq!(audience_of(out(&token)), audience, "{url}");
    }
}

#[tokio::test]
async fn explain_and_token_name_the_account_and_warn_about_the_default_one() {
    let metadata = Metadata::start().await;
    let compute = "424242-compute@developer.gserviceaccount.com";
    metadata.script(Kind::Email, [Answer::ok(compute)]);
    let address = metadata.address().to_string();
    let env = [("GCE_METADATA_HOST", &*address)];
    let url = "https://svc.a.run.app/x";
    let explained = sidentity_meanwhile(&["explain", "--json", url], &env).await;
    let token = sidentity_meanwhile(&["token", url], &env).await;
    assert_eq!(audience_of(out(&token)), "https://svc.a.run.app");
    for said in [out(&explained), err(&token)] {
        let named = format!("the token belongs to {compute} from the metadata server");
        assert!(said.contains(&named), "{said}");
        assert!(
            said.contains("Compute Engine default service account"),
            "{said}"
        );
    }
    assert!(err(&token).contains("of the project test-project"));
    assert!(!err(&token).contains(out(&token)));
    let none = sidentity_meanwhile(&["explain", "https://www.example.com/"], &env).await;
    assert!(!out(&none).contains(compute), "{}", out(&none));
    assert_eq!(metadata.count(Kind::Identity), 1);
}

#[tokio::test]
async fn explain_uses_the_universe_of_the_metadata_server() {
    let metadata = Metadata::start().await;
    metadata.script(Kind::Universe, [Answer::ok("apis-foo.example")]);
    let address = metadata.address().to_string();
    let env = [("GCE_METADATA_HOST", &*address)];
    for (url, credential) in [
        ("https://storage.apis-foo.example/", "access"),
        ("https://storage.googleapis.com/", "none"),
    ] {
        let explained = sidentity_meanwhile(&["explain", url], &env).await;
        let line = format!("credential   {credential}");
        assert!(out(&explained).contains(&line), "{}", out(&explained));
    }
}
