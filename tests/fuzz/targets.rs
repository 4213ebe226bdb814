//! The functions that the fuzzer calls. `tests/corpus.rs` calls them with the stored inputs in `corpus/`. Each accepts
//! any bytes, and fails by a panic: the sidecar's own panic, or an assertion about its behaviour.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a target fails by a panic"
)]

mod live;
mod paths;

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use sidentity::config::{self, Diagnostic, Env, Log, LogFormat, OptionKey, RawConfig, Yaml};
use sidentity::credentials::{CredentialFile, ReadContext};
use sidentity::destination::{Destination, Host, Scheme};
use sidentity::policy::{
    Credential, CredentialGrant, Decision, Pattern, Placement, Policy, Rule, RuleOptions, Settings,
    inject, select_header, strip_redacted,
};
use sidentity::proxy::{normalize_length, strip_request, strip_response, strip_trailers};
use sidentity::telemetry::{Logger, TraceContext};

pub use live::responses;
pub use paths::paths;

/// A function that takes any bytes.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also the name of its corpus.
pub const ALL: [(&str, Target); 15] = [
    ("credential_file", credential_file),
    ("destination", destination),
    ("flags", flags),
    ("headers", headers),
    ("hop_by_hop", hop_by_hop),
    ("length", length),
    ("log", log),
    ("options", options),
    ("paths", paths),
    ("pattern", pattern),
    ("policy", policy),
    ("responses", responses),
    ("trace", trace),
    ("trailers", trailers),
    ("yaml", yaml),
];

