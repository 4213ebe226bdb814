//! Upstreams that reject calls with a token of the sidecar.

use http::{HeaderName, StatusCode};

use crate::destination::Origin;
use crate::error::SourceKind;
use crate::policy::{CredentialName, TokenKey, TokenKind, WIDEN, narrow_scopes, user_id_tokens};

/// The suffix of OAuth client ids, which are the audiences of Identity-Aware Proxy.
const OAUTH_CLIENT: &str = ".apps.googleusercontent.com";

/// An upstream's 401 or 403 to a token of the sidecar.
#[derive(Clone, Copy, Debug)]
pub struct AuthRejection<'a> {
    /// The origin that answered.
    pub origin: &'a Origin,
    /// 401, 403, or a redirect to Google's sign-in.
    pub status: StatusCode,
    /// Whether the response looks like one of Identity-Aware Proxy.
    pub iap: bool,
    /// The header that carried the token.
    pub header: &'a HeaderName,
    /// The key of the token.
    pub key: &'a TokenKey,
    /// The e-mail address of the token's account, if it is known.
    pub account: Option<&'a str>,
    /// The project, if it is known.
    pub project: Option<&'a str>,
    /// The scopes that the machine gives to the account of an access token, if they are known. They limit those that
    /// are requested.
    pub machine_scopes: Option<&'a str>,
}

// === impl AuthRejection ===

impl AuthRejection<'_> {
    /// Returns the kind of source that issued the token.
    pub(crate) fn source(&self, credential: &CredentialName) -> SourceKind {
        match self.key.principal.chain_clause() {
            Some(_) => SourceKind::Impersonation,
            None => credential.source,
        }
    }

    /// Returns the advice.
    pub(crate) fn advice(&self, credential: &CredentialName) -> String {
        advice(self, self.source(credential))
    }
}

fn advice(rejection: &AuthRejection<'_>, source: SourceKind) -> String {
    let of_user = source == SourceKind::AuthorizedUser;
    let account = rejection.account.unwrap_or(match of_user {
        true => "the person who logged in",
        false => "the account in use",
    });
    let host = rejection.origin.host.name().unwrap_or_default();
    let forbidden = rejection.status == StatusCode::FORBIDDEN;
    // The audience of a person's token is an OAuth client id too.
    let is_client = |audience: &str| audience.ends_with(OAUTH_CLIENT) && !of_user;
    if of_user && let TokenKind::Id { audience } = &rejection.key.kind {
        return match forbidden {
            true => format!("grant roles/run.invoker on the service to {account}"),
            // The audience is the OAuth client of the login.
            false => user_id_tokens(audience).to_owned(),
        };
    }
    if let TokenKind::Jwt { .. } = rejection.key.kind {
        return match forbidden {
            true => {
                format!("grant roles/iap.httpsResourceAccessor on the IAP resource to {account}")
            }
            false => format!(
                "a signed JWT (token=jwt) is for IAP only, and its audience must be the URL of the IAP resource, like \
                 https://{}/*; otherwise check this machine's clock",
                rejection.origin.host
            ),
        };
    }
    if rejection.iap && !rejection.key.audience().is_some_and(is_client) {
        return match forbidden {
            true => format!(
                "Identity-Aware Proxy answered: grant roles/iap.httpsResourceAccessor on the IAP resource to {account}"
            ),
            false => format!(
                "Identity-Aware Proxy answers like this to a token for another audience. If IAP protects this host, write --rule \
                 '{}=id,audience=CLIENT_ID.apps.googleusercontent.com' (on a route: credential=id,audience=…) with an OAuth \
                 client id that the IAP resource admits for programmatic access",
                rejection.origin.host
            ),
        };
    }
    match &rejection.key.kind {
        TokenKind::Id { audience } if is_client(audience) => match forbidden {
            true => format!("grant roles/iap.httpsResourceAccessor on the IAP resource to {account}"),
            false => "the audience must be an OAuth client id that this IAP resource admits for programmatic access; else \
                      compare this machine's clock"
                .to_owned(),
        },
        TokenKind::Id { .. } | TokenKind::Jwt { .. } if !forbidden => {
            "the audience must be the service's own URL or one of its custom audiences (option audience=); if IAP \
             protects it, IAP's OAuth client id; otherwise check this machine's clock"
                .to_owned()
        }
        TokenKind::Id { .. } if host.ends_with(".cloudfunctions.net") => format!(
            "grant roles/run.invoker (first generation: roles/cloudfunctions.invoker) on the function to {account}. \
             Or its ingress settings do not permit calls from this network"
        ),
        TokenKind::Id { .. } | TokenKind::Jwt { .. } => format!(
            "grant roles/run.invoker on the service to {account}. Or its ingress settings do not permit calls from \
             this network"
        ),
        TokenKind::Access { .. }
            if forbidden
                && let Some(scopes) = rejection.machine_scopes
                && let Some(scopes) = narrow_scopes(scopes) =>
        {
            format!(
                "this machine permits {account} only the scopes {scopes}. If the body of the response names \
                 ACCESS_TOKEN_SCOPE_INSUFFICIENT, {WIDEN}. Otherwise the body names the permission that {account} \
                 lacks: grant a role that has it"
            )
        }
        TokenKind::Access { .. } if forbidden => format!(
            "the body of the response names the permission that {account} lacks: grant a role that has it. Or the \
             API is disabled, the scopes are too narrow, or a service perimeter forbids the call"
        ),
        TokenKind::Access { .. } => "access tokens are for Google APIs (Cloud Run, functions and IAP take credential=id); else \
                                     compare this machine's clock and whether the account is disabled"
            .to_owned(),
    }
}
