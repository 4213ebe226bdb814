//! What a person can do about a call that carried a token in vain, or none.

use std::path::Path;

use http::{HeaderName, StatusCode};
use tracing::field;

use super::rate_limit::RateLimiter;
use super::trace::TraceContext;
use crate::destination::Origin;
use crate::error::SourceKind;
use crate::policy::{CredentialName, TokenKey, TokenKind, USER_ID_TOKENS};

/// OAuth client ids, the audiences of Identity-Aware Proxy, end so.
const OAUTH_CLIENT: &str = ".apps.googleusercontent.com";

/// An upstream's 401 or 403 to a token of ours.
#[derive(Clone, Copy, Debug)]
pub struct AuthRejection<'a> {
    /// Who answered.
    pub origin: &'a Origin,
    /// 401, 403, or a redirect to Google's sign-in.
    pub status: StatusCode,
    /// Identity-Aware Proxy answered, or the redirect is like one of its.
    pub iap: bool,
    /// The header that carried the token.
    pub header: &'a HeaderName,
    /// What the token was asked for.
    pub key: &'a TokenKey,
    /// The e-mail address of the account it was issued to, where that is known.
    pub account: Option<&'a str>,
    /// The project, where it is known.
    pub project: Option<&'a str>,
    /// The trace of the request.
    pub trace: Option<TraceContext>,
}

/// Logs the rejection and what to do about it, at most once a minute for the same answer to the same token from the same
/// destination: a 403 that follows a 401 is another fault, and so is another function's on the same host.
pub fn auth_rejected(limiter: &RateLimiter, rejection: &AuthRejection<'_>) {
    auth_rejected_of(limiter, rejection, &CredentialName::default());
}

/// The same for a token that this base credential was issued, or that it had issued to an account.
pub fn auth_rejected_of(
    limiter: &RateLimiter,
    rejection: &AuthRejection<'_>,
    credential: &CredentialName,
) {
    let AuthRejection {
        origin,
        status,
        key,
        ..
    } = rejection;
    if !limiter.is_due(&format!("rejected {status} {origin} {key:?}")) {
        return;
    }
    let (token, audience, scopes) = match &key.kind {
        TokenKind::Access { scopes } => ("access", None, Some(scopes.join(" "))),
        TokenKind::Id { audience } => ("ID", Some(&**audience), None),
        TokenKind::Jwt { audience } => ("ID", Some(&**audience), None),
    };
    let trace = rejection.trace.as_ref();
    tracing::warn!(
        {
            destination = %origin,
            status = rejection.status.as_u16(),
            header = rejection.header.as_str(),
            audience,
            scopes = scopes.filter(|scopes| !scopes.is_empty()),
            source = rejection.source(credential).as_str(),
            credential = credential.is_file().then_some(&*credential.text),
            account = rejection.account,
            via = key.principal.via(),
            project = rejection.project,
            "logging.googleapis.com/trace" = trace.map(|trace| field::display(trace.trace_id())),
            "logging.googleapis.com/spanId" = trace.and_then(TraceContext::span_id).map(field::display),
            "logging.googleapis.com/trace_sampled" = trace.map(TraceContext::sampled),
        },
        "{origin} answered {} to an {token} token: {}",
        rejection.status.as_u16(),
        rejection.advice(credential),
    );
}

/// Why no token can be injected into a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTokenReason {
    /// `--intercept` is off.
    NotAsked,
    /// The CA's name constraints exclude the host, or the host is an IP address.
    NotCovered,
    /// The app speaks neither HTTP nor TLS in a tunnel to port 80.
    NotHttp,
    /// The app does not speak TLS in the tunnel.
    NotTls,
    /// The app sends nothing.
    Silent,
}

/// Logs, at most once a minute per host, that a tunnel to a destination that is due a token carries none.
pub fn tunnel_without_token(limiter: &RateLimiter, origin: &Origin, blind: NoTokenReason) {
    if !limiter.is_due(&format!("tunnel {}", origin.host)) {
        return;
    }
    tracing::warn!(
        destination = %origin,
        "the CONNECT tunnel to {origin} carries no token, since {}: {}",
        blind.why(),
        blind.advice(origin),
    );
}

