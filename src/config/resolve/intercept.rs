//! `--intercept` and `--ca-dir`.

use std::path::Path;

use super::super::Intercept;
use super::super::diagnostic::{Diagnostic, DiagnosticId, quote};
use super::super::options::OptionKey;
use super::super::raw::RawConfig;
use super::ca_dir;

/// A directory that does not exist is created at the start, with a warning: the app's container may have another
/// directory at this path.
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
                "{} has no effect without interception: add --intercept",
                quote(&text.value)
            );
            diagnostics.push(text.diagnostic(DiagnosticId::OptionWithoutEffect, message));
        } else if !can_be_made(Path::new(&text.value)) {
            let message = format!("{} must be a directory", quote(&text.value));
            diagnostics.push(text.diagnostic(DiagnosticId::InvalidValue, message));
        } else {
            if !Path::new(&text.value).exists() {
                warnings.push(format!(
                    "--ca-dir {} does not exist and is created at the start: check that the app has the same \
                     directory at this path",
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
            "--intercept has no effect, because the proxy is off: remove it, or set --proxy"
                .to_owned(),
        );
    } else if folder.is_none() && raw.private_folder.is_none() {
        warnings.push(
            "--intercept without --ca-dir: no app can trust the CA, because it is not written to a file"
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

/// Returns whether the path is a directory, or can be created.
fn can_be_made(folder: &Path) -> bool {
    let there = folder.ancestors().find(|above| above.exists());
    match there {
        Some(above) => above.is_dir(),
        // The path is relative, so it is in the working directory. An empty path is not a name.
        None => !folder.as_os_str().is_empty(),
    }
}
