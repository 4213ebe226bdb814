//! The output of `check`, and that it is accepted as input.

use sidentity::config::OptionKey;

use crate::Setup;

/// Where tokens come from if nothing names a credential file or a metadata server.
const PROBED: &str = "# tokens come from the metadata server, if one answers (account and project: sidentity explain URL)\n";

/// Where tokens come from if a variable names a metadata server.
const CERTAIN: &str =
    "# tokens come from the metadata server (account and project: sidentity explain URL)\n";

/// Returns a value of the option that is not its default, and a line that `check` prints for it.
fn sample(option: OptionKey) -> (&'static str, &'static str) {
    match option {
        OptionKey::Proxy => ("127.0.0.1:3129", "listen: 127.0.0.1:3129"),
        OptionKey::Unmatched => ("deny", "unmatched: deny"),
        OptionKey::MetadataAccess => ("deny", "metadata_access: deny"),
        OptionKey::Intercept => ("true", "intercept: true"),
        OptionKey::CaDir => ("ca", "ca_dir: ca"),
        OptionKey::ProxyAuth => (
            "app:s3cret",
            "# auth: it is set; not shown, because it is a secret",
        ),
        OptionKey::Admin => ("127.0.0.1:9091", "listen: 127.0.0.1:9091"),
        OptionKey::Quitquitquit => ("true", "quitquitquit: true"),
        OptionKey::AllowNonLoopback => ("true", "allow_non_loopback: true"),
        OptionKey::Discover => ("on", "discover: \"on\""),
        OptionKey::AllowedHost => ("a.example", "- a.example"),
        OptionKey::Credentials => ("metadata", "credentials: metadata"),
        OptionKey::TrustCredentialUrl => ("https://b.example/", "- https://b.example/"),
        OptionKey::ImpersonateServiceAccount => (
            "a@p.iam.gserviceaccount.com",
            "impersonate_service_account: a@p.iam.gserviceaccount.com",
        ),
        OptionKey::Placeholder => ("unused", "- unused"),
        OptionKey::Route => ("8081=https://c.example,credential=id", "- listen: 8081"),
        OptionKey::Rule => ("d.example=id", "- host: d.example"),
        OptionKey::ConnectTo => (
            "e.example:443:f.example:8443",
            "- e.example:443:f.example:8443",
        ),
        OptionKey::UpstreamCa => ("ca.pem", "- ca.pem"),
        OptionKey::UpstreamHttp => ("2", "upstream_http: 2"),
        OptionKey::UpstreamProxy => (
            "http://g.example:3128",
            "upstream_proxy: http://g.example:3128",
        ),
        OptionKey::NoUpstreamProxy => ("h.example", "- h.example"),
        OptionKey::ConnectTimeout => ("3s", "connect_timeout: 3s"),
        OptionKey::ResponseTimeout => ("4s", "response_timeout: 4s"),
        OptionKey::TokenTimeout => ("5s", "token_timeout: 5s"),
        OptionKey::IdleTimeout => ("6s", "idle_timeout: 6s"),
        OptionKey::DrainTimeout => ("7s", "drain_timeout: 7s"),
        OptionKey::MaxConnections => ("77", "max_connections: 77"),
        OptionKey::MaxIdleConnections => ("78", "max_idle_connections: 78"),
        OptionKey::MaxMemory => ("33Mi", "max_memory: 33Mi"),
        OptionKey::Workers => ("79", "workers: 79"),
        OptionKey::Sandbox => ("off", "sandbox: off"),
        OptionKey::LogFormat => ("text", "log_format: text"),
        OptionKey::LogLevel => ("debug", "log_level: debug"),
        OptionKey::AccessLog => ("all", "access_log: all"),
    }
}

#[test]
fn check_prints_every_option_that_is_set_without_another() {
    let certificates = rcgen::generate_simple_self_signed(["x.example".to_owned()]).unwrap();
    let setup = Setup::new().write("ca.pem", certificates.cert.pem());
    let has = |yaml: &str, line: &str| yaml.lines().any(|printed| printed.trim() == line);
    let defaults = setup.accepted(&["--all"]);
    for option in OptionKey::ALL.iter().copied() {
        let (value, line) = sample(option);
        let flag = format!("--{}={value}", option.as_str());
        // Without interception, --ca-dir is an error.
        let needed = (option == OptionKey::CaDir).then_some("--intercept");
        let args: Vec<&str> = [&*flag].into_iter().chain(needed).collect();
        assert!(!has(&defaults, line), "{line}: {defaults}");
        let yaml = setup.accepted(&args);
        assert!(has(&yaml, line), "{flag}: {yaml}");
        let yaml = setup.accepted(&[&["--all"], &*args].concat());
        assert!(has(&yaml, line), "{flag} --all: {yaml}");
    }
}

