//! The emulated accounts and users, and the roles between them.

use std::collections::BTreeSet;

use super::super::identity::Identity;

/// The client id that gcloud uses for Application Default Credentials. Cloud Run accepts ID tokens with this audience.
pub(super) const GCLOUD_CLIENT: &str =
    "764086051850-6qr4p6gpi6hn506pt8ejuq83di341hur.apps.googleusercontent.com";

/// The scopes that the domain's administrator delegated to the service accounts.
pub(super) const DELEGATED_SCOPES: [&str; 4] = [
    "https://www.googleapis.com/auth/calendar",
    "https://www.googleapis.com/auth/drive",
    "https://www.googleapis.com/auth/drive.readonly",
    "https://www.googleapis.com/auth/gmail.readonly",
];

/// The domain of the users. It delegated authority.
pub(super) const DOMAIN: &str = "example.com";

/// The accounts, users and identity pools, and the roles between them.
#[derive(Clone, Debug)]
pub struct Directory {
    project_id: String,
    project_number: u64,
    /// The e-mail address of the account of the key file and the metadata server.
    main: String,
    accounts: BTreeSet<String>,
    grants: BTreeSet<(String, String, Role)>,
}

/// A role on a service account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `roles/iam.serviceAccountTokenCreator`: permits tokens, signatures and delegation.
    TokenCreator,
    /// `roles/iam.workloadIdentityUser`: permits tokens.
    WorkloadIdentityUser,
}

/// A permission on a service account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permission {
    GetAccessToken,
    GetOpenIdToken,
    ImplicitDelegation,
    SignJwt,
}

// === impl Directory ===

impl Directory {
    pub(super) fn new(identity: &Identity) -> Self {
        let main = identity.email.to_string();
        let mut directory = Self {
            project_id: identity.project_id.to_string(),
            project_number: identity.project_number,
            accounts: BTreeSet::from([main.clone()]),
            grants: BTreeSet::new(),
            main,
        };
        let [target, delegate, isolated] =
            ["target", "delegate", "isolated"].map(|name| directory.address(name));
        let main = format!("serviceAccount:{}", directory.main);
        let user = format!("user:{}", directory.user());
        let workload = format!(
            "{}/*",
            directory.pool().replacen("//", "principalSet://", 1)
        );
        let workforce = format!("{}/*", WORKFORCE_POOL.replacen("//", "principalSet://", 1));
        for member in [&main, &user] {
            directory.grant(member, &delegate, Role::TokenCreator);
            directory.grant(member, &target, Role::TokenCreator);
        }
        let chain = format!("serviceAccount:{delegate}");
        directory.grant(&chain, &target, Role::TokenCreator);
        directory.grant(&workload, &target, Role::WorkloadIdentityUser);
        directory.grant(&workforce, &target, Role::TokenCreator);
        directory.accounts.insert(isolated);
        directory
    }

    /// Returns the address of an account of the project: `target`, which others may impersonate, `delegate`, through
    /// which they may do so, or `isolated`, which no account may impersonate.
    pub fn address(&self, name: &str) -> String {
        format!("{name}@{}.iam.gserviceaccount.com", self.project_id)
    }

    /// Returns the account of the key file and the metadata server.
    pub fn main(&self) -> &str {
        &self.main
    }

    /// Returns the user of the credential files.
    pub fn user(&self) -> String {
        format!("user@{DOMAIN}")
    }

    /// Returns the project's id.
    pub fn project_id(&self) -> &str {
        &self.project_id
    }

    /// Returns the workload identity pool, without the provider.
    pub fn pool(&self) -> String {
        format!(
            "//iam.googleapis.com/projects/{}/locations/global/workloadIdentityPools/example-pool",
            self.project_number
        )
    }

    /// Returns the workforce pool, without the provider.
    pub fn workforce_pool(&self) -> &'static str {
        WORKFORCE_POOL
    }

    pub(super) fn grant(&mut self, member: &str, account: &str, role: Role) {
        self.accounts.insert(account.to_owned());
        let grant = (member.to_owned(), account.to_owned(), role);
        self.grants.insert(grant);
    }

    pub(super) fn revoke(&mut self, account: &str) {
        self.grants.retain(|(_, granted, _)| granted != account);
    }

    pub(super) fn has_account(&self, email: &str) -> bool {
        self.accounts.contains(email)
    }

    pub(super) fn permits(&self, member: &str, account: &str, permission: Permission) -> bool {
        self.grants.iter().any(|(granted, on, role)| {
            on == account && role.includes(permission) && covers(granted, member)
        })
    }
}

const WORKFORCE_POOL: &str =
    "//iam.googleapis.com/locations/global/workforcePools/example-workforce";

fn covers(granted: &str, member: &str) -> bool {
    match granted.strip_suffix('*') {
        Some(prefix) => {
            let prefix = prefix.replacen("principalSet://", "principal://", 1);
            member.starts_with(&prefix)
        }
        None => granted == member,
    }
}

// === impl Role ===

impl Role {
    fn includes(self, permission: Permission) -> bool {
        match self {
            Self::TokenCreator => true,
            Self::WorkloadIdentityUser => matches!(
                permission,
                Permission::GetAccessToken | Permission::GetOpenIdToken
            ),
        }
    }
}

// === impl Permission ===

impl Permission {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::GetAccessToken => "iam.serviceAccounts.getAccessToken",
            Self::GetOpenIdToken => "iam.serviceAccounts.getOpenIdToken",
            Self::ImplicitDelegation => "iam.serviceAccounts.implicitDelegation",
            Self::SignJwt => "iam.serviceAccounts.signJwt",
        }
    }
}
