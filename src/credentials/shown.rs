//! Quotes values in messages, unless one is a credential in the place of something else.

use std::path::Path;

/// What stands for a value that is not shown.
const HIDDEN: &str = "a value that looks like a credential (it is not shown)";

/// What stands for a path that is not shown.
const HIDDEN_PATH: &str = "a value that looks like a credential, not like a path (it is not shown: write it to a file, and name that)";

/// The fields that only a credential has.
const SECRET_FIELDS: [&str; 4] = ["private_key", "refresh_token", "client_secret", "\"type\""];

/// The beginnings of tokens: of JWTs, of Google, GitHub, GitLab and Vault.
pub(crate) const TOKEN_BEGINNINGS: [&str; 9] = [
    "eyJ", "ya29.", "1//", "GOCSPX-", "gho_", "ghp_", "ghs_", "glpat-", "hvs.",
];

/// Quotes a path for a message.
pub(crate) fn path_name(path: &Path) -> String {
    let text = path.display().to_string();
    match is_credential(&text) {
        true => HIDDEN_PATH.to_owned(),
        false => format!("{text:?}"),
    }
}

/// Returns what a message shows for a value that looks like a credential, otherwise `None`.
pub(crate) fn hidden(text: &str) -> Option<&'static str> {
    is_credential(text).then_some(HIDDEN)
}

/// Returns whether the text looks like the content of a credential file or like a token. A common mistake is
/// `GOOGLE_APPLICATION_CREDENTIALS="$(cat key.json)"`, also with Base64.
fn is_credential(text: &str) -> bool {
    let text = text.trim();
    let is_base64 = |b: u8| b.is_ascii_alphanumeric() || b"+/=_-".contains(&b);
    text.starts_with('{')
        || text.contains("-----BEGIN")
        || text.contains('\n')
        || SECRET_FIELDS.iter().any(|field| text.contains(field))
        || TOKEN_BEGINNINGS.iter().any(|token| text.starts_with(token))
        // JSON and PEM in Base64.
        || text.len() >= 64 && ["ew", "ey", "LS0t"].iter().any(|start| text.starts_with(start))
        || text.len() >= 256 && text.bytes().all(is_base64)
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
}
