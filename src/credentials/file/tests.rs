use serde_json::json;

use super::*;
use crate::credentials::tests::private_key;

const CONTEXT: ReadContext<'_> = ReadContext {
    universe: "googleapis.com",
    trusted: &[],
    variable: &|_| None,
};
/// Replaces secrets and other values that a message must not repeat.
const CANARY: &str = "CANARY";

fn service_account() -> Value {
    json!({
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "k1",
        "private_key": private_key(),
        "client_email": "a@p.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": "https://oauth2.googleapis.com/token",
        "universe_domain": "googleapis.com",
    })
}

fn authorized_user() -> Value {
    json!({
        "type": "authorized_user",
        "account": "",
        "client_id": "764086051850-6qr4p6gpi6hn506pt8ejuq83di341hur.apps.googleusercontent.com",
        "client_secret": "CANARY-secret",
        "refresh_token": "1//CANARY",
        "quota_project_id": "q",
        "universe_domain": "googleapis.com",
    })
}

fn impersonated(source: &Value) -> Value {
    json!({
        "type": "impersonated_service_account",
        "service_account_impersonation_url":
            "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/t@p.iam.gserviceaccount.com:generateAccessToken",
        "delegates": ["projects/-/serviceAccounts/d@p.iam.gserviceaccount.com"],
        "source_credentials": source,
    })
}

fn parse(value: &Value) -> Result<CredentialFile, String> {
    CredentialFile::parse(value.to_string().as_bytes(), &CONTEXT).map_err(|error| error.to_string())
}

/// Returns the file with one field changed. `Value::Null` removes the field.
fn with(mut file: Value, field: &str, value: Value) -> Value {
    match value {
        Value::Null => file.as_object_mut().unwrap().remove(field),
        value => file.as_object_mut().unwrap().insert(field.into(), value),
    };
    file
}

#[test]
fn a_service_account_file_is_read() {
    let file = parse(&service_account()).unwrap();
    assert_eq!(file.kind(), "service_account");
    assert_eq!(file.account(), Some("a@p.iam.gserviceaccount.com"));
    assert_eq!(file.project(), Some("p"));
    assert_eq!(file.universe(), "googleapis.com");
    let CredentialFile::ServiceAccount(file) = file else {
        panic!("{file:?}");
    };
    assert_eq!(file.key_id.as_deref(), Some("k1"));
    assert_eq!(
        file.token_url.to_string(),
        "https://oauth2.googleapis.com/token"
    );
}

#[test]
fn an_authorized_user_file_is_read_and_its_secrets_are_not_shown() {
    let file = parse(&authorized_user()).unwrap();
    assert_eq!(file.kind(), "authorized_user");
    assert_eq!(file.account(), None);
    assert_eq!(file.quota_project(), Some("q"));
    assert!(!format!("{file:?}").contains(CANARY));
    let CredentialFile::AuthorizedUser(file) = file else {
        panic!("{file:?}");
    };
    assert!(file.is_of_gcloud());
    assert_eq!(
        file.token_url.to_string(),
        "https://oauth2.googleapis.com/token"
    );
}

#[test]
fn an_impersonated_file_is_read_with_its_source() {
    let file = with(
        impersonated(&authorized_user()),
        "quota_project_id",
        json!("outer"),
    );
    let file = parse(&file).unwrap();
    assert_eq!(file.account(), Some("t@p.iam.gserviceaccount.com"));
    // The outermost file's quota project applies.
    assert_eq!(file.quota_project(), Some("outer"));
    let CredentialFile::Impersonated(file) = file else {
        panic!("{file:?}");
    };
    assert_eq!(file.delegates, ["d@p.iam.gserviceaccount.com"]);
    assert_eq!(file.source.kind(), "authorized_user");
}

