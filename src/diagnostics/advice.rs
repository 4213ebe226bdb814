//! Advice for each kind of error and each fault of a token source. Log, status page and operating guide use this text.

use crate::error::{ErrorKind, Problem, TokenFault};

// === impl TokenFault ===

impl TokenFault {
    /// Returns a title: what happened, in a few words.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Aborted => "The token fetch was interrupted",
            Self::Disabled => "NO_GCE_CHECK disables the metadata server",
            Self::Failing => "The metadata server fails",
            Self::Forbidden => "This workload may not use the account",
            Self::WrongServer => "No metadata server at its address",
            Self::InvalidScope => "The scope or audience is not accepted",
            Self::Limited => "The metadata server limits this instance",
            Self::Malformed => "The metadata server's response is not a token",
            Self::NoAccount => "No such service account here",
            Self::NothingFound => "No credentials were found",
            Self::NotDelegated => "Domain-wide delegation is not authorized",
            Self::NotImpersonated => "The service account cannot be impersonated",
            Self::NoSubjectToken => "The subject token cannot be obtained",
            Self::ProxyRefused => "The upstream proxy refuses calls to the token endpoint",
            Self::Refused => "The metadata server rejects the request",
            Self::TimedOut => "The metadata server is too slow",
            Self::Unreachable => "The metadata server cannot be reached",
            Self::Unsupported => "This credential cannot issue the token",
        }
    }

    /// Returns a title that fits every kind of source: the heading of the entry in docs/errors.md.
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Failing => "The token source fails",
            Self::Forbidden => "This identity may not get the token",
            Self::WrongServer => "Another server answers instead of the token source",
            Self::Limited => "The token source limits this identity",
            Self::Malformed => "The response is not a token",
            Self::NoAccount => "No such service account",
            Self::Refused => "The token source rejects the request",
            Self::TimedOut => "The token source is too slow",
            Self::Unreachable => "The token source cannot be reached",
            Self::Aborted
            | Self::Disabled
            | Self::InvalidScope
            | Self::NoSubjectToken
            | Self::NotDelegated
            | Self::NotImpersonated
            | Self::NothingFound
            | Self::ProxyRefused
            | Self::Unsupported => self.title(),
        }
    }

    /// Returns the advice: what to do about it.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Aborted => {
                "Nothing if the sidecar is about to exit. Otherwise the next request starts another fetch."
            }
            Self::Disabled => {
                "Unset NO_GCE_CHECK if there is a metadata server. Without a metadata server or a credential file, no \
                 destination gets a token."
            }
            Self::Failing => {
                "The metadata server has an internal fault; the next requests retry. If it lasts, check \
                 status.cloud.google.com and start a new instance."
            }
            Self::Forbidden => {
                "Allow this workload to use the account: check that it is not disabled. On GKE with Workload Identity, \
                 grant roles/iam.workloadIdentityUser on it to the annotated Kubernetes service account."
            }
            Self::WrongServer => {
                "Another server answers at the metadata server's address, and its response was rejected: check \
                 GCE_METADATA_HOST, and any proxy or firewall that intercepts 169.254.169.254."
            }
            Self::InvalidScope => {
                "The detail names the scope or audience: correct scope= or audience= of the rule or route, or what the \
                 client requests."
            }
            Self::Limited => {
                "A process on this instance calls the metadata server too often: find the container that does not cache \
                 its tokens. The sidecar asks once per token, and retries."
            }
            Self::Malformed => {
                "Check that GCE_METADATA_HOST is a real metadata server, and that the clock of this machine is right: an \
                 ID token that appears expired is rejected."
            }
            Self::NoAccount => {
                "Attach a service account to the service, job or machine (on GKE: annotate the Kubernetes service \
                 account with iam.gke.io/gcp-service-account). If a route or rule has account=, check its spelling."
            }
            Self::NothingFound => {
                "The detail lists what was checked. On a workstation run `gcloud auth application-default login`, \
                 then restart; elsewhere set GOOGLE_APPLICATION_CREDENTIALS to a credential file, or GCE_METADATA_HOST to a metadata \
                 server."
            }
            Self::NotDelegated => {
                "In the Admin console of the user's domain (Security, API controls, domain-wide delegation), authorize the \
                 client id of the account in the detail for every scope in the detail. A change can take up to a day."
            }
            Self::NotImpersonated => {
                "Grant the role in the detail on the account to the calling account; it takes effect within two minutes. \
                 Check that the account exists, and that iamcredentials.googleapis.com is enabled in its project."
            }
            Self::NoSubjectToken => {
                "Check that this process can read or run the file, program or service of credential_source in the \
                 detail, and that it has a token. The next request asks again."
            }
            Self::ProxyRefused => {
                "Permit CONNECT to the token endpoint in the detail at the proxy, correct the credentials in \
                 --upstream-proxy, or add the host to --no-upstream-proxy."
            }
            Self::Refused => {
                "The detail has the text of the metadata server: check scope= and audience= of the rule."
            }
            Self::TimedOut => {
                "Check that the instance gets CPU (Cloud Run gives none between requests unless CPU is always allocated), \
                 and find what delays the responses: each attempt waits at most 3 s, whatever --token-timeout is. The \
                 next requests retry."
            }
            Self::Unreachable => {
                "On Google Cloud: check that no network policy, firewall or proxy blocks 169.254.169.254 port 80. \
                 Elsewhere: set GCE_METADATA_HOST, for example to `sidentity metadata-server`."
            }
            Self::Unsupported => {
                "Impersonate a service account that can get such a token: --impersonate-service-account, or impersonate= \
                 on the route or rule. The detail says what this credential can get."
            }
        }
    }
}

