//! Flags, environment and file together: precedence, lists, and the names of variables.

use std::process::Command;

use sidentity::config::OptionKey;

use crate::{Id, Setup};

#[test]
fn flags_override_the_environment_and_the_environment_overrides_the_file() {
    let setup = Setup::new()
        .file("proxy: 1001\nadmin: 1002\nlog_level: debug\nworkers: 3\n")
        .variable("SIDENTITY_ADMIN", "2002")
        .variable("SIDENTITY_LOG_LEVEL", "warn")
        .variable("SIDENTITY_CONFIG", "c.yaml")
        .variable("SIDENTITY_WORKERS", "");
    let yaml = setup.accepted(&["--log-level", "trace"]);
    for line in [
        "  listen: 1001",
        "  listen: 2002",
        "log_level: trace",
        "workers: 3",
    ] {
        assert!(yaml.lines().any(|l| l == line), "{line} in {yaml}");
    }
}

#[test]
fn a_switch_of_the_file_can_be_turned_off_by_a_flag() {
    let setup = Setup::new().file("quitquitquit: on\n");
    let says = |flags: &[&str], line| setup.accepted(&[&["--all"], flags].concat()).contains(line);
    assert!(says(&["--config", "c.yaml"], "quitquitquit: true"));
    assert!(says(
        &["--config", "c.yaml", "--quitquitquit=off"],
        "quitquitquit: false"
    ));
    assert!(says(&["--quitquitquit"], "quitquitquit: true"));
}

#[test]
fn lists_add_up_flags_first() {
    let setup = Setup::new()
        .file("routes: [3=https://f.run.app]\nrules: [f.example=id]\nallowed_host: f\nconnect_to: ['f:::']\nplaceholder: [f:f, 007]\n")
        .variable("SIDENTITY_ROUTE", "1=https://e.run.app\n 2=https://ee.run.app")
        .variable("SIDENTITY_RULE", "e.example=id")
        .variable("SIDENTITY_ALLOWED_HOST", "e ee")
        .variable("SIDENTITY_CONNECT_TO", "e:::")
        .variable("SIDENTITY_PLACEHOLDER", "e:e  e:2");
    let yaml = setup.accepted(&[
        "--config=c.yaml",
        "--route=0=https://g.run.app",
        "--rule=g.example=id",
        "--allowed-host=g",
        "--connect-to=g:::",
        "--placeholder=g:g",
    ]);
    let order = |needles: &[&str]| {
        let places: Vec<_> = needles
            .iter()
            .map(|needle| yaml.find(needle).unwrap())
            .collect();
        assert!(places.is_sorted(), "{needles:?} in {yaml}");
    };
    order(&["//g.run.app", "//e.run.app", "//ee.run.app", "//f.run.app"]);
    order(&["g.example", "e.example", "f.example"]);
    order(&["- g\n", "- e\n", "- ee\n", "- f\n"]);
    order(&["g:::", "e:::", "f:::"]);
    order(&[
        "placeholder:",
        "- g:g\n",
        "- e:e\n",
        "- e:2\n",
        "- f:f\n",
        "- 007\n",
    ]);
}

#[test]
fn a_misspelt_variable_is_an_error() {
    let setup = Setup::new()
        .variable("SIDENTITY_DISCOVER", "maybe")
        .variable("SIDENTITY_LOG_LEVL", "info")
        .variable("SIDENTITY_PROXY", "x")
        .variable("SIDENTITY_PROXI_AUTH", "off")
        .variable("SIDENTITY_RUEL", "x.example=id")
        .variable("SIDENTITY_CONFG", "x.yaml")
        .variable("SIDENTITY_REVISION", "abc")
        .variable("SIDENTITY_NONSENSE", "")
        .variable("SIDENTITY_ADMIN_PORT", "9091")
        .variable("SIDENTITY_INTERCEPT", "");
    let expected = [
        (
            Id::UnknownVariable,
            "environment SIDENTITY_CONFG",
            "SIDENTITY_CONFIG",
        ),
        (
            Id::UnknownVariable,
            "environment SIDENTITY_LOG_LEVL",
            "SIDENTITY_LOG_LEVEL",
        ),
        (
            Id::UnknownVariable,
            "environment SIDENTITY_PROXI_AUTH",
            "SIDENTITY_PROXY_AUTH",
        ),
        (
            Id::UnknownVariable,
            "environment SIDENTITY_RUEL",
            "SIDENTITY_RULE",
        ),
        (Id::InvalidValue, "environment SIDENTITY_PROXY", "\"x\""),
        (
            Id::InvalidValue,
            "environment SIDENTITY_DISCOVER",
            "\"maybe\"",
        ),
    ];
    setup.expect(&[], &expected);
    let setup = Setup::new().variable("SIDENTITY_CONFG", "x.yaml");
    let line =
        "sidentity: environment SIDENTITY_CONFG: is not an option: did you mean SIDENTITY_CONFIG?";
    assert_eq!(setup.refused(&[]), [line]);
}

