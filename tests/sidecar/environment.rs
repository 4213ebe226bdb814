//! The environment that `sidentity exec` gives its command: no client-specific variable bypasses the sidecar, and the
//! user's own certificates stay trusted.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::exec::{CHILD, exec, output, text, world};
use super::support::metadata::Metadata;
use super::support::service::Service;

/// The caller's own proxy, which no client must use.
const ELSEWHERE: &str = "http://alice:s3cr%40t@elsewhere.example:3128";

/// Variables that name a file of certificates. Few clients read each of them.
const CERTIFICATES: [&str; 20] = [
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "CURL_CA_BUNDLE",
    "DENO_CERT",
    "GIT_SSL_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HEX_CACERTS_PATH",
    "HTTPLIB2_CA_CERTS",
    "NIX_SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "NPM_CONFIG_CAFILE",
    "PERL_LWP_SSL_CA_FILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "SYSTEM_CERTIFICATE_PATH",
    "YARN_HTTPS_CA_FILE_PATH",
    // These are set only if the caller has set them.
    "BUNDLE_SSL_CA_CERT",
    "npm_config_cafile",
];

/// Returns the variables of a command that `exec` runs, and what `exec` wrote to stderr.
async fn environment(command: Command, arguments: &[&str]) -> (BTreeMap<String, String>, String) {
    let mut command = command;
    command.args(arguments).args(["--", "env", "-0"]);
    let output = output(command).await;
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    let variables = text(&output.stdout)
        .split('\0')
        .filter_map(|variable| variable.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    (variables, said)
}

/// Returns `sidentity exec` that trusts the service only through the caller's environment.
fn distrustful(metadata: &Metadata, service: &Service) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidentity"));
    command
        .args(["exec", "--connect-to"])
        .arg(format!("*:443:{}", service.address()))
        .env("GCE_METADATA_HOST", metadata.address().to_string())
        .env_remove("JAVA_TOOL_OPTIONS")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Adds the app of `exec::child`, which calls a Google API and reads certificates only from its environment.
fn calling(mut command: Command) -> Command {
    command
        .arg("--")
        .arg(std::env::current_exe().unwrap())
        .args(["exec::child", "--exact", "--nocapture"])
        .env(CHILD, "1");
    command
}

fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    let certificates = CertificateDer::pem_file_iter(path).unwrap();
    certificates.collect::<Result<_, _>>().unwrap()
}

#[tokio::test]
async fn every_client_with_a_variable_of_its_own_for_certificates_gets_the_bundle() {
    let (metadata, service) = world().await;
    let mut command = exec(&metadata, &service);
    for name in ["BUNDLE_SSL_CA_CERT", "npm_config_cafile", "TWINE_CERT"] {
        command.env(name, service.ca());
    }
    let (variables, _) = environment(command, &[]).await;
    let bundle = &variables["SSL_CERT_FILE"];
    assert!(bundle.ends_with("/bundle.pem"), "{bundle}");
    for name in CERTIFICATES {
        match variables.get(name) {
            Some(value) => assert_eq!(value, bundle, "{name}"),
            // npm accepts any spelling, and the last one counts.
            None => assert_eq!(name, "npm_config_cafile"),
        }
    }
    assert_eq!(&variables["TWINE_CERT"], bundle);
    assert!(!variables.contains_key("COMPOSER_CAFILE"));
}

