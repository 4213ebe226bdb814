//! Invalid flags and commands, and `--help`.

use crate::{Id, Setup};

#[test]
fn a_value_that_an_option_does_not_accept_is_quoted() {
    let table = [
        ("--intercept=maybe", "--intercept", "maybe"),
        (
            "--intercept --ca-dir /dev/null/ca",
            "--ca-dir",
            "/dev/null/ca",
        ),
        (
            "--route unix:/x.sock=https://x,audience=a,mode=999",
            "--route unix:/x.sock: mode",
            "999",
        ),
        ("--discover=maybe", "--discover", "maybe"),
        ("--route 8081=run://metadata", "--route 8081", "metadata"),
        ("--route 8081=run://Billing", "--route 8081", "Billing"),
        (
            "--route 8081=run://billing:443",
            "--route 8081",
            "billing:443",
        ),
        (
            "--route 8081=run://billing.example",
            "--route 8081",
            "billing.example",
        ),
        ("--proxy example.com:80", "--proxy", "example.com:80"),
        ("--route 8081", "--route", "8081"),
        ("--route 8081=ftp://x", "--route 8081", "ftp://x"),
        ("--route 8081=https://x/?q", "--route 8081", "https://x/"),
        ("--route 8081=https://x/#f", "--route 8081", "https://x/#f"),
        (
            "--route 8081/a//b=https://x.run.app",
            "--route 8081/a//b",
            "/a//b",
        ),
        (
            "--route 8081=https://x.run.app,impersonate=me",
            "--route 8081: impersonate",
            "me",
        ),
        (
            "--impersonate-service-account a@b.c,,t@b.c",
            "--impersonate-service-account",
            "a@b.c,,t@b.c",
        ),
        (
            "--route 8081=https://x.run.app,http=3",
            "--route 8081: http",
            "3",
        ),
        ("--rule a.example", "--rule", "a.example"),
        ("--connect-timeout 5", "--connect-timeout", "5"),
        ("--connect-timeout soon", "--connect-timeout", "soon"),
        ("--connect-timeout 0s", "--connect-timeout", "0s"),
        ("--idle-timeout 999y", "--idle-timeout", "999y"),
        ("--max-connections 0", "--max-connections", "0"),
        (
            "--max-idle-connections none",
            "--max-idle-connections",
            "none",
        ),
        ("--max-memory lots", "--max-memory", "lots"),
        ("--max-memory 64", "--max-memory", "64"),
        ("--workers=-1", "--workers", "-1"),
        ("--log-level loud", "--log-level", "loud"),
        ("--quitquitquit=maybe", "--quitquitquit", "maybe"),
        ("--connect-to a:1", "--connect-to", "a:1"),
        ("--allowed-host a:80", "--allowed-host", "a:80"),
        ("--placeholder=", "--placeholder", ""),
    ];
    let setup = Setup::new();
    for (flags, flag, value) in table {
        let flags: Vec<_> = flags.split_whitespace().collect();
        let (place, value) = (format!("flag {flag}"), format!("{value:?}"));
        setup.expect(&flags, &[(Id::InvalidValue, &place, &value)]);
    }
    let spaces = [(Id::InvalidValue, "flag --placeholder", "\"a b\"")];
    setup.expect(&["--placeholder", "a b"], &spaces);
}

