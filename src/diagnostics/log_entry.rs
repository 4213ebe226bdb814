//! The entries of docs/errors.md for warnings of the log.

use super::error_page::entry;
use crate::config::DiagnosticId;

/// Makes [`LogEntry`] of an anchor and the line in the operating guide for each kind of warning.
macro_rules! log_entries {
    ($($name:ident: $id:literal, $line:literal;)+) => {
        /// A kind of warning. Its field `help` is the URL of its entry, which stays if the message is reworded.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum LogEntry {
            $(
                #[doc = concat!("`", $line, "`")]
                $name,
            )+
        }

        impl LogEntry {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Returns the URL of the entry.
            pub const fn page(self) -> &'static str {
                match self {
                    $(Self::$name => entry!($id),)+
                }
            }

            /// Returns the line as the operating guide lists it.
            pub const fn line(self) -> &'static str {
                match self {
                    $(Self::$name => $line,)+
                }
            }
        }
    };
}

log_entries! {
    AcceptFailed: "log-accept-failed", "cannot accept a connection";
    AppCredentialRejected: "log-app-credential-rejected", "… answered … to the app's own …";
    CaExpires: "log-ca-expires", "the CA of --intercept …";
    ComputeDefaultAccount: "log-compute-default-account", "… is the Compute Engine default service account: …";
    ConfigurationWarning: "log-configuration-warning", "…";
    DrainCutOff: "log-drain-cut-off", "the drain timed out: requests in flight are cut off";
    InterceptionFailed: "log-interception-failed", "the TLS handshake with the app for …";
    LinesLost: "log-lines-lost", "log lines were lost, because stderr was not read";
    MalformedNotLogged: "log-malformed-not-logged", "requests that could not be parsed were not logged";
    NeedsRestart: "log-needs-restart", "… takes effect after a restart …";
    NotReloaded: "log-not-reloaded", "reload failed (… problems): …";
    NotifyFailed: "log-notify-failed", "the service manager (NOTIFY_SOCKET) cannot be notified";
    NotifySocketInvalid: "log-notify-socket-invalid", "NOTIFY_SOCKET is not a socket: …";
    Panicked: "log-panicked", "panicked: …";
    RejectedByIap: "log-rejected-by-iap", "… answered 302 to an … token: Identity-Aware Proxy answers like this …";
    ReloadIgnored: "log-reload-ignored", "SIGHUP ignored: shutdown is in progress";
    ServerReloadFailed: "log-server-reload-failed", "SIGHUP: reload failed, the previous credential stays in use: …";
    ServiceNotLocated: "log-service-not-located", "run://…";
    StartFailed: "log-start-failed", "the start failed: …";
    TokenRejected: "log-token-rejected", "… answered … to an … token: …";
    TunnelWithoutToken: "log-tunnel-without-token", "the CONNECT tunnel to …";
    UnauthenticatedRejected: "log-unauthenticated-rejected", "… answered … to a call without a token";
    UnknownUniverse: "log-unknown-universe", "the universe domain is not known yet: --intercept terminates TLS of Google APIs only for googleapis.com";
    UpstreamFailed: "log-upstream-failed", "GET https://… 503 in …";
}

// === impl DiagnosticId ===

impl DiagnosticId {
    /// Returns the URL of the entry for this kind of configuration error.
    pub fn page(self) -> String {
        format!("{}{self}", entry!("config-"))
    }
}
