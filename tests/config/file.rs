//! The YAML file: locations of errors, and texts with another meaning in YAML.

use crate::{Id, Setup};

#[test]
fn every_error_of_a_file_has_its_line_column_and_field() {
    let setup = Setup::new().file(
        "proxy: {listen: 127.0.0.1:3128, intercept: maybe, lisen: 1}\n\
         prxy: off\n\
         workers: [1]\n\
         workers: 2\n\
         admin:\n\
         routes:\n\
         \x20 - listen: 8081\n\
         \x20   upstream: https://x.run.app\n\
         \x20   audiense: y\n\
         \x20 - 8082\n\
         \x20 - lisen: 8083\n\
         \x20   upstream: https://x.run.app\n\
         \x20 - upstream: https://x.run.app\n\
         rules:\n\
         \x20 - {host: a.example, credential: idd}\n\
         \x20 - {host: a.example/x, path: /y, credential: id}\n\
         \x20 - {host: a.example, path: y, credential: id}\n\
         \x20 - {host: a.example, credential: id, impersonate: me}\n\
         \x20 - {host: a.example}\n\
         discover: maybe\n\
         ? [1]\n\
         : 2\n",
    );
    let expected = [
        (
            Id::InvalidValue,
            "c.yaml:1:44: proxy.intercept",
            "\"maybe\"",
        ),
        (Id::UnknownKey, "c.yaml:1:51: proxy.lisen", "listen"),
        (Id::UnknownKey, "c.yaml:2:1: prxy", "proxy"),
        (Id::WrongType, "c.yaml:3:10: workers", "a list"),
        (Id::Duplicate, "c.yaml:4:1: workers", "twice"),
        (Id::MissingValue, "c.yaml:5:6: admin", ""),
        (Id::UnknownKey, "c.yaml:9:5: routes[0].audiense", "audience"),
        (Id::InvalidValue, "c.yaml:10:5: routes[1]", "\"8082\""),
        (Id::UnknownKey, "c.yaml:11:5: routes[2].lisen", "listen"),
        (Id::MissingField, "c.yaml:13:5: routes[3]", "listen"),
        (
            Id::InvalidValue,
            "c.yaml:15:35: rules[0].credential",
            "\"idd\"",
        ),
        (
            Id::InvalidValue,
            "c.yaml:16:12: rules[1].host",
            "\"a.example/x\"",
        ),
        (Id::InvalidValue, "c.yaml:17:29: rules[2].path", "\"y\""),
        (
            Id::InvalidValue,
            "c.yaml:18:52: rules[3].impersonate",
            "\"me\"",
        ),
        (Id::MissingField, "c.yaml:19:5: rules[4]", "credential"),
        (Id::InvalidValue, "c.yaml:20:11: discover", "\"maybe\""),
        (Id::WrongType, "c.yaml:21:3", "a list"),
    ];
    setup.expect(&["--config", "c.yaml"], &expected);
}

#[test]
fn an_error_of_a_file_is_one_line_with_the_correction() {
    for (yaml, line) in [
        ("prxy: off", "1:1: prxy: unknown key: did you mean proxy?"),
        ("workers: [1]", "1:10: workers: write a text, not a list"),
        (
            "workers: 1\nworkers: 2",
            "2:1: workers: the key is given twice: keep one",
        ),
        (
            "admin:",
            "1:6: admin: the value is missing: write one, or remove the key",
        ),
        (
            "rules: [{host: a.example}]",
            "1:9: rules[0]: credential is missing: write access, id, none or deny",
        ),
        (
            "rules: [{host: a.example, credential: idd}]",
            "1:39: rules[0].credential: credential \"idd\" must be one of access, id, none, deny",
        ),
    ] {
        let lines = Setup::new().file(yaml).refused(&["--config", "c.yaml"]);
        assert_eq!(lines, [format!("sidentity: c.yaml:{line}")]);
    }
}

#[test]
fn a_file_that_is_not_yaml_is_an_error_with_its_place() {
    for (yaml, line) in [
        ("proxy: [1\n", "c.yaml:1:8: not YAML: unclosed bracket '['"),
        (
            "proxy: 1\n---\nadmin: 2\n",
            "c.yaml:3:1: not YAML: a second document begins here: write one",
        ),
        (
            "proxy: &a {listen: *a}\n",
            "c.yaml:1:20: not YAML: an alias is inside its own anchor",
        ),
    ] {
        let setup = Setup::new().file(yaml);
        let (place, message) = line.split_once(": ").unwrap();
        setup.expect(
            &["--config", "c.yaml"],
            &[(Id::InvalidYaml, place, message)],
        );
        assert_eq!(
            setup.refused(&["--config", "c.yaml"]),
            [format!("sidentity: {line}")]
        );
    }
    let setup = Setup::new().file("- proxy\n");
    setup.expect(
        &["--config", "c.yaml"],
        &[(Id::WrongType, "c.yaml:1:1", "not a list")],
    );
    let setup = Setup::new().write("c.yaml", b"proxy: \xff");
    setup.expect(&["--config", "c.yaml"], &[(Id::NotUtf8, "c.yaml", "UTF-8")]);
    let setup = Setup::new().file(&"#".repeat(1024 * 1024 + 1));
    setup.expect(
        &["--config", "c.yaml"],
        &[(Id::InvalidFile, "flag --config", "\"c.yaml\"")],
    );
}

