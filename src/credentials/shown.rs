//! Recognizes credentials in the place of other values, and quotes values in messages.

use std::path::Path;

/// What stands for a value that is not shown.
const HIDDEN: &str = "a value that looks like a credential (it is not shown)";

/// What stands for a path that is not shown.
const HIDDEN_PATH: &str = "a value that looks like a credential, not like a path (it is not shown: write it to a file, and name that)";

/// The names of the secret fields of credential files.
const SECRET_FIELDS: [&str; 3] = ["private_key", "refresh_token", "client_secret"];

/// The beginnings of tokens: of JWTs, of Google, GitHub, GitLab and Vault.
pub(crate) const TOKEN_BEGINNINGS: [&str; 9] = [
    "eyJ", "ya29.", "1//", "GOCSPX-", "gho_", "ghp_", "ghs_", "glpat-", "hvs.",
];

/// The beginnings of tokens and keys, and the number of letters and digits that follow without another character, with a
/// digit among them. A name may begin like a token, but has no such part of this length.
const SECRET_BEGINNINGS: [(&str, usize); 22] = [
    ("eyJ", 12),
    ("ya29.", 12),
    ("1//0", 10),
    ("GOCSPX-", 10),
    ("AIza", 20),
    ("gho_", 16),
    ("ghp_", 16),
    ("ghr_", 16),
    ("ghs_", 16),
    ("ghu_", 16),
    ("github_pat_", 16),
    ("glpat-", 18),
    ("hvs.", 20),
    ("sk-", 32),
    ("sk_live_", 16),
    ("xoxa-", 10),
    ("xoxb-", 10),
    ("xoxp-", 10),
    ("xoxr-", 10),
    ("xoxs-", 10),
    ("AKIA", 16),
    ("ASIA", 16),
];

/// Quotes a path for a message.
pub(crate) fn path_name(path: &Path) -> String {
    let text = path.display().to_string();
    match hidden(&text) {
        Some(_) => HIDDEN_PATH.to_owned(),
        None => format!("{text:?}"),
    }
}

/// Returns what a message shows for a value that looks like a credential or like the content of a file, otherwise
/// `None`.
pub(crate) fn hidden(text: &str) -> Option<&'static str> {
    let begins_as_token = || {
        let text = text.trim();
        TOKEN_BEGINNINGS.iter().any(|start| text.starts_with(start))
    };
    let looks_random = || text.split(|c| !is_base64(c)).any(is_random);
    (is_credential(text) || begins_as_token() || looks_random() || is_file_content(text))
        .then_some(HIDDEN)
}

/// Returns whether the text contains a credential: a private key, a secret field of JSON, a known token or key, or
/// `user:password@`.
pub(crate) fn is_credential(text: &str) -> bool {
    is_key(text)
        || has_user_info(text)
        || words(text).any(|word| is_token(word) || is_authorization(word))
}

/// Returns whether the text contains a private key or a secret field of JSON.
pub(crate) fn is_key(text: &str) -> bool {
    // The name is quoted in JSON. A path may contain it without quotes.
    let has_field = |field: &&str| text.contains(&format!("\"{field}"));
    text.contains("BEGIN ") && text.contains("PRIVATE KEY") || SECRET_FIELDS.iter().any(has_field)
}

/// Returns whether the text looks like the content of a file instead of its path. A common mistake is
/// `GOOGLE_APPLICATION_CREDENTIALS="$(cat key.json)"`, also with Base64.
fn is_file_content(text: &str) -> bool {
    let text = text.trim();
    text.starts_with('{')
        || text.contains("-----BEGIN")
        || text.contains('\n')
        || SECRET_FIELDS.iter().any(|field| text.contains(field))
        // JSON and PEM in Base64.
        || text.len() >= 64 && ["ew", "ey", "LS0t"].iter().any(|start| text.starts_with(start))
        || text.len() >= 256 && text.chars().all(is_base64)
}

/// Returns the rest of the text from the start of each word.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_inside = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let mut inside = false;
    text.char_indices().filter_map(move |(start, c)| {
        let is_start = !std::mem::replace(&mut inside, is_inside(c)) && inside;
        text.get(start..).filter(|_| is_start)
    })
}