#[tokio::test]
async fn no_client_specific_variable_bypasses_the_sidecar() {
    let (metadata, service) = world().await;
    let mut command = exec(&metadata, &service);
    for name in [
        "All_Proxy",
        "CARGO_HTTP_PROXY",
        "GDAL_HTTP_PROXY",
        "GLOBAL_AGENT_HTTP_PROXY",
        "GLOBAL_AGENT_HTTPS_PROXY",
        "ANTHROPIC_PROXY",
        "GRPC_PROXY",
        "GRPC_PROXY_EXP",
        "Https_Proxy",
        "MY_THING_PROXY",
        "NPM_CONFIG_PROXY",
        "NPM_CONFIG_HTTPS_PROXY",
        "PIP_PROXY",
        "RCLONE_HTTP_PROXY",
        "PROXY",
        "YARN_HTTPS_PROXY",
        "grpc_proxy",
        "my_thing_proxy",
        "npm_config_http_proxy",
        "npm_config_https_proxy",
        "npm_config_https-proxy",
        "npm_config_proxy",
        "pnpm_config_https_proxy",
        "proxy",
        "some_apps_own_https_proxy",
        "socks_proxy",
        "ws_proxy",
        "wss_proxy",
        "yarn_proxy",
    ] {
        command.env(name, ELSEWHERE);
    }
    for (name, value) in [
        ("CLOUDSDK_PROXY_ADDRESS", "elsewhere.example"),
        ("CLOUDSDK_PROXY_PASSWORD", "elsewhere"),
        ("CLOUDSDK_PROXY_PORT", "3128"),
        ("CLOUDSDK_PROXY_RDNS", "true"),
        ("CLOUDSDK_PROXY_TYPE", "http"),
        ("CLOUDSDK_PROXY_USERNAME", "elsewhere"),
        ("GDAL_HTTP_PROXYUSERPWD", "elsewhere:elsewhere"),
        (
            "GIT_CONFIG_PARAMETERS",
            "'user.name=it'\\''s'  'http.proxy=http://elsewhere:1' 'http.https://a.example/.proxy'='http://elsewhere' 'a.b'=",
        ),
        ("OPENAI_PROXY", "elsewhere.example:3128"),
        ("GIT_CONFIG_COUNT", "3"),
        ("GIT_CONFIG_KEY_0", "http.Proxy"),
        ("GIT_CONFIG_VALUE_0", ELSEWHERE),
        ("GIT_CONFIG_KEY_1", "http.https://example.com/.proxy"),
        ("GIT_CONFIG_VALUE_1", ELSEWHERE),
        ("GIT_CONFIG_KEY_2", "user.name"),
        ("GIT_CONFIG_VALUE_2", "Alice"),
        (
            "MAVEN_OPTS",
            "-Xmx1g -Dhttps.proxyHost=elsewhere -Dhttps.proxyPort=3128",
        ),
        (
            "_JAVA_OPTIONS",
            "-Dhttp.proxyHost=elsewhere -Dhttp.proxyPort=3128",
        ),
        ("NPM_CONFIG_NOPROXY", "*.elsewhere"),
        ("no_grpc_proxy", "*.elsewhere"),
        ("npm_config_noproxy", "*.elsewhere"),
    ] {
        command.env(name, value);
    }
    // None of these is a proxy that a client uses.
    for (name, value) in [
        ("ENABLE_HTTP_PROXY", "true"),
        ("GOPROXY", "https://goproxy.example,direct"),
        ("MY_NO_PROXY", "db.example:5432"),
        ("RSYNC_PROXY", "rsync.example:8873"),
        ("SOME_PROXY", "direct"),
        ("TRUST_PROXY", "1"),
        ("ftp_proxy", "http://ftp.example:21"),
    ] {
        command.env(name, value);
    }
    let (variables, _) = environment(command, &[]).await;
    let proxy = &variables["HTTPS_PROXY"];
    let java = &variables["JAVA_TOOL_OPTIONS"];
    for (name, value) in &variables {
        if ["MAVEN_OPTS", "_JAVA_OPTIONS"].contains(&&**name) {
            // The last of equal options counts.
            assert!(value.ends_with(java.trim()), "{name}={value}");
        } else {
            assert!(!value.contains("elsewhere"), "{name}={value}");
        }
    }
    assert_eq!(
        variables["GIT_CONFIG_PARAMETERS"],
        format!(
            "'user.name=it'\\''s'  'http.proxy={proxy}' 'http.https://a.example/.proxy'='{proxy}' 'a.b'="
        )
    );
    for name in [
        "ANTHROPIC_PROXY",
        "GIT_CONFIG_VALUE_0",
        "GIT_CONFIG_VALUE_1",
        "GLOBAL_AGENT_HTTPS_PROXY",
        "GLOBAL_AGENT_HTTP_PROXY",
        "MY_THING_PROXY",
        "OPENAI_PROXY",
        "PROXY",
        "RCLONE_HTTP_PROXY",
        "YARN_HTTPS_PROXY",
        "my_thing_proxy",
        "proxy",
        "some_apps_own_https_proxy",
    ] {
        assert_eq!(&variables[name], proxy, "{name}");
    }
    assert_eq!(
        variables["GLOBAL_AGENT_NO_PROXY"], variables["NO_PROXY"],
        "{variables:?}"
    );
    for (name, value) in [
        ("ENABLE_HTTP_PROXY", "true"),
        ("GIT_CONFIG_VALUE_2", "Alice"),
        ("GOPROXY", "https://goproxy.example,direct"),
        ("MY_NO_PROXY", "db.example:5432"),
        ("RSYNC_PROXY", "rsync.example:8873"),
        ("SOME_PROXY", "direct"),
        ("TRUST_PROXY", "1"),
        ("ftp_proxy", "http://ftp.example:21"),
    ] {
        assert_eq!(variables[name], value, "{name}");
    }
}

