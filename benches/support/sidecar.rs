//! The sidecar and its pool in process, with a user's configuration.

use std::path::Path;
use std::sync::Arc;

use sidentity::config::{self, Config, Env, HttpVersion, RawConfig};
use sidentity::destination::Destination;
use sidentity::memory::Memory;
use sidentity::telemetry::Metrics;
use sidentity::upstream::{DialPolicy, Target, Upstream};

use super::Failure;
use super::hop::{Origin, Pool};

/// Returns the configuration of these variables.
pub fn config(variables: &[(&str, &str)]) -> Result<Config, Failure> {
    let env: Env = variables.iter().copied().collect();
    config::load(&RawConfig::default(), &env).map_err(|problems| {
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        problems.join("\n").into()
    })
}

/// Returns the sidecar's pool, for a hop that uses no other part of the sidecar.
pub fn pool(origin: &Origin, ca: &Path) -> Result<Pool, Failure> {
    let connect_to = format!("*::{}", origin.address);
    let mut variables = vec![("SIDENTITY_CONNECT_TO", &*connect_to)];
    let (scheme, ca) = (origin.tls.as_ref().map_or("http", |_| "https"), ca.to_str());
    if let Some(ca) = ca.filter(|_| origin.tls.is_some()) {
        variables.push(("SIDENTITY_UPSTREAM_CA", ca));
    }
    let config = config(&variables)?;
    let metrics = Arc::new(Metrics::new());
    let upstream = Upstream::new(
        &config.upstream,
        DialPolicy::default(),
        metrics,
        Memory::default(),
    )?;
    let url = format!("{scheme}://{}/", origin.authority);
    let target = Target {
        origin: Destination::parse(&url)?.origin,
        http: if origin.http2 {
            HttpVersion::Http2
        } else {
            HttpVersion::Http1
        },
        proxy_may_read: false,
        upgrade: false,
    };
    Ok(Pool::Ours(upstream, target))
}