/// A credential file. The message of an error is one line.
pub fn credential_file(input: &[u8]) {
    for variables in [
        &[] as &[&str],
        &["GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "AWS_REGION"],
    ] {
        let context = ReadContext {
            universe: "googleapis.com",
            trusted: &[],
            variable: &|name| variables.contains(&name).then(|| "1".to_owned()),
        };
        match CredentialFile::parse(input, &context) {
            Ok(file) => assert!(!file.kind().is_empty() && !file.universe().is_empty()),
            Err(error) => readable(&error.to_string()),
        }
    }
}

/// A URL keeps its meaning when it is written and parsed again, and its host is normalized.
pub fn destination(input: &[u8]) {
    let Some(destination) = text(input).and_then(|text| Destination::parse(text).ok()) else {
        return;
    };
    let origin = &destination.origin;
    let written = Destination::parse(&destination.to_string()).expect("it can be read again");
    assert_eq!(written.origin, *origin);
    assert_eq!(written.target, destination.target);
    assert!(!written.userinfo);
    assert_eq!(
        Host::parse(&origin.host.to_string()).as_ref(),
        Ok(&origin.host)
    );
    assert_ne!(origin.port, 0);
    assert_eq!(origin.upgraded().scheme, Scheme::Https);
    assert_eq!(origin.upgraded().host, origin.host);
    same_as_browsers(text(input).expect("it is text"), &destination);
    if let Some(name) = origin.host.name() {
        assert!(!name.ends_with('.') && !name.bytes().any(|b| b.is_ascii_uppercase()));
        assert!(name.parse::<IpAddr>().is_err());
    }
}

/// The URL Standard's parser finds the same host and port if it accepts the URL, so clients that use it mean the same
/// destination as we do.
fn same_as_browsers(written: &str, destination: &Destination) {
    let Ok(url) = url::Url::parse(written) else {
        return;
    };
    let origin = &destination.origin;
    let host = match url.host() {
        Some(url::Host::Domain(name)) => Host::parse(name).ok(),
        Some(url::Host::Ipv4(ip)) => Some(Host::Ip(IpAddr::V4(ip))),
        // `Host` writes an IPv4-mapped address as an IPv4 address.
        Some(url::Host::Ipv6(ip)) => Some(Host::Ip(IpAddr::V6(ip).to_canonical())),
        None => None,
    };
    assert_eq!(host.as_ref(), Some(&origin.host), "{written:?}");
    assert_eq!(
        url.port_or_known_default(),
        Some(origin.port),
        "{written:?}"
    );
}

/// A pattern and a URL. If a pattern with a path matches, it also matches without the path.
pub fn pattern(input: &[u8]) {
    let Some((pattern, url)) = text(input).and_then(|text| text.split_once('\n')) else {
        return;
    };
    let (Ok(parsed), Ok(destination)) = (Pattern::parse(pattern), Destination::parse(url)) else {
        return;
    };
    if !parsed.matches(&destination) {
        return;
    }
    let whole = pattern.split('/').next().expect("the first part");
    assert!(Pattern::parse(whole).expect("a host").matches(&destination));
    if let (Some(suffix), Some(name)) = (whole.strip_prefix("*."), destination.origin.host.name()) {
        let suffix = suffix.split(':').next().expect("the first part");
        let suffix = suffix.trim_end_matches('.').to_ascii_lowercase();
        assert!(name.ends_with(&format!(".{suffix}")));
    }
}

/// `PATTERN=CREDENTIAL` lines, and a URL as the last line. Unless a rule says otherwise, only Google's hosts get a
/// token, and only on their standard port.
pub fn policy(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let mut lines: Vec<_> = text.lines().collect();
    let Some(destination) = lines.pop().and_then(|url| Destination::parse(url).ok()) else {
        return;
    };
    let rules: Vec<Rule> = lines.iter().filter_map(|line| rule(line)).collect();
    let patterns: Vec<Pattern> = rules.iter().map(|rule| rule.pattern.clone()).collect();
    let policy = Policy::new(rules, Settings::default());
    let decision = policy.decide(&destination, "googleapis.com");
    let origin = &destination.origin;
    assert_eq!(policy.decide(&destination, "googleapis.com"), decision);
    let told = patterns.iter().any(|pattern| pattern.matches(&destination))
        || patterns.iter().any(|pattern| {
            let upgraded = Destination {
                origin: origin.upgraded(),
                ..destination.clone()
            };
            pattern.matches(&upgraded)
        });
    if told || !matches!(decision.grant, CredentialGrant::Token(_)) {
        return;
    }
    let google = ["googleapis.com", "run.app", "cloudfunctions.net"];
    assert!(
        google.iter().any(|domain| origin.host.is_under(domain)),
        "{destination}"
    );
    assert!(
        origin.is_default_port() && !destination.userinfo,
        "{destination}"
    );
    let access = origin.host.is_under("googleapis.com");
    assert_eq!(
        decision.credential() == Credential::Access,
        access,
        "{destination}"
    );
}

fn rule(line: &str) -> Option<Rule> {
    let (pattern, credential) = line.rsplit_once('=')?;
    let mut options = RuleOptions::default();
    options.set("credential", credential).ok()?;
    options.validate().ok()?;
    Some(Rule {
        pattern: Pattern::parse(pattern).ok()?,
        options,
        name: line.into(),
    })
}

/// A URL, then header lines. The token is in exactly one header. No other header changes, except for an
/// `X-Serverless-Authorization` of the client, which may be removed.
pub fn headers(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let url = lines.next().and_then(text);
    let Some(destination) = url.and_then(|url| Destination::parse(url).ok()) else {
        return;
    };
    let mut sent = fields(lines);
    strip_redacted(&mut sent);
    for name in [
        header::AUTHORIZATION,
        HeaderName::from_static("x-serverless-authorization"),
    ] {
        let dead =
            |value: &HeaderValue| value.as_bytes().ends_with(b".SIGNATURE_REMOVED_BY_GOOGLE");
        assert!(!sent.get_all(name).iter().any(dead));
    }
    let policy = Policy::new(Vec::new(), Settings::default());
    let decision = policy.decide(&destination, "googleapis.com");
    let placeholders = policy.placeholders();
    let target = placeholders.remove_from_query(&destination.target);
    placeholders.remove_from_headers(&mut sent);
    assert!(!placeholders.find(&sent, target.query()).any());
    let placement = select_header(&decision, &sent, destination.query());
    assert_eq!(
        placement.is_some(),
        matches!(decision.grant, CredentialGrant::Token(_))
    );
    if let Some(Placement::Inject(name)) = placement {
        injected(&decision, &sent, &name);
    }
}

fn injected(decision: &Decision, sent: &HeaderMap, name: &HeaderName) {
    let ours = HeaderValue::from_static("Bearer ours");
    let mut after = sent.clone();
    inject(decision, &mut after, name.clone(), ours.clone());
    assert_eq!(after.get_all(name).iter().collect::<Vec<_>>(), [&ours]);
    assert!(after.get(name).is_some_and(HeaderValue::is_sensitive));
    let ours_alone = "x-serverless-authorization";
    for other in sent
        .keys()
        .filter(|other| *other != name && *other != ours_alone)
    {
        assert!(
            sent.get_all(other).iter().eq(after.get_all(other)),
            "{other}"
        );
    }
    if decision.cloud_run && name != ours_alone {
        assert!(!after.contains_key(ours_alone));
    }
}

/// A version and optionally `upgrade`, then header lines. Headers of this connection are never forwarded. All others
/// are forwarded unchanged and in their order.
pub fn hop_by_hop(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let version = match first {
        [b'1', b'.', b'0', ..] => Version::HTTP_10,
        [b'2', ..] => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    let upgrade = version == Version::HTTP_11 && first.ends_with(b" upgrade");
    let came = fields(lines);
    let mut request = came.clone();
    strip_request(version, &mut request, upgrade);
    let mut dead = vec![
        header::PROXY_AUTHORIZATION,
        HeaderName::from_static("http2-settings"),
    ];
    if version == Version::HTTP_10 {
        dead.push(header::EXPECT);
    }
    if !upgrade {
        dead.push(header::UPGRADE);
    }
    let te: Vec<_> = request.get_all(header::TE).iter().collect();
    assert!(te.is_empty() || te == ["trailers"] && came.contains_key(header::TE));
    let connection: Vec<_> = request.get_all(header::CONNECTION).iter().collect();
    let expected: &[&str] = if upgrade { &["upgrade"] } else { &[] };
    assert_eq!(connection, expected);
    went(&came, &request, &dead, &[header::TE, header::CONNECTION]);

    let mut response = came.clone();
    strip_response(&mut response);
    went(&came, &response, &[header::UPGRADE], &[]);
    let mut again = response.clone();
    strip_response(&mut again);
    assert_eq!(again, response);
}

/// Trailer lines. The remaining ones are valid in HTTP/2, and none affects framing, routing or authentication. All
/// others are forwarded unchanged and in their order.
pub fn trailers(input: &[u8]) {
    let came = fields(input.split(|byte| *byte == b'\n'));
    let mut left = came.clone();
    strip_trailers(&mut left);
    for forbidden in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
        "te",
        "host",
        "content-length",
        "authorization",
        "proxy-authorization",
        "x-serverless-authorization",
        "x-goog-api-key",
        "x-goog-user-project",
        "cookie",
        "set-cookie",
    ] {
        assert!(!left.contains_key(forbidden), "{forbidden}");
    }
    let expected = came.iter().filter(|(name, _)| left.contains_key(*name));
    assert!(left.iter().eq(expected));
    if !came.contains_key(header::CONNECTION) {
        for name in came.keys().map(HeaderName::as_str) {
            let passes = name.starts_with("grpc-") || name.starts_with("x-custom");
            assert!(!passes || left.contains_key(name), "{name}");
        }
    }
    let mut again = left.clone();
    strip_trailers(&mut again);
    assert_eq!(again, left);
}

/// `Content-Length` lines. The result is one plain number that all lines contain, or a refusal.
pub fn length(input: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(header::CONTENT_LENGTH, value);
        }
    }
    let came = headers.clone();
    if normalize_length(&mut headers).is_err() || came.is_empty() {
        return;
    }
    let left: Vec<_> = headers.get_all(header::CONTENT_LENGTH).iter().collect();
    let [left] = left[..] else {
        panic!("{left:?}");
    };
    let number: u64 = left.to_str().expect("text").parse().expect("a number");
    assert_eq!(left, &number.to_string());
    for line in came.get_all(header::CONTENT_LENGTH) {
        for item in line.to_str().expect("text").split(',') {
            assert_eq!(item.trim().parse(), Ok(number));
        }
    }
}

