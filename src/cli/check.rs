//! `sidentity check`: is the configuration right, and what does it come to?

use std::io::{self, Write};

use super::options::Options;
use super::{Exit, load};
use crate::config::{Env, Yaml};

/// Validates the configuration and prints the effective one as YAML.
pub(super) fn run(options: Options, env: &Env) -> Result<(), Exit> {
    let config = load(options, env)?;
    let mut out = io::stdout().lock();
    match write!(out, "{}", Yaml(&config)).and_then(|()| out.flush()) {
        // `check | head` has read all that it wants.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Exit::failed(format!(
            "cannot write the configuration: {error}"
        ))),
        Ok(()) | Err(_) => Ok(()),
    }
}
