//! Signs requests with AWS Signature Version 4 ("Signing AWS API requests", AWS General Reference).

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::SystemTime;

use aws_lc_rs::{digest, hmac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::keys::AwsCredentials;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// All characters except the unreserved ones of RFC 3986.
pub(super) const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// A request to sign. Its body is empty.
#[derive(Debug)]
pub(super) struct Unsigned<'a> {
    pub(super) method: &'a str,
    /// The percent-encoded path, without dot segments.
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    /// All signed headers, with lower-case names in alphabetical order and trimmed values.
    pub(super) headers: &'a [(&'a str, &'a str)],
}

/// The region, service and time of a signature.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    /// The time in the format of [`timestamp`].
    pub(super) time: &'a str,
}

/// Returns the value of `Authorization`.
pub(super) fn authorization(
    request: &Unsigned<'_>,
    scope: &Scope<'_>,
    keys: &AwsCredentials,
) -> String {
    let Scope {
        region,
        service,
        time,
    } = scope;
    let date = time.split('T').next().unwrap_or_default();
    let names: Vec<&str> = request.headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let credential_scope = format!("{date}/{region}/{service}/aws4_request");
    let canonical = hex(digest::digest(
        &digest::SHA256,
        canonical(request, &names).as_bytes(),
    ));
    let to_sign = format!("{ALGORITHM}\n{time}\n{credential_scope}\n{canonical}");
    let secret = format!("AWS4{}", keys.secret_access_key);
    let key = [date, *region, *service, "aws4_request"]
        .iter()
        .fold(secret.into_bytes(), |key, part| {
            hmac_sha256(&key, part).as_ref().to_vec()
        });
    let signature = hex(hmac_sha256(&key, &to_sign));
    format!(
        "{ALGORITHM} Credential={}/{credential_scope}, SignedHeaders={names}, Signature={signature}",
        keys.access_key_id
    )
}

/// Formats a time for a signature: `20110909T233600Z`.
pub(super) fn timestamp(time: SystemTime) -> String {
    let mut text = humantime::format_rfc3339_seconds(time).to_string();
    text.retain(|c| c != '-' && c != ':');
    text
}

fn canonical(request: &Unsigned<'_>, names: &str) -> String {
    let Unsigned {
        method,
        path,
        query,
        headers,
    } = request;
    let path = if path.is_empty() { "/" } else { path };
    let mut text = format!("{method}\n{path}\n{}\n", canonical_query(query));
    for (name, value) in *headers {
        let _ = writeln!(text, "{name}:{value}");
    }
    let body = hex(digest::digest(&digest::SHA256, b""));
    let _ = write!(text, "\n{names}\n{body}");
    text
}

/// Encodes names and values again, and sorts them.
fn canonical_query(query: &str) -> String {
    let anew = |text: &str| {
        let decoded: Cow<'_, [u8]> = percent_decode_str(text).into();
        percent_encoding::percent_encode(&decoded, UNRESERVED).to_string()
    };
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (anew(name), anew(value)))
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("&")
}

fn hmac_sha256(key: &[u8], message: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes())
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Percent-encodes all but unreserved characters.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const DATE: &str = "Mon, 09 Sep 2011 23:36:00 GMT";

    fn keys(id: &str, secret: &str) -> AwsCredentials {
        AwsCredentials {
            access_key_id: id.into(),
            secret_access_key: secret.into(),
            session_token: None,
            expires: None,
        }
    }

    /// Signatures equal those of the `.authz` files of AWS's suite (aws4_testsuite).
    #[test]
    fn signatures_match_the_test_suite_of_aws() {
        let keys = keys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
        let plain = &[("date", DATE), ("host", "host.foo.com")][..];
        let zoo = &[("date", DATE), ("host", "host.foo.com"), ("zoo", "zoobar")][..];
        let p = &[("date", DATE), ("host", "host.foo.com"), ("p", "phfft")][..];
        for (method, path, query, headers, expected) in [
            (
                "GET",
                "/",
                "",
                plain,
                "b27ccfbfa7df52a200ff74193ca6e32d4b48b8856fab7ebf1c595d0670a7e470",
            ),
            (
                "GET",
                "",
                "",
                plain,
                "b27ccfbfa7df52a200ff74193ca6e32d4b48b8856fab7ebf1c595d0670a7e470",
            ),
            (
                "GET",
                "/foo",
                "",
                plain,
                "910e4d6c9abafaf87898e1eb4c929135782ea25bb0279703146455745391e63a",
            ),
            (
                "GET",
                "/%E1%88%B4",
                "",
                plain,
                "8d6634c189aa8c75c2e51e106b6b5121bed103fdb351f7d7d4381c738823af74",
            ),
            (
                "GET",
                "/",
                "foo=Zoo&foo=aha",
                plain,
                "be7148d34ebccdc6423b19085378aa0bee970bdc61d144bd1a8c48c33079ab09",
            ),
            (
                "GET",
                "/",
                "foo=b&foo=a",
                plain,
                "feb926e49e382bec75c9d7dcb2a1b6dc8aa50ca43c25d2bc51143768c0875acc",
            ),
            (
                "GET",
                "/",
                "ሴ=bar",
                plain,
                "6fb359e9a05394cc7074e0feb42573a2601abc0c869a953e8c5c12e4e01f1a8c",
            ),
            (
                "POST",
                "/",
                "",
                zoo,
                "b7a95a52518abbca0964a999a880429ab734f35ebbf1235bd79a5de87756dc4a",
            ),
            (
                "POST",
                "/",
                "",
                p,
                "debf546796015d6f6ded8626f5ce98597c33b47b9164cf6b17b4642036fcb592",
            ),
            (
                "POST",
                "/",
                "foo=bar",
                plain,
                "b6e3b79003ce0743a491606ba1035a804593b0efb1e20a11cba83f8c25a57a92",
            ),
        ] {
            let request = Unsigned {
                method,
                path,
                query,
                headers,
            };
            let scope = Scope {
                region: "us-east-1",
                service: "host",
                time: "20110909T233600Z",
            };
            let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
            assert_eq!(
                authorization(&request, &scope, &keys),
                format!(
                    "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20110909/us-east-1/host/aws4_request, SignedHeaders={}, \
                     Signature={expected}",
                    names.join(";")
                ),
                "{method} {path}?{query}"
            );
        }
    }

    /// The test vector for `GetCallerIdentity` that Google's libraries share.
    #[test]
    fn get_caller_identity_is_signed_as_by_googles_libraries() {
        let keys = keys(
            "AKIAIOSFODNN7EXAMPLE",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        );
        let time = timestamp(UNIX_EPOCH + Duration::from_secs(1_597_128_922));
        assert_eq!(time, "20200811T065522Z");
        let request = Unsigned {
            method: "POST",
            path: "",
            query: "Action=GetCallerIdentity&Version=2011-06-15",
            headers: &[
                ("host", "sts.us-east-2.amazonaws.com"),
                ("x-amz-date", &time),
            ],
        };
        let scope = Scope {
            region: "us-east-2",
            service: "sts",
            time: &time,
        };
        let expected = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20200811/us-east-2/sts/aws4_request, \
                        SignedHeaders=host;x-amz-date, \
                        Signature=9e722e5b7bfa163447e2a14df118b45ebd283c5aea72019bdf921d6e7dc01a9a";
        assert_eq!(authorization(&request, &scope, &keys), expected);
    }
}
