//! The local certificate authority, which terminates the TLS of `CONNECT` tunnels to destinations that get a token.
//!
//! The CA's key is generated at start and never leaves memory. Name constraints restrict it to the hosts that get
//! tokens. `--ca-dir` receives the files with which an app trusts the CA, and no private key.
//!
//! - `authority`: the CA, and the leaf certificates that it signs.
//! - `cert_cache`: the leaf certificate of each host, issued once and renewed before it expires.
//! - `sniff`: detects whether a tunnel begins with TLS or HTTP, without consuming a byte.
//! - `interceptor` and `prefixed_io`: terminate the TLS of a tunnel.
//! - `trust_files`, `roots` and `pkcs12`: the files for the app.

mod ca;
mod cert_cache;
mod interceptor;
mod pkcs12;
mod prefixed_io;
mod roots;
mod sniff;
mod trust_files;

pub(crate) use ca::NoAuthority;
pub(crate) use interceptor::Interceptor;
pub(crate) use prefixed_io::PrefixedIo;
pub(crate) use sniff::{SniffOptions, TunnelProtocol, sniff};
pub(crate) use trust_files::NotWritten;
