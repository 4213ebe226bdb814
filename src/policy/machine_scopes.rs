//! The scopes that a machine permits the account of its metadata server.
//!
//! Compute Engine and GKE nodes limit every access token to the scopes that the machine was created with. Google
//! recommends `cloud-platform`, so that roles alone decide.

use super::decision::CLOUD_PLATFORM;

/// How to widen the scopes.
pub(crate) const WIDEN: &str = "stop the machine and run `gcloud compute instances set-service-account NAME --scopes=cloud-platform` (GKE: create \
     a node pool with --scopes=cloud-platform)";

/// The number of scopes that a message shows.
const SHOWN: usize = 10;

/// Returns the scopes for a message if they do not include `cloud-platform`. They are separated by spaces.
pub(crate) fn narrow_scopes(scopes: &str) -> Option<String> {
    let scopes: Vec<&str> = scopes.split(' ').collect();
    if scopes.contains(&CLOUD_PLATFORM) {
        return None;
    }
    let short = |scope: &&str| {
        let short = scope.strip_prefix("https://www.googleapis.com/auth/");
        short.unwrap_or(scope).to_owned()
    };
    let shown: Vec<String> = scopes.iter().take(SHOWN).map(short).collect();
    let shown = shown.join(", ");
    Some(match scopes.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_without_cloud_platform_are_shown_in_short() {
        let scope = |name: &str| format!("https://www.googleapis.com/auth/{name}");
        let joined = |names: &[&str]| {
            let scopes: Vec<String> = names.iter().map(|name| scope(name)).collect();
            narrow_scopes(&scopes.join(" "))
        };
        assert_eq!(joined(&["a", "cloud-platform"]), None);
        assert_eq!(joined(&["a", "b"]).unwrap(), "a, b");
        assert_eq!(narrow_scopes("openid").unwrap(), "openid");
        let many = ["a"; 12];
        assert!(joined(&many).unwrap().ends_with("a, a and 2 more"));
    }
}