#[test]
fn a_wrong_flag_is_reported_with_its_kind_and_place() {
    let table = [
        (
            "--prxy 1",
            Id::UnknownFlag,
            "unknown flag --prxy",
            "did you mean --proxy?",
        ),
        ("--zzz", Id::UnknownFlag, "unknown flag --zzz", "see --help"),
        (
            "--proxy",
            Id::MissingValue,
            "flag --proxy",
            "--proxy <ADDR|off>",
        ),
        (
            "--proxy 1 --proxy 2",
            Id::Duplicate,
            "flag --proxy",
            "given twice",
        ),
        (
            "stray",
            Id::UnexpectedArgument,
            "unexpected argument",
            "\"stray\"",
        ),
        (
            "--ca-dir .",
            Id::OptionWithoutEffect,
            "flag --ca-dir",
            "\".\"",
        ),
        (
            "--route 8081=https://x,audience=a,foo=b",
            Id::UnknownOption,
            "flag --route 8081",
            "\"foo\"",
        ),
        (
            "--route 8081=https://x,audience=a,mode=0660",
            Id::OptionWithoutEffect,
            "flag --route 8081: mode",
            "\"0660\"",
        ),
        (
            "--route unix:/x.sock:/a=https://x,audience=a,mode=0660 --route unix:/x.sock:/b=https://x,audience=a,mode=0600",
            Id::ListenerConflict,
            "flag --route unix:/x.sock:/b",
            "unix:/x.sock:/a",
        ),
        (
            "--credentials adc",
            Id::NoCredentialFile,
            "flag --credentials",
            "GOOGLE_APPLICATION_CREDENTIALS",
        ),
        (
            "--proxy 0.0.0.0:1",
            Id::ListenerNotLoopback,
            "flag --proxy",
            "0.0.0.0:1",
        ),
        (
            "--route [::]:1=https://x.run.app",
            Id::ListenerNotLoopback,
            "flag --route [::]:1",
            "[::]:1",
        ),
        (
            "--proxy 9090",
            Id::ListenerConflict,
            "flag --proxy",
            "127.0.0.1:9090",
        ),
        ("--proxy off", Id::NothingToDo, "flag --proxy", "--route"),
        (
            "--route 8081=https://u@x",
            Id::InvalidValue,
            "flag --route 8081",
            "user",
        ),
        (
            "--route 8081=https://u:a,secret@x",
            Id::UnknownOption,
            "flag --route 8081",
            "after a comma",
        ),
        (
            "--route 8081=https://x.run.app,audiense=y",
            Id::UnknownOption,
            "flag --route 8081",
            "\"audiense\"",
        ),
        (
            "--route 8081=https://x.run.app,delegate=a@b.c",
            Id::ConflictingOptions,
            "flag --route 8081",
            "\"a@b.c\"",
        ),
        (
            "--rule a.example=access,subject=jane@b.c",
            Id::ConflictingOptions,
            "flag --rule a.example",
            "\"jane@b.c\"",
        ),
        (
            "--rule a.example=access,token=jwt",
            Id::ConflictingOptions,
            "flag --rule a.example",
            "token=jwt",
        ),
        (
            "--route 3128=https://x.run.app",
            Id::ListenerConflict,
            "flag --route 3128",
            "3128",
        ),
        (
            "--route 9090=https://x.run.app",
            Id::ListenerConflict,
            "flag --route 9090",
            "9090",
        ),
        (
            "--route 1/a=https://x.run.app --route localhost:1/a/=https://y.run.app",
            Id::ListenerConflict,
            "flag --route localhost:1/a/",
            "localhost:1/a/",
        ),
        (
            "--allow-non-loopback --route=1=https://x.run.app --route=0.0.0.0:1=https://y.run.app",
            Id::ListenerConflict,
            "flag --route 0.0.0.0:1",
            "1 and 0.0.0.0:1",
        ),
        (
            "--upstream-ca /dev/zero",
            Id::InvalidFile,
            "flag --upstream-ca",
            "\"/dev/zero\"",
        ),
        (
            "--route 8081=http://storage.googleapis.com",
            Id::PlaintextToken,
            "flag --route 8081",
            "http://storage.googleapis.com",
        ),
        (
            "--proxy-auth random",
            Id::InvalidValue,
            "flag --proxy-auth",
            "random",
        ),
        (
            "--proxy-auth secret",
            Id::InvalidValue,
            "flag --proxy-auth",
            "USER:PASSWORD",
        ),
        (
            "--config absent.yaml",
            Id::InvalidFile,
            "flag --config",
            "\"absent.yaml\"",
        ),
    ];
    let setup = Setup::new();
    for (flags, id, place, part) in table {
        let flags: Vec<_> = flags.split_whitespace().collect();
        setup.expect(&flags, &[(id, place, part)]);
    }
}