#[test]
fn an_example_whose_ca_directory_does_not_exist_yet_is_valid() {
    let setup = Setup::new().file(
        "proxy: {listen: 127.0.0.1:3128, unmatched: pass, intercept: true, ca_dir: shared/ca}\n\
         admin: {listen: 127.0.0.1:9090}\n",
    );
    let checked = setup.check(&["--config", "c.yaml"]);
    assert_eq!(checked.status, Some(0), "{checked:?}");
    assert_eq!(
        checked.stderr,
        "sidentity: warning: --ca-dir \"shared/ca\" does not exist and is created at the start: check that the app has the same directory at this path\n"
    );
}

#[test]
fn an_unquoted_value_that_yaml_misreads_is_an_error() {
    for (yaml, place, value) in [
        (
            "rules:\n  - host: *.internal.example\n    credential: id\n",
            "2:11",
            "*.internal.example",
        ),
        (
            "rules: [*.internal.example=id]\n",
            "1:9",
            "*.internal.example=id",
        ),
        (
            "rules:\n  - *.internal.example=id\n",
            "2:5",
            "*.internal.example=id",
        ),
        (
            "connect_to:\n  - *:443:127.0.0.1:8443\n",
            "2:5",
            "*:443:127.0.0.1:8443",
        ),
        ("rules: [{host: *, credential: id}]\n", "1:16", "*"),
        ("upstream_ca: @file\n", "1:14", "@file"),
        ("upstream_ca: `file`\n", "1:14", "`file`"),
        ("upstream_ca: %file\n", "1:14", "%file"),
        ("proxy: [::1]:3128\n", "1:8", "[::1]:3128"),
        (
            "routes:\n  - listen: [::1]:8081\n    upstream: https://a.run.app\n",
            "2:13",
            "[::1]:8081",
        ),
    ] {
        let setup = Setup::new().file(yaml);
        let begins = value.chars().next().unwrap();
        let place = format!("c.yaml:{place}");
        let message = format!(
            "not YAML: {value:?} begins with {begins}, which has another meaning in YAML: write it in quotes"
        );
        setup.expect(
            &["--config", "c.yaml"],
            &[(Id::InvalidYaml, &place, &message)],
        );
        // The form that the message suggests is valid YAML.
        let quoted = yaml.replace(value, &format!("\"{value}\""));
        let checked = Setup::new().file(&quoted).check(&["--config", "c.yaml"]);
        assert!(!checked.stderr.contains("not YAML"), "{checked:?}");
    }
    // A value that may be a password is not shown.
    let setup = Setup::new().file("proxy_auth: @me:hunter2\n");
    let lines = setup.refused(&["--config", "c.yaml"]);
    assert!(lines[0].contains("write it in quotes"), "{lines:?}");
    assert!(!lines[0].contains("hunter2"), "{lines:?}");
}