/// Returns whether the word begins with a known token or key.
fn is_token(word: &str) -> bool {
    SECRET_BEGINNINGS.iter().any(|(start, least)| {
        let is_inside = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        let rest = word.strip_prefix(start).unwrap_or_default();
        let rest = rest.split(|c| !is_inside(c)).next();
        let mut parts = rest.unwrap_or_default().split('-');
        parts.any(|part| part.len() >= *least && part.contains(|c: char| c.is_ascii_digit()))
    })
}

/// Returns whether the text begins with a value of `Authorization` (RFC 9110, 11.4).
fn is_authorization(word: &str) -> bool {
    let (scheme, rest) = word.split_once(' ').unwrap_or_default();
    // Capitals, because `scheme=basic` of one rule may precede the next rule.
    ["Basic", "Bearer"].contains(&scheme) && !rest.trim().is_empty()
}

/// Returns whether the text contains `://user:password@`, or begins with `user:password@host`. A colon and an `@` further
/// apart belong to other parts of a URL, or to other options of a rule.
fn has_user_info(text: &str) -> bool {
    let is_user_info = |rest: &str| {
        let before = rest.split(['/', ',', '=', '?', ' ']).next();
        let parts = before.unwrap_or_default().rsplit_once('@');
        parts.is_some_and(|(user_info, _)| {
            let (user, password) = user_info.split_once(':').unwrap_or_default();
            !user.is_empty() && !password.is_empty() && !password.contains(':')
        })
    };
    // The name of a socket may have an `@`.
    let is_socket = text.starts_with("unix:");
    text.split("://").skip(1).any(is_user_info) || !is_socket && is_user_info(text)
}

fn is_base64(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+/=_-".contains(c)
}