#[test]
fn the_universe_of_the_file_overrides_that_of_the_environment() {
    let context = ReadContext {
        universe: "s3nsapis.fr",
        ..CONTEXT
    };
    let bare = with(service_account(), "universe_domain", Value::Null);
    let bare = with(bare, "token_uri", Value::Null);
    let parse = |file: &Value| CredentialFile::parse(file.to_string().as_bytes(), &context);
    let file = parse(&bare).unwrap();
    assert_eq!(file.universe(), "s3nsapis.fr");
    assert_eq!(
        parse(&service_account()).unwrap().universe(),
        "googleapis.com"
    );
    // The endpoint must be of the same universe.
    let error = parse(&with(
        bare,
        "token_uri",
        json!("https://oauth2.googleapis.com/token"),
    ));
    assert!(error.unwrap_err().to_string().contains("under s3nsapis.fr"));
}

#[test]
fn an_error_of_a_file_names_type_field_and_expected_form_but_no_content() {
    let sa = || service_account();
    let user = || authorized_user();
    for (file, expected) in [
        (
            with(sa(), "private_key", Value::Null),
            "(service_account): private_key is missing: a PEM block that begins with -----BEGIN PRIVATE KEY----- is expected",
        ),
        (
            with(sa(), "private_key", json!(CANARY)),
            "(service_account): private_key: a PEM block that begins with -----BEGIN PRIVATE KEY----- is expected",
        ),
        (
            with(sa(), "private_key", json!(5)),
            "(service_account): private_key: a text is expected",
        ),
        (
            with(sa(), "client_email", Value::Null),
            "(service_account): client_email is missing: a text is expected",
        ),
        (
            with(sa(), "client_email", json!("CANARY")),
            "(service_account): client_email: an e-mail address is expected",
        ),
        (
            with(sa(), "token_uri", json!("https://CANARY.example/token")),
            "(service_account): token_uri: an https URL of a host under googleapis.com is expected that serves OAuth, STS or IAM Credentials, such as sts.googleapis.com; if you trust the URL in the file, give it to --trust-credential-url",
        ),
        (
            with(
                sa(),
                "token_uri",
                json!("https://u:CANARY@oauth2.googleapis.com/token"),
            ),
            "(service_account): token_uri: an https URL is expected, without user, fragment or dot segments",
        ),
        (
            with(sa(), "universe_domain", json!("CANARY")),
            "(service_account): universe_domain: a domain such as googleapis.com is expected",
        ),
        (
            with(user(), "refresh_token", Value::Null),
            "(authorized_user): refresh_token is missing: a text is expected",
        ),
        (
            with(user(), "client_id", json!(["CANARY"])),
            "(authorized_user): client_id: a text is expected",
        ),
        (
            with(user(), "client_secret", json!("")),
            "(authorized_user): client_secret is missing: a text is expected",
        ),
        (
            with(user(), "universe_domain", json!("s3nsapis.fr")),
            "(authorized_user): universe_domain: googleapis.com, the only universe of user credentials, is expected",
        ),
        (
            impersonated(&json!("CANARY")),
            "(impersonated_service_account): source_credentials: a JSON object is expected",
        ),
        (
            impersonated(&with(user(), "refresh_token", Value::Null)),
            "(impersonated_service_account): source_credentials.refresh_token is missing: a text is expected",
        ),
        (
            impersonated(&impersonated(&user())),
            "(impersonated_service_account): source_credentials.type: one of service_account, authorized_user, external_account, external_account_authorized_user is expected",
        ),
        (
            with(impersonated(&user()), "delegates", json!(["CANARY"])),
            "(impersonated_service_account): delegates: a list of e-mail addresses of service accounts is expected",
        ),
        (
            with(
                impersonated(&user()),
                "service_account_impersonation_url",
                json!("https://iamcredentials.googleapis.com/CANARY"),
            ),
            "(impersonated_service_account): service_account_impersonation_url: a URL that ends with /serviceAccounts/EMAIL:generateAccessToken is expected",
        ),
        (
            json!(["CANARY"]),
            "is not a credential: a JSON object is expected",
        ),
        (
            json!({"type": 5}),
            "is not a credential: type must be a text",
        ),
        (
            json!({"a": CANARY}),
            "is not a credential: type is missing: one of service_account, authorized_user, impersonated_service_account, external_account, \
                external_account_authorized_user is expected",
        ),
        (
            json!({"type": "gdch_service_account"}),
            "is not a credential: type \"gdch_service_account\" is not supported: one of service_account, authorized_user, impersonated_service_account, external_account, \
                external_account_authorized_user is expected",
        ),
        (
            json!({"type": "ya29.CANARY"}),
            "is not a credential: type in the file is not supported: one of service_account, authorized_user, impersonated_service_account, external_account, \
                external_account_authorized_user is expected",
        ),
        (
            json!({"type": "CANARY type"}),
            "is not a credential: type in the file is not supported: one of service_account, authorized_user, impersonated_service_account, external_account, \
                external_account_authorized_user is expected",
        ),
        (
            json!({"type": "Service_Account"}),
            "is not a credential: type \"Service_Account\" is not supported: one of service_account, authorized_user, impersonated_service_account, external_account, \
                external_account_authorized_user is expected",
        ),
        (
            json!({"type": "foo-bar"}),
            "is not a credential: type \"foo-bar\" is not supported: one of service_account, authorized_user, impersonated_service_account, external_account, \
                external_account_authorized_user is expected",
        ),
        (
            json!({"type": "external_account", "credential_source": {"certificate": {}}}),
            "is not a credential: type external_account with an X.509 certificate (credential_source.certificate) is not supported yet",
        ),
        (
            json!({"installed": {"client_secret": CANARY}}),
            "is the file of an OAuth client, not a credential: run `gcloud auth application-default login`",
        ),
    ] {
        let error = parse(&file).unwrap_err();
        assert_eq!(error, expected);
        assert!(!error.contains(CANARY), "{error}");
    }
}

