//! What operators see: metric families with closed labels, and logs in the shape that Cloud Logging reads.

mod metrics;

pub use metrics::{Code, Connect, Fetch, Gauged, ListenerMetrics, Lookup, Metrics, TEXT_FORMAT};
