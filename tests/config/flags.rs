//! Flags and commands that are wrong, and `--help`.

use crate::Setup;

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
