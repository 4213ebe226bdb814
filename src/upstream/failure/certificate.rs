//! Messages for certificates that were refused.

use std::fmt;
use std::time::{Duration, SystemTime};

use rustls::CertificateError;
use rustls::pki_types::UnixTime;

/// The largest number of a certificate's names in a message.
const NAMES: usize = 5;

/// 9999-12-31T23:59:59Z, the latest time that X.509 and RFC 3339 can represent.
const END_OF_DATES: u64 = 253_402_300_799;

/// Returns the reason that a certificate was refused.
pub(super) fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired => "its certificate has expired".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => format!(
            "its certificate expired at {} (this machine's clock says {})",
            date(*not_after),
            date(*time)
        ),
        CertificateError::NotValidYet => {
            "its certificate is not valid yet (or this machine's clock is wrong)".to_owned()
        }
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "its certificate is not valid before {} (this machine's clock says {})",
            date(*not_before),
            date(*time)
        ),
        CertificateError::NotValidForName => "its certificate is for another name".to_owned(),
        CertificateError::NotValidForNameContext { presented, .. } => {
            format!("its certificate is for another name: {}", names(presented))
        }
        CertificateError::UnknownIssuer => {
            "its certificate's issuer is not trusted (--upstream-ca FILE adds a trust root)"
                .to_owned()
        }
        CertificateError::Revoked => "its certificate is revoked".to_owned(),
        other => format!("its certificate is not valid: {other}"),
    }
}

/// Formats a time in RFC 3339, UTC.
fn date(time: UnixTime) -> impl fmt::Display {
    let seconds = Duration::from_secs(time.as_secs().min(END_OF_DATES));
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + seconds)
}

/// Parses the names of a certificate from the form of rustls: `DnsName("a.example")`, `IpAddress(192.0.2.1)`.
fn names(presented: &[String]) -> String {
    let mut names: Vec<&str> = presented
        .iter()
        .take(NAMES)
        .map(|name| match name.split_once('(') {
            Some((_, name)) => name.trim_end_matches(')').trim_matches('"'),
            None => name,
        })
        .collect();
    if presented.len() > NAMES {
        names.push("…");
    }
    if names.is_empty() {
        return "it names none".to_owned();
    }
    names.join(", ")
}
