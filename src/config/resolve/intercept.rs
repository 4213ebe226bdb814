//! `--intercept` and `--ca-dir`.

use std::path::Path;

use super::super::Intercept;
use super::super::name::Name;
use super::super::problem::{Problem, quote};
use super::super::raw::RawConfig;

/// A directory must be there already: one that is made here would be another than the one that the app's container sees.
pub(super) fn resolve(
    raw: &RawConfig,
    opens: bool,
    proxy: bool,
    warnings: &mut Vec<String>,
    problems: &mut Vec<Problem>,
) -> Option<Intercept> {
    let ca_dir = raw.value(Name::CaDir);
    if let Some(text) = ca_dir {
        if !opens {
            problems.push(text.problem("there is no CA without interception: add --intercept"));
        } else if !Path::new(&text.value).is_dir() {
            let message = format!("{} must be a directory that exists", quote(&text.value));
            problems.push(text.problem(message));
        }
    }
    if !opens {
        return None;
    }
    if !proxy {
        warnings.push(
            "--intercept does nothing: CONNECT comes through the proxy, which is off".to_owned(),
        );
    } else if ca_dir.is_none() {
        warnings.push(
            "--intercept without --ca-dir: no app can trust a CA that is not written anywhere"
                .to_owned(),
        );
    }
    Some(Intercept {
        ca_dir: ca_dir.map(|text| (&text.value).into()),
    })
}
