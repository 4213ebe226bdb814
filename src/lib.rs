//! **sidentity** gives an app's outgoing HTTP calls their Google Cloud identity.
//!
//! # The life of a request
//!
//! 1. [`server`] accepts a connection on a listener and determines how the request came in: a reverse route, the
//!    forward proxy, or `CONNECT`. This determines the [`destination`]; a `Host` header alone never does.
//! 2. [`proxy`] is the request's path, a stack of small tower layers, from the record of the request to the pool.
//! 3. [`policy`] decides, from the destination alone, which credential the call gets: an access token, an ID token for
//!    one audience, none, or a refusal.
//! 4. [`token`] has one slot per token: the current value, its expiry on two clocks, at most one fetch under way.
//! 5. [`upstream`] dials, verifies TLS, pools connections, and sends.
//!
//! A module uses only modules listed below it: `cli`, `app`, `admin`, `server`, `proxy`, `intercept`,
//! `token`, `upstream`, `dns`, `emulator`, `telemetry`, `diagnostics`, `config`, `credentials`, `explain`, `policy`,
//! `error`, `destination`, `memory`, `workers`, `frames`, `header_lookup`, `children`, `chunks`, `lru`, `lock`,
//! `suggestion`.
//! `tests/layering.rs` checks this, and that files of different folders do not import each other in a cycle.

#[doc(hidden)]
pub mod admin;
pub mod app;
mod children;
mod chunks;
pub mod cli;
pub mod config;
#[doc(hidden)]
pub mod credentials;
#[doc(hidden)]
pub mod destination;
#[doc(hidden)]
pub mod diagnostics;
#[doc(hidden)]
pub mod dns;
#[doc(hidden)]
pub mod emulator;
#[doc(hidden)]
pub mod error;
mod explain;
mod frames;
mod header_lookup;
#[doc(hidden)]
pub mod intercept;
mod lock;
mod lru;
#[doc(hidden)]
pub mod memory;
#[doc(hidden)]
pub mod policy;
#[doc(hidden)]
pub mod proxy;
#[doc(hidden)]
pub mod server;
mod suggestion;
#[doc(hidden)]
pub mod telemetry;
#[doc(hidden)]
pub mod token;
#[doc(hidden)]
pub mod upstream;
mod workers;