#[test]
fn an_error_is_one_line_with_the_correction() {
    let open = "anyone who can reach it would get this service's identity: listen on 127.0.0.1, or set \
                --allow-non-loopback";
    let table: &[(&[&str], &str)] = &[
        (
            &["--prxy", "1"],
            "unknown flag --prxy: did you mean --proxy?",
        ),
        (
            &["--proxy"],
            "flag --proxy: needs a value: --proxy <ADDR|off>",
        ),
        (
            &["--proxy", "1", "--proxy", "2"],
            "flag --proxy: is given twice: keep one",
        ),
        (
            &["stray"],
            "unexpected argument: \"stray\" follows no flag: remove it, or put it after its flag",
        ),
        (
            &["--intercept=maybe"],
            "flag --intercept: \"maybe\" must be true or false",
        ),
        (
            &["--ca-dir", "."],
            "flag --ca-dir: \".\" has no effect without interception: add --intercept",
        ),
        (
            &["--route", "8081=https://x.run.app,audiense=y"],
            "flag --route 8081: unknown option \"audiense\": did you mean audience?",
        ),
        (
            &["--credentials", "adc"],
            "flag --credentials: no credential file was found: GOOGLE_APPLICATION_CREDENTIALS is not set; CLOUDSDK_CONFIG and HOME are not set, so there is no file of gcloud. Run `gcloud auth application-default login`",
        ),
        (
            &["--proxy", "0.0.0.0:1"],
            &format!("flag --proxy: 0.0.0.0:1: {open}"),
        ),
        (
            &["--proxy", "9090"],
            "flag --proxy: the proxy (127.0.0.1:9090) and admin (127.0.0.1:9090) need different ports",
        ),
        (
            &["--proxy", "off"],
            "flag --proxy: the proxy is off and there are no routes: add a --route",
        ),
        (
            &["--route", "8081"],
            "flag --route: \"8081\" must be LISTEN=URL[,OPTION…], like 8081=https://storage.googleapis.com",
        ),
        (
            &["--route", "8081=https://x.run.app,delegate=a@b.c"],
            "flag --route 8081: delegate \"a@b.c\" needs impersonate=TARGET; name the target, or write the chain as --impersonate-service-account A,B,TARGET",
        ),
        (
            &[
                "--route",
                "1/a=https://x.run.app",
                "--route",
                "localhost:1/a/=https://y.run.app",
            ],
            "flag --route localhost:1/a/: localhost:1/a/ is already a route: use another port or prefix",
        ),
        (
            &["--upstream-ca", "/dev/zero"],
            "flag --upstream-ca: \"/dev/zero\" must be at most 16 MiB",
        ),
        (
            &["--route", "8081=http://storage.googleapis.com"],
            "flag --route 8081: a token would be sent to http://storage.googleapis.com in plaintext: write https://, or plaintext=allow",
        ),
        (
            &["--connect-timeout", "soon"],
            "flag --connect-timeout: \"soon\" is not a duration: write 5s, 500ms or 1m30s",
        ),
        (
            &["--connect-timeout", "0"],
            "flag --connect-timeout: \"0\" must be greater than zero, like 5s",
        ),
        (
            &["--connect-timeout", "-1s"],
            "unknown flag -1: a value that begins with - follows its flag with =, as in --workers=-1",
        ),
        (
            &["--route", "8081=https://x.example,http=2,http=1"],
            "flag --route 8081: http: http is given twice: keep one",
        ),
        (
            &["--route", "8081/\u{fc}=https://x.run.app"],
            "flag --route 8081/\u{fc}: prefix \"/\u{fc}\" must be percent-encoded: /%C3%BC",
        ),
        (
            &["--rule", "https://a.example=id"],
            "flag --rule: \"https://a.example=id\" must be PATTERN=CREDENTIAL[,OPTION…], like *.internal.example=id, without a scheme",
        ),
    ];
    let setup = Setup::new();
    for (flags, line) in table {
        assert_eq!(
            setup.refused(flags),
            [format!("sidentity: {line}")],
            "{flags:?}"
        );
    }
}

#[test]
fn an_unknown_command_is_one_line() {
    let checked = Setup::new().run(&["chek"]);
    assert_eq!(checked.status, Some(64));
    assert_eq!(
        checked.stderr,
        "sidentity: unknown command chek: did you mean check?\n"
    );
}

#[test]
fn help_explains_variables_and_file_keys() {
    let setup = Setup::new();
    let help = setup.run(&["check", "--help"]);
    assert_eq!(help.status, Some(0));
    assert!(help.stdout.contains("SIDENTITY_LOG_FORMAT") && help.stdout.contains("(log_format)"));
    let version = setup.run(&["--version"]);
    assert_eq!(version.status, Some(0));
    assert_eq!(
        version.stdout,
        format!("sidentity {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn a_command_after_its_flags_is_an_error_that_says_where_it_belongs() {
    let checked = Setup::new().run(&["--log-level", "warn", "check"]);
    assert_eq!(checked.status, Some(64));
    assert_eq!(
        checked.stderr,
        "sidentity: unexpected argument: \"check\" is a command: write it before its flags\n"
    );
}

/// Vertex AI names the version of a model behind an `@`.
#[test]
fn a_route_whose_path_has_an_at_sign_is_accepted() {
    let url = "https://us-east5-aiplatform.googleapis.com/v1/models/claude@20241022:rawPredict";
    for options in [
        "",
        ",quota-project=example.com:p,account=a@p.iam.gserviceaccount.com",
    ] {
        let checked = Setup::new().check(&["--route", &format!("8081={url}{options}")]);
        assert_eq!(checked.status, Some(0), "{}", checked.stderr);
    }
}
