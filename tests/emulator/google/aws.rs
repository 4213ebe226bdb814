//! The emulated AWS endpoints, and the signed request that is the subject token of AWS workloads.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, hmac};
use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};
use sidentity::emulator::google::{AWS_ACCOUNT, AWS_ROLE, AwsKeys, Google};

use super::client::*;

const HOST: &str = "sts.us-east-1.amazonaws.com";
const QUERY: &str = "Action=GetCallerIdentity&Version=2011-06-15";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns a request with AWS Signature Version 4, as an SDK signs it.
fn signed_request(keys: &AwsKeys, audience: &str, time: u64) -> Value {
    signed_request_with(keys, audience, time, true)
}

/// The same request. Google's libraries do not sign the target.
fn signed_request_with(keys: &AwsKeys, audience: &str, time: u64, sign_target: bool) -> Value {
    let time = UNIX_EPOCH + Duration::from_secs(time);
    let time = humantime::format_rfc3339_seconds(time).to_string();
    let time = time.replace(['-', ':'], "");
    let date = &time[..8];
    let mut headers = vec![("host", HOST.to_owned()), ("x-amz-date", time.clone())];
    headers.extend(keys.session.clone().map(|s| ("x-amz-security-token", s)));
    let target = ("x-goog-cloud-target-resource", audience.to_owned());
    if sign_target {
        headers.push(target.clone());
    }
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let lines: String = headers.iter().map(|(n, v)| format!("{n}:{v}\n")).collect();
    let sha = |text: &str| hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    let canonical = format!("POST\n/\n{QUERY}\n{lines}\n{names}\n{}", sha(""));
    let scope = format!("{date}/us-east-1/sts/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", sha(&canonical));
    let start = format!("AWS4{}", keys.secret).into_bytes();
    let parts = [date, "us-east-1", "sts", "aws4_request", &text];
    let signature = parts.iter().fold(start, |key, part| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        hmac::sign(&key, part.as_bytes()).as_ref().to_vec()
    });
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={}",
        keys.id,
        hex(&signature)
    );
    if !sign_target {
        headers.push(target);
    }
    headers.push(("Authorization", authorization));
    let headers: Vec<Value> = headers
        .into_iter()
        .map(|(key, value)| json!({"key": key, "value": value}))
        .collect();
    json!({"url": format!("https://{HOST}?{QUERY}"), "method": "POST", "headers": headers})
}

fn exchange(google: &Google, request: &Value, audience: &str) -> Reply {
    let token: String = percent_encoding::utf8_percent_encode(
        &request.to_string(),
        percent_encoding::NON_ALPHANUMERIC,
    )
    .collect();
    let fields = [
        (
            "grant_type",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ),
        ("audience", audience),
        ("scope", CLOUD_PLATFORM),
        (
            "requested_token_type",
            "urn:ietf:params:oauth:token-type:access_token",
        ),
        ("subject_token", &token),
        (
            "subject_token_type",
            "urn:ietf:params:aws:token-type:aws4_request",
        ),
    ];
    form(google, "https://sts.googleapis.com/v1/token", &fields)
}

fn audience(google: &Google) -> String {
    format!("{}/providers/aws", google.directory().pool())
}

#[test]
fn a_signed_request_is_a_subject_token_for_its_audience() {
    let google = google();
    let audience = audience(&google);
    let keys = google.aws_environment();
    let request = signed_request_with(&keys, &audience, now(), false);
    assert_eq!(exchange(&google, &request, &audience).0, 200);
    let request = signed_request(&keys, &audience, now());
    let (status, answer) = exchange(&google, &request, &audience);
    assert_eq!(status, 200, "{answer}");
    let token = answer["access_token"].as_str().unwrap();
    let access = google.verifier().access(token, SystemTime::now()).unwrap();
    let arn = format!("arn:aws:iam::{AWS_ACCOUNT}:user/example");
    assert!(access.member.ends_with(&arn), "{access:?}");
}

#[test]
fn a_request_with_another_signature_time_or_target_is_refused() {
    let google = google();
    let audience = audience(&google);
    let keys = google.aws_environment();
    let other = AwsKeys {
        secret: "other".to_owned(),
        ..keys.clone()
    };
    let unknown = AwsKeys {
        id: "AKIAOTHER".to_owned(),
        ..keys.clone()
    };
    let good = signed_request(&keys, &audience, now());
    let mut get = good.clone();
    get["method"] = json!("GET");
    let mut elsewhere = good.clone();
    elsewhere["url"] = json!(format!("https://sts.evil.example?{QUERY}"));
    let mut body = good.clone();
    body["data"] = json!("");
    let mut unsigned = good.clone();
    unsigned["headers"][1]["value"] = json!("20200101T000000Z");
    for (request, words) in [
        (signed_request(&other, &audience, now()), "does not match"),
        (signed_request(&unknown, &audience, now()), "security token"),
        (
            signed_request(&keys, "//iam.example", now()),
            "target-resource",
        ),
        (signed_request(&keys, &audience, now() - 1000), "expired"),
        (signed_request(&keys, &audience, now() + 1000), "expired"),
        (get, "method"),
        (elsewhere, "URL"),
        (body, "unknown field"),
        (unsigned, "expired"),
    ] {
        let (status, answer) = exchange(&google, &request, &audience);
        assert_eq!(
            (status, &answer["error"]),
            (400, &json!("invalid_grant")),
            "{request}"
        );
        let description = answer["error_description"].as_str().unwrap();
        assert!(description.contains(words), "{words}: {description}");
    }
}

