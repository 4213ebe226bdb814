//! AWS security credentials, and the responses that contain them. Errors never repeat the content.

use std::fmt;
use std::time::SystemTime;

use serde::Deserialize;

use super::xml;
use crate::credentials::{is_access_key_id, is_secret_access_key, is_session_token};
use crate::token::parse;

/// AWS security credentials.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct AwsCredentials {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: String,
    pub(super) session_token: Option<String>,
    pub(super) expires: Option<SystemTime>,
}

/// The fault of a response of status 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadAnswer {
    #[error("the response is not a JSON object of the expected form")]
    Json,
    #[error("the response's Code is not Success")]
    Code,
    #[error("the response has no AccessKeyId of at most 128 letters, digits and underscores")]
    AccessKeyId,
    #[error("the response has no SecretAccessKey of at most 256 characters without spaces")]
    SecretAccessKey,
    #[error("the response has no session token of at most 16384 characters without spaces")]
    SessionToken,
    #[error("the response's Expiration is missing or is not an RFC 3339 time in UTC")]
    Expiration,
    #[error("the response is not a well-formed AssumeRoleWithWebIdentityResponse")]
    Xml,
}

/// The response of the instance metadata service (EC2) and of the container credentials endpoint (ECS, EKS Pod
/// Identity).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KeysResponse {
    code: Option<String>,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    token: Option<String>,
    expiration: Option<String>,
}

// === impl AwsCredentials ===

impl AwsCredentials {
    /// Creates keys, and validates the values that become headers of a signed request.
    pub(super) fn new(
        access_key_id: Option<String>,
        secret_access_key: Option<String>,
        session_token: Option<String>,
        expires: Option<SystemTime>,
    ) -> Result<Self, BadAnswer> {
        if session_token
            .as_deref()
            .is_some_and(|token| !is_session_token(token))
        {
            return Err(BadAnswer::SessionToken);
        }
        Ok(Self {
            access_key_id: access_key_id
                .filter(|text| is_access_key_id(text))
                .ok_or(BadAnswer::AccessKeyId)?,
            secret_access_key: secret_access_key
                .filter(|text| is_secret_access_key(text))
                .ok_or(BadAnswer::SecretAccessKey)?,
            session_token,
            expires,
        })
    }

    /// Parses the JSON of the instance metadata service or of the container credentials endpoint.
    pub(super) fn from_json(body: &[u8]) -> Result<Self, BadAnswer> {
        let answer: KeysResponse = parse::object(body).ok_or(BadAnswer::Json)?;
        if answer.code.is_some_and(|code| code != "Success") {
            return Err(BadAnswer::Code);
        }
        if answer.token.is_none() {
            return Err(BadAnswer::SessionToken);
        }
        let expires = match answer.expiration {
            Some(text) => Some(time(&text).ok_or(BadAnswer::Expiration)?),
            None => None,
        };
        Self::new(
            answer.access_key_id,
            answer.secret_access_key,
            answer.token,
            expires,
        )
    }

    /// Parses the XML of `AssumeRoleWithWebIdentity`.
    pub(super) fn from_sts(body: &[u8]) -> Result<Self, BadAnswer> {
        const CREDENTIALS: [&str; 3] = [
            "AssumeRoleWithWebIdentityResponse",
            "AssumeRoleWithWebIdentityResult",
            "Credentials",
        ];
        let document = xml::parse(body).ok_or(BadAnswer::Xml)?;
        let field = |name: &str| {
            let [response, result, credentials] = CREDENTIALS;
            document.only(&[response, result, credentials, name])
        };
        let token = field("SessionToken").ok_or(BadAnswer::SessionToken)?;
        let expires = field("Expiration").and_then(|text| time(&text));
        let expires = expires.ok_or(BadAnswer::Expiration)?;
        Self::new(
            field("AccessKeyId"),
            field("SecretAccessKey"),
            Some(token),
            Some(expires),
        )
    }
}

