//! What to do about an error: one sentence or two for each kind, and for each way in which a token cannot be had. Log, status
//! page and operating guide say it in these words.

use crate::error::{ErrorKind, Problem, TokenFault};

// === impl TokenFault ===

impl TokenFault {
    /// What happened, in a few words.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Aborted => "The token's fetch was cut short",
            Self::Disabled => "NO_GCE_CHECK forbids asking for a token",
            Self::Failing => "The metadata server fails",
            Self::Forbidden => "This workload may not use the account",
            Self::WrongServer => "No metadata server at its address",
            Self::Limited => "The metadata server limits this instance",
            Self::Malformed => "The metadata server's answer is no token",
            Self::NoAccount => "No such service account here",
            Self::NothingFound => "No credentials were found",
            Self::NotImpersonated => "The service account cannot be impersonated",
            Self::NoSubjectToken => "The subject token cannot be obtained",
            Self::Refused => "The metadata server refuses the question",
            Self::TimedOut => "The metadata server is too slow",
            Self::Unreachable => "The metadata server cannot be reached",
            Self::Unsupported => "This credential issues no such token",
        }
    }

    /// What to do about it.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Aborted => {
                "Nothing, where the sidecar is about to end; else the next request begins another fetch."
            }
            Self::Disabled => {
                "Unset NO_GCE_CHECK where there is a metadata server; where there is none, no destination can get a token."
            }
            Self::Failing => {
                "A fault behind the metadata server: the next requests try again on their own. If it lasts, look at \
                 status.cloud.google.com and start a new instance."
            }
            Self::Forbidden => {
                "Let this workload use the account: see that it is not disabled and, on GKE with Workload Identity, grant \
                 roles/iam.workloadIdentityUser on it to the Kubernetes service account that is annotated with it."
            }
            Self::WrongServer => {
                "Something else answers at the metadata server's address, and was not believed: look at GCE_METADATA_HOST, and \
                 for a proxy or a firewall that catches 169.254.169.254."
            }
            Self::Limited => {
                "Something on this instance asks the metadata server too often: find which container does not cache its \
                 tokens. The sidecar asks once a token, and tries again on its own."
            }
            Self::Malformed => {
                "See that GCE_METADATA_HOST leads to a real metadata server, and that this machine's clock is right: an ID \
                 token that seems to have expired is refused too."
            }
            Self::NoAccount => {
                "Attach a service account to the service, job or machine (on GKE: annotate the Kubernetes service account with \
                 iam.gke.io/gcp-service-account); where a route or rule says account=, see that it is attached and spelled so."
            }
            Self::NothingFound => {
                "The detail lists what was looked at. On a workstation run `gcloud auth application-default login`; elsewhere \
                 name a credential file by GOOGLE_APPLICATION_CREDENTIALS, or a metadata server by GCE_METADATA_HOST."
            }
            Self::NotImpersonated => {
                "Grant the role that the detail names on the account to the one that calls: it is in force after a minute or \
                 two. See that the account exists, and that iamcredentials.googleapis.com is enabled in its project."
            }
            Self::NoSubjectToken => {
                "The detail names the file, program or service of credential_source: see that this process can read or run it, and \
                 that it holds a token now. It is asked again with the next request."
            }
            Self::Refused => {
                "The detail has the metadata server's own words: see that scope= and audience= of the rule are what it takes."
            }
            Self::TimedOut => {
                "See whether the instance gets CPU at all: Cloud Run gives none between requests, unless CPU is always \
                 allocated. It is tried again on its own; raise --token-timeout if it is always just too slow."
            }
            Self::Unreachable => {
                "On Google Cloud: see that nothing blocks 169.254.169.254 port 80, such as a network policy, a firewall in the \
                 container or a proxy. Elsewhere: set GCE_METADATA_HOST, for example to `sidentity metadata-server`."
            }
            Self::Unsupported => {
                "Impersonate a service account that can be issued such a token: --impersonate-service-account, or impersonate= \
                 on the route or rule. The detail says what this credential can give."
            }
        }
    }
}

// === impl ErrorKind ===