#[test]
fn variables_of_a_kubernetes_service_called_sidentity_are_ignored() {
    let setup = Setup::new()
        .variable("SIDENTITY_SERVICE_HOST", "10.0.0.7")
        .variable("SIDENTITY_SERVICE_PORT", "9090")
        .variable("SIDENTITY_SERVICE_PORT_METRICS", "9090")
        .variable("SIDENTITY_PORT", "tcp://10.0.0.7:9090")
        .variable("SIDENTITY_PORT_9090_TCP", "tcp://10.0.0.7:9090")
        .variable("SIDENTITY_PORT_9090_TCP_PROTO", "tcp")
        .variable("SIDENTITY_PORT_9090_TCP_PORT", "9090")
        .variable("SIDENTITY_PORT_9090_TCP_ADDR", "10.0.0.7")
        .variable("SIDENTITY_ADMIN_SERVICE_HOST", "10.0.0.8");
    setup.accepted(&[]);
}

#[test]
fn an_unknown_variable_is_ignored_with_a_warning() {
    let output = Command::new(env!("CARGO_BIN_EXE_sidentity"))
        .args(["check", "--log-format", "text"])
        .env_clear()
        .env("SIDENTITY_IMAGE", "registry/sidentity:1")
        .env("SIDENTITY_SERVICE_HOST", "10.0.0.7")
        .env("SIDENTITY_ADMIN_PORT", "9091")
        .env("SIDENTITY_EMPTY", "")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains(
            "environment SIDENTITY_ADMIN_PORT, SIDENTITY_IMAGE, SIDENTITY_SERVICE_HOST: are not options of sidentity and are ignored"
        ),
        "{stderr}"
    );
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_is_an_error() {
    use std::os::unix::ffi::OsStrExt;
    let output = Command::new(env!("CARGO_BIN_EXE_sidentity"))
        .arg("check")
        .env_clear()
        .env("SIDENTITY_PROXY", std::ffi::OsStr::from_bytes(b"\xff"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "sidentity: environment SIDENTITY_PROXY: the value must be UTF-8 text\n"
    );
}

#[test]
fn errors_of_flags_environment_and_file_are_reported_together() {
    let setup = Setup::new()
        .file("log_level: loud\nunmatched: drop\n")
        .variable("SIDENTITY_WORKERS", "0");
    assert_eq!(
        setup
            .refused(&["--config", "c.yaml", "--proxy", "x", "--route", "1"])
            .len(),
        5
    );
}

#[test]
fn extra_roots_are_read_at_the_start_and_a_bad_file_is_an_error() {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    let good = params.self_signed(&key).unwrap().pem();
    let setup = Setup::new()
        .write("good.pem", good)
        .write("empty.pem", "")
        .write(
            "broken.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        );
    let yaml = setup.accepted(&["--upstream-ca", "good.pem", "--upstream-ca", "good.pem"]);
    assert!(yaml.contains("upstream_ca:\n  - good.pem\n  - good.pem\n"));
    for (name, part) in [
        ("absent.pem", "No such file or directory"),
        ("empty.pem", "contains no certificate"),
        ("broken.pem", "contains no usable certificate"),
    ] {
        let file = setup.path().join(name);
        let flags = ["--upstream-ca", file.to_str().unwrap()];
        setup.expect(&flags, &[(Id::InvalidFile, "flag --upstream-ca", part)]);
    }
}

#[test]
fn variables_of_googles_libraries_are_read_checked_and_shown() {
    let setup = Setup::new()
        .variable("GCE_METADATA_HOST", "http://localhost:8980")
        .variable("GOOGLE_CLOUD_QUOTA_PROJECT", "my-project")
        .variable("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "Example.Goog")
        .variable("NO_GCE_CHECK", "1");
    let checked = setup.check(&[]);
    assert_eq!(checked.status, Some(0));
    for line in [
        "# metadata server: localhost:8980, not asked (NO_GCE_CHECK)",
        "# quota project: my-project",
        "# universe domain: example.goog",
    ] {
        assert!(
            checked.stdout.lines().any(|l| l == line),
            "{line} in {checked:?}"
        );
    }
    let warning = "no token can be obtained: NO_GCE_CHECK says that there is no metadata server";
    assert_eq!(checked.stderr, format!("sidentity: warning: {warning}\n"));
    let setup = Setup::new()
        .variable("GCE_METADATA_HOST", "a/b")
        .variable("SSL_CERT_FILE", "absent.pem")
        .variable("GOOGLE_CLOUD_QUOTA_PROJECT", "my project")
        .variable("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "com");
    let expected = [
        (
            Id::InvalidFile,
            "environment SSL_CERT_FILE",
            "\"absent.pem\"",
        ),
        (Id::InvalidValue, "environment GCE_METADATA_HOST", "\"a/b\""),
        (
            Id::InvalidValue,
            "environment GOOGLE_CLOUD_QUOTA_PROJECT",
            "\"my project\"",
        ),
        (
            Id::InvalidValue,
            "environment GOOGLE_CLOUD_UNIVERSE_DOMAIN",
            "\"com\"",
        ),
    ];
    setup.expect(&[], &expected);
}

#[test]
fn check_and_explain_say_that_no_credentials_were_found_if_no_metadata_server_is_called() {
    let nothing = "no credentials were found: GOOGLE_APPLICATION_CREDENTIALS is not set; ";
    let why = "NO_GCE_CHECK says that there is no metadata server";
    for (arguments, value, is_said) in [
        (&["check"] as &[&str], "true", true),
        (&["explain", "https://a.run.app"], "1", true),
        (&["explain", "https://example.com"], "1", false),
        (&["check"], "false", false),
    ] {
        let ran = Command::new(env!("CARGO_BIN_EXE_sidentity"))
            .args(arguments)
            .env_clear()
            .envs([("HOME", "/nonexistent"), ("NO_GCE_CHECK", value)])
            .output()
            .unwrap();
        assert!(ran.status.success(), "{arguments:?}: {ran:?}");
        let written = [ran.stdout, ran.stderr].concat();
        // An explanation is wrapped.
        let written = String::from_utf8(written).unwrap();
        let written: Vec<&str> = written.split_whitespace().collect();
        let written = written.join(" ");
        for part in [nothing.trim_end(), why] {
            assert_eq!(written.contains(part), is_said, "{arguments:?}: {written}");
        }
    }
}

#[test]
fn a_secret_in_a_variable_of_googles_libraries_is_not_shown() {
    let setup = Setup::new().variable("GOOGLE_CLOUD_QUOTA_PROJECT", "ya29.a b");
    assert_eq!(
        setup.refused(&[]),
        [
            "sidentity: environment GOOGLE_CLOUD_QUOTA_PROJECT: a value that looks like a credential (it is not shown) must \
             be a project's id"
        ]
    );
}

#[test]
fn a_metadata_server_that_requires_mtls_is_an_error() {
    let named = |mode: &'static str| Setup::new().variable("GCE_METADATA_MTLS_MODE", mode);
    for (mode, part) in [("strict", "is not supported yet"), ("on", "must be none")] {
        let part = format!("{mode:?} {part}");
        let place = "environment GCE_METADATA_MTLS_MODE";
        named(mode).expect(&[], &[(Id::InvalidValue, place, &part)]);
    }
    for mode in ["", "none", "Default"] {
        assert_eq!(named(mode).check(&[]).status, Some(0), "{mode}");
    }
    let unused = named("strict").variable("NO_GCE_CHECK", "1");
    assert_eq!(unused.check(&[]).status, Some(0));
}

/// Each is a value in the place of another, in the way that a script puts it there.
const CREDENTIALS: [&str; 7] = [
    "ya29.a0AfH6SMBhunter2hunter2",
    "Bearer hunter2hunter2hunter2",
    "AIzaSyD-hunter2hunter2hunter2hunter2",
    "http://alice:hunter2@proxy.example:3128",
    "-----BEGIN PRIVATE KEY-----\nMIIEhunter2\nhunter2hunter2\n-----END PRIVATE KEY-----",
    "{\"type\": \"service_account\", \"private_key\": \"hunter2\"}",
    "1//0ghunter2hunter2hunter2",
];

#[test]
fn a_credential_in_the_place_of_a_value_is_refused_and_never_shown() {
    let message = "looks like a credential, so it is neither used nor shown";
    let refused = |setup: &Setup, flags: &[&str], place: &str| {
        let checked = setup.check(flags);
        let output = format!("{}{}", checked.stdout, checked.stderr);
        assert!(!output.contains("hunter2"), "{flags:?} {place}: {output}");
        if !place.contains("proxy") {
            let lines: Vec<_> = checked.stderr.lines().collect();
            assert!(
                lines.len() == 1 && lines[0].contains(place) && lines[0].contains(message),
                "{flags:?} {place}: {output}"
            );
        }
    };
    let accepts_some = ["placeholder", "proxy-auth", "upstream-proxy"];
    let names = OptionKey::ALL.iter().map(|option| option.as_str());
    let names: Vec<_> = names.filter(|name| !accepts_some.contains(name)).collect();
    for credential in CREDENTIALS {
        let json = serde_json::to_string(credential).unwrap();
        for &name in names.iter().chain(&["config"]) {
            let flag = format!("--{name}={credential}");
            refused(&Setup::new(), &[&flag], &format!("flag --{name}"));
            let variable = format!("SIDENTITY_{}", name.replace('-', "_").to_ascii_uppercase());
            let setup = Setup::new().variable(variable.clone().leak(), credential);
            refused(&setup, &[], &format!("environment {variable}"));
            if name != "config" {
                let setup = Setup::new().file(&format!("{}: {json}\n", name.replace('-', "_")));
                refused(&setup, &["--config=c.yaml"], "c.yaml:1:");
            }
        }
        for (flag, variable) in [
            ("--upstream-proxy", "SIDENTITY_UPSTREAM_PROXY"),
            ("--proxy-auth", "SIDENTITY_PROXY_AUTH"),
            ("--placeholder", "SIDENTITY_PLACEHOLDER"),
        ] {
            refused(&Setup::new(), &[&format!("{flag}={credential}")], "proxy");
            // The words of a header are placeholders of their own.
            if !credential.starts_with("Bearer") {
                let setup = Setup::new().variable(variable, credential);
                refused(&setup, &[], "of the proxy");
            }
        }
        let route = format!("8081=https://x.example,audience={credential}");
        refused(&Setup::new(), &["--route", &route], "flag --route");
        let rules = format!("rules:\n- host: a.example\n  credential: id\n  audience: {json}\n");
        let setup = Setup::new().file(&rules);
        refused(
            &setup,
            &["--config=c.yaml"],
            "c.yaml:4:13: rules[0].audience",
        );
        refused(&Setup::new(), &[credential], "command line");
    }
}

#[test]
fn a_placeholder_and_the_password_of_a_proxy_may_look_like_a_credential() {
    let setup = Setup::new().variable("SIDENTITY_PLACEHOLDER", "ya29.a0AfH6SMBhunter2hunter2 mine");
    let yaml = setup.accepted(&[
        "--upstream-proxy=http://u:ya29.a0AfH6SMBhunter2hunter2@proxy.example:3128",
        "--proxy-auth=u:ya29.a0AfH6SMBhunter2hunter2",
    ]);
    assert!(!yaml.contains("hunter2"), "{yaml}");
    assert!(
        yaml.contains("  # a value that looks like a credential"),
        "{yaml}"
    );
    assert!(yaml.contains("\n  - mine\n"), "{yaml}");
}
