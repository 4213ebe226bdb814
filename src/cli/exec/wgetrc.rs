//! The configuration file of wget. A wget that is built with GnuTLS reads no variable for certificates, but reads the
//! file that `WGETRC` names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::config::Env;

/// Writes the file, unless the user has one: wget reads only one file, and the user's may have settings that the
/// command needs.
pub(super) fn write(
    folder: &TempDir,
    bundle: Option<&Path>,
    env: &Env,
) -> io::Result<Option<PathBuf>> {
    let home = env.text("HOME").ok().flatten();
    let has_own =
        env.is_set("WGETRC") || home.is_some_and(|home| Path::new(home).join(".wgetrc").exists());
    let Some(bundle) = bundle.filter(|_| !has_own) else {
        return Ok(None);
    };
    let file = folder.path().join("wgetrc");
    fs::write(&file, format!("ca_certificate = {}\n", bundle.display()))?;
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_own_wget_file_is_kept() {
        let (folder, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let bundle = Path::new("/run/ca/bundle.pem");
        let home_is = |more: &[(&str, &str)]| -> Env {
            let home = home.path().to_str().unwrap();
            let variables = [("HOME", home)].into_iter().chain(more.iter().copied());
            variables
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect()
        };
        let written = write(&folder, Some(bundle), &home_is(&[]))
            .unwrap()
            .unwrap();
        let content = fs::read_to_string(&written).unwrap();
        assert_eq!(content, "ca_certificate = /run/ca/bundle.pem\n");
        assert_eq!(write(&folder, None, &home_is(&[])).unwrap(), None);
        let named = home_is(&[("WGETRC", "/etc/mine")]);
        assert_eq!(write(&folder, Some(bundle), &named).unwrap(), None);
        fs::write(home.path().join(".wgetrc"), "tries = 3").unwrap();
        assert_eq!(write(&folder, Some(bundle), &home_is(&[])).unwrap(), None);
    }
}
