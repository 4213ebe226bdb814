//! What a call to a URL would get, in words: `sidentity explain` and the admin port's `/explain`.

use std::fmt;

use http::HeaderMap;
use serde::Serialize;

use super::audience::{Shape, is_client_id, tagged};
use super::decide::Policy;
use super::decision::{Credential, Decision, Grant, SkipReason, TokenKey, TokenKind};
use super::header::{Placement, place};
use super::rule::{Existing, HeaderMode};
use crate::destination::{Destination, InvalidDestination, Origin, Scheme};

/// The scope of a token that is asked for without one, on Cloud Run.
const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";

/// Hosts that get tokens, and whose look-alikes are worth a warning.
const KNOWN: [&str; 3] = ["googleapis.com", "run.app", "cloudfunctions.net"];

/// A decision in words; its JSON keys are part of the interface.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// As it was asked.
    pub url: String,
    /// Whom the sidecar calls, after the upgrade to TLS.
    pub destination: String,
    /// `access`, `id`, `none` or `deny`.
    pub credential: &'static str,
    /// Of an ID token.
    pub audience: Option<String>,
    /// Of an access token.
    pub scopes: Vec<String>,
    /// The header that carries the token.
    pub header: Option<&'static str>,
    /// Which rule decided.
    pub rule: String,
    /// How the app must make this call.
    pub how: String,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}

/// Explains what a call to `url` through the forward proxy gets; nothing is fetched.
///
/// # Errors
///
/// `url` is no absolute HTTP URL.
pub fn explain(
    policy: &Policy,
    url: &str,
    universe: &str,
) -> Result<Explanation, InvalidDestination> {
    let destination = Destination::parse(url)?;
    let decision = policy.decide(&destination, universe);
    let mut notes: Vec<String> = decision.notes.iter().map(ToString::to_string).collect();
    let skipped = match place(&decision, &HeaderMap::new(), destination.query()) {
        Some(Placement::Skip(reason)) => Some(reason),
        Some(Placement::Inject(_)) | None => None,
    };
    let key = match &decision.grant {
        Grant::Token(_) if skipped.is_some() => None,
        Grant::Token(key) => Some(key),
        Grant::None(why) | Grant::Deny(why) => {
            notes.push(why.to_string());
            None
        }
    };
    if let Some(reason) = skipped {
        notes.push(stand_in(reason).to_owned());
    }
    let origin = match key {
        Some(_) if !decision.plaintext => destination.origin.upgraded(),
        _ => destination.origin.clone(),
    };
    notes.extend(of_token(key, &decision, &origin));
    notes.extend(of_host(policy, &destination, key.is_some()));
    let credential = match key {
        None if decision.credential() == Credential::Deny => Credential::Deny,
        None => Credential::None,
        Some(key) => key.credential(),
    };
    Ok(Explanation {
        url: url.to_owned(),
        destination: origin.to_string(),
        credential: credential.as_str(),
        audience: key.and_then(audience),
        scopes: key.map(scopes).unwrap_or_default(),
        header: key.map(|_| header(decision.header)),
        rule: decision.rule.to_string(),
        how: how(key.is_some(), credential, &destination, &origin),
        notes,
    })
}

fn audience(key: &TokenKey) -> Option<String> {
    match &key.kind {
        TokenKind::Id { audience } => Some(audience.to_string()),
        TokenKind::Access { .. } => None,
    }
}

fn scopes(key: &TokenKey) -> Vec<String> {
    match &key.kind {
        TokenKind::Id { .. } => Vec::new(),
        TokenKind::Access { scopes } if scopes.is_empty() => vec![CLOUD_PLATFORM.to_owned()],
        TokenKind::Access { scopes } => scopes.iter().map(ToString::to_string).collect(),
    }
}

const fn header(mode: HeaderMode) -> &'static str {
    match mode {
        HeaderMode::Auto | HeaderMode::Authorization => "Authorization",
        HeaderMode::XServerlessAuthorization => "X-Serverless-Authorization",
        HeaderMode::ProxyAuthorization => "Proxy-Authorization",
    }
}