#[tokio::test]
async fn a_replaced_proxy_is_reported_on_one_line_without_its_password() {
    let (metadata, service) = world().await;
    let mut command = exec(&metadata, &service);
    command
        .env("HTTPS_PROXY", ELSEWHERE)
        .env(
            "http_proxy",
            "alice:s3cret/@plain.example:8080/path?token=s3cret",
        )
        .env("ALL_PROXY", "socks5h://bob:s3cret@socks.example:1080")
        .env("grpc_proxy", "http://bob:s3/cret@a@b/");
    let (variables, said) = environment(command, &[]).await;
    let lines: Vec<_> = said.lines().filter(|line| line.contains("PROXY")).collect();
    let [line] = lines[..] else {
        panic!("not one line: {said}");
    };
    for expected in [
        "HTTPS_PROXY (http://elsewhere.example:3128)",
        "ALL_PROXY (socks5h://socks.example:1080)",
        "http_proxy",
        "grpc_proxy",
    ] {
        assert!(line.contains(expected), "{expected} in {line}");
    }
    for secret in ["alice", "bob", "s3", "cret"] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
    assert!(variables["HTTPS_PROXY"].contains("@127.0.0.1:"));

    let mut command = exec(&metadata, &service);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.env("NO_PROXY", "db.internal").env("no_proxy", "");
    let (_, said) = environment(command, &[]).await;
    assert_eq!(said, "", "nothing is replaced");
}

#[tokio::test]
async fn certificates_of_the_callers_variables_are_trusted_on_both_sides() {
    let (metadata, service) = world().await;
    let own = certificates(&service.ca());
    let folder = tempfile::tempdir().unwrap();
    // The name has the form that c_rehash gives.
    std::fs::copy(service.ca(), folder.path().join("0a1b2c3d.0")).unwrap();
    let folder = folder.path().to_str().unwrap().to_owned();
    let file = service.ca().to_str().unwrap().to_owned();
    let pem = std::fs::read_to_string(service.ca()).unwrap();
    let folders = format!("/does/not/exist:{folder}");
    for (name, value) in [
        ("AWS_CA_BUNDLE", &file),
        ("CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", &file),
        ("CURL_CA_BUNDLE", &file),
        ("GIT_SSL_CAINFO", &file),
        ("HTTPLIB2_CA_CERTS", &file),
        ("HTTPS_CA_FILE", &file),
        ("NODE_EXTRA_CA_CERTS", &file),
        ("NPM_CONFIG_CAFILE", &file),
        ("npm_config_cafile", &file),
        ("npm_config_ca", &pem),
        ("PIP_CERT", &file),
        ("REQUESTS_CA_BUNDLE", &file),
        ("REQUESTS_CA_BUNDLE", &folder),
        ("SSL_CERT_DIR", &folders),
        ("TWINE_CERT", &file),
    ] {
        let own_variable = |mut command: Command| {
            for known in CERTIFICATES {
                command.env_remove(known);
            }
            command.env(name, value);
            command
        };
        // The sidecar verifies the upstream with it.
        let command = own_variable(distrustful(&metadata, &service));
        let output = output(calling(command)).await;
        assert!(text(&output.stdout).contains("hello"), "{name}: {output:?}");
        // The command verifies with it hosts whose TLS is not terminated.
        let mut command = own_variable(distrustful(&metadata, &service));
        command.args(["--", "sh", "-c", "cat \"$SSL_CERT_FILE\""]);
        let output = super::exec::output(command).await;
        let found: Vec<_> = CertificateDer::pem_slice_iter(&output.stdout)
            .collect::<Result<_, _>>()
            .unwrap();
        let count = found.iter().filter(|found| own.contains(found)).count();
        assert_eq!(count, own.len(), "{name}");
    }
}