/// All received fields are forwarded except for the forbidden ones. Fields that the sidecar adds are not checked here.
fn went(came: &HeaderMap, gone: &HeaderMap, dead: &[HeaderName], ours: &[HeaderName]) {
    let named = |name: &HeaderName| {
        let items = came.get_all(header::CONNECTION).iter();
        !["te", "trailer", "upgrade", "host", "content-length"].contains(&name.as_str())
            && items
                .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
                .any(|item| {
                    item.trim_ascii()
                        .eq_ignore_ascii_case(name.as_str().as_bytes())
                })
    };
    let chunked = came.contains_key(header::TRANSFER_ENCODING);
    let stops = |name: &HeaderName| {
        [
            "connection",
            "keep-alive",
            "proxy-connection",
            "transfer-encoding",
        ]
        .contains(&name.as_str())
            || (chunked && name == header::CONTENT_LENGTH)
            || dead.contains(name)
            || named(name)
    };
    let theirs = |name: &HeaderName| !ours.contains(name);
    let expected = came.iter().filter(|(name, _)| !stops(name) && theirs(name));
    let got = gone.iter().filter(|(name, _)| theirs(name));
    assert_eq!(got.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

/// `NAME=VALUE` lines. The message of an error is one line.
pub fn options(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let mut options = RuleOptions::default();
    for line in text.lines() {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        if let Err(message) = options.set(name, value) {
            readable(&message);
        }
    }
    if let Err(message) = options.validate() {
        readable(&message);
    }
}

/// `OPTION VALUE` lines as flags, such as `route 8081=https://a.run.app` or `connect-to *:443:127.0.0.1:8443`.
pub fn flags(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let mut raw = RawConfig::default();
    for line in text.lines() {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        // Files are not part of this target.
        let name = OptionKey::ALL.iter().find(|known| known.as_str() == name);
        if let Some(name) = name.filter(|name| **name != OptionKey::UpstreamCa) {
            raw.set_flag(*name, [value.to_owned()]);
        }
    }
    loaded(&raw);
}

/// A configuration file.
pub fn yaml(input: &[u8]) {
    if input
        .windows(2)
        .any(|pair| pair.eq_ignore_ascii_case(b"ca"))
    {
        // It may refer to files.
        return;
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), input).expect("written");
    let mut raw = RawConfig::default();
    raw.set_file(Some(file.path().display().to_string()));
    loaded(&raw);
}

/// A valid configuration is printed as a valid file with the same meaning.
fn loaded(raw: &RawConfig) {
    let config = match config::load(raw, &Env::default()) {
        Ok(config) => config,
        Err(diagnostics) => return diagnostics.iter().for_each(told),
    };
    let shown = Yaml::all(&config).to_string();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &shown).expect("written");
    let mut again = RawConfig::default();
    again.set_file(Some(file.path().display().to_string()));
    match config::load(&again, &Env::default()) {
        // Comments replace values that a file cannot contain, such as a password.
        Ok(again) => assert!(
            without_comments(&shown).eq(without_comments(&Yaml::all(&again).to_string())),
            "{shown}\n{}",
            Yaml::all(&again)
        ),
        Err(diagnostics) => panic!("{diagnostics:?}\n{shown}"),
    }
}