impl ErrorKind {
    /// What to do about a request that failed this way.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::BadRequest => {
                "The app's request can be read in two ways, or not at all, so it was not passed on: mend what the detail names \
                 in the app or its HTTP library."
            }
            Self::CertificateInvalid => {
                "Look at the certificate: `openssl s_client -connect HOST:443 -servername HOST`. Give the root of a private \
                 authority to --upstream-ca; an expired certificate, or one for another name, is the upstream's to mend."
            }
            Self::ConnectionRefused => {
                "Nothing listens there: see that the service runs, that the port is right, and that --connect-to leads where it \
                 should."
            }
            Self::ConnectionTerminated => {
                "The upstream hung up before its answer was whole: look in its log for a crash, a restart or a time-out at that \
                 time."
            }
            Self::ConnectionTimeout => {
                "Packets get lost on the way: look for a firewall, and at the VPC connector and egress setting of this service. \
                 Raise --connect-timeout only for a way that is really that long."
            }
            Self::CrossSite => {
                "A browser's page of another site called a route. If the page is yours, serve it under a name that is given \
                 to --allowed-host; else the refusal was right."
            }
            Self::Denied => {
                "A rule or --unmatched deny forbids this destination: `sidentity explain URL` says which. If the call is meant, \
                 add a --rule for its host."
            }
            Self::DnsFailed => {
                "See that the name is spelled right and exists, and that this network's resolver knows it: a name of a private \
                 zone needs VPC access and Cloud DNS."
            }
            Self::DnsTimeout => {
                "The resolver does not answer: see that port 53 is open towards the nameservers of /etc/resolv.conf, and that \
                 they are not overloaded."
            }
            Self::HeadTooLarge => {
                "The app's request has more header fields, or larger ones, than are carried: look for cookies or credentials \
                 that have grown, and for fields that are added more than once."
            }
            Self::HttpProtocol => {
                "Whatever answers does not speak HTTP as it should: see that the port is right; for a server that announces \
                 HTTP/2 and cannot speak it, set http=1 on the route."
            }
            Self::Internal => {
                "This is a fault of sidentity: please report it, with the detail and the log lines around it."
            }
            Self::LimitReached => {
                "Too much is under way at once: see whether an upstream has become slow, or the app opens more than it needs; \
                 else raise --max-connections or --max-memory, whichever the detail names, and the memory limit with it."
            }
            Self::LoopDetected => {
                "The call leads back to the sidecar: give the route the real upstream, and set NO_PROXY=localhost,127.0.0.1 \
                 beside HTTP_PROXY."
            }
            Self::Malformed => {
                "What the app sent is no valid HTTP request, so it was not passed on: correct what the detail names in the app \
                 or its HTTP library, and see that it speaks HTTP to this port."
            }
            Self::Misdirected => {
                "The request names another host than the way it came by: call a route as localhost, or give its name to \
                 --allowed-host; inside a tunnel, a client must not share one connection between hosts."
            }
            Self::NoRoute => {
                "No route on this port has a prefix of that path: compare the app's URL with the routes. A prefix counts in \
                 whole segments."
            }
            Self::NotAbsolute => {
                "The app calls the forward proxy as if it were the server. Set HTTP_PROXY to its address and call the real URL, or \
                 add a --route and call that."
            }
            Self::ProxyAuthRequired => {
                "Put the user and password of --proxy-auth into the app's HTTP_PROXY. A client that first waits to be asked \
                 shows up here as well, and is in order."
            }
            Self::ProxyRefused => {
                "--upstream-proxy did not take the call, and the detail has its words: allow the destination there, mend its \
                 credentials, or name a host that it should not get in --no-upstream-proxy."
            }
            Self::ResponseTimeout => {
                "The upstream took longer than --response-timeout: look at its own latency and cold starts, or allow more."
            }
            Self::TargetTooLong => {
                "The app's URL is too long to be carried: send what it holds as the body of a POST request."
            }
            Self::TlsProtocol => {
                "No TLS could be agreed on: see that the port speaks TLS, 1.2 or 1.3, and that the server asks for no client \
                 certificate."
            }
            Self::TlsToPlaintext => {
                "This port speaks plain HTTP. Write http:// in the proxy's URL, also in HTTPS_PROXY, or in the URL of the route; \
                 calls to https:// destinations still go out over TLS."
            }
            Self::TokenRefused => {
                "What issues tokens (the metadata server, or the endpoint in the detail) answered with something other than a \
                 token: its words are in the detail. Nothing was sent upstream."
            }
            Self::TokenUnavailable => {
                "What issues tokens (the metadata server, or the endpoint in the detail) gave no answer: it is tried again on its \
                 own, at the latest every 30 s. Nothing was sent upstream."
            }
            Self::Unroutable => {
                "There is no way from here to that address: look at the VPC connector and egress setting, and for an upstream \
                 that has IPv6 addresses only."
            }
        }
    }
}

// === impl Problem ===

impl Problem {
    /// What happened, in a few words.
    pub const fn title(&self) -> &'static str {
        match self.fault() {
            Some((fault, source)) => fault.title_of(source),
            None => self.kind().row().title,
        }
    }

    /// What to do about it.
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
    fn every_kind_and_every_fault_has_advice_of_its_own() {
        let mut seen = HashSet::new();
        for advice in all() {
            assert!(advice.len() > 40, "says little: {advice}");
            assert!(advice.len() <= 260, "{}: {advice}", advice.len());
            assert!(advice.ends_with('.'), "no sentence: {advice}");
            assert!(
                advice.chars().all(|c| (' '..='~').contains(&c)) && !advice.contains("  "),
                "would not fit a line of a log: {advice}"
            );
            assert!(seen.insert(advice), "said twice: {advice}");
        }
        let titles: HashSet<_> = TokenFault::ALL.map(TokenFault::title).into();
        assert_eq!(titles.len(), TokenFault::ALL.len());
        assert_eq!(HashSet::from(TokenFault::ALL).len(), TokenFault::ALL.len());
    }

    #[test]
    fn a_fault_is_of_a_kind_that_is_about_tokens_and_says_more_than_it() {
        for fault in TokenFault::ALL {
            let problem = Problem::no_token(fault, SourceKind::Metadata, "token: no");
            assert!(problem.kind().is_token(), "{fault:?}");
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