#[tokio::test]
async fn a_file_without_usable_certificates_is_a_warning() {
    let (metadata, service) = world().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("empty.pem"), "").unwrap();
    std::fs::write(
        path("junk.pem"),
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    std::fs::create_dir(path("folder")).unwrap();
    let wrong = [
        ("REQUESTS_CA_BUNDLE", path("missing.pem")),
        ("NODE_EXTRA_CA_CERTS", path("empty.pem")),
        ("GIT_SSL_CAINFO", path("junk.pem")),
        ("CURL_CA_BUNDLE", path("folder")),
        ("PIP_CERT", "/dev/zero".to_owned()),
    ];
    let mut command = exec(&metadata, &service);
    command.envs(wrong.iter().map(|(name, value)| (name, value)));
    let output = output(calling(command)).await;
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stdout).contains("hello"), "{output:?}");
    let said = text(&output.stderr);
    for (name, value) in &wrong {
        let line = said.lines().find(|line| line.contains(name));
        let line = line.unwrap_or_else(|| panic!("{name} in {said}"));
        assert!(line.contains(&**value), "{value} in {line}");
    }
}

#[tokio::test]
async fn exec_needs_no_double_dash_before_an_ordinary_command() {
    let (metadata, service) = world().await;
    for (arguments, printed) in [
        (&["echo", "-n", "a", "--", "--help"][..], "a -- --help"),
        (&["--intercept=false", "echo", "-n", "b"], "b"),
        (
            &["--log-level", "error", "echo", "--workers", "x"],
            "--workers x\n",
        ),
        (&["--", "echo", "-n", "--", "c"], "-- c"),
        (&["env", "-i", "--", "echo", "run"], "run\n"),
    ] {
        let mut command = exec(&metadata, &service);
        command.args(arguments);
        let output = output(command).await;
        assert_eq!(text(&output.stdout), printed, "{arguments:?}: {output:?}");
        assert_eq!(output.status.code(), Some(0));
    }
    for (arguments, status, said) in [
        (
            &["no-such-command-here", "-x"][..],
            127,
            "no-such-command-here",
        ),
        (
            &["--no-such-flag", "echo"],
            64,
            "unknown flag --no-such-flag",
        ),
        (&[], 64, "CMD"),
        (&["--"], 64, "CMD"),
        (&["--log-level", "error"], 64, "CMD"),
    ] {
        let mut command = exec(&metadata, &service);
        command.args(arguments);
        let output = output(command).await;
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
        assert!(text(&output.stderr).contains(said), "{output:?}");
    }
}

#[tokio::test]
async fn git_trusts_the_sidecars_certificate_beside_the_one_of_git_dash_c() {
    let (metadata, service) = world().await;
    let mut command = distrustful(&metadata, &service);
    let file = service.ca();
    let file = file.to_str().unwrap();
    command.env(
        "GIT_CONFIG_PARAMETERS",
        format!("'a.b'='c' 'http.sslCAInfo'='{file}'"),
    );
    let (variables, said) = environment(command, &[]).await;
    let bundle = &variables["SSL_CERT_FILE"];
    assert_eq!(
        variables["GIT_CONFIG_PARAMETERS"],
        format!("'a.b'='c' 'http.sslCAInfo'='{bundle}'")
    );
    assert!(!said.contains("certificate"), "{said}");
}

#[tokio::test]
async fn a_no_proxy_that_names_google_is_a_warning() {
    let (metadata, service) = world().await;
    for (value, named) in [
        ("*", "\"*\""),
        ("db.internal,googleapis.com", "\"googleapis.com\""),
        (".GoogleAPIs.com:443", "\".GoogleAPIs.com:443\""),
        ("*.run.app", "\"*.run.app\""),
        ("a cloudfunctions.net", "\"cloudfunctions.net\""),
        ("storage.googleapis.com", "\"storage.googleapis.com\""),
        ("*apis.com", "\"*apis.com\""),
        (".app,com", "\".app\", \"com\""),
    ] {
        let mut command = exec(&metadata, &service);
        command.env("NO_PROXY", value).env_remove("no_proxy");
        let (variables, said) = environment(command, &[]).await;
        let lines: Vec<_> = said
            .lines()
            .filter(|line| line.contains("NO_PROXY"))
            .collect();
        let [line] = lines[..] else {
            panic!("not one line for {value}: {said}");
        };
        let line = line.replace("\\\"", "\"");
        assert!(line.contains(named), "{named} in {line}");
        assert!(line.contains("past the sidecar"), "{line}");
        assert!(line.contains("give it to --no-upstream-proxy"), "{line}");
        let kept = format!("{value},localhost");
        assert!(variables["NO_PROXY"].starts_with(&kept), "{variables:?}");
    }
    for value in ["", "db.internal", "mygoogleapis.com", "10.0.0.0/8,x.app"] {
        let mut command = exec(&metadata, &service);
        command.env("NO_PROXY", value).env_remove("no_proxy");
        let (_, said) = environment(command, &[]).await;
        assert!(!said.contains("NO_PROXY"), "{value}: {said}");
    }
}