fn call(google: &Google, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "169.254.169.254");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Bytes::new()).unwrap();
    let response = google.respond(&request, SystemTime::now());
    let body = String::from_utf8(response.body().to_vec()).unwrap();
    (response.status().as_u16(), body)
}

/// Returns the keys of an endpoint's response.
fn keys(json: &str) -> AwsKeys {
    let json: Value = serde_json::from_str(json).unwrap();
    let text = |name: &str| json[name].as_str().unwrap().to_owned();
    AwsKeys {
        id: text("AccessKeyId"),
        secret: text("SecretAccessKey"),
        session: Some(text("Token")),
        arn: String::new(),
    }
}

#[test]
fn instance_metadata_requires_a_session_and_issues_keys() {
    let google = google();
    let ttl = ("x-aws-ec2-metadata-token-ttl-seconds", "300");
    let path = "/latest/meta-data/iam/security-credentials";
    assert_eq!(call(&google, "GET", path, &[]).0, 401);
    assert_eq!(call(&google, "PUT", "/latest/api/token", &[]).0, 400);
    assert_eq!(call(&google, "GET", "/latest/api/token", &[ttl]).0, 405);
    let (status, session) = call(&google, "PUT", "/latest/api/token", &[ttl]);
    assert_eq!(status, 200);
    let session = [("x-aws-ec2-metadata-token", &*session)];
    assert_eq!(
        call(&google, "GET", path, &session),
        (200, AWS_ROLE.to_owned())
    );
    let zone = "/latest/meta-data/placement/availability-zone";
    assert_eq!(call(&google, "GET", zone, &session).1, "us-east-1a");
    let (status, json) = call(&google, "GET", &format!("{path}/{AWS_ROLE}"), &session);
    assert_eq!(status, 200);
    let audience = audience(&google);
    let request = signed_request(&keys(&json), &audience, now());
    assert_eq!(exchange(&google, &request, &audience).0, 200);
    assert_eq!(
        call(&google, "GET", &format!("{path}/other"), &session).0,
        404
    );
}

#[test]
fn container_credentials_are_valid_only_with_their_session_token() {
    let google = google();
    let authorization = google.aws_container_authorization();
    for path in ["/v2/credentials/0000", "/v1/credentials"] {
        let right = [("authorization", &*authorization)];
        let (status, json) = call(&google, "GET", path, &right);
        assert_eq!(status, 200);
        let audience = audience(&google);
        let mut keys = keys(&json);
        let request = signed_request(&keys, &audience, now());
        assert_eq!(exchange(&google, &request, &audience).0, 200);
        keys.session = None;
        let request = signed_request(&keys, &audience, now());
        assert_eq!(exchange(&google, &request, &audience).0, 400);
        let wrong = [("authorization", "other")];
        assert_eq!(call(&google, "GET", path, &wrong).0, 403);
    }
    // Requests of ECS by the relative URI have no such header. Requests of Pod Identity always have one.
    assert_eq!(call(&google, "GET", "/v2/credentials/0000", &[]).0, 200);
    let (status, why) = call(&google, "GET", "/v1/credentials", &[]);
    assert_eq!(status, 403);
    assert!(why.contains("aws_container_authorization"), "{why}");
}

#[test]
fn a_pods_token_assumes_only_its_role() {
    let google = google();
    let token = google.web_identity_token(SystemTime::now(), 60).unwrap();
    let expired = google.web_identity_token(SystemTime::now(), 0).unwrap();
    let role = format!("arn:aws:iam::{AWS_ACCOUNT}:role/{AWS_ROLE}");
    let assume = |role: &str, token: &str, version: &str| {
        let fields = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", version),
            ("RoleArn", role),
            ("RoleSessionName", "sidentity"),
            ("WebIdentityToken", token),
        ];
        let request = form_request(&format!("https://{HOST}/"), &fields);
        let response = google.respond(&request, SystemTime::now());
        let body = String::from_utf8(response.body().to_vec()).unwrap();
        (response.status().as_u16(), body)
    };
    let (status, xml) = assume(&role, &token, "2011-06-15");
    assert_eq!(status, 200, "{xml}");
    let element = |name: &str| {
        let (_, rest) = xml.split_once(&format!("<{name}>")).unwrap();
        rest.split_once('<').unwrap().0.to_owned()
    };
    let keys = AwsKeys {
        id: element("AccessKeyId"),
        secret: element("SecretAccessKey"),
        session: Some(element("SessionToken")),
        arn: String::new(),
    };
    let audience = audience(&google);
    let request = signed_request(&keys, &audience, now());
    assert_eq!(exchange(&google, &request, &audience).0, 200);
    for (role, token, version, status, code) in [
        (
            "arn:aws:iam::1:role/x",
            &*token,
            "2011-06-15",
            403,
            "AccessDenied",
        ),
        (
            &*role,
            &*expired,
            "2011-06-15",
            400,
            "ExpiredTokenException",
        ),
        (&*role, "a.b.c", "2011-06-15", 400, "InvalidIdentityToken"),
        (&*role, &*token, "2010-01-01", 400, "ValidationError"),
    ] {
        let (answered, xml) = assume(role, token, version);
        assert_eq!(answered, status, "{xml}");
        assert!(xml.contains(&format!("<Code>{code}</Code>")), "{xml}");
        assert_eq!(status == 403, xml.contains(AWS_ROLE), "{xml}");
    }
}