impl fmt::Debug for AwsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsCredentials")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Returns the code and the message of an error of AWS STS.
pub(super) fn sts_error(body: &[u8]) -> Option<String> {
    let document = xml::parse(body)?;
    let code = document.only(&["ErrorResponse", "Error", "Code"])?;
    match document.only(&["ErrorResponse", "Error", "Message"]) {
        Some(message) => Some(format!("{code}: {message}")),
        None => Some(code),
    }
}

fn time(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(text.trim()).ok()
}

/// Parses any bytes as each response. It must not panic, return keys that cannot be sent, or repeat the content in an
/// error.
#[cfg(any(fuzzing, test))]
pub(in crate::token::source::subject) fn fuzz_aws_answers(body: &[u8]) {
    for keys in [
        AwsCredentials::from_json(body),
        AwsCredentials::from_sts(body),
    ] {
        match keys {
            Ok(keys) => {
                assert!(is_access_key_id(&keys.access_key_id));
                assert!(is_secret_access_key(&keys.secret_access_key));
                assert!(
                    keys.session_token
                        .is_none_or(|token| is_session_token(&token))
                );
            }
            Err(error) => assert!(error.to_string().is_ascii()),
        }
    }
    let _ = sts_error(body);
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const EC2: &str = r#"{"Code":"Success","LastUpdated":"2020-08-11T19:33:07Z","Type":"AWS-HMAC","AccessKeyId":"AK",
        "SecretAccessKey":"SK","Token":"ST","Expiration":"2020-08-11T07:35:49Z"}"#;
    const ECS: &str = r#"{"RoleArn":"arn:aws:iam::1:role/r","AccessKeyId":"AK","SecretAccessKey":"SK","Token":"ST",
        "Expiration":"2020-08-11T07:35:49Z"}"#;
    const STS: &str = r#"<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult>
    <SubjectFromWebIdentityToken>system:serviceaccount:default:app</SubjectFromWebIdentityToken>
    <Audience>sts.amazonaws.com</Audience>
    <AssumedRoleUser>
      <Arn>arn:aws:sts::1:assumed-role/r/s</Arn>
      <AssumedRoleId>A:s</AssumedRoleId>
    </AssumedRoleUser>
    <Credentials>
      <SessionToken>ST</SessionToken>
      <SecretAccessKey>SK</SecretAccessKey>
      <Expiration>2020-08-11T07:35:49Z</Expiration>
      <AccessKeyId>AK</AccessKeyId>
    </Credentials>
  </AssumeRoleWithWebIdentityResult>
  <ResponseMetadata><RequestId>ad4156e9</RequestId></ResponseMetadata>