/// The line of each error contains the wrong text, so that it can be searched for. It never contains a password.
#[test]
fn every_error_quotes_the_wrong_value_but_no_password() {
    let table: &[(&str, &str)] = &[
        ("proxy: here", "here"),
        ("admin: there", "there"),
        ("intercept: perhaps", "perhaps"),
        ("discover: perhaps", "perhaps"),
        ("credentials: mine", "mine"),
        ("unmatched: drop", "drop"),
        ("metadata_access: drop", "drop"),
        ("allowed_host: [a:1]", "a:1"),
        ("connect_to: [a]", "\"a\""),
        ("upstream_ca: [absent.pem]", "absent.pem"),
        ("upstream_http: 3", "3"),
        ("connect_timeout: soon", "soon"),
        ("response_timeout: soon", "soon"),
        ("token_timeout: 5", "5"),
        ("idle_timeout: 999y", "999y"),
        ("drain_timeout: -1s", "-1s"),
        ("max_connections: 0", "0"),
        ("max_idle_connections: many", "many"),
        ("max_memory: lots", "lots"),
        ("workers: 0", "0"),
        ("sandbox: perhaps", "perhaps"),
        ("log_format: xml", "xml"),
        ("log_level: loud", "loud"),
        ("access_log: some", "some"),
        ("quitquitquit: perhaps", "perhaps"),
        ("ca_dir: nowhere", "nowhere"),
        ("routes: [8081]", "8081"),
        ("routes: [8081=ftp://x]", "ftp://x"),
        ("routes: [{listen: 8081, upstream: ftp://x}]", "ftp://x"),
        ("routes: [{listen: 8081, upstream: x.run.app}]", "x.run.app"),
        (
            "routes: [{listen: 8081, upstream: https://x.run.app?secret}]",
            "https://x.run.app",
        ),
        (
            "routes: [{listen: 8081, upstream: https://x.run.app#part}]",
            "https://x.run.app#part",
        ),
        (
            "routes: [{listen: 8081, upstream: 'https://x.run.app:99999'}]",
            "https://x.run.app:99999",
        ),
        (
            "routes: [{listen: 8081, upstream: 'run://Billing'}]",
            "Billing",
        ),
        (
            "routes: [{listen: 8081, upstream: 'run://billing/a b'}]",
            "run://billing/a b",
        ),
        (
            "routes: [{listen: here, upstream: https://x.run.app}]",
            "here",
        ),
        (
            "routes: [{listen: 8081, prefix: v1, upstream: https://x.run.app}]",
            "v1",
        ),
        (
            "routes: [{listen: 8081/a, prefix: /v1, upstream: https://x.run.app}]",
            "/v1",
        ),
        (
            "routes: [{listen: 8081, mode: '0660', upstream: https://x.run.app}]",
            "0660",
        ),
        (
            "routes: [{listen: 8081, upstream: https://x.run.app, http: 3}]",
            "3",
        ),
        (
            "routes: [{listen: 8081, upstream: https://x.run.app, header: x-mine}]",
            "x-mine",
        ),
        ("routes: ['8081=https://x.run.app,audience']", "audience"),
        (
            "routes: ['8081=https://x.run.app,Some thing']",
            "Some thing",
        ),
        (
            "routes: ['8081=http://storage.googleapis.com']",
            "http://storage.googleapis.com",
        ),
        ("rules: [a.example]", "a.example"),
        ("rules: [a.example=key]", "key"),
        ("rules: ['a*b=id']", "a*b"),
        (
            "rules: [{host: a.example, path: y, credential: id}]",
            "\"y\"",
        ),
        (
            "rules: [{host: a.example/x, path: /y, credential: id}]",
            "a.example/x",
        ),
        (
            "rules: [{host: a.example, port: http, credential: id}]",
            "http",
        ),
        (
            "rules: [{host: a.example, credential: id, scheme: basic}]",
            "basic",
        ),
        (
            "rules: [{host: a.example, credential: id, scheme: digest}]",
            "digest",
        ),
        (
            "rules: [{host: a.example, credential: id, existing: drop}]",
            "drop",
        ),
        (
            "rules: [{host: a.example, credential: access, account: me}]",
            "me",
        ),
        (
            "rules: [{host: a.example, credential: id, plaintext: deny}]",
            "deny",
        ),
        (
            "rules: [{host: a.example, credential: none, audience: https://aud.example}]",
            "https://aud.example",
        ),
        (
            "rules: [{host: a.example, credential: access, audience: https://aud.example}]",
            "https://aud.example",
        ),
        (
            "rules: [{host: a.example, credential: id, scope: devstorage}]",
            "devstorage",
        ),
        (
            "rules: ['a.example=id,audience=one,audience=other']",
            "other",
        ),
        (
            "routes: ['8081=https://x.run.app,existing=keep,existing=replace']",
            "replace",
        ),
        ("prxy: 1", "prxy"),
    ];
    for (yaml, value) in table {
        let found = Setup::new().file(yaml).diagnostics(&["--config", "c.yaml"]);
        assert!(
            found.iter().all(|error| error.to_string().contains(value)),
            "{yaml}: {found:?}"
        );
    }
    let variables = [
        ("GCE_METADATA_HOST", "a/b"),
        ("SSL_CERT_FILE", "absent.pem"),
        ("GOOGLE_CLOUD_QUOTA_PROJECT", "my project"),
        ("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "com"),
    ];
    for (name, value) in variables {
        let found = Setup::new().variable(name, value).diagnostics(&[]);
        assert!(found[0].message.contains(value), "{found:?}");
    }
    for yaml in [
        "proxy_auth: hunter2",
        "routes: ['8081=https://u:hunter2@x']",
        "routes: ['8081=https://u:a,hunter2@x']",
        "routes: ['https://u:hunter2@x']",
        "routes: ['https://u:hunter2@x=https://y.run.app']",
        "routes: [{listen: 8081, upstream: 'ftp://u:hunter2@x'}]",
        "routes: [{listen: 8081, upstream: 'https://u:hunter2%40x'}]",
        "routes: [{listen: 8081, upstream: 'https://x/?key=hunter2'}]",
        "routes: ['8081=https://x/?key=hunter2']",
        "rules: ['u:hunter2@x']",
    ] {
        let found = Setup::new().file(yaml).diagnostics(&["--config", "c.yaml"]);
        assert!(
            found
                .iter()
                .all(|error| !error.to_string().contains("hunter2")),
            "{yaml}: {found:?}"
        );
    }
}

#[test]
fn a_wrong_port_or_path_of_a_rule_is_reported_at_its_own_field() {
    for (fields, place) in [
        ("port: 70000", "c.yaml:1:49: rules[0].port"),
        ("path: \"/x y\"", "c.yaml:1:49: rules[0].path"),
    ] {
        let yaml = format!("rules: [{{host: a.example, credential: id, {fields}}}]");
        let setup = Setup::new().file(&yaml);
        let found = setup.diagnostics(&["--config", "c.yaml"]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].place, place, "{found:?}");
    }
}
