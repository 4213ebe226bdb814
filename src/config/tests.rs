use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

/// The configuration of these flags; the environment is empty.
fn resolved(raw: &RawConfig) -> Result<Config, Vec<Diagnostic>> {
    load(raw, &Env::default())
}

fn flags(flags: &[(OptionKey, &str)]) -> RawConfig {
    let mut raw = RawConfig::default();
    for (name, text) in flags {
        raw.set_flag(*name, [(*text).to_owned()]);
    }
    raw
}

/// The configuration of a file, without its warnings, which name places.
fn from_file(source: &str) -> Result<Config, Vec<Diagnostic>> {
    let mut diagnostics = Vec::new();
    let raw = file::parse("c.yaml", source, &mut diagnostics);
    let mut config = resolve::resolve(&raw, &Env::default(), &mut diagnostics);
    config.warnings.clear();
    if diagnostics.is_empty() {
        Ok(config)
    } else {
        Err(diagnostics)
    }
}

#[test]
fn without_options_every_default_applies() {
    let config = resolved(&RawConfig::default()).unwrap();
    let proxy = config.proxy.unwrap();
    assert_eq!(proxy.listen, "127.0.0.1:3128".parse().unwrap());
    assert_eq!(proxy.auth, None);
    assert_eq!(config.admin, Some("127.0.0.1:9090".parse().unwrap()));
    assert_eq!(config.unmatched, Access::Pass);
    assert_eq!(config.metadata_access, Access::Pass);
    assert_eq!(config.metadata.host.to_string(), "169.254.169.254");
    assert_eq!(
        (config.metadata.port, config.metadata.disabled),
        (80, false)
    );
    assert_eq!(config.upstream.http, HttpVersion::Auto);
    assert_eq!(config.upstream.connect_timeout, Duration::from_secs(5));
    assert_eq!(config.upstream.idle_timeout, Duration::from_secs(90));
    assert_eq!(config.response_timeout, None);
    assert_eq!(config.token_timeout, Duration::from_secs(8));
    assert_eq!(config.drain_timeout, Duration::from_secs(9));
    assert_eq!(config.max_connections, 8192);
    assert_eq!(config.upstream.max_idle, 1024);
    assert!(config.max_memory >= 1 << 20);
    assert!(config.workers >= 1);
    assert_eq!(config.log.level, LogLevel::Info);
    assert_eq!(config.log.access, AccessLog::Errors);
    assert!(config.warnings.is_empty());
}