</AssumeRoleWithWebIdentityResponse>"#;

    #[test]
    fn each_key_response_has_keys_and_expiry() {
        for keys in [
            AwsCredentials::from_json(EC2.as_bytes()),
            AwsCredentials::from_json(ECS.as_bytes()),
            AwsCredentials::from_sts(STS.as_bytes()),
        ] {
            let keys = keys.unwrap();
            assert_eq!(keys.access_key_id, "AK");
            assert_eq!(keys.secret_access_key, "SK");
            assert_eq!(keys.session_token.as_deref(), Some("ST"));
            assert_eq!(
                keys.expires,
                Some(UNIX_EPOCH + Duration::from_secs(1_597_131_349))
            );
            assert!(!format!("{keys:?}").contains("SK"));
        }
    }

    #[test]
    fn json_without_a_required_field_is_an_error_that_names_it() {
        for (from, to, expected) in [
            ("Success", "AccessDenied", BadAnswer::Code),
            (
                "\"AccessKeyId\":\"AK\"",
                "\"AccessKeyId\":\"\"",
                BadAnswer::AccessKeyId,
            ),
            (
                "\"AccessKeyId\":\"AK\"",
                "\"AccessKeyId\":\"A\\nK\"",
                BadAnswer::AccessKeyId,
            ),
            (
                "\"AccessKeyId\":\"AK\"",
                "\"AccessKeyId\":7",
                BadAnswer::Json,
            ),
            (
                "\"AccessKeyId\":\"AK\"",
                "\"AccessKeyId\":\"AK/20200811/us-east-1/s3\"",
                BadAnswer::AccessKeyId,
            ),
            (
                "\"AK\"",
                &format!("{:?}", "A".repeat(129)),
                BadAnswer::AccessKeyId,
            ),
            (
                "\"SK\"",
                &format!("{:?}", "S".repeat(257)),
                BadAnswer::SecretAccessKey,
            ),
            ("\"SK\"", "\"S K\"", BadAnswer::SecretAccessKey),
            (
                "\"ST\"",
                &format!("{:?}", "S".repeat(16_385)),
                BadAnswer::SessionToken,
            ),
            ("\"ST\"", "\"S\\u0000T\"", BadAnswer::SessionToken),
            ("SecretAccessKey", "Other", BadAnswer::SecretAccessKey),
            ("\"Token\"", "\"Other\"", BadAnswer::SessionToken),
            ("2020-08-11T07:35:49Z", "tomorrow", BadAnswer::Expiration),
            ("{", "[", BadAnswer::Json),
        ] {
            let answer = EC2.replace(from, to);
            assert_eq!(
                AwsCredentials::from_json(answer.as_bytes()),
                Err(expected),
                "{answer}"
            );
        }
        assert_eq!(
            AwsCredentials::from_json(&EC2.as_bytes()[..40]),
            Err(BadAnswer::Json)
        );
    }

    #[test]
    fn xml_with_a_missing_or_repeated_field_is_an_error() {
        for (from, to, expected) in [
            ("<AccessKeyId>AK</AccessKeyId>", "", BadAnswer::AccessKeyId),
            (
                "<AccessKeyId>AK</AccessKeyId>",
                "<AccessKeyId>AK</AccessKeyId><AccessKeyId>B</AccessKeyId>",
                BadAnswer::AccessKeyId,
            ),
            ("SecretAccessKey", "SecretKey", BadAnswer::SecretAccessKey),
            (
                "<SessionToken>ST</SessionToken>",
                "<SessionToken>S T</SessionToken>",
                BadAnswer::SessionToken,
            ),
            ("2020-08-11T07:35:49Z", "soon", BadAnswer::Expiration),
            ("</Credentials>", "", BadAnswer::Xml),
            (
                "AssumeRoleWithWebIdentityResult>",
                "Other>",
                BadAnswer::SessionToken,
            ),
        ] {
            let answer = STS.replace(from, to);
            assert_eq!(
                AwsCredentials::from_sts(answer.as_bytes()),
                Err(expected),
                "{answer}"
            );
        }
        for length in 0..STS.len() {
            assert!(
                AwsCredentials::from_sts(&STS.as_bytes()[..length]).is_err(),
                "{length}"
            );
        }
    }

    #[test]
    fn an_aws_error_is_reported_with_code_and_message() {
        let answer = b"<?xml version=\"1.0\"?>\n<ErrorResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'><Error>\
            <Type>Sender</Type><Code>ExpiredTokenException</Code><Message>Token expired: a &lt; b</Message></Error>\
            <RequestId>x</RequestId></ErrorResponse>";
        assert_eq!(
            sts_error(answer).unwrap(),
            "ExpiredTokenException: Token expired: a < b"
        );
        assert_eq!(sts_error(b"<html>no</html>"), None);
    }

    #[test]
    fn no_bytes_make_the_parser_panic() {
        for body in [
            EC2,
            ECS,
            STS,
            "",
            "{",
            "<",
            "<a",
            "<a>&#x110000;</a>",
            "<a>&#xd800;</a>",
        ] {
            fuzz_aws_answers(body.as_bytes());
        }
    }
}
