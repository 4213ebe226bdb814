//! Decides which requests for real tokens are answered: those of programs, not those of web pages or through proxies.

use std::net::IpAddr;

use http::header::{HOST, HeaderName, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri};

use super::response::MetadataResponse;
use crate::destination::Host;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The names of Google's metadata server with more than one label.
const METADATA: [&str; 2] = ["metadata.google.internal", "metadata.goog"];

/// The accepted host names and addresses of the server.
#[derive(Clone, Debug)]
pub(super) struct Callers {
    /// The listening address.
    pub(super) listen: IpAddr,
    /// `--allowed-host`.
    pub(super) allowed: Vec<Host>,
}

// === impl Callers ===

impl Callers {
    /// Returns the refusal of a request that a browser sent for a page.
    ///
    /// A page of another site has an `Origin` or `Sec-Fetch-Site` that shows it. With DNS rebinding, it has a foreign
    /// `Host` that resolves to this machine. Names of one label, such as those of Compose, do not exist on the web.
    pub(super) fn refusal(&self, uri: &Uri, headers: &HeaderMap) -> Option<MetadataResponse> {
        let why = match self.check(uri, headers) {
            Ok(()) => return None,
            Err(why) => why,
        };
        Some(MetadataResponse::html(StatusCode::FORBIDDEN, &why))
    }

    fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), String> {
        if headers.contains_key(ORIGIN) {
            return Err(
                "Request contains the Origin header: tokens are for programs, not for web pages"
                    .to_owned(),
            );
        }
        let site = headers.get_all(SEC_FETCH_SITE).iter();
        if site
            .into_iter()
            .any(|site| site != "none" && site != "same-origin")
        {
            return Err(
                "Request contains a Sec-Fetch-Site header of another site: tokens are for programs, not for web pages"
                    .to_owned(),
            );
        }
        let named = headers.get_all(HOST).iter().map(|host| host.to_str().ok());
        let hosts = named.chain(uri.authority().map(|authority| Some(authority.as_str())));
        for host in hosts {
            let known = host.is_some_and(|text| self.is_known(text));
            if !known {
                // User information may be a password.
                let host = host.unwrap_or_default().replace("%40", "@");
                let (mark, host) = match host.rsplit_once('@') {
                    Some((_, host)) => ("USER@", host),
                    None => ("", &*host),
                };
                let shown: String = mark
                    .chars()
                    .chain(host.chars())
                    .filter(char::is_ascii_graphic)
                    .take(80)
                    .collect();
                return Err(format!(
                    "Host {shown:?} is not a name of this server: call it by localhost, its IP address, \
                     metadata.google.internal, a name of one label, or one of --allowed-host"
                ));
            }
        }
        Ok(())
    }

    fn is_known(&self, text: &str) -> bool {
        let Ok(authority) = text.parse::<Authority>() else {
            return false;
        };
        if authority.as_str().contains('@') {
            return false;
        }
        let Ok(host) = Host::parse(authority.host()) else {
            return false;
        };
        if self.allowed.contains(&host) {
            return true;
        }
        match &host {
            // A page that reaches an address by that address has an `Origin` that shows it. Containers and forwarded
            // ports have further addresses.
            Host::Ip(ip) => {
                self.listen.is_unspecified()
                    || *ip == self.listen
                    || ip.to_canonical().is_loopback()
                    || is_metadata(*ip)
            }
            Host::Name(name) => {
                host.is_loopback() || !name.contains('.') || METADATA.contains(&&**name)
            }
        }
    }
}

/// Returns whether this is an address of Google's metadata server, which a container may redirect to this server.
fn is_metadata(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments() == [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254],
    }
}
