use std::time::UNIX_EPOCH;

use serde_json::Value;

use super::*;
use crate::credentials::AwsEnvironment;

const AUDIENCE: &str =
    "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/a";

fn source(url: &str) -> AwsSource {
    AwsSource {
        verification_url: url.into(),
        region_url: None,
        session_token_url: None,
        region: Some("us-east-2".to_owned()),
        keys: AwsKeySource::Environment(AwsEnvironment {
            access_key_id: "AK".into(),
            secret_access_key: "SK".into(),
            session_token: None,
        }),
    }
}

fn subject(url: &str, token: Option<&str>) -> (String, Value) {
    let keys = AwsCredentials {
        access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
        secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
        session_token: token.map(str::to_owned),
        expires: None,
    };
    let now = UNIX_EPOCH + Duration::from_secs(1_597_128_922);
    let text = signed(&source(url), AUDIENCE, "us-east-2", &keys, now).unwrap();
    let json = percent_encoding::percent_decode_str(&text)
        .decode_utf8()
        .unwrap();
    let value = serde_json::from_str(&json).unwrap();
    (text, value)
}

#[test]
fn the_token_is_a_signed_request_as_percent_encoded_json() {
    let url = "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15";
    let (text, request) = subject(url, Some("ST"));
    assert!(
        text.starts_with("%7B%22headers%22%3A%5B%7B%22key%22%3A%22Authorization%22"),
        "{text}"
    );
    assert_eq!(
        request["url"],
        "https://sts.us-east-2.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15"
    );
    assert_eq!(request["method"], "POST");
    let headers = request["headers"].as_array().unwrap();
    let header = |name: &str| {
        let mut named = headers.iter().filter(|header| header["key"] == name);
        let value = named.next().unwrap()["value"].as_str().unwrap();
        assert!(named.next().is_none(), "{name}");
        value
    };
    assert_eq!(headers.len(), 5);
    assert_eq!(header("host"), "sts.us-east-2.amazonaws.com");
    assert_eq!(header("x-amz-date"), "20200811T065522Z");
    assert_eq!(header("x-amz-security-token"), "ST");
    assert_eq!(header("x-goog-cloud-target-resource"), AUDIENCE);
    let authorization = header("Authorization");
    let (prefix, signature) = authorization.split_once(", Signature=").unwrap();
    assert_eq!(
        prefix,
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20200811/us-east-2/sts/aws4_request, \
         SignedHeaders=host;x-amz-date;x-amz-security-token;x-goog-cloud-target-resource"
    );
    assert_eq!(signature.len(), 64);
}

#[test]
fn a_fips_endpoint_is_signed_for_its_service() {
    let url =
        "https://sts-fips.{region}.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15";
    let (_, request) = subject(url, None);
    assert_eq!(request["headers"].as_array().unwrap().len(), 4);
    let authorization = request["headers"][0]["value"].as_str().unwrap();
    assert!(
        authorization.contains("/us-east-2/sts/aws4_request"),
        "{authorization}"
    );
}
