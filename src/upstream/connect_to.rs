//! `--connect-to`: connects to another address. `Host`, SNI and token stay the same.

use crate::config::{ConnectHost, ConnectTo};
use crate::destination::{Host, Origin};
use crate::policy::{Bypass, EgressProxy};

/// Returns whether an entry matches this origin.
pub(super) fn redirects(entries: &[ConnectTo], origin: &Origin) -> bool {
    entry(entries, origin).is_some()
}

/// Returns the host and port to connect to: those of the first matching entry, else the origin's own (curl's rules).
pub(super) fn redirect(entries: &[ConnectTo], origin: &Origin) -> (Host, u16) {
    let entry = entry(entries, origin);
    let host = entry.and_then(|entry| entry.to_host.as_ref());
    let port = entry.and_then(|entry| entry.to_port);
    (
        host.unwrap_or(&origin.host).clone(),
        port.unwrap_or(origin.port),
    )
}

/// Returns why the origin bypasses the upstream proxy, or `None` if it is called through the proxy.
pub(crate) fn bypass(
    proxy: &EgressProxy,
    entries: &[ConnectTo],
    origin: &Origin,
) -> Option<Bypass> {
    let (host, _) = redirect(entries, origin);
    proxy.bypass(origin, &host)
}

fn entry<'a>(entries: &'a [ConnectTo], origin: &Origin) -> Option<&'a ConnectTo> {
    entries.iter().find(|entry| {
        entry.port.is_none_or(|port| port == origin.port) && covers(&entry.host, &origin.host)
    })
}

fn covers(pattern: &ConnectHost, host: &Host) -> bool {
    match pattern {
        ConnectHost::Any => true,
        ConnectHost::Exact(exact) => exact == host,
        // The suffix begins with a dot, so it matches whole labels.
        ConnectHost::Suffix(suffix) => host
            .name()
            .and_then(|name| name.strip_suffix(suffix.as_str()))
            .is_some_and(|rest| !rest.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::Scheme;

    fn entry(
        host: ConnectHost,
        port: Option<u16>,
        to: Option<&str>,
        to_port: Option<u16>,
    ) -> ConnectTo {
        ConnectTo {
            host,
            port,
            to_host: to.map(|to| Host::parse(to).unwrap()),
            to_port,
        }
    }

    #[track_caller]
    fn redirected(entries: &[ConnectTo], authority: &str, expected: (&str, u16)) {
        let origin = Origin::from_authority(Scheme::Https, authority).unwrap();
        let (host, port) = redirect(entries, &origin);
        assert_eq!((host.to_string().as_str(), port), expected, "{authority}");
    }

    #[test]
    fn the_first_matching_entry_applies() {
        let entries = [
            entry(
                ConnectHost::Exact(Host::parse("a.example").unwrap()),
                Some(8443),
                Some("10.0.0.1"),
                Some(1),
            ),
            entry(
                ConnectHost::Suffix(".example".into()),
                None,
                Some("10.0.0.2"),
                None,
            ),
            entry(ConnectHost::Any, Some(443), None, Some(2)),
        ];
        redirected(&entries, "a.example:8443", ("10.0.0.1", 1));
        redirected(&entries, "a.example", ("10.0.0.2", 443));
        redirected(&entries, "b.a.example:9", ("10.0.0.2", 9));
        redirected(&entries, "example", ("example", 2));
        redirected(&entries, "badexample", ("badexample", 2));
        redirected(&entries, "192.0.2.1", ("192.0.2.1", 2));
        redirected(&entries, "example:444", ("example", 444));
        redirected(&[], "example", ("example", 443));
    }
}
