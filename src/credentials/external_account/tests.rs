#![expect(clippy::needless_pass_by_value, reason = "`json!` makes values")]

use std::collections::HashMap;

use serde_json::{Value, json};

use super::*;
use crate::credentials::{CredentialFile, TrustedUrl};

mod aws;

const AUDIENCE: &str =
    "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/x";

const WORKFORCE: &str = "//iam.googleapis.com/locations/global/workforcePools/p/providers/x";

const IMPERSONATION: &str = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a@p.iam.gserviceaccount.com:generateAccessToken";

const ALLOWED: (&str, &str) = ("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1");

const REGION: (&str, &str) = ("AWS_REGION", "us-east-2");

/// Returns a file whose subject token is in a file, with these fields changed.
fn file(changes: Value) -> Value {
    let mut file = json!({
        "type": "external_account",
        "audience": AUDIENCE,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "credential_source": { "file": "/var/run/token" },
    });
    for (name, value) in changes.as_object().unwrap() {
        file[name] = value.clone();
    }
    file
}

fn read_with(
    file: &Value,
    variables: &[(&str, &str)],
    trusted: &[&str],
) -> Result<ExternalAccount, String> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    let trusted: Vec<_> = trusted
        .iter()
        .map(|url| TrustedUrl::parse(url).unwrap())
        .collect();
    let context = ReadContext {
        universe: "googleapis.com",
        trusted: &trusted,
        variable: &|name| variables.get(name).map(|value| (*value).to_owned()),
    };
    match CredentialFile::parse(file.to_string().as_bytes(), &context) {
        Ok(CredentialFile::ExternalAccount(account)) => Ok(*account),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.to_string()),
    }
}

fn read(file: &Value) -> Result<ExternalAccount, String> {
    read_with(file, &[], &[])
}

#[test]
fn every_field_of_a_file_is_read() {
    let account = read(&file(json!({
        "service_account_impersonation_url": IMPERSONATION,
        "service_account_impersonation": { "token_lifetime_seconds": 2800 },
        "client_id": "id",
        "client_secret": "hidden",
        "quota_project_id": "quota",
    })));
    let account = account.unwrap();
    assert_eq!(&*account.audience, AUDIENCE);
    let to = account.impersonation.as_ref().unwrap();
    assert_eq!(&*to.account, "a@p.iam.gserviceaccount.com");
    assert_eq!(to.lifetime, Duration::from_secs(2800));
    assert_eq!(account.quota_project.as_deref(), Some("quota"));
    assert!(!format!("{account:?}").contains("hidden"));
    let CredentialSource::File(source) = account.source else {
        panic!("{:?}", account.source);
    };
    assert_eq!(source.path.to_str(), Some("/var/run/token"));
    assert_eq!(source.format, TokenFormat::Text);
}

#[test]
fn missing_fields_have_googles_defaults() {
    let account = read(&file(
        json!({ "token_url": null, "universe_domain": "s3nsapis.fr" }),
    ));
    let account = account.unwrap();
    assert_eq!(
        account.token_url.to_string(),
        "https://sts.s3nsapis.fr/v1/token"
    );
    assert!(account.impersonation.is_none() && account.client.is_none());
    let account = read(&file(
        json!({ "service_account_impersonation_url": IMPERSONATION }),
    ));
    let to = account.unwrap().impersonation.unwrap();
    assert_eq!(to.lifetime, Duration::from_secs(3600));
}