/// Each option's entry holds together: its default and the words of its value are values, and what it prints is read again.
#[test]
fn every_option_accepts_its_default_its_words_and_what_it_prints() {
    use option_spec::{Context, DefaultValue, Printed};
    let env = Env::default();
    let context = Context {
        env: &env,
        random_auth: Some("user:password"),
    };
    for option in OptionKey::ALL {
        let spec = option.spec();
        let mut config = Config::default();
        let mut set = |text: &str| {
            (spec.setting.set)(&mut config, text, &context)
                .unwrap_or_else(|error| panic!("{}: {error}", spec.name));
            match (spec.setting.print)(&config) {
                Printed::Value(value) => Some(value),
                _ => None,
            }
        };
        let default = match spec.default {
            DefaultValue::Text(text) => Some(text),
            DefaultValue::Nothing | DefaultValue::Computed(..) => None,
        };
        let is_word = |form: &&str| {
            form.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        let words = match spec.value {
            "BOOL" => "true|false",
            value => value,
        };
        for text in default.into_iter().chain(words.split('|').filter(is_word)) {
            if let Some(printed) = set(text) {
                assert_eq!(set(&printed), Some(printed), "{}: {text}", spec.name);
            }
        }
    }
}

#[test]
fn every_option_of_the_file_has_one_place() {
    let mut places: Vec<_> = OptionKey::ALL
        .iter()
        .filter_map(|option| option.spec().inside())
        .collect();
    let all = places.len();
    places.sort();
    places.dedup();
    assert_eq!(places.len(), all);
    let names: std::collections::HashSet<_> = OptionKey::ALL.iter().map(|o| o.as_str()).collect();
    assert_eq!(names.len(), OptionKey::ALL.len());
}

#[test]
fn an_allowed_host_given_twice_counts_once() {
    let raw = flags(&[
        (OptionKey::AllowedHost, "a.example"),
        (OptionKey::AllowedHost, "A.example"),
    ]);
    assert_eq!(resolved(&raw).unwrap().allowed_hosts.len(), 1);
}

#[test]
fn on_cloud_run_the_admin_port_is_reachable_from_outside() {
    for variable in ["K_SERVICE", "CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL"] {
        let config = load(&RawConfig::default(), &Env::from_iter([(variable, "x")])).unwrap();
        assert_eq!(config.admin, Some("0.0.0.0:9090".parse().unwrap()));
    }
}

#[test]
fn the_password_is_in_no_debug_output_and_no_yaml() {
    let raw = flags(&[(OptionKey::ProxyAuth, "app:hunter2")]);
    let config = resolved(&raw).unwrap();
    let auth = config.proxy.as_ref().unwrap().auth.as_ref().unwrap();
    assert_eq!(auth, "Basic YXBwOmh1bnRlcjI=");
    let shown = format!("{raw:?} {config:?} {}", Yaml::all(&config));
    assert!(!shown.contains("hunter2") && !shown.contains("YXBwOmh1bnRlcjI="));
    assert!(shown.contains("# auth"));
}

#[test]
fn the_metadata_server_is_found_by_the_variables_of_googles_libraries() {
    let server = |variables: &[(&str, &str)]| {
        let env = variables.iter().copied().collect();
        let metadata = load(&RawConfig::default(), &env).unwrap().metadata;
        format!("{}:{} {}", metadata.host, metadata.port, metadata.disabled)
    };
    let (host, root, ip) = ("GCE_METADATA_HOST", "GCE_METADATA_ROOT", "GCE_METADATA_IP");
    assert_eq!(server(&[(host, "localhost:8980")]), "localhost:8980 false");
    assert_eq!(server(&[(host, "http://m:1/")]), "m:1 false");
    assert_eq!(server(&[(ip, "1.2.3.4")]), "1.2.3.4:80 false");
    assert_eq!(server(&[(ip, "1.2.3.4"), (root, "r")]), "r:80 false");
    assert_eq!(server(&[(root, "r"), (host, "h")]), "h:80 false");
    assert_eq!(server(&[(host, ""), (root, "r")]), "r:80 false");
    let off = server(&[("NO_GCE_CHECK", "true")]);
    assert_eq!(off, "169.254.169.254:80 true");
}

#[test]
fn the_prefix_of_a_unix_socket_follows_a_colon() {
    let parse = value::listen::parse;
    let unix = |path: &str| Listen::Unix(path.into());
    assert_eq!(
        parse("unix:/run/x.sock"),
        Ok((unix("/run/x.sock"), String::new()))
    );
    assert_eq!(
        parse("unix:/run/x.sock/v1/"),
        Ok((Listen::Unix("/run/x.sock".into()), "/v1".to_owned()))
    );
    assert_eq!(
        parse("unix:/run/x.sock/v1:/a.sock/"),
        Ok((Listen::Unix("/run/x.sock/v1".into()), "/a.sock".to_owned()))
    );
    assert_eq!(
        parse("unix:/run/x.sock:/v1/"),
        Ok((unix("/run/x.sock"), "/v1".into()))
    );
    assert!(parse("unix:").is_err());
    assert!(parse(&format!("unix:/{}", "x".repeat(107))).is_err());
}

#[test]
fn an_address_has_four_forms() {
    let parse = |text| value::listen::address(text).map(|address| address.to_string());
    assert_eq!(parse("8081").unwrap(), "127.0.0.1:8081");
    assert_eq!(parse("localhost:0").unwrap(), "127.0.0.1:0");
    assert_eq!(parse("10.0.0.1:80").unwrap(), "10.0.0.1:80");
    assert_eq!(parse("[::1]:80").unwrap(), "[::1]:80");
    for wrong in [
        "",
        ":80",
        "+1",
        "65536",
        "example.com:80",
        "::1:80",
        "[::1]",
        "*:1",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn connect_to_reads_as_curl_does() {
    let parse = value::connect_to::parse;
    let same = [
        "a.example:443:127.0.0.1:8443",
        "*::[::1]:8443",
        "*.run.app:443::",
        "[::1]:80:b:",
    ];
    for text in same {
        assert_eq!(parse(text).unwrap().to_string(), text);
    }
    assert_eq!(parse(":::").unwrap().host, ConnectHost::Any);
    let suffix = ConnectHost::Suffix(".run.app".into());
    assert_eq!(parse("*.Run.App:::").unwrap().host, suffix);
    for wrong in [
        "",
        "a:1:b",
        "a:1:b:2:3",
        "a:0:b:1",
        "a:x:b:1",
        "*x:::",
        "*.1.2.3.4:::",
        "[::1:::",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_number_in_a_file_is_read_as_its_text() {
    let config =
        from_file("rules:\n- {host: a.example, credential: access, quota_project: 007}\n").unwrap();
    assert_eq!(
        config.rules[0].options.quota_project.as_ref().unwrap(),
        "007"
    );
    let config = from_file("rules:\n- {host: a.example, credential: id, audience: 1e3}\n").unwrap();
    assert_eq!(config.rules[0].options.audience.as_deref(), Some("1e3"));
}

#[test]
fn a_rule_after_an_equal_one_is_a_warning() {
    let config = resolved(&flags(&[
        (OptionKey::Rule, "a.example=id"),
        (OptionKey::Rule, "A.example.=none"),
    ]))
    .unwrap();
    let expected = "flag --rule A.example.: never matches, for flag --rule a.example names a.example before it";
    assert_eq!(config.warnings, [expected]);
}

#[test]
fn a_route_without_a_token_is_a_warning_unless_configured_so() {
    let warnings = |route| {
        resolved(&flags(&[(OptionKey::Route, route)]))
            .unwrap()
            .warnings
    };
    let silent = warnings("8081=https://a.example");
    assert!(silent[0].starts_with("flag --route 8081: calls to https://a.example get no token: "));
    for fine in [
        "8081=https://a.example,credential=none",
        "8081=https://x.run.app",
        // The path of each call says which function it is for.
        "8081=https://r-p.cloudfunctions.net",
    ] {
        assert!(warnings(fine).is_empty(), "{fine}");
    }
}

#[test]
fn a_route_that_would_send_a_token_in_plaintext_is_an_error() {
    let refused = |route, rule: Option<&str>| {
        let mut raw = flags(&[(OptionKey::Route, route)]);
        raw.set_flag(OptionKey::Rule, rule.map(str::to_owned));
        resolved(&raw).is_err_and(|diagnostics| diagnostics[0].id == DiagnosticId::PlaintextToken)
    };
    assert!(refused("8081=http://storage.googleapis.com", None));
    assert!(refused("8081=http://a.example,credential=id", None));
    assert!(refused("8081=http://r-p.cloudfunctions.net", None));
    assert!(refused("8081=http://a.example", Some("a.example/v2=id")));
    assert!(!refused(
        "8081=http://a.example/v1",
        Some("a.example/v2=id")
    ));
    assert!(!refused(
        "8081=http://a.example",
        Some("a.example=id,plaintext=allow")
    ));
    assert!(!refused(
        "8081=http://a.example,credential=id,plaintext=allow",
        None
    ));
    assert!(!refused("8081=http://127.0.0.1:8080", None));
}

#[test]
fn an_alias_bomb_or_a_deep_file_is_an_error() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..30 {
        let alias = format!("*a{}, ", n - 1).repeat(9);
        bomb.push_str(&format!("a{n}: &a{n} [{}]\n", alias.trim_end_matches(", ")));
    }
    for source in [
        &*bomb,
        &"[".repeat(100_000),
        &"- ".repeat(100_000),
        "proxy: &a {listen: *a}",
    ] {
        let ids: Vec<_> = from_file(source)
            .unwrap_err()
            .iter()
            .map(|d| d.id)
            .collect();
        assert_eq!(ids, [DiagnosticId::InvalidYaml]);
    }
}

fn time() -> impl Strategy<Value = String> {
    (1_u64..1_000_000_000_000)
        .prop_map(|nanos| humantime::format_duration(Duration::from_nanos(nanos)).to_string())
}

/// Valid texts for the options that are there once.
fn single() -> impl Strategy<Value = Vec<(OptionKey, String)>> {
    let word = |words: &'static [&'static str]| prop::sample::select(words).prop_map(str::to_owned);
    let address = || {
        prop_oneof![
            Just("off".to_owned()),
            (20_000_u16..30_000).prop_map(|port| port.to_string()),
            (20_000_u16..30_000).prop_map(|port| format!("[::]:{port}")),
        ]
    };
    let choices: Vec<(OptionKey, BoxedStrategy<String>)> = vec![
        (
            OptionKey::Proxy,
            address()
                .prop_filter("something must listen", |a| a != "off")
                .boxed(),
        ),
        (OptionKey::AllowNonLoopback, Just("on".to_owned()).boxed()),
        (
            OptionKey::Admin,
            (30_001_u16..40_000).prop_map(|p| p.to_string()).boxed(),
        ),
        (OptionKey::Unmatched, word(&["pass", "deny"]).boxed()),
        (OptionKey::MetadataAccess, word(&["pass", "deny"]).boxed()),
        (OptionKey::Intercept, word(&["true", "no"]).boxed()),
        (OptionKey::Quitquitquit, word(&["true", "no"]).boxed()),
        (OptionKey::UpstreamHttp, word(&["auto", "1", "2"]).boxed()),
        (OptionKey::ConnectTimeout, time().boxed()),
        (
            OptionKey::ResponseTimeout,
            prop_oneof![time(), Just("off".to_owned())].boxed(),
        ),
        (OptionKey::TokenTimeout, time().boxed()),
        (
            OptionKey::IdleTimeout,
            prop_oneof![time(), Just("0s".to_owned())].boxed(),
        ),
        (OptionKey::DrainTimeout, time().boxed()),
        (
            OptionKey::MaxConnections,
            (1_usize..=1_000_000).prop_map(|n| n.to_string()).boxed(),
        ),
        (
            OptionKey::Workers,
            (1_usize..=1_024).prop_map(|n| n.to_string()).boxed(),
        ),
        (
            OptionKey::LogFormat,
            word(&["auto", "json", "text"]).boxed(),
        ),
        (
            OptionKey::LogLevel,
            word(&["error", "warn", "info", "debug", "trace"]).boxed(),
        ),
        (
            OptionKey::AccessLog,
            word(&["off", "errors", "all"]).boxed(),
        ),
    ];
    choices
        .into_iter()
        .map(|(name, text)| text.prop_map(move |text| (name, text)))
        .collect::<Vec<_>>()
}

/// Valid fields of the options that routes and rules share.
fn shared() -> impl Strategy<Value = Vec<(String, String)>> {
    let id = (option::of("[!-~]{1,40}"), Just(Vec::new()), Just("id"));
    let access = (Just(None), vec("[!-+\\--~]{1,30}", 0..3), Just("access"));
    let word = |words: &'static [&'static str]| option::of(prop::sample::select(words));
    (
        prop_oneof![id.boxed(), access.boxed()],
        word(&[
            "auto",
            "authorization",
            "x-serverless-authorization",
            "proxy-authorization",
        ]),
        word(&["keep", "replace"]),
        option::of("[a-z]{1,9}@[a-z]{1,9}\\.com"),
        option::of("[a-z0-9:-]{1,12}"),
        word(&["allow"]),
    )
        .prop_map(
            |((audience, scopes, credential), header, existing, account, project, plaintext)| {
                let mut fields = vec![("credential".to_owned(), credential.to_owned())];
                let mut add = |name: &str, value: Option<String>| {
                    fields.extend(value.map(|value| (name.to_owned(), value)));
                };
                add("audience", audience);
                scopes
                    .into_iter()
                    .for_each(|scope| add("scope", Some(scope)));
                add("header", header.map(str::to_owned));
                add("existing", existing.map(str::to_owned));
                add("account", account);
                add("quota-project", project);
                add("plaintext", plaintext.map(str::to_owned));
                fields
            },
        )
}

fn entry(fields: Vec<(String, String)>) -> Entry {
    Entry::Fields(Fields {
        place: "here".into(),
        fields: fields
            .into_iter()
            .map(|(name, value)| (name, Spanned::new(value, "here")))
            .collect(),
        broken: false,
    })
}

fn any_raw() -> impl Strategy<Value = RawConfig> {
    let unix = "unix:[ -9;-~é😀\u{1}\u{2028}]{1,20}(:/[a-z]{1,5}){0,1}";
    let routes = vec(
        (
            option::of(unix),
            "[a-z]{1,9}(/[!$-.0-9A-Z_a-z]{1,9}){0,2}",
            shared(),
        ),
        0..4,
    );
    let rules = vec(
        (
            "(\\*\\.){0,1}[a-z]{1,9}\\.[a-z]{2,5}(:443){0,1}(/[a-z]{1,5}){0,2}",
            shared(),
        ),
        0..4,
    );
    let connect = vec(
        "(\\*|\\*\\.[a-z]{2,5}|[a-z]{2,5}|\\[::1\\])::[a-z]{0,5}:(80){0,1}",
        0..3,
    );
    let hosts = vec("[A-Za-z]{1,9}", 0..3);
    let placeholders = vec("[!-~]{1,9}", 0..3);
    (single(), routes, rules, connect, hosts, placeholders).prop_map(
        |(single, routes, rules, connect, hosts, placeholders)| {
            let mut raw = RawConfig::default();
            for (name, text) in single {
                raw.set_flag(name, [text]);
            }
            raw.set_flag(OptionKey::ConnectTo, connect);
            raw.set_flag(OptionKey::AllowedHost, hosts);
            raw.set_flag(OptionKey::Placeholder, placeholders);
            for (index, (unix, upstream, mut fields)) in routes.into_iter().enumerate() {
                let port = format!("{}/p", 40_000 + index);
                let listen = unix.unwrap_or(port);
                fields.insert(0, ("listen".into(), listen));
                fields.insert(1, ("upstream".into(), format!("https://{upstream}")));
                raw.routes.push(entry(fields));
            }
            for (host, mut fields) in rules {
                fields.insert(0, ("host".into(), host));
                raw.rules.push(entry(fields));
            }
            raw
        },
    )
}

#[test]
fn a_project_whose_name_is_a_number_to_yaml_is_printed_in_quotes() {
    for project in ["1e310", "0x1f", "12", "1.5"] {
        let rule = format!("a.example=id,quota-project={project}");
        let mut config = resolved(&flags(&[(OptionKey::Rule, &rule)])).unwrap();
        config.warnings.clear();
        let printed = Yaml::all(&config).to_string();
        assert_eq!(from_file(&printed).as_ref(), Ok(&config), "{printed}");
    }
}

proptest! {
    #[test]
    fn what_check_prints_loads_to_the_same_configuration(raw in any_raw()) {
        let Ok(mut config) = resolved(&raw) else {
            // Two unix sockets of the same name, once in a blue moon.
            return Err(TestCaseError::reject("contradiction"));
        };
        config.warnings.clear();
        let printed = Yaml::all(&config).to_string();
        let again = from_file(&printed);
        prop_assert_eq!(again.as_ref(), Ok(&config), "{}", printed);
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in prop_oneof![".*", "[ -~]{0,40}", "[0-9a-z:/.*\\[\\],=-]{0,40}"]) {
        let _ = value::listen::parse(&text);
        let _ = value::listen::prefix(&text);
        let _ = value::connect_to::parse(&text);
        let _ = value::duration::any(&text);
        let _ = value::auth::expected(&text, None);
        for name in OptionKey::ALL.iter().copied() {
            if name != OptionKey::UpstreamCa {
                let _ = resolved(&flags(&[(name, &text)]));
            }
        }
    }

    #[test]
    fn no_text_of_a_route_or_rule_makes_the_parser_panic(
        head in "(unix:|\\[::1\\]:|)[0-9a-z/:.*]{0,12}",
        tail in "(https?://|)[a-z0-9.:/@?#\\[\\]-]{0,20}(,[a-z-]{0,12}=?[ -~]{0,8}){0,3}",
    ) {
        let line = format!("{head}={tail}");
        let _ = resolved(&flags(&[(OptionKey::Route, &line), (OptionKey::Rule, &line)]));
    }

    #[test]
    fn no_file_makes_the_reader_panic(
        text in prop_oneof![
            ".{0,200}",
            "(proxy|admin|routes|rules|scopes|&a|\\*a|<<|[\\[\\]{}:,?|>'\"#!%@`~-]|[ \n]|é|1e9|off|null){0,60}",
        ],
    ) {
        let _ = from_file(&text);
    }

    #[test]
    fn no_environment_makes_the_loader_panic(
        variables in vec(("(SIDENTITY_|GCE_METADATA_|GOOGLE_CLOUD_)[A-Z_]{0,16}", "[ -~é]{0,20}"), 0..6),
    ) {
        let env: Env = variables
            .into_iter()
            .filter(|(name, _)| name != "SIDENTITY_CONFIG" && name != "SIDENTITY_UPSTREAM_CA")
            .collect();
        let _ = load(&RawConfig::default(), &env);
    }

    #[test]
    fn a_diagnostic_is_always_one_line(text in "\\PC{0,10}[\u{0}-\u{1f}\u{7f}-\u{9f}]\\PC{0,10}") {
        for name in [OptionKey::Route, OptionKey::Rule, OptionKey::Proxy, OptionKey::ConnectTimeout] {
            for diagnostic in resolved(&flags(&[(name, &text)])).unwrap_err() {
                prop_assert!(!diagnostic.to_string().chars().any(char::is_control));
            }
        }
    }
}