const fn stand_in(reason: SkipReason) -> &'static str {
    match reason {
        SkipReason::ApiKey => "the URL carries an API key, which stands in for a token",
        SkipReason::SignedUrl => "the URL is signed, which stands in for a token",
        SkipReason::UploadSession => {
            "the URL is a resumable upload's session, which stands in for a token"
        }
        SkipReason::Existing | SkipReason::Tunnel => "the request goes as it is",
    }
}

/// How the app's own headers, the account and the receiver come into it.
fn of_token(key: Option<&TokenKey>, decision: &Decision, origin: &Origin) -> Vec<String> {
    let Some(key) = key else { return Vec::new() };
    let mut notes = Vec::new();
    if let Some(account) = &key.account {
        notes.push(format!("the token is {account}'s"));
    }
    let beside = match &key.kind {
        TokenKind::Access { .. } => None,
        TokenKind::Id { audience } if is_client_id(audience) => Some("Proxy-Authorization"),
        TokenKind::Id { .. } => Some("X-Serverless-Authorization"),
    };
    match (decision.header, decision.existing, beside) {
        (HeaderMode::Auto, Existing::Keep, Some(beside)) => notes.push(format!(
            "an Authorization that the app sends stands; the token then goes into {beside}"
        )),
        (HeaderMode::Auto | HeaderMode::Authorization, Existing::Keep, _) => notes
            .push("an Authorization that the app sends stands, and no token is added".to_owned()),
        (HeaderMode::Auto | HeaderMode::Authorization, Existing::Replace, _) => {
            notes.push("an Authorization that the app sends is replaced".to_owned());
        }
        (HeaderMode::XServerlessAuthorization | HeaderMode::ProxyAuthorization, ..) => {}
    }
    if decision.plaintext && origin.scheme == Scheme::Http {
        notes.push("plaintext=allow: the token travels in cleartext".to_owned());
    }
    if let Some(role) = role(key, origin) {
        notes.push(format!("the account needs {role} there"));
    }
    if let Some((tag, _)) = origin
        .host
        .name()
        .and_then(tagged)
        .filter(|_| decision.cloud_run)
    {
        notes.push(format!(
            "the traffic tag {tag:?} is no part of the audience"
        ));
    }
    if decision.cloud_run {
        notes.push(
            "a service behind IAP wants a --rule with IAP's OAuth client id as audience".to_owned(),
        );
    }
    notes
}

fn role(key: &TokenKey, origin: &Origin) -> Option<&'static str> {
    let TokenKind::Id { audience } = &key.kind else {
        return None;
    };
    if is_client_id(audience) {
        return Some("roles/iap.httpsResourceAccessor");
    }
    match Shape::of(&origin.host) {
        Shape::CloudRun => Some("roles/run.invoker"),
        Shape::Functions => {
            Some("roles/run.invoker (2nd generation) or roles/cloudfunctions.invoker (1st)")
        }
        Shape::Other => None,
    }
}

/// Why a host gets nothing that one might expect to get something.
fn of_host(policy: &Policy, destination: &Destination, token: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if token {
        return notes;
    }
    let origin = &destination.origin;
    if destination.userinfo {
        notes.push("a URL with user-info (user:password@) matches no built-in row".to_owned());
    }
    for (rule, port) in policy.rules_of_another_port(origin) {
        notes.push(format!(
            "`{rule}` is for port {port}, this call is for {}",
            origin.port
        ));
    }
    let Some(name) = origin.host.name() else {
        return notes;
    };
    for known in KNOWN {
        if origin.host.is_under(known) && !origin.is_default_port() {
            notes.push(format!("only the default port of *.{known} gets a token"));
        } else if !origin.host.is_under(known) && name.contains(known) {
            notes.push(format!("{name} only looks like a host under {known}"));
        }
    }
    notes
}