/// Texts of a file are shown in messages and sent in requests. A terminal must not interpret them.
#[test]
fn a_text_with_control_characters_is_an_error_of_its_field() {
    let federated = |name: &str, value: Value| {
        let file = json!({
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/x",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "credential_source": {"file": "/t"},
            "client_id": "id",
        });
        with(file, name, value)
    };
    let workforce = json!({
        "type": "external_account_authorized_user",
        "client_id": "id",
        "client_secret": "secret",
        "refresh_token": "token",
        "token_url": "https://sts.googleapis.com/v1/oauthtoken",
    });
    let source = |value: Value| federated("credential_source", value);
    for bad in [
        "CANARY\u{1b}[31m",
        "CANARY\nx",
        "CANARY\u{202e}",
        "CANARY\0",
    ] {
        let text = || json!(bad);
        let mut files = vec![
            (
                "client_email",
                with(service_account(), "client_email", text()),
            ),
            (
                "private_key_id",
                with(service_account(), "private_key_id", text()),
            ),
            ("project_id", with(service_account(), "project_id", text())),
            ("token_uri", with(service_account(), "token_uri", text())),
            (
                "universe_domain",
                with(service_account(), "universe_domain", text()),
            ),
            ("audience", federated("audience", text())),
            (
                "subject_token_type",
                federated("subject_token_type", text()),
            ),
            (
                "credential_source.url",
                source(json!({"url": format!("https://a.example/{bad}")})),
            ),
            (
                "credential_source.executable.command",
                source(json!({"executable": {"command": bad}})),
            ),
            (
                "credential_source.format.subject_token_field_name",
                source(
                    json!({"file": "/t", "format": {"type": "json", "subject_token_field_name": bad}}),
                ),
            ),
            ("client_id", federated("client_id", text())),
            ("client_secret", federated("client_secret", text())),
            (
                "scopes",
                with(impersonated(&authorized_user()), "scopes", json!([bad])),
            ),
            (
                "delegates",
                with(impersonated(&authorized_user()), "delegates", json!([bad])),
            ),
            (
                "source_credentials.client_id",
                impersonated(&with(authorized_user(), "client_id", text())),
            ),
        ];
        for name in [
            "client_id",
            "client_secret",
            "refresh_token",
            "account",
            "quota_project_id",
        ] {
            files.push((name, with(authorized_user(), name, text())));
        }
        for name in ["audience", "client_id", "client_secret", "refresh_token"] {
            files.push((name, with(workforce.clone(), name, text())));
        }
        if bad.contains(char::is_control) {
            // A path may have any letters. Messages quote it.
            files.push(("credential_source.file", source(json!({"file": bad}))));
        }
        for (field, file) in files {
            let error = parse(&file).unwrap_err();
            assert!(
                error.contains(&format!(" {field}: ")),
                "{field} {bad:?}: {error:?}"
            );
            assert!(!error.contains(CANARY), "{field}: {error:?}");
        }
    }
}

