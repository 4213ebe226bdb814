//! Tunnels that carry no token.

use crate::destination::{Origin, Scheme};

/// The reason that no token can be injected into a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTokenReason {
    /// `--intercept` is off.
    InterceptOff,
    /// The CA's name constraints exclude the host, or the host is an IP address.
    NotCovered,
    /// The app speaks neither HTTP nor TLS in a tunnel to port 80.
    NotHttp,
    /// The app does not speak TLS in the tunnel.
    NotTls,
    /// The app sends nothing.
    NothingSent,
}

// === impl NoTokenReason ===

impl NoTokenReason {
    /// Describes the reason.
    pub(crate) fn why(self) -> &'static str {
        match self {
            Self::InterceptOff => "the sidecar cannot add a token inside the app's TLS",
            Self::NotCovered => {
                "this sidecar's CA does not cover that host (it covers no addresses, and domains that are added after the \
                 start need a restart)"
            }
            Self::NotHttp => "its content is neither HTTP nor TLS",
            Self::NotTls => "its content is not TLS",
            Self::NothingSent => "the app sent no byte in time",
        }
    }

    /// Returns the advice.
    pub(crate) fn advice(self, origin: &Origin) -> String {
        let route = match self {
            Self::InterceptOff => {
                ", give it a --route, or set --intercept and let the app trust ca.pem of --ca-dir"
            }
            Self::NotCovered | Self::NotHttp => " or give it a --route",
            Self::NothingSent => ", give it a --route, or send the first byte within 10 s",
            Self::NotTls => ", give it a --route, or speak TLS inside",
        };
        let http = Origin {
            scheme: Scheme::Http,
            port: match origin.port {
                443 => 80,
                port => port,
            },
            ..origin.clone()
        };
        format!("call {http} through the proxy (the sidecar adds TLS){route}")
    }
}
