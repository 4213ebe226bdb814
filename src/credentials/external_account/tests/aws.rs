//! Credential files for workloads on AWS.

use super::*;

fn aws(changes: Value) -> Value {
    let mut source = json!({
        "environment_id": "aws1",
        "region_url": "http://169.254.169.254/latest/meta-data/placement/availability-zone",
        "url": "http://169.254.169.254/latest/meta-data/iam/security-credentials",
        "imdsv2_session_token_url": "http://169.254.169.254/latest/api/token",
        "regional_cred_verification_url":
            "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15",
    });
    for (name, value) in changes.as_object().unwrap() {
        source[name] = value.clone();
    }
    file(json!({ "credential_source": source }))
}

fn aws_keys(file: &Value, variables: &[(&str, &str)]) -> AwsKeySource {
    match read_with(file, &[variables, &[REGION]].concat(), &[])
        .unwrap()
        .source
    {
        CredentialSource::Aws(source) => source.keys,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_source_of_aws_keys_is_used() {
    let keys = [
        ("AWS_ACCESS_KEY_ID", "AK"),
        ("AWS_SECRET_ACCESS_KEY", "hidden"),
    ];
    let identity = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"),
        ("AWS_ROLE_ARN", "arn"),
    ];
    let relative = [(
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "/v2/credentials/x",
    )];
    let full = [(
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "http://169.254.170.23/v1/credentials",
    )];
    let aws = aws(json!({}));
    let found = aws_keys(&aws, &[&keys[..], &identity, &relative].concat());
    assert!(matches!(found, AwsKeySource::Environment(_)), "{found:?}");
    assert!(!format!("{found:?}").contains("hidden"));
    let found = aws_keys(&aws, &[&keys[..1], &identity, &relative].concat());
    assert!(
        matches!(&found, AwsKeySource::WebIdentity(found) if found.session_name == "sidentity"),
        "{found:?}"
    );
    for (variables, url) in [
        (
            [&relative[..], &full].concat(),
            "http://169.254.170.2/v2/credentials/x",
        ),
        (full.to_vec(), "http://169.254.170.23/v1/credentials"),
    ] {
        let found = aws_keys(&aws, &variables);
        let AwsKeySource::Container(container) = found else {
            panic!("{found:?}");
        };
        assert_eq!(container.url.as_str(), url);
        assert_eq!(container.token, None);
    }
    let found = aws_keys(&aws, &[]);
    assert!(matches!(found, AwsKeySource::Instance(_)), "{found:?}");
}

#[test]
fn an_unsupported_aws_configuration_is_an_error() {
    let verification = "regional_cred_verification_url";
    for (changes, variables, field) in [
        (
            json!({ "environment_id": "aws2" }),
            &[REGION][..],
            "environment_id: aws1",
        ),
        (
            json!({ "environment_id": "azure" }),
            &[REGION],
            "environment_id: aws1",
        ),
        (
            json!({ "url": "http://10.0.0.1/x" }),
            &[REGION],
            "url: a URL of the AWS metadata service",
        ),
        (json!({ "url": null }), &[REGION], "url is missing"),
        (
            json!({ "region_url": "http://evil.example/x" }),
            &[REGION],
            "region_url",
        ),
        (json!({ "region_url": null }), &[], "region_url is missing"),
        (
            json!({ "imdsv2_session_token_url": "https://evil.example/x" }),
            &[REGION],
            "imdsv2_session_token_url",
        ),
        (
            json!({ verification: null }),
            &[],
            "regional_cred_verification_url is missing",
        ),
        (
            json!({ verification: "https://iam.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15" }),
            &[],
            verification,
        ),
        (
            json!({ verification: "https://sts.{region}.amazonaws.com?Action=AssumeRole&Version=2011-06-15" }),
            &[],
            verification,
        ),
        (
            json!({ verification: "https://sts.{region}.amazonaws.com.evil.example?Action=GetCallerIdentity&Version=2011-06-15" }),
            &[],
            verification,
        ),
        (
            json!({ verification: "http://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15" }),
            &[],
            verification,
        ),
        (
            json!({}),
            &[("AWS_REGION", "us-east-2.evil.example/")],
            "region_url",
        ),
        (
            json!({}),
            &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://evil.example/")],
            "url: in AWS_CONTAINER",
        ),
        (
            json!({}),
            &[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "@evil.example/")],
            "url: in AWS_CONTAINER",
        ),
    ] {
        let error = read_with(&aws(changes.clone()), variables, &[]).unwrap_err();
        assert!(
            error.contains(&format!("credential_source.{field}")),
            "{changes}: {error}"
        );
        assert!(!error.contains("evil"), "{error}");
    }
}

#[test]
fn an_invalid_key_in_the_environment_is_an_error_with_the_variables_name() {
    let (long_secret, long_token) = ("s".repeat(257), "t".repeat(16_385));
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", "AKIA EVIL"),
        ("AWS_ACCESS_KEY_ID", "AKIAEVIL/20200811/us-east-1"),
        ("AWS_ACCESS_KEY_ID", "AKIAEVIL\n"),
        ("AWS_SECRET_ACCESS_KEY", "EVIL\nEVIL"),
        ("AWS_SECRET_ACCESS_KEY", "EVIL EVIL"),
        ("AWS_SECRET_ACCESS_KEY", &long_secret),
        ("AWS_SESSION_TOKEN", "EVIL\tEVIL"),
        ("AWS_SESSION_TOKEN", "EVÍL"),
        ("AWS_SESSION_TOKEN", &long_token),
    ] {
        let mut variables = [
            ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
            (
                "AWS_SECRET_ACCESS_KEY",
                "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            ),
            ("AWS_SESSION_TOKEN", "IQoJb3JpZ2luX2VjEXAMPLE=="),
        ];
        assert!(read_with(&aws(json!({})), &variables, &[]).is_ok());
        for variable in &mut variables {
            if variable.0 == name {
                variable.1 = value;
            }
        }
        let error = read_with(&aws(json!({})), &variables, &[]).unwrap_err();
        assert!(
            error.contains(&format!("in the environment variable {name} ")),
            "{error}"
        );
        assert!(!error.contains("EV") && error.len() < 300, "{error}");
    }
}

#[test]
fn a_trusted_url_may_replace_that_of_aws() {
    let base = "http://127.0.0.1:9/";
    let changes = json!({
        "url": format!("{base}keys"),
        "region_url": format!("{base}zone"),
        "imdsv2_session_token_url": format!("{base}token"),
        "regional_cred_verification_url": format!("{base}?Action=GetCallerIdentity&Version=2011-06-15"),
    });
    assert!(read_with(&aws(changes.clone()), &[], &[]).is_err());
    assert!(read_with(&aws(changes), &[], &[base]).is_ok());
}
