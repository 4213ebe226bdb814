//! `--intercept` and `--ca-dir`.

use std::path::Path;

use super::super::Intercept;
use super::super::diagnostic::{Diagnostic, DiagnosticId, quote};
use super::super::options::OptionKey;
use super::super::raw::RawConfig;
use super::ca_dir;

/// A directory that is not there is made at the start, and warned of: it may be another than the one that the app's
/// container sees.
pub(super) fn resolve(
    raw: &RawConfig,
    opens: bool,
    proxy: bool,
    warnings: &mut Vec<String>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Intercept> {
    let folder = raw.value(OptionKey::CaDir);
    if let Some(text) = folder {
        if !opens {
            let message = format!(
                "{} has no CA to hold without interception: add --intercept",
                quote(&text.value)
            );
            diagnostics.push(text.diagnostic(DiagnosticId::OptionWithoutEffect, message));
        } else if !can_be_made(Path::new(&text.value)) {
            let message = format!("{} must be a directory", quote(&text.value));
            diagnostics.push(text.diagnostic(DiagnosticId::InvalidValue, message));
        } else {
            if !Path::new(&text.value).exists() {
                warnings.push(format!(
                    "--ca-dir {} is not there and is made at the start: does the app see the same?",
                    quote(&text.value)
                ));
            }
            warnings.extend(ca_dir::warning(Path::new(&text.value)));
        }
    }
    if !opens {
        return None;
    }
    if !proxy {
        warnings.push(
            "--intercept does nothing: CONNECT comes through the proxy, which is off".to_owned(),
        );
    } else if folder.is_none() && raw.private_folder.is_none() {
        warnings.push(
            "--intercept without --ca-dir: no app can trust a CA that is not written anywhere"
                .to_owned(),
        );
    }
    Some(Intercept {
        ca_dir: folder
            .map(|text| (&text.value).into())
            .or_else(|| raw.private_folder.clone()),
        also_trusted: Vec::new(),
    })
}

/// It is a directory, or what is there of its path is one.
fn can_be_made(folder: &Path) -> bool {
    let there = folder.ancestors().find(|above| above.exists());
    match there {
        Some(above) => above.is_dir(),
        // Relative, so in the working directory; but nothing is no name.
        None => !folder.as_os_str().is_empty(),
    }
}
