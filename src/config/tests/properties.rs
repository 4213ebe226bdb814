//! Properties of every configuration: the printed form is accepted as input, and no text causes a panic.

use super::*;
use crate::credentials::is_credential;

fn time() -> impl Strategy<Value = String> {
    (1_u64..1_000_000_000_000)
        .prop_map(|nanos| humantime::format_duration(Duration::from_nanos(nanos)).to_string())
}

/// Valid texts for the options that may be given once.
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

fn entry(fields: Vec<(String, String)>) -> RawEntry {
    RawEntry::Fields(RawFields {
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
    let no_proxy = vec("\\.{0,1}[a-z]{1,9}(\\.[a-z]{2,5}){0,1}(:443){0,1}", 0..3);
    (
        single(),
        routes,
        rules,
        connect,
        hosts,
        placeholders,
        no_proxy,
    )
        .prop_map(
            |(single, routes, rules, connect, hosts, placeholders, no_proxy)| {
                let mut raw = RawConfig::default();
                for (name, text) in single {
                    raw.set_flag(name, [text]);
                }
                raw.set_flag(OptionKey::ConnectTo, connect);
                raw.set_flag(OptionKey::AllowedHost, hosts);
                // `check` prints no placeholder that looks like a credential.
                let placeholders = placeholders
                    .into_iter()
                    .filter(|text: &String| !is_credential(text));
                raw.set_flag(OptionKey::Placeholder, placeholders);
                raw.set_flag(OptionKey::NoUpstreamProxy, no_proxy);
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
            // Two unix sockets may have the same name, which is rare.
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
        let _ = parse_duration(&text);
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