#[test]
fn no_upstream_proxy_is_printed_without_an_upstream_proxy() {
    let yaml =
        Setup::new().accepted(&["--no-upstream-proxy", "a b,c", "--no-upstream-proxy", ".d"]);
    assert_eq!(
        yaml,
        format!("no_upstream_proxy:\n  - a\n  - b\n  - c\n  - \".d\"\n{PROBED}")
    );
}

#[test]
fn an_unused_allow_non_loopback_is_printed() {
    for (args, printed) in [
        (&["--allow-non-loopback"][..], "allow_non_loopback: true"),
        (&[], "allow_non_loopback: false"),
    ] {
        let yaml = Setup::new().accepted(&[&["--all"], args].concat());
        assert!(yaml.lines().any(|line| line == printed), "{yaml}");
    }
}

#[test]
fn the_reference_file_round_trips() {
    let setup = Setup::new().file(
        "proxy: {listen: 127.0.0.1:3128, unmatched: deny, metadata-access: deny, intercept: on, ca_dir: ., auth: 'app:hunter2'}\n\
         admin: off\n\
         routes:\n\
         \x20 - listen: unix:/run/x.sock\n\
         \x20   prefix: /v1\n\
         \x20   upstream: https://billing-424242.us-central1.run.app/base\n\
         \x20   http: 2\n\
         \x20   mode: 0660\n\
         \x20 - listen: 8082\n\
         \x20   upstream: https://storage.googleapis.com\n\
         \x20   scopes: [https://www.googleapis.com/auth/devstorage.read_only]\n\
         rules:\n\
         \x20 - host: iap.example.com\n\
         \x20   credential: id\n\
         \x20   audience: 1234567890.apps.googleusercontent.com\n\
         \x20   header: proxy-authorization\n\
         \x20 - host: \"*.internal.example\"\n\
         \x20   path: /v2\n\
         \x20   port: 8443\n\
         \x20   credential: id\n\
         max_memory: 96MiB\n\
         workers: 3\n",
    );
    let yaml = setup.accepted(&["--config", "c.yaml", "--all"]);
    assert_eq!(
        yaml,
        "proxy:\n\
         \x20 listen: 127.0.0.1:3128\n\
         \x20 unmatched: deny\n\
         \x20 metadata_access: deny\n\
         \x20 intercept: true\n\
         \x20 ca_dir: \".\"\n\
         \x20 # auth: it is set; not shown, because it is a secret\n\
         admin:\n\
         \x20 listen: off\n\
         \x20 quitquitquit: false\n\
         allow_non_loopback: false\n\
         # discover: off (computed on this machine)\n\
         allowed_host: []\n\
         credentials: auto\n\
         trust_credential_url: []\n\
         impersonate_service_account: null\n\
         placeholder: []\n\
         routes:\n\
         \x20 - listen: unix:/run/x.sock:/v1\n\
         \x20   upstream: https://billing-424242.us-central1.run.app/base\n\
         \x20   http: 2\n\
         \x20   mode: \"0660\"\n\
         \x20 - listen: 8082\n\
         \x20   upstream: https://storage.googleapis.com/\n\
         \x20   scopes:\n\
         \x20     - https://www.googleapis.com/auth/devstorage.read_only\n\
         rules:\n\
         \x20 - host: iap.example.com\n\
         \x20   credential: id\n\
         \x20   audience: 1234567890.apps.googleusercontent.com\n\
         \x20   header: proxy-authorization\n\
         \x20 - host: \"*.internal.example:8443/v2\"\n\
         \x20   credential: id\n\
         connect_to: []\n\
         upstream_ca: []\n\
         upstream_http: auto\n\
         upstream_proxy: off\n\
         no_upstream_proxy: []\n\
         connect_timeout: 5s\n\
         response_timeout: off\n\
         token_timeout: 8s\n\
         idle_timeout: 1m30s\n\
         drain_timeout: 9s\n\
         max_connections: 8192\n\
         max_idle_connections: 1024\n\
         max_memory: 96Mi\n\
         workers: 3\n\
         sandbox: auto\n\
         # log_format: json (computed on this machine)\n\
         log_level: info\n\
         access_log: errors\n\
         # tokens come from the metadata server, if one answers (account and project: sidentity explain URL)\n\
         # metadata server: 169.254.169.254:80\n"
    );
    let printed = Setup::new().file(&yaml);
    let again = printed.accepted(&["--config", "c.yaml", "--all"]);
    assert_eq!(
        again,
        yaml.replace(
            "# auth: it is set; not shown, because it is a secret",
            "auth: off"
        )
    );
}