/// Returns whether a text of Base64 characters is long, and changes as often between small letters, capitals and digits
/// as random texts. Words that are joined by capitals change less often, and paths have more slashes.
fn is_random(text: &str) -> bool {
    const LEAST: usize = 40;
    let class = |b: u8| match b {
        b'a'..=b'z' => Some(0),
        b'A'..=b'Z' => Some(1),
        b'0'..=b'9' => Some(2),
        _ => None,
    };
    let classes: Vec<u8> = text.bytes().filter_map(class).collect();
    let changes = classes
        .windows(2)
        .filter(|pair| pair.first() != pair.last());
    let slashes = text.bytes().filter(|b| *b == b'/').count();
    text.len() >= LEAST
        && (0..3).all(|class| classes.contains(&class))
        && changes.count() * 3 >= classes.len()
        && !text.starts_with('/')
        && slashes * 12 <= text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_of_a_file_in_the_place_of_its_path_is_not_shown() {
        let base64 = "ewogICJ0eXBlIjogInNlcnZpY2VfYWNjb3VudCIsCiAgInByb2plY3RfaWQiOiAicCIKfQ==";
        for content in [
            "{\"type\": \"service_account\", \"private_key\": \"-----BEGIN PRIVATE KEY-----\\nMII\"}",
            " {}",
            "-----BEGIN PRIVATE KEY-----",
            "eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
            "gho_16C7e42F292c6912E7710c838347Ae178B4a",
            "a: refresh_token",
            base64,
        ] {
            let name = path_name(Path::new(content));
            assert_eq!(name, HIDDEN_PATH, "{content}");
        }
    }

    #[test]
    fn a_path_is_quoted() {
        for path in [
            "/run/secrets/key.json",
            "key.json",
            "C:\\key.json",
            "/a/eyJ/b",
            "/",
        ] {
            assert_eq!(path_name(Path::new(path)), format!("{path:?}"));
        }
        let long = format!("/{}", "a".repeat(200));
        assert_eq!(path_name(Path::new(&long)), format!("{long:?}"));
    }

    const RANDOM: &str = "q7Tz0bRk3mXw9LcVn2Yd5Hs8Jf4Gp1Ka6Ue0Wi3Eo7";

    #[test]
    fn known_kinds_of_credentials_are_recognized_at_the_start_of_a_word() {
        let tail = "0gR7kQ2mXw9LcVn2Yd5Hs8Jf4Gp1Ka6Ue0";
        for (start, _) in SECRET_BEGINNINGS {
            for text in [
                format!("{start}{tail}"),
                format!("https://x.example/?key={start}{tail}"),
                format!("8081=https://x.example,audience={start}{tail}"),
            ] {
                assert!(is_credential(&text), "{text}");
            }
        }
        for text in [
            "Bearer abc",
            "Basic YTpi",
            "8081=https://x.example,audience=Bearer abc",
            "-----BEGIN RSA PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY----- MIIEvg",
            r#"{"client_secret": "x"}"#,
            r#"{\"refresh_token\": \"x\"}"#,
            "alice:s3cr3t@proxy:3128",
            "alice:s3cr3t@a.example=id",
            "alice:s3cr3t@a.example/path=id,audience=https://x.example",
            "http://alice:s3cr3t@proxy:3128",
            "8081=https://alice:s3cr3t@x.example",
            "a.example=id,audience=https://alice:s3cr3t@h/",
        ] {
            assert!(is_credential(text), "{text}");
        }
    }

    /// It may be an audience.
    #[test]
    fn a_random_text_is_accepted_and_not_shown() {
        for text in [
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            RANDOM,
            &format!("https://x.example/?sig={RANDOM}"),
        ] {
            assert!(!is_credential(text) && hidden(text).is_some(), "{text}");
        }
    }

    #[test]
    fn paths_urls_accounts_audiences_and_digests_are_no_credentials() {
        let digest = "3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a";
        for text in [
            "/run/secrets/key.json",
            "/home/MyUser/Projects/App2/keys/Production-2026.json",
            "home/MyUser/Projects/App2/keys/Production2026/Billing",
            "MyCompany-Production-Payments-2024-ServiceAccount.json",
            "/secrets/MyProductionServiceAccountCredential2026Key",
            "/var/lib/kubelet/pods/0d5e1b0a-4a4e-4c77-9c1d-8a7a4f7b9f10/volumes/token",
            "/oauth/refresh_token",
            "https://billing-424242.us-central1.run.app",
            "8081=https://x.example:8443,account=a@b.iam.gserviceaccount.com",
            "a.example:8443=id,impersonate=a@b.iam.gserviceaccount.com,delegate=c@d.example",
            "8081=https://x.example:8443/v1/users/a@b.example",
            "unix:/run/app@1.sock=https://x.example",
            "unix:app@1.sock=https://x.example",
            "a-very-long-service-account-name-1@a-very-long-project-name-424242.iam.gserviceaccount.com",
            "123456789012-0abcdefghijklmnopqrstuvwxyz01234.apps.googleusercontent.com",
            "//iam.googleapis.com/projects/424242/locations/global/workloadIdentityPools/Pool1/providers/Provider1",
            "/projects/424242/global/backendServices/1234567890123456789",
            "https://www.googleapis.com/auth/devstorage.read_only",
            "*.internal.example:443:127.0.0.1:8443",
            "[::1]:8081",
            "sk-authentication-service.example",
            "sk-authenticationservice.example",
            "hvs.internal.example",
            "ya29.example",
            "AKIAMA.example",
            "bearer.example",
            "a.example=id,scheme=basic b.example=id,scheme=bearer c.example=id",
            "http://10.0.0.1//path",
            "8081=https://storage.googleapis.com,quota-project=example.com:p,account=a@p.example",
            "8081=https://[2001:db8::1]:8443/v1,audience=x,account=a@b.example",
            "[2001:db8::1]=id,audience=https://x.example,account=a@b.example",
            "a.example=id,audience=urn:example:api,account=a@b.example",
            "8081=https://x.example,scope=api://a/b.read:all,account=a@b.example",
            "a.example/v1/serviceAccounts:x@y=id",
            "/run/vol:me@x/ca.pem",
            "unix:/run/user:me@host/app.sock",
            "https://sts.example/realms/x:y@z/token",
            "https://x.example/models/claude-3-5-sonnet-v2@20241022:rawPredict",
            "/ghs_internal_service_name",
            "xoxb-serviceaccounts.example",
            "hvs.internalservicesofvault.example",
            &format!("/images/sha256:{digest}"),
            &format!("europe-docker.pkg.dev/p/app@sha256:{digest}"),
            &format!("https://x.example/{digest}/"),
        ] {
            assert!(!is_credential(text), "{text}");
            assert!(!text.split(|c| !is_base64(c)).any(is_random), "{text}");
        }
    }
}