// === impl ErrorKind ===

impl ErrorKind {
    /// Returns the advice: what to do about a request that failed this way.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::BadRequest => {
                "The request is ambiguous or invalid and was not forwarded: correct what the detail names, in the app or \
                 its HTTP library."
            }
            Self::CertificateInvalid => {
                "Inspect the certificate: `openssl s_client -connect HOST:443 -servername HOST`. Add the root of a \
                 private authority with --upstream-ca. An expired certificate, or one for another name, must be replaced \
                 at the upstream."
            }
            Self::ConnectionRefused => {
                "No process listens at that address: check that the service runs, that the port is right, and where \
                 --connect-to leads."
            }
            Self::ConnectionTerminated => {
                "The upstream closed the connection before its response was complete: check its log for a crash, a \
                 restart or a timeout at that time."
            }
            Self::ConnectionTimeout => {
                "Packets are lost on the network: check firewalls, and the VPC connector and egress setting of this \
                 service. Raise --connect-timeout only for a very slow network."
            }
            Self::CrossSite => {
                "A browser page of another site called a route. If the page is yours, add its name with --allowed-host; \
                 otherwise the refusal is correct."
            }
            Self::Denied => {
                "A rule or --unmatched deny forbids this destination: `sidentity explain URL` names it. If the call is \
                 intended, add the --route that the detail names, otherwise a --rule for the host."
            }
            Self::DnsFailed => {
                "Check the spelling of the name, and that the resolver of this network knows it: a name in a private \
                 zone needs VPC access and Cloud DNS."
            }
            Self::DnsTimeout => {
                "The resolver does not answer: check that port 53 is open to the nameservers in /etc/resolv.conf, and \
                 that they are not overloaded."
            }
            Self::HeadTooLarge => {
                "The request has too many or too large header fields: look for cookies or credentials that have grown, \
                 and for fields that are added repeatedly."
            }
            Self::HttpProtocol => {
                "The server does not send valid HTTP: check the port. If a server announces HTTP/2 but does not support \
                 it, set http=1 on the route."
            }
            Self::Internal => {
                "This is a bug in sidentity: report it, with the detail and the log lines around it."
            }
            Self::LimitReached => {
                "Too many requests or connections are open: check whether an upstream is slow, or the app opens more \
                 than it needs. Otherwise raise the option in the detail (--max-connections or --max-memory) and the \
                 memory limit."
            }
            Self::LoopDetected => {
                "The call leads back to the sidecar: set the real upstream in the route, and set \
                 NO_PROXY=localhost,127.0.0.1 together with HTTP_PROXY."
            }
            Self::Malformed => {
                "The bytes are not a valid HTTP request and were not forwarded: correct what the detail names, in the \
                 app or its HTTP library, and check that the app speaks HTTP to this port."
            }
            Self::Misdirected => {
                "The request names another host than its route or tunnel: call a route as localhost, or add its name \
                 with --allowed-host. Inside a tunnel, a client must not share one connection between hosts."
            }
            Self::NoRoute => {
                "No route on this port has a prefix of this path: compare the app's URL with the routes. A prefix \
                 matches whole segments."
            }
            Self::NotAbsolute => {
                "The app calls the forward proxy as a server. Set HTTP_PROXY to the proxy's address and call the real \
                 URL, or add a --route and call the route."
            }
            Self::ProxyAuthRequired => {
                "Set user and password of --proxy-auth in the app's HTTP_PROXY. A client that sends credentials only \
                 after 407 also appears here; that is no error."
            }
            Self::ProxyRefused => {
                "--upstream-proxy refused the call, and the detail has its text: allow the destination there, correct \
                 the credentials, or add the host to --no-upstream-proxy."
            }
            Self::ResponseTimeout => {
                "The upstream took longer than --response-timeout: check its latency and cold starts, or raise the \
                 option."
            }
            Self::TargetTooLong => {
                "The app's URL is too long to forward: send its content in the body of a POST request."
            }
            Self::TlsProtocol => {
                "The TLS handshake failed: check that the port speaks TLS 1.2 or 1.3, and that the server requires no \
                 client certificate."
            }
            Self::TlsToPlaintext => {
                "This port speaks plain HTTP. Write http:// in the proxy's URL, also in HTTPS_PROXY, and in the URL of a \
                 route. Calls to https:// destinations are still sent over TLS."
            }
            Self::TokenRefused => {
                "The token source (the metadata server, or the endpoint in the detail) answered with an error or an \
                 invalid token; the detail has its text. Nothing was sent upstream."
            }
            Self::TokenUnavailable => {
                "The token source (the metadata server, or the endpoint in the detail) did not answer. The sidecar \
                 retries at least every 30 s while requests come. Nothing was sent upstream."
            }
            Self::Unroutable => {
                "The network has no route to this address: check the VPC connector and egress setting, and whether the \
                 upstream has only IPv6 addresses."
            }
        }
    }
}

