//! The configuration as a user meets it: `sidentity check`, its lines and its exit status.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set up its files has failed"
)]

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// What a run of `sidentity check` came to.
#[derive(Debug)]
struct Checked {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

/// A directory with a file `c.yaml`, from which checks are run.
struct Setup {
    directory: TempDir,
    environment: Vec<(&'static str, &'static str)>,
}

impl Setup {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            environment: Vec::new(),
        }
    }

    fn file(self, yaml: &str) -> Self {
        self.write("c.yaml", yaml)
    }

    fn write(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.path().join(name), text).unwrap();
        self
    }

    fn variable(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn run(&self, args: &[&str]) -> Checked {
        let output = Command::new(env!("CARGO_BIN_EXE_sidentity"))
            .args(args)
            .current_dir(self.path())
            .env_clear()
            .envs(self.environment.iter().copied())
            .output()
            .unwrap();
        Checked {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn check(&self, flags: &[&str]) -> Checked {
        self.run(&[&["check"], flags].concat())
    }

    /// The lines on stderr of a check that must fail.
    #[track_caller]
    fn refused(&self, flags: &[&str]) -> Vec<String> {
        let checked = self.check(flags);
        assert_eq!(checked.status, Some(64), "{checked:?}");
        assert_eq!(checked.stdout, "");
        checked.stderr.lines().map(str::to_owned).collect()
    }

    /// The YAML of a check that must succeed.
    #[track_caller]
    fn accepted(&self, flags: &[&str]) -> String {
        let checked = self.check(flags);
        assert_eq!(checked.status, Some(0), "{checked:?}");
        checked.stdout
    }
}

#[test]
fn every_bad_flag_is_one_line_that_says_what_would_be_right() {
    let open = "anyone who can reach it would get this service's identity: listen on 127.0.0.1, or say \
                --allow-non-loopback";
    let table: &[(&[&str], &str)] = &[
        (
            &["--prxy", "1"],
            "unknown flag --prxy: did you mean --proxy?",
        ),
        (&["--zzz"], "unknown flag --zzz: see --help"),
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
            "unexpected argument: \"stray\" belongs to no flag",
        ),
        (
            &["--intercept=maybe"],
            "flag --intercept: \"maybe\" must be true or false",
        ),
        (
            &["--ca-dir", "."],
            "flag --ca-dir: \".\" has no CA to hold without interception: add --intercept",
        ),
        (
            &["--intercept", "--ca-dir", "/dev/null/ca"],
            "flag --ca-dir: \"/dev/null/ca\" must be a directory",
        ),
        (
            &["--route", "8081=https://x,audience=a,foo=b"],
            "flag --route 8081: unknown option \"foo\": known are credential, audience, scope, header, existing, account, \
             impersonate, delegate, subject, token, quota-project, scheme, plaintext, http, mode",
        ),
        (
            &["--route", "8081=https://x,audience=a,mode=0660"],
            "flag --route 8081: mode: \"0660\" is for unix sockets: leave it out",
        ),
        (
            &["--route", "unix:/x.sock=https://x,audience=a,mode=999"],
            "flag --route unix:/x.sock: mode: \"999\" must be the permissions of a socket in octal, like 0660",
        ),
        (
            &[
                "--route",
                "unix:/x.sock:/a=https://x,audience=a,mode=0660",
                "--route",
                "unix:/x.sock:/b=https://x,audience=a,mode=0600",
            ],
            "flag --route unix:/x.sock:/b: unix:/x.sock:/a and unix:/x.sock:/b share a socket, and so its mode",
        ),
        (
            &["--discover=maybe"],
            "flag --discover: \"maybe\" must be one of auto, on, off",
        ),
        (
            &["--route", "8081=run://metadata"],
            "flag --route 8081: \"metadata\" is not the name of a Cloud Run service: that is the metadata server",
        ),
        (
            &["--route", "8081=run://Billing"],
            "flag --route 8081: \"Billing\" is not the name of a Cloud Run service: it has lower-case letters, digits and \
             hyphens, first a letter, last no hyphen",
        ),
        (
            &["--route", "8081=run://billing:443"],
            "flag --route 8081: \"billing:443\" is not the name of a Cloud Run service: it has lower-case letters, digits and \
             hyphens, first a letter, last no hyphen",
        ),
        (
            &["--route", "8081=run://billing.example"],
            "flag --route 8081: \"billing.example\" is not the name of a Cloud Run service: after the dot must be a region, \
             like europe-west1",
        ),
        (
            &["--credentials", "adc"],
            "flag --credentials: no credential file was found: GOOGLE_APPLICATION_CREDENTIALS is not set; CLOUDSDK_CONFIG \
             and HOME are not set, so there is no file of gcloud. Run `gcloud auth application-default login`",
        ),
        (
            &["--proxy", "example.com:80"],
            "flag --proxy: \"example.com:80\" must be PORT, ADDR:PORT or [IPV6]:PORT, like 127.0.0.1:8081",
        ),
        (
            &["--proxy", "0.0.0.0:1"],
            &format!("flag --proxy: 0.0.0.0:1: {open}"),
        ),
        (
            &["--route", "[::]:1=https://x.run.app"],
            &format!("flag --route [::]:1: [::]:1: {open}"),
        ),
        (
            &["--proxy", "9090"],
            "flag --proxy: the proxy (127.0.0.1:9090) and admin (127.0.0.1:9090) need a port each",
        ),
        (
            &["--proxy", "off"],
            "flag --proxy: with the proxy off and no routes there is nothing to do: add a --route",
        ),
        (
            &["--route", "8081"],
            "flag --route: \"8081\" must be LISTEN=URL[,OPTION…], like 8081=https://storage.googleapis.com",
        ),
        (
            &["--route", "8081=ftp://x"],
            "flag --route 8081: \"ftp://x\" must be an absolute http or https URL, like https://storage.googleapis.com",
        ),
        (
            &["--route", "8081=https://u:secret@x"],
            "flag --route 8081: the URL must not hold a user (@): tokens come from the metadata server",
        ),
        (
            &["--route", "8081=https://u:a,secret@x"],
            "flag --route 8081: what follows a comma must be an option, NAME=VALUE",
        ),
        (
            &["--route", "8081=https://x/?q"],
            "flag --route 8081: \"https://x/\" must not be followed by a query (?)",
        ),
        (
            &["--route", "8081=https://x/#f"],
            "flag --route 8081: \"https://x/#f\" must not hold a fragment (#)",
        ),
        (
            &["--route", "8081/a//b=https://x.run.app"],
            "flag --route 8081/a//b: prefix \"/a//b\" must be a path, like /v1",
        ),
        (
            &["--route", "8081=https://x.run.app,audiense=y"],
            "flag --route 8081: unknown option \"audiense\": did you mean audience?",
        ),
        (
            &["--route", "8081=https://x.run.app,impersonate=me"],
            "flag --route 8081: impersonate: impersonate \"me\" is not the e-mail address of a service account, such as \
             my-account@my-project.iam.gserviceaccount.com; repeat delegate= for several",
        ),
        (
            &["--route", "8081=https://x.run.app,delegate=a@b.c"],
            "flag --route 8081: delegate \"a@b.c\" has no impersonate=TARGET beside it; name the target, or write the chain as \
             --impersonate-service-account A,B,TARGET",
        ),
        (
            &["--rule", "a.example=access,subject=jane@b.c"],
            "flag --rule a.example: subject \"jane@b.c\" needs the scopes that the domain's administrator has allowed; add \
             scope=, like scope=https://www.googleapis.com/auth/drive.readonly",
        ),
        (
            &["--rule", "a.example=access,token=jwt"],
            "flag --rule a.example: token=jwt is for IAP and a form of ID token; write credential=id, or leave it out",
        ),
        (
            &["--impersonate-service-account", "a@b.c,,t@b.c"],
            "flag --impersonate-service-account: \"a@b.c,,t@b.c\" leaves an account empty: write TARGET, or A,B,TARGET where \
             A impersonates B and B impersonates TARGET, each an e-mail address such as \
             my-account@my-project.iam.gserviceaccount.com",
        ),
        (
            &["--route", "8081=https://x.run.app,http=3"],
            "flag --route 8081: http: \"3\" must be one of auto, 1, 2",
        ),
        (
            &["--route", "3128=https://x.run.app"],
            "flag --route 3128: 3128 is where the forward proxy listens: take another port",
        ),
        (
            &["--route", "9090=https://x.run.app"],
            "flag --route 9090: 9090 is where admin listens: take another port",
        ),
        (
            &[
                "--route",
                "1/a=https://x.run.app",
                "--route",
                "localhost:1/a/=https://y.run.app",
            ],
            "flag --route localhost:1/a/: localhost:1/a/ is a route already: take another port or prefix",
        ),
        (
            &[
                "--allow-non-loopback",
                "--route=1=https://x.run.app",
                "--route=0.0.0.0:1=https://y.run.app",
            ],
            "flag --route 0.0.0.0:1: 1 and 0.0.0.0:1 need a port each",
        ),
        (
            &["--upstream-ca", "/dev/zero"],
            "flag --upstream-ca: \"/dev/zero\" must be at most 16 MiB",
        ),
        (
            &["--route", "8081=http://storage.googleapis.com"],
            "flag --route 8081: a token would travel to http://storage.googleapis.com in plaintext: write https://, or \
             plaintext=allow",
        ),
        (
            &["--rule", "a.example"],
            "flag --rule: \"a.example\" must be PATTERN=CREDENTIAL[,OPTION…], like *.internal.example=id",
        ),
        (
            &["--connect-timeout", "5"],
            "flag --connect-timeout: \"5\" has no unit: write 5s",
        ),
        (
            &["--connect-timeout", "soon"],
            "flag --connect-timeout: \"soon\" is not a duration: write 5s, 500ms or 1m30s",
        ),
        (
            &["--connect-timeout", "0s"],
            "flag --connect-timeout: \"0s\" must be greater than zero, like 5s",
        ),
        (
            &["--idle-timeout", "999y"],
            "flag --idle-timeout: \"999y\" is too long: at most a year",
        ),
        (
            &["--max-connections", "0"],
            "flag --max-connections: \"0\" must be a number from 1 to 1000000",
        ),
        (
            &["--max-idle-connections", "none"],
            "flag --max-idle-connections: \"none\" must be a number from 1 to 1000000",
        ),
        (
            &["--max-memory", "lots"],
            "flag --max-memory: \"lots\" is not a size: write 256Mi, 1Gi or a number of bytes",
        ),
        (
            &["--max-memory", "64"],
            "flag --max-memory: \"64\" is too small: write at least 1Mi (64Mi for 64 mebibytes)",
        ),
        (
            &["--workers=-1"],
            "flag --workers: \"-1\" must be a number from 1 to 1024",
        ),
        (
            &["--log-level", "loud"],
            "flag --log-level: \"loud\" must be one of error, warn, info, debug, trace",
        ),
        (
            &["--quitquitquit=maybe"],
            "flag --quitquitquit: \"maybe\" must be true or false",
        ),
        (
            &["--proxy-auth", "random"],
            "flag --proxy-auth: random is for exec, which hands the password to its command; here nobody would know it: write \
             USER:PASSWORD",
        ),
        (
            &["--proxy-auth", "secret"],
            "flag --proxy-auth: write USER:PASSWORD or off",
        ),
        (
            &["--connect-to", "a:1"],
            "flag --connect-to: \"a:1\" must be HOST:PORT:HOST2:PORT2, like storage.googleapis.com:443:127.0.0.1:8443",
        ),
        (
            &["--allowed-host", "a:80"],
            "flag --allowed-host: \"a:80\" must be a host name or address without a port",
        ),
        (
            &["--placeholder", ""],
            "flag --placeholder: \"\" must be one or more visible ASCII characters, without spaces",
        ),
        (
            &["--placeholder", "a b"],
            "flag --placeholder: \"a b\" must be one or more visible ASCII characters, without spaces",
        ),
        (
            &["--config", "absent.yaml"],
            "flag --config: cannot read \"absent.yaml\": No such file or directory (os error 2)",
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
fn help_says_how_environment_and_file_name_an_option_and_version_is_the_version() {
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
fn flags_win_over_environment_over_file() {
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
fn what_is_allowed_is_printed_also_where_nothing_needs_it() {
    for (args, printed) in [
        (&["--allow-non-loopback"][..], "allow_non_loopback: true"),
        (&[], "allow_non_loopback: false"),
    ] {
        let yaml = Setup::new().accepted(&[&["--all"], args].concat());
        assert!(yaml.lines().any(|line| line == printed), "{yaml}");
    }
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
fn a_variable_that_nearly_names_an_option_is_a_problem() {
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
    assert_eq!(
        setup.refused(&[]),
        [
            "sidentity: environment SIDENTITY_CONFG: names no option: did you mean SIDENTITY_CONFIG?",
            "sidentity: environment SIDENTITY_LOG_LEVL: names no option: did you mean SIDENTITY_LOG_LEVEL?",
            "sidentity: environment SIDENTITY_PROXI_AUTH: names no option: did you mean SIDENTITY_PROXY_AUTH?",
            "sidentity: environment SIDENTITY_RUEL: names no option: did you mean SIDENTITY_RULE?",
            "sidentity: environment SIDENTITY_PROXY: \"x\" must be PORT, ADDR:PORT or [IPV6]:PORT, like 127.0.0.1:8081",
            "sidentity: environment SIDENTITY_DISCOVER: \"maybe\" must be one of auto, on, off",
        ]
    );
}

#[test]
fn a_kubernetes_service_called_sidentity_does_not_stop_every_sidecar_of_its_namespace() {
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
fn a_ca_dir_in_a_folder_that_others_can_write_to_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let top = tempfile::tempdir().unwrap();
    let (open, mine) = (top.path().join("open"), top.path().join("mine"));
    for (folder, mode) in [(&open, 0o1777), (&mine, 0o755)] {
        std::fs::create_dir(folder).unwrap();
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let stderr = |folder: &Path| {
        let ca_dir = folder.join("ca");
        let checked = Setup::new().check(&["--intercept", "--ca-dir", ca_dir.to_str().unwrap()]);
        assert_eq!(checked.status, Some(0), "{checked:?}");
        checked.stderr
    };
    let warning = format!("other users can write to {open:?} (mode 1777, owner ");
    assert!(stderr(&open).contains(&warning), "{}", stderr(&open));
    assert!(!stderr(&mine).contains("can write to"), "{}", stderr(&mine));
}

#[test]
fn a_variable_of_somebody_else_is_ignored_with_a_warning() {
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
            "environment SIDENTITY_ADMIN_PORT, SIDENTITY_IMAGE, SIDENTITY_SERVICE_HOST: name no option of sidentity and are ignored"
        ),
        "{stderr}"
    );
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_text_is_a_problem() {
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
fn all_problems_of_flags_environment_and_file_come_at_once() {
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
fn every_problem_of_a_file_names_line_and_column() {
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
        "c.yaml:1:44: proxy.intercept: \"maybe\" must be true or false",
        "c.yaml:1:51: proxy.lisen: unknown key: did you mean listen?",
        "c.yaml:2:1: prxy: unknown key: did you mean proxy?",
        "c.yaml:4:1: workers: the key is there twice: keep one",
        "c.yaml:20:11: discover: \"maybe\" must be one of auto, on, off",
        "c.yaml:21:3: a key must be a text, not a list",
        "c.yaml:3:10: workers: write a text, not a list",
        "c.yaml:5:6: admin: nothing is written here: write a value, or leave the key out",
        "c.yaml:9:5: routes[0].audiense: unknown key: did you mean audience?",
        "c.yaml:11:5: routes[2].lisen: unknown key: did you mean listen?",
        "c.yaml:18:52: rules[3].impersonate: impersonate \"me\" is not the e-mail address of a service account, such as \
         my-account@my-project.iam.gserviceaccount.com; repeat delegate= for several",
        "c.yaml:15:35: rules[0].credential: credential \"idd\" is none of access, id, none, deny",
        "c.yaml:16:12: rules[1].host: \"a.example/x\" holds a path, which has a key of its own: write it there",
        "c.yaml:17:29: rules[2].path: \"y\" must begin with /",
        "c.yaml:19:5: rules[4]: credential is missing: write access, id, none or deny",
        "c.yaml:10:5: routes[1]: \"8082\" must be LISTEN=URL[,OPTION…], like 8081=https://storage.googleapis.com",
        "c.yaml:13:5: routes[3]: listen is missing",
    ]
    .map(|line| format!("sidentity: {line}"));
    let mut found = setup.refused(&["--config", "c.yaml"]);
    for line in &expected {
        assert!(found.contains(line), "{line}\nin {found:#?}");
        found.retain(|other| other != line);
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn what_is_no_yaml_says_where() {
    for (yaml, line) in [
        ("proxy: [1\n", "c.yaml:1:8: not YAML: unclosed bracket '['"),
        (
            "proxy: 1\n---\nadmin: 2\n",
            "c.yaml:3:1: not YAML: a second document begins here: write one",
        ),
        (
            "- proxy\n",
            "c.yaml:1:1: write a mapping, like \"proxy: 3128\", not a list",
        ),
        (
            "proxy: &a {listen: *a}\n",
            "c.yaml:1:20: not YAML: an alias stands within what it is an alias of",
        ),
    ] {
        let setup = Setup::new().file(yaml);
        assert_eq!(
            setup.refused(&["--config", "c.yaml"]),
            [format!("sidentity: {line}")]
        );
    }
    let setup = Setup::new().write("c.yaml", b"proxy: \xff");
    let line = "sidentity: c.yaml: the file must be UTF-8 text";
    assert_eq!(setup.refused(&["--config", "c.yaml"]), [line]);
    let setup = Setup::new().file(&"#".repeat(1024 * 1024 + 1));
    let line = "sidentity: flag --config: \"c.yaml\" must be at most 1 MiB";
    assert_eq!(setup.refused(&["--config", "c.yaml"]), [line]);
}

#[test]
fn the_file_of_the_contract_is_read_and_printed_as_it_is() {
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
         \x20 # auth: it is set, and a secret: not shown\n\
         admin:\n\
         \x20 listen: off\n\
         \x20 quitquitquit: false\n\
         allow_non_loopback: false\n\
         discover: off\n\
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
         log_format: json\n\
         log_level: info\n\
         access_log: errors\n\
         # metadata server: 169.254.169.254:80\n"
    );
    let printed = Setup::new().file(&yaml);
    let again = printed.accepted(&["--config", "c.yaml", "--all"]);
    assert_eq!(
        again,
        yaml.replace("# auth: it is set, and a secret: not shown", "auth: off")
    );
}

#[test]
fn check_all_prints_the_options_that_are_off_or_empty_too() {
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
    // The file says nothing of it, so that other sources count.
    let setup = Setup::new().file("proxy: {ca_dir: null, intercept: on}\n");
    let yaml = setup.accepted(&["--config", "c.yaml", "--ca-dir", "."]);
    assert!(yaml.contains("  ca_dir: \".\"\n"), "{yaml}");
}

#[test]
fn the_example_of_the_contract_is_right_also_where_its_directory_is_not_there_yet() {
    let setup = Setup::new().file(
        "proxy: {listen: 127.0.0.1:3128, unmatched: pass, intercept: true, ca_dir: shared/ca}\n\
         admin: {listen: 127.0.0.1:9090}\n",
    );
    let checked = setup.check(&["--config", "c.yaml"]);
    assert_eq!(checked.status, Some(0), "{checked:?}");
    assert_eq!(
        checked.stderr,
        "sidentity: warning: --ca-dir \"shared/ca\" is not there and is made at the start: does the app see the same?\n"
    );
}

#[test]
fn an_interception_that_serves_nobody_is_warned_of() {
    let setup = Setup::new();
    for (args, warned) in [
        (&["--intercept"][..], "without --ca-dir"),
        (
            &[
                "--intercept",
                "--proxy",
                "off",
                "--route",
                "8081=https://x.run.app",
            ],
            "--intercept does nothing",
        ),
        (&["--intercept", "--ca-dir", "."], ""),
    ] {
        let checked = setup.check(args);
        assert_eq!(checked.status, Some(0));
        assert!(checked.stderr.contains(warned), "{checked:?}");
        assert_eq!(checked.stderr.is_empty(), warned.is_empty(), "{checked:?}");
    }
}

#[test]
fn more_roots_are_read_at_once_and_a_bad_file_is_a_problem() {
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
    let lines = setup.refused(&[
        "--upstream-ca",
        "absent.pem",
        "--upstream-ca",
        "empty.pem",
        "--upstream-ca",
        "broken.pem",
    ]);
    let starts = [
        "sidentity: flag --upstream-ca: cannot read \"absent.pem\": No such file or directory",
        "sidentity: flag --upstream-ca: \"empty.pem\" holds no certificate: it must be PEM",
        "sidentity: flag --upstream-ca: \"broken.pem\" holds no usable certificate: ",
    ];
    assert_eq!(lines.len(), starts.len());
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
}

#[test]
fn what_googles_libraries_read_is_read_checked_and_shown() {
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
    assert_eq!(checked.stderr, "");
    let setup = Setup::new()
        .variable("GCE_METADATA_HOST", "a/b")
        .variable("SSL_CERT_FILE", "absent.pem")
        .variable("GOOGLE_CLOUD_QUOTA_PROJECT", "my project")
        .variable("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "com");
    assert_eq!(
        setup.refused(&[]),
        [
            "sidentity: environment SSL_CERT_FILE: cannot read \"absent.pem\": No such file or directory (os error 2)",
            "sidentity: environment GCE_METADATA_HOST: \"a/b\" must be HOST or HOST:PORT, like 169.254.169.254",
            "sidentity: environment GOOGLE_CLOUD_QUOTA_PROJECT: \"my project\" must be a project's id",
            "sidentity: environment GOOGLE_CLOUD_UNIVERSE_DOMAIN: \"com\" must be a domain, like googleapis.com",
        ]
    );
}

#[test]
fn a_value_that_yaml_reads_as_something_else_is_told_to_be_quoted() {
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
        let line = format!(
            "sidentity: c.yaml:{place}: not YAML: {value:?} begins with {begins}, which means something else in YAML: write it \
             in quotes"
        );
        assert_eq!(setup.refused(&["--config", "c.yaml"]), [line], "{yaml}");
        // As it is told to be written, it is YAML.
        let quoted = yaml.replace(value, &format!("\"{value}\""));
        let checked = Setup::new().file(&quoted).check(&["--config", "c.yaml"]);
        assert!(!checked.stderr.contains("not YAML"), "{checked:?}");
    }
    // A password is none of the values that are shown.
    let setup = Setup::new().file("proxy_auth: @me:hunter2\n");
    let lines = setup.refused(&["--config", "c.yaml"]);
    assert!(lines[0].contains("write it in quotes"), "{lines:?}");
    assert!(!lines[0].contains("hunter2"), "{lines:?}");
}

/// Whatever is wrong, its own text is in the line, so that it can be searched for; a password never is.
#[test]
fn every_error_repeats_the_value_that_is_wrong() {
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
        let lines = Setup::new().file(yaml).refused(&["--config", "c.yaml"]);
        assert!(
            lines.iter().all(|line| line.contains(value)),
            "{yaml}: {lines:?}"
        );
    }
    let variables = [
        ("GCE_METADATA_HOST", "a/b"),
        ("SSL_CERT_FILE", "absent.pem"),
        ("GOOGLE_CLOUD_QUOTA_PROJECT", "my project"),
        ("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "com"),
    ];
    for (name, value) in variables {
        let lines = Setup::new().variable(name, value).refused(&[]);
        assert!(lines[0].contains(value), "{lines:?}");
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
        let lines = Setup::new().file(yaml).refused(&["--config", "c.yaml"]);
        assert!(
            lines.iter().all(|line| !line.contains("hunter2")),
            "{yaml}: {lines:?}"
        );
    }
}

#[test]
fn check_prints_what_differs_from_the_defaults_and_with_all_everything() {
    let setup = Setup::new();
    let none = "# every option has its default: sidentity check --all prints them\n";
    assert_eq!(setup.accepted(&[]), none);
    assert_eq!(
        setup.accepted(&["--proxy", "127.0.0.1:3128", "--log-level", "info"]),
        none
    );
    assert_eq!(
        Setup::new().file(none).accepted(&["--config", "c.yaml"]),
        none
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
         # metadata server: localhost:8980\n"
    );
    // It means the same as the whole.
    let all = setup.accepted(&[&["--all"], &args[..]].concat());
    let again = Setup::new()
        .file(&yaml)
        .variable("GCE_METADATA_HOST", "localhost:8980")
        .accepted(&["--config", "c.yaml", "--all"]);
    assert_eq!(again, all);
    assert!(
        all.contains("\ndiscover: off\n") && all.lines().count() > 25,
        "{all}"
    );
    // What Cloud Run changes is the default there.
    let there = Setup::new().variable("K_SERVICE", "shop");
    assert_eq!(there.accepted(&[]), none);
    assert!(there.accepted(&["--all"]).contains("discover: \"on\""));
    assert_eq!(there.accepted(&["--discover", "off"]), "discover: off\n");
    assert_eq!(
        Setup::new()
            .accepted(&["--proxy", "off", "--route", "1=https://x.run.app"])
            .lines()
            .nth(1),
        Some("  listen: off")
    );
}

#[test]
fn a_rule_that_reaches_beyond_one_organisation_is_warned_of() {
    let beyond = |place: &str, pattern: &str, owner: &str| {
        format!(
            "sidentity: warning: flag --rule {place}: {pattern} reaches beyond one organisation's domain: {owner}"
        )
    };
    let anyone =
        "anyone can register a name below it and would receive this token; name your own domain";
    let customers = "customers of a provider have names below it and would receive this token; name your own hosts";
    for (rule, pattern) in [
        ("*.org=id", "*.org"),
        ("*.INFO.=id", "*.info"),
        ("*.co.uk=access", "*.co.uk"),
        ("*.com.au=id,audience=x", "*.com.au"),
        ("*.example=access", "*.example"),
        ("*.dev=id", "*.dev"),
        ("*.net:8443/v1=access", "*.net:8443/v1"),
        ("*.xn--p1ai=id", "*.xn--p1ai"),
        ("*.co.jp=access", "*.co.jp"),
        ("*.de=id", "*.de"),
    ] {
        let checked = Setup::new().check(&["--rule", rule]);
        let place = rule.split('=').next().unwrap();
        let line = beyond(place, pattern, anyone) + "\n";
        assert_eq!((checked.status, &*checked.stderr), (Some(0), &*line));
    }
    for rule in [
        "*.run.app=access",
        "*.run.app=id,audience=123-x.apps.googleusercontent.com",
        "*.a.run.app=access",
        "*.europe-west1.run.app=access",
        "*.appspot.com=id,audience=123-x.apps.googleusercontent.com",
        "*.uc.r.appspot.com=id",
        "*.cloudfunctions.net=access",
        "*.googleusercontent.com=access",
        "*.web.app=access",
        "*.github.io=id",
        "*.herokuapp.com=access",
        "*.s3.amazonaws.com=access",
    ] {
        let checked = Setup::new().check(&["--rule", rule]);
        let pattern = rule.split('=').next().unwrap();
        assert_eq!(
            checked.stderr,
            beyond(pattern, pattern, customers) + "\n",
            "{rule}"
        );
    }
    for rule in [
        "*.example.com=access",
        "*.example.co.uk=access",
        "*.internal.example=id",
        "*.internal=id",
        "*.corp=id",
        "*.cluster.local=id",
        "*.run.app=id",
        "*.a.run.app=id",
        "*.cloudfunctions.net=id",
        "*.my-project.cloud.goog=id",
        "*.pkg.dev=access,scheme=basic",
        "*.com=deny",
        "*.com=none",
        "billing=id",
        "example.com=access",
        "x.run.app=access",
        "*.my-app.run.app=none",
    ] {
        let checked = Setup::new().check(&["--rule", rule]);
        assert_eq!((checked.status, &*checked.stderr), (Some(0), ""), "{rule}");
    }
}

#[test]
fn a_wide_rule_that_names_what_the_table_leaves_out_is_warned_of() {
    let warning = |rules: &[&str]| {
        let flags: Vec<&str> = rules.iter().flat_map(|rule| ["--rule", *rule]).collect();
        let checked = Setup::new().check(&flags);
        assert_eq!(checked.status, Some(0), "{checked:?}");
        checked.stderr
    };
    assert_eq!(
        warning(&["*.googleapis.com=access,existing=replace"]),
        "sidentity: warning: flag --rule *.googleapis.com: it gives a token to hosts that get none without it, and replaces \
         the app's own credential there: oauth2.googleapis.com, sts.googleapis.com, securetoken.googleapis.com, \
         identitytoolkit.googleapis.com, fonts.googleapis.com, ajax.googleapis.com, maps.googleapis.com, \
         *.mtls.googleapis.com, www.googleapis.com/oauth2; name the hosts that are meant, or add --rule \
         oauth2.googleapis.com=none and the like\n"
    );
    let said = warning(&["*.googleapis.com=id"]);
    assert!(
        said.contains("oauth2.googleapis.com") && !said.contains("replaces"),
        "{said}"
    );
    let said = warning(&["*.google.com=access"]);
    assert!(
        said.contains("get none without it: accounts.google.com;"),
        "{said}"
    );
    let said = warning(&["*.com=access"]);
    assert_eq!(said.lines().count(), 2, "{said}");
    let said = warning(&[
        "*.googleapis.com=access",
        "oauth2.googleapis.com=none",
        "*.mtls.googleapis.com=none",
    ]);
    assert!(
        !said.contains("oauth2.googleapis.com,") && !said.contains("mtls.google"),
        "{said}"
    );
    assert!(said.contains("sts.googleapis.com"), "{said}");
    for quiet in [
        "*.googleapis.com=none",
        "*.googleapis.com:8443=access",
        "oauth2.googleapis.com=access",
        "*.mtls.googleapis.com=access",
        "storage.googleapis.com=access",
        "www.googleapis.com/oauth2=access",
        "*.storage.googleapis.com=access",
    ] {
        assert_eq!(warning(&[quiet]), "", "{quiet}");
    }
    // The path and the port that the rule is for are looked at.
    let said = warning(&["*.googleapis.com/token=access"]);
    assert!(said.contains("oauth2.googleapis.com"), "{said}");
    let said = warning(&["*.googleapis.com:80=access"]);
    assert!(said.contains("oauth2.googleapis.com"), "{said}");
    // Another universe has the same hosts.
    let setup = Setup::new().variable("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "example.goog");
    let said = setup.check(&["--rule", "*.example.goog=access"]).stderr;
    assert!(said.contains("sts.example.goog"), "{said}");
}

#[test]
fn a_rule_of_the_file_is_warned_of_with_its_place() {
    let setup = Setup::new().file("rules:\n  - host: '*.com'\n    credential: id\n");
    let checked = setup.check(&["--config", "c.yaml"]);
    assert!(
        checked
            .stderr
            .starts_with("sidentity: warning: c.yaml:2:5: rules[0]: *.com reaches beyond"),
        "{checked:?}"
    );
}

#[test]
fn impersonation_is_read_from_every_source_and_printed_as_it_is() {
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
fn an_identity_of_a_rule_is_printed_as_it_is() {
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
    );
    let again = Setup::new().file(&yaml).accepted(&["--config", "c.yaml"]);
    assert_eq!(again, yaml);
}
