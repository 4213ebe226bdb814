//! The upstream proxy in `sidentity check`, and invalid values.

use super::*;

fn sidentity(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output: Output = Command::new(env!("CARGO_BIN_EXE_sidentity"))
        .args(args)
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .unwrap();
    (
        output.status.code(),
        lossy(&output.stdout),
        lossy(&output.stderr),
    )
}

#[test]
fn check_shows_the_proxy_without_its_credentials() {
    let env = [
        (
            "SIDENTITY_UPSTREAM_PROXY",
            "http://user:s3%63ret@proxy.example:3128",
        ),
        ("SIDENTITY_NO_UPSTREAM_PROXY", "a.example, 10.0.0.0/8"),
    ];
    for args in [&["check"][..], &["check", "--all"]] {
        let (status, out, err) = sidentity(args, &env);
        assert_eq!(status, Some(0), "{err}");
        for line in [
            "upstream_proxy: http://proxy.example:3128\n",
            "no_upstream_proxy:\n  - a.example\n  - 10.0.0.0/8\n",
            "# upstream_proxy: its credentials are set; not shown, because they are a secret\n",
        ] {
            assert!(out.contains(line), "{line} in {out}");
        }
        for secret in SECRETS.into_iter().chain(["user"]) {
            assert!(!out.contains(secret) && !err.contains(secret), "{out}{err}");
        }
    }
    let (_, out, _) = sidentity(&["check", "--all"], &[]);
    assert!(
        out.contains("upstream_proxy: off\nno_upstream_proxy: []\n"),
        "{out}"
    );
}

#[test]
fn an_unusable_proxy_is_an_error_on_one_line() {
    for (proxy, says) in [
        (
            "https://user:s3cret@proxy.example",
            "https:// proxies are not supported",
        ),
        (
            "socks5h://user:s3cret@proxy.example:1080",
            "socks5h:// proxies are not supported",
        ),
        (
            "http://user:s3cret@",
            "write http://[USER:PASSWORD@]HOST:PORT",
        ),
        (
            "http://127.0.0.1:3128",
            "is a listener of the sidecar itself",
        ),
        (
            "http://localhost:9090",
            "is a listener of the sidecar itself",
        ),
        (
            "http://metadata.google.internal:80",
            "is the metadata server",
        ),
    ] {
        for (args, env, place) in [
            (
                vec!["check", "--upstream-proxy", proxy],
                vec![],
                "flag --upstream-proxy: ",
            ),
            (
                vec!["run", "--upstream-proxy", proxy],
                vec![],
                "flag --upstream-proxy: ",
            ),
            (
                vec!["check"],
                vec![("SIDENTITY_UPSTREAM_PROXY", proxy)],
                "environment SIDENTITY_UPSTREAM_PROXY: ",
            ),
        ] {
            let (status, _, err) = sidentity(&args, &env);
            assert_eq!(status, Some(64), "{proxy}: {err}");
            assert!(err.contains(place) && err.contains(says), "{proxy}: {err}");
            assert_eq!(err.trim().lines().count(), 1, "{err}");
            assert!(!err.contains("s3cret"), "{err}");
        }
    }
    let (status, _, err) = sidentity(&["check", "--no-upstream-proxy", "a.example,http://b"], &[]);
    assert_eq!(status, Some(64));
    assert!(
        err.contains("flag --no-upstream-proxy: \"http://b\" must be a host"),
        "{err}"
    );
}

#[test]
fn explain_says_that_connect_to_on_this_machine_bypasses_a_remote_proxy() {
    let env = [
        ("GCE_METADATA_HOST", "127.0.0.1:1"),
        ("SIDENTITY_UPSTREAM_PROXY", "http://proxy.example:3128"),
        (
            "SIDENTITY_CONNECT_TO",
            "a.example::127.0.0.1:8443 b.example::c.example:",
        ),
    ];
    for (url, says) in [
        (
            "https://a.example/",
            "the call does not use the upstream proxy http://proxy.example:3128: --connect-to leads to this machine",
        ),
        (
            "https://b.example/",
            "the call uses the upstream proxy http://proxy.example:3128",
        ),
    ] {
        let (status, out, err) = sidentity(&["explain", url], &env);
        assert_eq!(status, Some(0), "{err}");
        // An explanation is wrapped.
        let out = out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(out.contains(says), "{out}");
    }
}