#[tokio::test]
async fn java_honours_the_callers_list_of_direct_hosts() {
    let (metadata, service) = world().await;
    let mut command = exec(&metadata, &service);
    command
        .env("NO_PROXY", "db.internal,.corp.example,10.0.0.0/8,[fd00::1]")
        .env_remove("no_proxy")
        .env(
            "JAVA_TOOL_OPTIONS",
            "-Xmx1g '-Dhttp.nonProxyHosts=*.tool.example|one.example'",
        )
        .env("JDK_JAVA_OPTIONS", "-Dhttp.nonProxyHosts=jdk.example")
        .env("MAVEN_OPTS", "-Dhttp.nonProxyHosts=maven.example");
    let (variables, _) = environment(command, &[]).await;
    for name in ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "MAVEN_OPTS"] {
        let value = &variables[name];
        let (_, last) = value.rsplit_once("-Dhttp.nonProxyHosts=").unwrap();
        let last = last.split(' ').next().unwrap();
        let hosts: Vec<_> = last.split('|').collect();
        for expected in [
            "*.tool.example",
            "one.example",
            "jdk.example",
            "db.internal",
            "*.db.internal",
            "*.corp.example",
            "10.*",
            "[fd00::1]",
            "localhost",
            "metadata.google.internal",
        ] {
            assert!(hosts.contains(&expected), "{expected} in {name}={value}");
        }
        assert_eq!(hosts.contains(&"maven.example"), name == "MAVEN_OPTS");
    }
    assert!(variables["JAVA_TOOL_OPTIONS"].starts_with("-Xmx1g "));
}

#[tokio::test]
async fn a_named_pipe_as_a_certificate_file_does_not_block_the_start() {
    let (metadata, service) = world().await;
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    let pipe = pipe.to_str().unwrap();
    let made = Command::new("mkfifo").arg(pipe).status().unwrap();
    assert!(made.success());
    for name in ["CURL_CA_BUNDLE", "GIT_SSL_CAPATH", "SSL_CERT_DIR"] {
        let mut command = Command::new("timeout");
        command
            .args(["-s", "KILL", "20"])
            .arg(env!("CARGO_BIN_EXE_sidentity"))
            .arg("exec")
            .args(service.flags())
            .env("GCE_METADATA_HOST", metadata.address().to_string())
            .env(name, pipe)
            .args(["--", "echo", "-n", "done"]);
        let output = output(command).await;
        let said = text(&output.stderr);
        assert_eq!(text(&output.stdout), "done", "{name}: {said}");
        if name != "SSL_CERT_DIR" {
            let line = said.lines().find(|line| line.contains(name));
            let line = line.unwrap_or_else(|| panic!("{name} in {said}"));
            assert!(line.contains(pipe), "{line}");
            assert!(line.contains("not a regular file"), "{line}");
        }
    }
    let mut command = Command::new("timeout");
    command
        .args(["-s", "KILL", "20"])
        .arg(env!("CARGO_BIN_EXE_sidentity"))
        .args(["exec", "--", "true"])
        .env("SSL_CERT_FILE", pipe);
    let output = output(command).await;
    let said = text(&output.stderr);
    assert!(said.contains("SSL_CERT_FILE"), "{said}");
    assert!(said.contains("not a regular file"), "{said}");
}

#[tokio::test]
async fn a_directory_without_hashed_names_is_reported_as_such() {
    let (metadata, service) = world().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(service.ca(), folder.path().join("company.pem")).unwrap();
    for name in ["GIT_SSL_CAPATH", "REQUESTS_CA_BUNDLE"] {
        let mut command = exec(&metadata, &service);
        command.env(name, folder.path());
        let (_, said) = environment(command, &[]).await;
        let line = said.lines().find(|line| line.contains(name));
        let line = line.unwrap_or_else(|| panic!("{name} in {said}"));
        assert!(!line.contains("must be PEM"), "{line}");
        assert!(line.contains("openssl rehash"), "{line}");
    }
}

#[tokio::test]
async fn an_empty_command_is_reported() {
    let (metadata, service) = world().await;
    for arguments in [&[""][..], &["--", ""], &["", "x"]] {
        let mut command = exec(&metadata, &service);
        command.args(arguments);
        let output = output(command).await;
        assert_eq!(output.status.code(), Some(127), "{arguments:?}");
        let said = text(&output.stderr);
        assert!(said.contains("the command is empty"), "{said}");
    }
}