#[test]
fn an_error_names_the_field_and_the_expected_form_but_not_the_content() {
    let source = |source: Value| file(json!({ "credential_source": source }));
    for (file, field, expected) in [
        (
            file(json!({ "audience": null })),
            "audience is missing",
            "a text",
        ),
        (
            file(json!({ "audience": "SECRET\n" })),
            "audience",
            "visible ASCII",
        ),
        (
            file(json!({ "subject_token_type": 7 })),
            "subject_token_type",
            "a text",
        ),
        (
            file(json!({ "token_url": "https://sts.SECRET.example/v1/token" })),
            "token_url",
            "--trust-credential-url",
        ),
        (
            file(json!({ "token_url": "http://sts.googleapis.com/SECRET" })),
            "token_url",
            "https",
        ),
        (
            file(
                json!({ "service_account_impersonation_url": "https://SECRET.example/serviceAccounts/a@b.c:generateAccessToken" }),
            ),
            "service_account_impersonation_url",
            "googleapis.com",
        ),
        (
            file(
                json!({ "service_account_impersonation_url": "https://iamcredentials.googleapis.com/SECRET" }),
            ),
            "service_account_impersonation_url",
            ":generateAccessToken",
        ),
        (
            file(json!({
                "service_account_impersonation_url": IMPERSONATION,
                "service_account_impersonation": { "token_lifetime_seconds": 599 },
            })),
            "service_account_impersonation.token_lifetime_seconds",
            "600 to 43200",
        ),
        (
            file(json!({
                "service_account_impersonation_url": IMPERSONATION,
                "service_account_impersonation": { "token_lifetime_seconds": "SECRET" },
            })),
            "service_account_impersonation.token_lifetime_seconds",
            "whole number",
        ),
        (
            file(json!({ "client_secret": "SECRET" })),
            "client_id is missing",
            "a text",
        ),
        (
            file(json!({ "workforce_pool_user_project": "secret-project" })),
            "workforce_pool_user_project",
            "workforce pool",
        ),
        (
            file(json!({ "credential_source": null })),
            "credential_source is missing",
            "object",
        ),
        (source(json!({})), "credential_source", "exactly one of"),
        (
            source(json!({ "file": "/a", "url": "https://SECRET" })),
            "credential_source",
            "exactly one of",
        ),
        (
            source(json!({ "file": "/SECRET", "executable": {} })),
            "credential_source",
            "exactly one of",
        ),
        (
            source(json!({ "file": 7 })),
            "credential_source.file",
            "a text",
        ),
        (
            source(json!({ "file": "/a", "format": { "type": "SECRET" } })),
            "credential_source.format.type",
            "text or json",
        ),
        (
            source(json!({ "file": "/a", "format": { "type": "json" } })),
            "credential_source.format.subject_token_field_name is missing",
            "a text",
        ),
        (
            source(json!({ "url": "http://SECRET.example/" })),
            "credential_source.url",
            "https",
        ),
        (
            source(json!({ "url": "https://a.example/", "headers": { "a b": "SECRET" } })),
            "credential_source.headers",
            "header names",
        ),
        (
            source(json!({ "url": "https://a.example/", "headers": { "a": "SECRET\n" } })),
            "credential_source.headers",
            "header names",
        ),
        (
            source(json!({ "executable": { "command": "" } })),
            "credential_source.executable.command is missing",
            "a text",
        ),
        (
            source(json!({ "executable": { "command": "a 'SECRET" } })),
            "credential_source.executable.command",
            "closed",
        ),
        (
            source(json!({ "executable": { "command": "'' SECRET" } })),
            "credential_source.executable.command",
            "a program",
        ),
        (
            source(json!({ "executable": { "command": "/bin/SECRET" } })),
            "credential_source.executable.command",
            "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1",
        ),
    ] {
        let error = read(&file).unwrap_err();
        assert!(
            error.contains(&format!("(external_account): {field}")),
            "{error}"
        );
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("SECRET"), "{error}");
    }
}

#[test]
fn x509_federation_is_reported_as_unsupported() {
    let file = file(
        json!({ "credential_source": { "certificate": { "use_default_certificate_config": true } } }),
    );
    let error = read(&file).unwrap_err();
    assert!(
        error.contains("X.509") && error.contains("not supported yet"),
        "{error}"
    );
}