#[test]
fn check_all_prints_options_that_are_off_or_empty() {
    let yaml = Setup::new().accepted(&["--all"]);
    for line in [
        "  ca_dir: null",
        "  auth: off",
        "allowed_host: []",
        "impersonate_service_account: null",
        "placeholder: []",
        "routes: []",
        "rules: []",
        "connect_to: []",
        "upstream_ca: []",
    ] {
        assert!(
            yaml.lines().any(|printed| printed == line),
            "{line}: {yaml}"
        );
    }
    let again = Setup::new()
        .file(&yaml)
        .accepted(&["--config", "c.yaml", "--all"]);
    assert_eq!(again, yaml);
    // The file does not set it, so that other sources apply.
    let setup = Setup::new().file("proxy: {ca_dir: null, intercept: on}\n");
    let yaml = setup.accepted(&["--config", "c.yaml", "--ca-dir", "."]);
    assert!(yaml.contains("  ca_dir: \".\"\n"), "{yaml}");
}

#[test]
fn the_output_of_check_all_on_one_machine_does_not_fix_computed_values_on_another() {
    let here = Setup::new().accepted(&["--all"]);
    assert!(
        here.contains("\n  # listen: 127.0.0.1:9090 (computed on this machine)\n"),
        "{here}"
    );
    assert!(here.contains("\n# workers: "), "{here}");
    let there = Setup::new().file(&here).variable("K_SERVICE", "shop");
    let yaml = there.accepted(&["--all", "--config", "c.yaml"]);
    assert!(
        yaml.contains("\n  # listen: 0.0.0.0:9090 (computed on this machine)\n"),
        "{yaml}"
    );
    assert!(
        yaml.contains("\n# discover: on (computed on this machine)\n"),
        "{yaml}"
    );
    let explicit = Setup::new().accepted(&["--all", "--admin", "127.0.0.1:9090"]);
    assert!(
        explicit.contains("\n  listen: 127.0.0.1:9090\n"),
        "{explicit}"
    );
}

#[test]
fn check_prints_the_differences_from_the_defaults_and_check_all_everything() {
    let setup = Setup::new();
    let none = "# every option has its default: sidentity check --all prints them\n";
    let probed = &*format!("{PROBED}{none}");
    assert_eq!(setup.accepted(&[]), probed);
    assert_eq!(
        setup.accepted(&["--proxy", "127.0.0.1:3128", "--log-level", "info"]),
        probed
    );
    assert_eq!(
        Setup::new().file(probed).accepted(&["--config", "c.yaml"]),
        probed
    );
    let args = [
        "--route=8081=https://x.run.app",
        "--unmatched=deny",
        "--quitquitquit",
        "--drain-timeout=20s",
        "--rule=a.example=id",
        "--allowed-host=app.example",
        "--workers=3",
    ];
    let setup = Setup::new().variable("GCE_METADATA_HOST", "localhost:8980");
    let yaml = setup.accepted(&args);
    assert_eq!(
        yaml,
        "proxy:\n\
         \x20 unmatched: deny\n\
         admin:\n\
         \x20 quitquitquit: true\n\
         allowed_host:\n\
         \x20 - app.example\n\
         routes:\n\
         \x20 - listen: 8081\n\
         \x20   upstream: https://x.run.app/\n\
         rules:\n\
         \x20 - host: a.example\n\
         \x20   credential: id\n\
         drain_timeout: 20s\n\
         workers: 3\n\
         # tokens come from the metadata server (account and project: sidentity explain URL)\n\
         # metadata server: localhost:8980\n"
    );
    // It means the same as the whole output.
    let all = setup.accepted(&[&["--all"], &args[..]].concat());
    let again = Setup::new()
        .file(&yaml)
        .variable("GCE_METADATA_HOST", "localhost:8980")
        .accepted(&["--config", "c.yaml", "--all"]);
    assert_eq!(again, all);
    assert!(
        all.contains("\n# discover: off (computed on this machine)\n") && all.lines().count() > 25,
        "{all}"
    );
    // On Cloud Run the changed values are the defaults.
    let there = Setup::new().variable("K_SERVICE", "shop");
    assert_eq!(there.accepted(&[]), format!("{CERTAIN}{none}"));
    assert!(
        there
            .accepted(&["--all"])
            .contains("# discover: on (computed")
    );
    assert_eq!(
        there.accepted(&["--discover", "off"]),
        format!("discover: off\n{CERTAIN}")
    );
    assert_eq!(
        Setup::new()
            .accepted(&["--proxy", "off", "--route", "1=https://x.run.app"])
            .lines()
            .nth(1),
        Some("  listen: off")
    );
}

