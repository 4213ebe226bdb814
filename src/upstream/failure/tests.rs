use std::io::ErrorKind as Io;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, PeerIncompatible};

use super::*;
use crate::destination::Scheme;
use rustls::CertificateError;
use rustls::pki_types::UnixTime;

fn peer() -> UpstreamPeer {
    UpstreamPeer {
        proxy: None,
        origin: Origin::from_authority(Scheme::Https, "api.example").unwrap(),
        address: Some("192.0.2.7:443".parse().unwrap()),
    }
}

#[track_caller]
fn connecting(error: &io::Error, expected: ErrorKind) {
    let failure = Failure::connect(&peer(), error);
    assert_eq!(failure.kind, expected, "{error:?}");
    let peer = "https://api.example at 192.0.2.7:443: ";
    assert!(failure.detail.starts_with(peer), "{}", failure.detail);
}

#[test]
fn every_connection_failure_has_its_error_kind() {
    connecting(&Io::ConnectionRefused.into(), ErrorKind::ConnectionRefused);
    connecting(&Io::TimedOut.into(), ErrorKind::ConnectionTimeout);
    connecting(&Io::ConnectionReset.into(), ErrorKind::ConnectionTerminated);
    connecting(
        &Io::ConnectionAborted.into(),
        ErrorKind::ConnectionTerminated,
    );
    // Linux: EACCES, EINVAL, EADDRNOTAVAIL, ENETDOWN, ENETUNREACH, EHOSTUNREACH.
    for code in [13, 22, 99, 100, 101, 113] {
        connecting(&io::Error::from_raw_os_error(code), ErrorKind::Unroutable);
    }
    for code in [EMFILE, ENFILE] {
        connecting(&io::Error::from_raw_os_error(code), ErrorKind::LimitReached);
    }
}

#[track_caller]
fn handshake(error: rustls::Error, expected: ErrorKind, text: &str) {
    let failure = Failure::tls(&peer(), &io::Error::new(Io::InvalidData, error));
    assert_eq!(failure.kind, expected, "{}", failure.detail);
    assert!(failure.detail.contains(text), "{}", failure.detail);
}

#[test]
fn a_bad_certificate_is_distinguished_from_a_bad_handshake() {
    let invalid = |error: CertificateError, text: &str| {
        handshake(
            rustls::Error::InvalidCertificate(error),
            ErrorKind::CertificateInvalid,
            text,
        );
    };
    invalid(CertificateError::Expired, "has expired");
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    invalid(
        CertificateError::ExpiredContext {
            time: at(190),
            not_after: at(100),
        },
        "expired at 1970-01-01T00:01:40Z (this machine's clock says 1970-01-01T00:03:10Z)",
    );
    invalid(CertificateError::NotValidYet, "not valid yet");
    invalid(
        CertificateError::NotValidYetContext {
            time: at(100),
            not_before: at(u64::MAX),
        },
        "not valid before 9999-12-31T23:59:59Z (this machine's clock says 1970-01-01T00:01:40Z)",
    );
    invalid(CertificateError::UnknownIssuer, "--upstream-ca");
    invalid(CertificateError::Revoked, "revoked");
    invalid(CertificateError::NotValidForName, "another name");
    let mut presented = ["b", "c", "d", "e", "f"]
        .map(|name| format!("DnsName(\"{name}.example\")"))
        .to_vec();
    presented.insert(0, "IpAddress(192.0.2.1)".to_owned());
    invalid(
        CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("api.example").unwrap(),
            presented,
        },
        "another name: 192.0.2.1, b.example, c.example, d.example, e.example, …",
    );
    invalid(CertificateError::BadSignature, "not valid");
    handshake(
        rustls::Error::NoCertificatesPresented,
        ErrorKind::CertificateInvalid,
        "no certificate",
    );
    for error in [
        rustls::Error::AlertReceived(AlertDescription::HandshakeFailure),
        rustls::Error::PeerIncompatible(
            PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon,
        ),
        rustls::Error::DecryptError,
    ] {
        handshake(error, ErrorKind::TlsProtocol, "TLS: ");
    }
    let broken = Failure::tls(&peer(), &Io::UnexpectedEof.into());
    assert_eq!(broken.kind, ErrorKind::TlsProtocol);
    assert!(Error::from(broken).is_transient());
}