impl NoTokenReason {
    /// Why no token can be put in.
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::NotAsked => "nothing can be put into the app's own TLS",
            Self::NotCovered => {
                "this sidecar's CA is not for that host (domains learned after the start count from the next one on)"
            }
            Self::NotHttp => "what is inside is neither HTTP nor TLS",
            Self::NotTls => "what is inside is no TLS",
            Self::Silent => "the app sent nothing in it at first",
        }
    }

    /// What to do about it.
    pub(super) fn advice(self, origin: &Origin) -> String {
        let route = match self {
            Self::NotAsked => {
                ", give it a --route, or set --intercept and let the app trust ca.pem of --ca-dir"
            }
            Self::NotCovered | Self::NotHttp => " or give it a --route",
            Self::Silent => ", give it a --route, or send the first byte within 10 s",
            Self::NotTls => ", give it a --route, or speak TLS inside",
        };
        format!(
            "call http://{} through the proxy (it goes out over TLS){route}",
            origin.host
        )
    }
}

/// Logs, at most once a minute per host, that an app did not let its TLS be opened, and how it would.
pub fn interception_failed(
    limiter: &RateLimiter,
    origin: &Origin,
    error: &dyn std::error::Error,
    ca_dir: Option<&Path>,
) {
    if !limiter.is_due(&format!("intercept {}", origin.host)) {
        return;
    }
    let Some(folder) = ca_dir.map(Path::display) else {
        tracing::warn!(
            destination = %origin,
            error = %error,
            "no TLS with the app in the place of {origin}: {error}. It must trust this sidecar's CA, which --ca-dir writes",
        );
        return;
    };
    tracing::warn!(
        destination = %origin,
        error = %error,
        "no TLS with the app in the place of {origin}: {error}. It must trust this sidecar's CA, which is new at each start: \
         SSL_CERT_FILE={folder}/bundle.pem (also REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, GRPC_DEFAULT_SSL_ROOTS_FILE_PATH), \
         NODE_EXTRA_CA_CERTS={folder}/ca.pem, or for Java -Djavax.net.ssl.trustStore={folder}/truststore.p12 \
         -Djavax.net.ssl.trustStorePassword=changeit",
    );
}

impl AuthRejection<'_> {
    /// What issued the token.
    fn source(&self, credential: &CredentialName) -> SourceKind {
        match self.key.principal.via() {
            Some(_) => SourceKind::Impersonation,
            None => credential.source,
        }
    }

    /// What to do about it.
    pub(super) fn advice(&self, credential: &CredentialName) -> String {
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
    if of_user && matches!(rejection.key.kind, TokenKind::Id { .. }) {
        return match forbidden {
            true => format!("grant roles/run.invoker on the service to {account}"),
            false => USER_ID_TOKENS.to_owned(),
        };
    }
    if let TokenKind::Jwt { .. } = rejection.key.kind {
        return match forbidden {
            true => {
                format!("grant roles/iap.httpsResourceAccessor on the IAP resource to {account}")
            }
            false => format!(
                "a signed JWT (token=jwt) is for IAP alone, and its audience must be the URL of the IAP resource, like \
                 https://{}/*; else compare this machine's clock",
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
                "that is how Identity-Aware Proxy answers to a token that is not for it. If IAP guards this host, write --rule \
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
            "the audience must be the service's own URL or one of its custom audiences (option audience=); where IAP stands \
             before it, IAP's OAuth client id; else compare this machine's clock"
                .to_owned()
        }
        TokenKind::Id { .. } if host.ends_with(".cloudfunctions.net") => format!(
            "grant roles/run.invoker (first generation: roles/cloudfunctions.invoker) on the function to {account}; or its \
             ingress settings do not admit calls from this network"
        ),
        TokenKind::Id { .. } | TokenKind::Jwt { .. } => format!(
            "grant roles/run.invoker on the service to {account}; or its ingress settings do not admit calls from this \
             network"
        ),
        TokenKind::Access { .. } if forbidden => format!(
            "the answer's body names the permission that {account} lacks: grant a role that has it; or the API is off, the \
             scopes are too narrow, or a service perimeter forbids the call"
        ),
        TokenKind::Access { .. } => "access tokens are for Google APIs (Cloud Run, functions and IAP take credential=id); else \
                                     compare this machine's clock and see whether the account is disabled"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests;