#[test]
fn a_byte_order_mark_is_reported() {
    let error = CredentialFile::parse("\u{feff}{}".as_bytes(), &CONTEXT).unwrap_err();
    assert_eq!(
        error.to_string(),
        "begins with a byte order mark, which JSON does not allow: save it as UTF-8 without one"
    );
}

#[test]
fn truncated_json_is_reported_with_its_position() {
    let whole = service_account().to_string();
    for torn in ["{\"type\": CANARY", whole.get(..200).unwrap()] {
        let error = CredentialFile::parse(torn.as_bytes(), &CONTEXT).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("is not JSON: line 1, column "), "{error}");
        assert!(!error.contains(CANARY), "{error}");
    }
    assert!(CredentialFile::parse(&[0xff, 0xfe], &CONTEXT).is_err());
}

#[test]
fn a_file_that_others_can_read_gets_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.json");
    let read = |path: &Path| CredentialFile::read(path, &CONTEXT);
    let error = read(&path).unwrap_err().to_string();
    assert_eq!(error, format!("{path:?} does not exist"));
    let error = read(folder.path()).unwrap_err().to_string();
    assert!(error.ends_with("is not a regular file"), "{error}");
    fs::write(&path, service_account().to_string()).unwrap();
    for (mode, warnings) in [(0o600, 0), (0o640, 1), (0o644, 1)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let (_, found) = read(&path).unwrap();
        assert_eq!(found.len(), warnings, "{found:?}");
    }
    fs::write(&path, vec![b' '; LONGEST as usize + 1]).unwrap();
    let error = read(&path).unwrap_err().to_string();
    assert!(error.ends_with("must be at most 256 KiB"), "{error}");
}

#[test]
fn an_empty_file_is_reported_as_empty() {
    for content in [&b""[..], b" \n"] {
        let error = CredentialFile::parse(content, &CONTEXT).unwrap_err();
        assert_eq!(error.to_string(), "is empty");
    }
}

#[test]
fn a_file_that_others_can_change_gets_a_warning() {
    const READ: &str = "can be read by every user of this machine (mode ";
    for (mode, owner, expected) in [
        (0o600, 7, &[][..]),
        (0o400, 0, &[]),
        // A secret volume of Kubernetes, with and without fsGroup.
        (0o440, 0, &[]),
        (0o640, 0, &[]),
        (0o644, 0, &[READ]),
        (
            0o602,
            7,
            &["can be changed by every user of this machine (mode 0602): run chmod 600"],
        ),
        (
            0o620,
            7,
            &["can be changed by every user of its group (mode 0620): run chmod 600"],
        ),
        (
            0o622,
            7,
            &["can be changed by every user of this machine (mode 0622)"],
        ),
        (
            0o660,
            7,
            &["can be read and changed by every user of its group (mode 0660)"],
        ),
        (
            0o666,
            7,
            &["can be read and changed by every user of this machine"],
        ),
        (
            0o664,
            7,
            &["can be read by every user of this machine and changed by every user of its group"],
        ),
        (
            0o660,
            0,
            &["can be changed by every user of its group (mode 0660): run chmod g-w,o-rwx"],
        ),
        (
            0o600,
            8,
            &[
                "can be changed by its owner, the user id 8, and this process has the user id 7: run chown 7",
            ],
        ),
        (0o644, 8, &[READ, "can be changed by its owner"]),
    ] {
        let permissions = FilePermissions {
            mode,
            owner,
            user: 7,
        };
        let found = permissions.warnings("\"key.json\"");
        assert_eq!(found.len(), expected.len(), "{mode:o} {owner}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                found.starts_with(&format!("\"key.json\" {expected}")),
                "{found}"
            );
        }
    }
}
