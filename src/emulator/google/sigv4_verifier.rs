//! Verifies the signed `GetCallerIdentity` request that is the subject token of an AWS workload (AWS Signature Version
//! 4).

use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use percent_encoding::percent_decode_str;
use serde::Deserialize;

use super::super::key::hex;
use super::aws::AwsEmulator;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const QUERY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
const TARGET: &str = "x-goog-cloud-target-resource";

/// The maximum difference between the time of a signature and now, in seconds.
const MAX_SKEW_SECS: u64 = 900;

/// The subject token, percent-encoded JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    url: String,
    method: String,
    headers: Vec<SignedHeader>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignedHeader {
    key: String,
    value: String,
}

/// The parts of an `Authorization` header.
struct Authorization<'a> {
    key_id: &'a str,
    date: &'a str,
    region: &'a str,
    signed: Vec<&'a str>,
    signature: &'a str,
}

/// Returns the ARN of the caller.
pub(super) fn verify(
    token: &str,
    audience: &str,
    aws: &AwsEmulator,
    now: u64,
) -> Result<String, String> {
    let json = percent_decode_str(token)
        .decode_utf8()
        .map_err(|_| "the subject token is not percent-encoded UTF-8".to_owned())?;
    let request: Signed = serde_json::from_str(&json)
        .map_err(|error| format!("the subject token is not a signed request: {error}"))?;
    if request.method != "POST" {
        return Err(format!("the method is {:?}, not POST", request.method));
    }
    let authorization = request.header("authorization")?;
    let authorization = Authorization::parse(authorization)
        .ok_or_else(|| format!("the Authorization header is wrong: {authorization:?}"))?;
    let host = format!("sts.{}.amazonaws.com", authorization.region);
    if request.url != format!("https://{host}?{QUERY}")
        && request.url != format!("https://{host}/?{QUERY}")
    {
        return Err(format!("the URL is {:?}", request.url));
    }
    if request.header("host")? != host {
        return Err(format!("the host header is not {host}"));
    }
    if request.header(TARGET)? != audience {
        return Err(format!("the header {TARGET} is not the audience"));
    }
    let keys = aws
        .keys(authorization.key_id)
        .ok_or("The security token included in the request is invalid.")?;
    // Google's libraries add the target after signing, so it is checked but may be unsigned.
    let mut needed = vec!["host", "x-amz-date"];
    if let Some(session) = &keys.session {
        if request.header("x-amz-security-token")? != session {
            return Err("The security token included in the request is invalid.".to_owned());
        }
        needed.push("x-amz-security-token");
    }
    if let Some(unsigned) = needed
        .iter()
        .find(|name| !authorization.signed.contains(name))
    {
        return Err(format!("the header {unsigned} is not signed"));
    }
    let time = request.header("x-amz-date")?;
    check_time(time, authorization.date, now)?;
    let expected = request.signature(&authorization, time, &keys.secret)?;
    if expected == authorization.signature {
        Ok(keys.arn.clone())
    } else {
        Err(
            "The request signature we calculated does not match the signature you provided."
                .to_owned(),
        )
    }
}

// === impl Signed ===

impl Signed {
    fn header(&self, name: &str) -> Result<&str, String> {
        let mut named = self
            .headers
            .iter()
            .filter(|header| header.key.eq_ignore_ascii_case(name));
        match (named.next(), named.next()) {
            (Some(header), None) => Ok(&header.value),
            (None, _) => Err(format!("the header {name} is missing")),
            (Some(_), Some(_)) => Err(format!("the header {name} is repeated")),
        }
    }

    fn signature(
        &self,
        authorization: &Authorization<'_>,
        time: &str,
        secret: &str,
    ) -> Result<String, String> {
        let mut canonical = format!("POST\n/\n{QUERY}\n");
        for name in &authorization.signed {
            canonical += &format!("{name}:{}\n", self.header(name)?.trim());
        }
        canonical += &format!("\n{}\n{}", authorization.signed.join(";"), sha256(""));
        let Authorization { date, region, .. } = authorization;
        let scope = format!("{date}/{region}/sts/aws4_request");
        let text = format!("{ALGORITHM}\n{time}\n{scope}\n{}", sha256(&canonical));
        let mut key = format!("AWS4{secret}").into_bytes();
        for part in [date, region, "sts", "aws4_request", text.as_str()] {
            let signing = hmac::Key::new(hmac::HMAC_SHA256, &key);
            key = hmac::sign(&signing, part.as_bytes()).as_ref().to_vec();
        }
        Ok(hex(&key))
    }
}

// === impl Authorization ===

impl<'a> Authorization<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut fields = text.strip_prefix(ALGORITHM)?.split(',').map(str::trim);
        let credential = fields.next()?.strip_prefix("Credential=")?;
        let signed = fields.next()?.strip_prefix("SignedHeaders=")?;
        let signature = fields.next()?.strip_prefix("Signature=")?;
        let signed: Vec<&str> = signed.split(';').collect();
        let parts: Vec<&str> = credential.split('/').collect();
        let [key_id, date, region, "sts", "aws4_request"] = parts.as_slice() else {
            return None;
        };
        let is_sorted = signed.is_sorted() && fields.next().is_none();
        is_sorted.then_some(Self {
            key_id,
            date,
            region,
            signed,
            signature,
        })
    }
}

/// Compares a time such as `20260131T235959Z` with the clock and the date of the scope.
fn check_time(time: &str, date: &str, now: u64) -> Result<(), String> {
    let near = [now.saturating_sub(MAX_SKEW_SECS), now + MAX_SKEW_SECS].map(amz_date);
    let [earliest, latest] = &near;
    let is_well_formed = time.len() == latest.len() && time.starts_with(date) && date.len() == 8;
    if is_well_formed && earliest.as_str() <= time && time <= latest.as_str() {
        return Ok(());
    }
    Err(format!(
        "Signature expired: {time} is not within 15 minutes of {}",
        amz_date(now)
    ))
}

fn amz_date(now: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(now);
    humantime::format_rfc3339_seconds(time)
        .to_string()
        .replace(['-', ':'], "")
}

fn sha256(text: &str) -> String {
    hex(digest(&SHA256, text.as_bytes()).as_ref())
}