#[test]
fn a_workforce_pool_has_a_user_project() {
    for audience in [
        WORKFORCE,
        "//iam.s3nsapis.fr/locations/eu/workforcePools/p/providers/x",
    ] {
        let account = read(&file(
            json!({ "audience": audience, "workforce_pool_user_project": "1234" }),
        ));
        assert_eq!(
            account.unwrap().user_project.as_deref(),
            Some("1234"),
            "{audience}"
        );
    }
    for audience in [
        AUDIENCE,
        "https://iam.googleapis.com/locations/global/workforcePools/p",
        "//iam.googleapis.com/x/locations/global/workforcePools/p",
        "//iam.googleapis.com/locations/workforcePools/p",
    ] {
        assert!(!is_workforce(audience), "{audience}");
    }
}

#[test]
fn an_executable_is_run_only_if_googles_variable_allows_it() {
    let executable = |changes: Value| {
        let mut executable = json!({ "command": "'/opt/my token' --for \"a b\"" });
        for (name, value) in changes.as_object().unwrap() {
            executable[name] = value.clone();
        }
        file(json!({
            "service_account_impersonation_url": IMPERSONATION,
            "credential_source": { "executable": executable },
        }))
    };
    for value in ["0", "true", ""] {
        assert!(
            read_with(&executable(json!({})), &[(ALLOWED.0, value)], &[]).is_err(),
            "{value}"
        );
    }
    let source = |changes: Value| match read_with(&executable(changes), &[ALLOWED], &[])
        .unwrap()
        .source
    {
        CredentialSource::Executable(source) => source,
        other => panic!("{other:?}"),
    };
    let plain = source(json!({}));
    assert_eq!(plain.program(), "/opt/my token");
    assert_eq!(plain.arguments(), ["--for", "a b"]);
    assert_eq!(plain.timeout, Duration::from_secs(30));
    assert!(!format!("{plain:?}").contains("a b"), "{plain:?}");
    let full = source(json!({ "timeout_millis": 5000, "output_file": "/tmp/answer.json" }));
    assert_eq!(full.timeout, Duration::from_secs(5));
    let environment: HashMap<_, _> = full.environment.iter().cloned().collect();
    for (name, value) in [
        ("AUDIENCE", AUDIENCE),
        ("TOKEN_TYPE", "urn:ietf:params:oauth:token-type:jwt"),
        ("INTERACTIVE", "0"),
        ("REVOKE", "0"),
        ("IMPERSONATED_EMAIL", "a@p.iam.gserviceaccount.com"),
        ("OUTPUT_FILE", "/tmp/answer.json"),
    ] {
        let found = &environment[&*format!("GOOGLE_EXTERNAL_ACCOUNT_{name}")];
        assert_eq!(found.as_deref(), Some(value), "{name}");
    }
    for timeout in [json!(4999), json!(120_001), json!("30000"), json!(-1)] {
        let error = read_with(
            &executable(json!({ "timeout_millis": timeout })),
            &[ALLOWED],
            &[],
        );
        let error = error.unwrap_err();
        assert!(
            error.contains("executable.timeout_millis: a whole number from 5000 to 120000"),
            "{error}"
        );
    }
}

#[test]
fn a_nested_file_names_no_account_of_its_own() {
    let outer = |source: Value| {
        json!({
            "type": "impersonated_service_account",
            "service_account_impersonation_url": IMPERSONATION,
            "source_credentials": source,
        })
    };
    let nested = |source: Value| {
        let context = ReadContext {
            universe: "googleapis.com",
            trusted: &[],
            variable: &|_| None,
        };
        CredentialFile::parse(outer(source).to_string().as_bytes(), &context)
    };
    assert!(nested(file(json!({}))).is_ok());
    let account = file(json!({ "service_account_impersonation_url": IMPERSONATION }));
    let error = nested(account).unwrap_err().to_string();
    let field = "source_credentials.service_account_impersonation_url: no account";
    assert!(error.contains(field), "{error}");
}
