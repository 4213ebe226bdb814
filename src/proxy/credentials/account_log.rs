//! Logs the account whose tokens are used.

use std::sync::atomic::Ordering;

use super::CredentialProvider;
use crate::diagnostics::LogEntry;
use crate::error::Error;
use crate::explain::account_warning;
use crate::policy::Principal;
use crate::telemetry;

impl CredentialProvider {
    /// Fetches the facts that are not known yet: the universe, and the account and project for the log. Logs the
    /// account once.
    ///
    /// # Errors
    ///
    /// Fails if the fetch fails, like a token's.
    pub(crate) async fn fetch_facts(&self) -> Result<(), Error> {
        // The account is for the log only, so an error is ignored.
        let email = async { Ok::<_, Error>(self.facts.email(&Principal::Attached).await.ok()) };
        let (_, email) = tokio::try_join!(self.facts.universe(), email)?;
        let project = match self.facts.project_id().await {
            Ok(project) => project,
            // Some credential files do not name the account.
            Err(_) if self.policy.credential_name().is_file() => return Ok(()),
            Err(error) => return Err(error),
        };
        telemetry::set_project(&project);
        // The start has already logged a credential file.
        let Some(email) = email.filter(|_| !self.policy.credential_name().is_file()) else {
            return Ok(());
        };
        if !self.account_logged.swap(true, Ordering::Relaxed) {
            match self.policy.default_principal() {
                Principal::Attached => tracing::info!(
                    account = &*email,
                    source = "metadata",
                    "tokens are issued to {email} by the metadata server (project {project})",
                ),
                other => tracing::info!(
                    account = other.account(),
                    source = "impersonation",
                    "tokens are issued to {}; the base credential is {email}, from the metadata server (project {project})",
                    other.name_of(&email),
                ),
            }
            if let Some(warning) = account_warning(&email) {
                let help = LogEntry::ComputeDefaultAccount.page();
                tracing::warn!(account = &*email, help, "{warning}");
            }
        }
        Ok(())
    }
}
