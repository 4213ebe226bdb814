//! The local certificate authority, with which TLS of `CONNECT` is opened where a token is due.
//!
//! Its key is made at start and never leaves memory; its name constraints keep it to the hosts that get tokens. What an app
//! needs to trust it, and nothing private, is written into `--ca-dir`.
//!
//! - `authority`: the CA, and the leaf certificates that it signs.
//! - `leaves`: the leaf of each host, made once and renewed before it expires.
//! - `sniff`: whether a tunnel begins as TLS or HTTP does, without taking a byte from it.
//! - `folder`, `roots` and `pkcs12`: the files for the app.

mod authority;
mod cert_cache;
mod interceptor;
mod pkcs12;
mod prefixed_io;
mod roots;
mod sniff;
mod trust_files;

pub use authority::NoAuthority;
pub use interceptor::{InterceptError, Interceptor};
pub use prefixed_io::PrefixedIo;
pub use sniff::{Expected, Opening, sniff};
pub use trust_files::NotWritten;
