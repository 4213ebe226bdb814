use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

mod properties;
mod values;

/// Resolves these flags with an empty environment.
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

/// Resolves a file. Omits its warnings, which contain locations.
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
    assert_eq!(config.unmatched, PassOrDeny::Pass);
    assert_eq!(config.metadata_access, PassOrDeny::Pass);
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

/// Checks each option's entry: its default and its words are valid values, and the printed value is accepted as input.
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
fn a_rule_after_an_equal_one_is_a_warning() {
    let config = resolved(&flags(&[
        (OptionKey::Rule, "a.example=id"),
        (OptionKey::Rule, "A.example.=none"),
    ]))
    .unwrap();
    let expected = "flag --rule A.example.: never matches, because flag --rule a.example has a.example before it";
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
        // The function depends on the path of each call.
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
