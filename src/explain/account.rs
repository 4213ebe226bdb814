//! What a person should know about the service account in use.

/// Google's own accounts of this domain are made by services, not by users.
const COMPUTE_DEFAULT: &str = "-compute@developer.gserviceaccount.com";

/// A warning where `email` is the Compute Engine default service account, `NUMBER-compute@developer.gserviceaccount.com`.
///
/// Cloud Run, GKE and Compute Engine use it where no other account is named, and in older projects it has the role Editor.
pub(crate) fn account_warning(email: &str) -> Option<String> {
    let number = email.strip_suffix(COMPUTE_DEFAULT)?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| {
        format!(
            "{email} is the Compute Engine default service account: Google recommends a user-managed service account with the \
             least roles"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_compute_engine_default_account_is_warned_of() {
        for email in [
            "424242-compute@developer.gserviceaccount.com",
            "1-compute@developer.gserviceaccount.com",
        ] {
            assert!(account_warning(email).unwrap().starts_with(email));
        }
        for email in [
            "",
            "-compute@developer.gserviceaccount.com",
            "x1-compute@developer.gserviceaccount.com",
            "1-compute@developer.gserviceaccount.com.example",
            "app@p.iam.gserviceaccount.com",
            "p@appspot.gserviceaccount.com",
        ] {
            assert_eq!(account_warning(email), None, "{email}");
        }
    }
}
