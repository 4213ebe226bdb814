//! Advice about the service account in use.

/// The suffix of the Compute Engine default service account. Only Google creates accounts of this domain.
const COMPUTE_DEFAULT: &str = "-compute@developer.gserviceaccount.com";

/// Returns a warning if `email` is the Compute Engine default service account,
/// `NUMBER-compute@developer.gserviceaccount.com`.
///
/// Cloud Run, GKE and Compute Engine use it if no other account is configured. In older projects it has the role
/// Editor.
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
    fn only_the_compute_engine_default_account_gets_a_warning() {
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
