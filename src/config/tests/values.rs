//! How the values of options are parsed.

use super::*;

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
