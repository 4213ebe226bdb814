//! The admin port: probes, metrics, and explanations, for probers, scrapers and operators. It contains no secrets.

mod host;
mod lifecycle;
mod page;
mod probes;
mod serve;
mod status;
mod unused;

pub use lifecycle::Lifecycle;
pub use serve::{Admin, AdminBody, AdminPort, AdminService};