#[test]
fn impersonation_is_read_from_every_source_and_printed() {
    const CHAIN: &str = "a@p.example,b@p.example,t@p.example";
    let line = format!("impersonate_service_account: {CHAIN:?}");
    let flag = Setup::new().accepted(&["--impersonate-service-account", CHAIN]);
    let variable = Setup::new()
        .variable("SIDENTITY_IMPERSONATE_SERVICE_ACCOUNT", CHAIN)
        .accepted(&[]);
    let file = Setup::new()
        .file(&format!("impersonate_service_account: {CHAIN}\n"))
        .accepted(&["--config", "c.yaml"]);
    for yaml in [&flag, &variable, &file] {
        assert!(yaml.lines().any(|printed| printed == line), "{yaml}");
    }
    let again = Setup::new().file(&flag).accepted(&["--config", "c.yaml"]);
    assert_eq!(again, flag);
}

#[test]
fn the_identity_of_a_rule_is_printed() {
    let rule = "iap.example=id,token=jwt,impersonate=t@p.example,delegate=b@p.example,delegate=a@p.example";
    let route =
        "8081=https://www.googleapis.com,scope=s,subject=jane@d.example,account=x@p.example";
    let yaml = Setup::new().accepted(&["--rule", rule, "--route", route]);
    assert_eq!(
        yaml,
        "routes:\n\
         \x20 - listen: 8081\n\
         \x20   upstream: https://www.googleapis.com/\n\
         \x20   scopes:\n\
         \x20     - s\n\
         \x20   account: x@p.example\n\
         \x20   subject: jane@d.example\n\
         rules:\n\
         \x20 - host: iap.example\n\
         \x20   credential: id\n\
         \x20   impersonate: t@p.example\n\
         \x20   delegates:\n\
         \x20     - b@p.example\n\
         \x20     - a@p.example\n\
         \x20   token: jwt\n"
            .to_owned()
            + PROBED
    );
    let again = Setup::new().file(&yaml).accepted(&["--config", "c.yaml"]);
    assert_eq!(again, yaml);
}

/// Such a file would otherwise mean something else on another machine.
#[test]
fn a_written_value_is_printed_although_it_is_the_default_of_this_machine() {
    let yaml = "admin: 127.0.0.1:9090\ndiscover: \"off\"\nlog_format: json\nconnect_timeout: 5s\n";
    let setup = Setup::new().file(yaml);
    let printed = setup.run(&["check", "--config", "c.yaml"]).stdout;
    for line in [
        "listen: 127.0.0.1:9090",
        "discover: off",
        "log_format: json",
    ] {
        assert!(printed.contains(line), "{line}: {printed}");
    }
    assert!(!printed.contains("connect_timeout"), "{printed}");
    let setup = Setup::new().file("discover: auto\nlog_format: auto\n");
    let printed = setup.run(&["check", "--config", "c.yaml"]).stdout;
    assert!(!printed.contains("discover"), "{printed}");
    assert!(!printed.contains("log_format"), "{printed}");
}