// === impl Problem ===

impl Problem {
    /// Returns the heading of the entry in docs/errors.md, which is the same for every source.
    pub(crate) const fn heading(&self) -> &'static str {
        match self.fault() {
            Some((fault, _)) => fault.heading(),
            None => self.kind().row().title,
        }
    }

    /// Returns the title: what happened, in a few words.
    pub(crate) const fn title(&self) -> &'static str {
        match self.fault() {
            Some((fault, source)) => fault.title_of(source),
            None => self.kind().row().title,
        }
    }

    /// Returns the advice: what to do about it.
    pub const fn advice(&self) -> &'static str {
        match self.fault() {
            Some((fault, source)) => fault.advice_of(source),
            None => self.kind().advice(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::config::OptionKey;
    use crate::error::SourceKind;

    fn all() -> impl Iterator<Item = &'static str> {
        let kinds = ErrorKind::ALL.into_iter().map(ErrorKind::advice);
        kinds.chain(TokenFault::ALL.into_iter().map(TokenFault::advice))
    }

    #[test]
    fn every_kind_and_every_fault_has_its_own_advice() {
        let mut seen = HashSet::new();
        for advice in all() {
            assert!(advice.len() > 40, "is short: {advice}");
            assert!(advice.len() <= 260, "{}: {advice}", advice.len());
            assert!(advice.ends_with('.'), "no sentence: {advice}");
            assert!(
                advice.chars().all(|c| (' '..='~').contains(&c)) && !advice.contains("  "),
                "would not fit a line of a log: {advice}"
            );
            assert!(seen.insert(advice), "is not unique: {advice}");
        }
        let titles: HashSet<_> = TokenFault::ALL.map(TokenFault::title).into();
        assert_eq!(titles.len(), TokenFault::ALL.len());
        assert_eq!(HashSet::from(TokenFault::ALL).len(), TokenFault::ALL.len());
    }

    #[test]
    fn a_fault_is_a_token_error_with_its_own_advice() {
        for fault in TokenFault::ALL {
            let problem = Problem::no_token(fault, SourceKind::Metadata, "token: no");
            let is_proxy = fault == TokenFault::ProxyRefused;
            assert_eq!(
                matches!(
                    problem.kind(),
                    ErrorKind::TokenRefused | ErrorKind::TokenUnavailable
                ),
                !is_proxy,
                "{fault:?}"
            );
            assert_eq!(problem.advice(), fault.advice());
        }
        for kind in ErrorKind::ALL {
            assert_eq!(Problem::new(kind, "").advice(), kind.advice());
        }
    }

    #[test]
    fn advice_names_only_options_that_exist() {
        let kinds = ErrorKind::ALL.into_iter().map(ErrorKind::advice);
        let faults = TokenFault::ALL.into_iter().map(TokenFault::advice);
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
        for advice in kinds.chain(faults) {
            for word in advice.split(|c| !is_part(c)) {
                if let Some(option) = word.strip_prefix("--") {
                    assert!(OptionKey::find(option).is_some(), "{word}: {advice}");
                }
            }
        }
    }
}