/// Returns the lines without comments and without the values that a comment replaces: a password is not printed, so it
/// cannot be parsed again.
fn without_comments(yaml: &str) -> impl Iterator<Item = &str> {
    yaml.lines()
        .map(str::trim_end)
        .filter(|line| !line.trim_start().starts_with('#') && line.trim_start() != "auth: off")
}

fn told(diagnostic: &Diagnostic) {
    readable(&diagnostic.to_string());
}

fn readable(message: &str) {
    assert!(
        !message.is_empty() && !message.chars().any(char::is_control),
        "{message:?}"
    );
}

/// `NAME: VALUE` lines as headers.
pub fn trace(input: &[u8]) {
    let headers = fields(input.split(|byte| *byte == b'\n'));
    if let Some(trace) = TraceContext::from_headers(&headers) {
        let id = trace.trace_id().to_string();
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_ne!(id, "0".repeat(32));
        if let Some(span) = trace.span_id() {
            assert_eq!(span.to_string().len(), 16);
        }
    }
}

/// A text in the log: one line, one JSON object, and no control characters of a terminal.
pub fn log(input: &[u8]) {
    let input = String::from_utf8_lossy(input);
    for format in [LogFormat::Json, LogFormat::Text] {
        let line = logged(format, &input);
        let end = line.strip_suffix('\n').expect("a whole line");
        assert!(!end.chars().any(char::is_control), "{end:?}");
        if format == LogFormat::Json {
            let value: serde_json::Value = serde_json::from_str(end).expect("JSON");
            assert_eq!(value["severity"], "WARNING");
            assert!(value["message"].is_string() && value["input"].is_string());
        }
    }
}

fn logged(format: LogFormat, input: &str) -> String {
    #[derive(Clone, Default)]
    struct Out(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Out {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("unpoisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let out = Out::default();
    let log = Log {
        format,
        level: config::LogLevel::Info,
        access: config::AccessLog::All,
    };
    tracing::subscriber::with_default(Logger::new(&log, false, out.clone()), || {
        tracing::warn!(input, quoted = ?input, "{input}");
    });
    let bytes = out.0.lock().expect("unpoisoned").clone();
    String::from_utf8(bytes).expect("UTF-8")
}

/// `NAME: VALUE` lines as headers, as parsed from a connection.
fn fields<'a>(lines: impl Iterator<Item = &'a [u8]>) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for line in lines {
        let mut halves = line.splitn(2, |byte| *byte == b':');
        if let (Some(name), Some(value)) = (halves.next(), halves.next())
            && let Ok(name) = HeaderName::from_bytes(name)
            && let Ok(value) = HeaderValue::from_bytes(value.trim_ascii())
        {
            fields.append(name, value);
        }
    }
    fields
}

fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}
