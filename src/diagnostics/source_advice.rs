//! The titles and advice of failures at token sources other than the metadata server.

use crate::error::{SourceKind, TokenFault};

// === impl TokenFault ===

impl TokenFault {
    /// Returns the title of the fault at this kind of source: what happened, in a few words.
    pub(crate) const fn title_of(self, source: SourceKind) -> &'static str {
        if let SourceKind::Metadata = source {
            return self.title();
        }
        match (self, source) {
            (Self::Failing, SourceKind::Impersonation) => "The IAM Credentials API fails",
            (Self::Failing, SourceKind::Sts) => "The Security Token Service fails",
            (Self::Failing, _) => "The token endpoint fails",
            (Self::Forbidden, _) => "This identity may not get the token",
            (Self::WrongServer, _) => "Another server answers instead of the token endpoint",
            (Self::Limited, SourceKind::Impersonation) => {
                "The IAM Credentials API limits this identity"
            }
            (Self::Limited, SourceKind::Sts) => "The Security Token Service limits this identity",
            (Self::Limited, _) => "The token endpoint limits this identity",
            (Self::Malformed, SourceKind::Impersonation) => {
                "The IAM Credentials API's response is not a token"
            }
            (Self::Malformed, SourceKind::Sts) => {
                "The Security Token Service's response is not a token"
            }
            (Self::Malformed, _) => "The token endpoint's response is not a token",
            (Self::NoAccount, _) => "No such service account",
            (Self::Refused, SourceKind::Impersonation) => {
                "The IAM Credentials API rejects the request"
            }
            (Self::Refused, SourceKind::Sts) => {
                "The Security Token Service rejects the subject token"
            }
            (Self::Refused, _) => "The token endpoint rejects the credential",
            (Self::TimedOut, SourceKind::Impersonation) => "The IAM Credentials API is too slow",
            (Self::TimedOut, SourceKind::Sts) => "The Security Token Service is too slow",
            (Self::TimedOut, _) => "The token endpoint is too slow",
            (Self::Unreachable, SourceKind::Impersonation) => {
                "The IAM Credentials API cannot be reached"
            }
            (Self::Unreachable, SourceKind::Sts) => "The Security Token Service cannot be reached",
            (Self::Unreachable, _) => "The token endpoint cannot be reached",
            (
                Self::Aborted
                | Self::Disabled
                | Self::InvalidScope
                | Self::NoSubjectToken
                | Self::NotDelegated
                | Self::NotImpersonated
                | Self::NothingFound
                | Self::ProxyRefused
                | Self::Unsupported,
                _,
            ) => self.title(),
        }
    }

    /// Returns the advice for the fault at this kind of source.
    pub(crate) const fn advice_of(self, source: SourceKind) -> &'static str {
        if let SourceKind::Metadata = source {
            return self.advice();
        }
        match (self, source) {
            (Self::Failing, _) => {
                "The endpoint in the detail has an internal fault; the next requests retry. If it lasts, check \
                 status.cloud.google.com."
            }
            (Self::Forbidden, _) => {
                "If the detail names a role or permission, grant it to the identity; check that the account is not \
                 disabled and that the API is enabled. Otherwise a proxy or firewall may have answered."
            }
            (Self::WrongServer, _) => {
                "Another server answers instead of the endpoint, and its response was rejected: check any proxy in between. \
                 If the detail is about a certificate, add the root of a proxy that inspects TLS with --upstream-ca."
            }
            (Self::InvalidScope, SourceKind::AuthorizedUser) => {
                "The detail names the scope: correct scope= of the rule or route, or log in with that scope: `gcloud auth \
                 application-default login --scopes=SCOPES`."
            }
            (Self::Limited, _) => {
                "Too many tokens are requested with this credential: find its other users. The sidecar asks once per \
                 token, and retries."
            }
            (Self::Malformed, _) => {
                "Check that the endpoint in the detail is Google's, and that the clock of this machine is right: an ID \
                 token that appears expired is refused."
            }
            (Self::NoAccount, _) => {
                "Check that the service account in the detail exists, is spelled correctly, and belongs to that \
                 project."
            }
            (Self::Refused, SourceKind::AuthorizedUser) => {
                "Log in again: `gcloud auth application-default login`, then send SIGHUP to the sidecar or restart it. The \
                 detail has the endpoint's text."
            }
            (Self::Refused, SourceKind::ServiceAccount) => {
                "Check that the key and its account were not deleted or disabled, and that the clock of this machine is \
                 right. The detail has the endpoint's text."
            }
            (Self::Refused, _) => {
                "The detail has the endpoint's text: check that the credential file is current, and that the clock of \
                 this machine is right."
            }
            (Self::Unreachable, _) => {
                "Check that this machine reaches the endpoint in the detail: name resolution, firewall, and a required \
                 proxy (--upstream-proxy)."
            }
            (
                Self::Aborted
                | Self::Disabled
                | Self::InvalidScope
                | Self::NoSubjectToken
                | Self::NotDelegated
                | Self::NotImpersonated
                | Self::NothingFound
                | Self::ProxyRefused
                | Self::TimedOut
                | Self::Unsupported,
                _,
            ) => self.advice(),
        }
    }
}

impl TokenFault {
    /// Returns each different advice, with the sources that it is for.
    pub fn advice_by_source(self) -> Vec<(String, &'static str)> {
        let mut all: Vec<(String, &'static str)> = Vec::new();
        for source in SourceKind::ALL {
            let (name, advice) = (source.credential(), self.advice_of(source));
            match all.iter_mut().find(|(_, other)| *other == advice) {
                Some((names, _)) => {
                    names.push_str(", ");
                    names.push_str(name);
                }
                None => all.push((name.to_owned(), advice)),
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_about_a_file_does_not_mention_the_metadata_server() {
        for fault in TokenFault::ALL {
            for source in SourceKind::ALL {
                let (title, advice) = (fault.title_of(source), fault.advice_of(source));
                assert!(advice.len() > 40 && advice.len() <= 260, "{advice}");
                assert!(advice.ends_with('.'), "{advice}");
                let both = format!("{title} {advice}");
                let named = both.contains("metadata server");
                let about_it = matches!(fault, TokenFault::Disabled | TokenFault::NothingFound);
                assert!(
                    source == SourceKind::Metadata || about_it || !named,
                    "{both}"
                );
            }
            assert_eq!(fault.title_of(SourceKind::Metadata), fault.title());
            assert_eq!(fault.advice_of(SourceKind::Metadata), fault.advice());
        }
    }
}
