//! The admin port: probes, metrics, and explanations, for probers, scrapers and operators. It contains no secrets.

mod host;
mod lifecycle;
mod page;
mod probes;
mod serve;
mod status;
mod unused;

pub(crate) use lifecycle::Lifecycle;
pub(crate) use probes::{ALIVE, READY};
pub(crate) use serve::{Admin, AdminPort};