/// How the app must make the call so that this comes about.
fn how(token: bool, credential: Credential, destination: &Destination, origin: &Origin) -> String {
    if credential == Credential::Deny {
        return "the sidecar answers 403".to_owned();
    }
    if !token {
        return "through HTTP_PROXY or HTTPS_PROXY, or without the sidecar: it makes no difference"
            .to_owned();
    }
    let plain = Origin {
        scheme: Scheme::Http,
        port: if origin.port == 443 { 80 } else { origin.port },
        host: origin.host.clone(),
    };
    let route = format!(
        "a route (--route 8081={origin} and http://localhost:8081{})",
        destination.path()
    );
    match destination.origin.scheme {
        Scheme::Http => {
            format!("as it is through HTTP_PROXY (it goes out over TLS), or through {route}")
        }
        Scheme::Https => format!(
            "through {route}, or as {plain}{} through HTTP_PROXY (it goes out over TLS); https:// through HTTPS_PROXY \
             is a blind tunnel, into which no token can be put",
            destination.path()
        ),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: &str| writeln!(f, "{name:<12} {value}");
        line("url", &self.url)?;
        line("destination", &self.destination)?;
        line("credential", self.credential)?;
        if let Some(audience) = &self.audience {
            line("audience", audience)?;
        }
        if !self.scopes.is_empty() {
            line("scopes", &self.scopes.join(" "))?;
        }
        if let Some(header) = self.header {
            line("header", header)?;
        }
        line("rule", &self.rule)?;
        line("how", &self.how)?;
        for note in &self.notes {
            line("note", note)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Settings;

    fn explained(url: &str) -> Explanation {
        explain(
            &Policy::new(Vec::new(), Settings::default()),
            url,
            "googleapis.com",
        )
        .unwrap()
    }

    fn notes(url: &str) -> String {
        explained(url).notes.join("\n")
    }

    #[test]
    fn a_private_service_is_explained_whole() {
        let it = explained("https://canary---svc-1.us-central1.run.app/x?y");
        assert_eq!(it.destination, "https://canary---svc-1.us-central1.run.app");
        assert_eq!((it.credential, it.header), ("id", Some("Authorization")));
        assert_eq!(
            it.audience.as_deref(),
            Some("https://svc-1.us-central1.run.app")
        );
        assert!(
            it.how.contains("--route 8081=https://canary---svc-1"),
            "{}",
            it.how
        );
        let notes = it.notes.join("\n");
        for wanted in [
            "roles/run.invoker",
            "canary",
            "X-Serverless-Authorization",
            "IAP",
        ] {
            assert!(notes.contains(wanted), "{wanted} in {notes}");
        }
    }

    #[test]
    fn a_cleartext_url_is_shown_upgraded() {
        let it = explained("http://storage.googleapis.com/b");
        assert_eq!(it.destination, "https://storage.googleapis.com");
        assert_eq!(
            (it.credential, &*it.scopes),
            ("access", &[CLOUD_PLATFORM.to_owned()][..])
        );
        assert!(
            it.how.starts_with("as it is through HTTP_PROXY"),
            "{}",
            it.how
        );
    }

    #[test]
    fn what_gets_nothing_is_told_why() {
        for (url, why) in [
            (
                "https://storage.googleapis.com/o?X-Goog-Signature=x",
                "signed",
            ),
            ("https://storage.googleapis.com/o?key=x", "API key"),
            (
                "https://storage.googleapis.com.evil.test/",
                "only looks like",
            ),
            ("https://evilgoogleapis.com/", "only looks like"),
            ("https://a.run.app:8443/", "default port"),
            ("https://u:p@a.run.app/", "user-info"),
            ("https://r-p.cloudfunctions.net/", "first segment"),
            ("https://fonts.googleapis.com/", ""),
        ] {
            assert_eq!(explained(url).credential, "none", "{url}");
            assert!(notes(url).contains(why), "{url}: {}", notes(url));
        }
    }

    #[test]
    fn what_is_no_url_is_an_error() {
        let policy = Policy::new(Vec::new(), Settings::default());
        for url in ["", "x", "ftp://x", "/path"] {
            assert!(explain(&policy, url, "googleapis.com").is_err(), "{url:?}");
        }
    }
}
