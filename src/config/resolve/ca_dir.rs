//! Checks whether another user can replace the CA in `--ca-dir`.

use std::collections::VecDeque;
use std::env::temp_dir;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::process::geteuid;

use super::super::diagnostic::quote;

/// The maximum number of symbolic links in a path, as in Linux.
const MOST_LINKS: usize = 40;
const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// A directory that the path passes through.
struct Passed {
    folder: PathBuf,
    /// The owner of the path's next entry; `None` if the entry does not exist.
    next_owner: Option<u32>,
    /// The directory is the whole path.
    is_whole: bool,
}

/// Returns a warning about the innermost directory in which another user could replace the CA or a directory of its
/// path.
///
/// Directories are resolved as the kernel does it, with symbolic links. Root is trusted. In a sticky directory only the
/// owner of an entry can replace it, so an entry of this user or of root is safe there. The CA's own directory is an
/// exception: another user can create it whenever it does not exist. In the system's temporary directory it is one that
/// `mktemp -d` created.
pub(super) fn warning(ca_dir: &Path) -> Option<String> {
    let passed = walk(ca_dir);
    let own = geteuid().as_raw();
    let is_trusted = |owner: u32| owner == 0 || owner == own;
    let innermost = passed.last()?;
    let shared = innermost.folder.parent().filter(|parent| {
        innermost.is_whole && fs::canonicalize(temp_dir()).ok().as_deref() != Some(*parent)
    });
    passed.iter().rev().find_map(|Passed { folder, next_owner, .. }| {
        let metadata = fs::metadata(folder).ok()?;
        let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
        let near = shared == Some(folder);
        let kept = mode & STICKY != 0 && !near && next_owner.is_some_and(is_trusted);
        let who = if !is_trusted(owner) {
            format!("user {owner}")
        } else if mode & WRITABLE_BY_OTHERS != 0 && !kept {
            "other users".to_owned()
        } else {
            return None;
        };
        Some(format!(
            "--ca-dir {}: {who} can write to {} (mode {mode:04o}, owner {owner}) and so replace the CA that apps \
             trust; choose a directory to which, as to all above it, only this user and root can write",
            quote(&ca_dir.to_string_lossy()),
            quote(&folder.to_string_lossy()),
        ))
    })
}

/// Returns the existing directories of the path, from the outermost.
fn walk(path: &Path) -> Vec<Passed> {
    let mut passed = Vec::new();
    let mut folder = PathBuf::from("/");
    let mut rest = names(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            folder.pop();
            continue;
        }
        let entry = folder.join(&name);
        let found = fs::symlink_metadata(&entry).ok();
        passed.push(Passed {
            folder: folder.clone(),
            next_owner: found.as_ref().map(Metadata::uid),
            is_whole: false,
        });
        let Some(found) = found else {
            return passed;
        };
        if !found.is_symlink() {
            folder = entry;
            continue;
        }
        links += 1;
        let Ok(target) = fs::read_link(&entry) else {
            return passed;
        };
        if links > MOST_LINKS {
            return passed;
        }
        if target.is_absolute() {
            folder = PathBuf::from("/");
        }
        for name in names(&target).into_iter().rev() {
            rest.push_front(name);
        }
    }
    passed.push(Passed {
        folder,
        next_owner: None,
        is_whole: true,
    });
    passed
}

/// Returns the names that follow the root, with `..`.
fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::CurDir | Component::Prefix(_) | Component::RootDir => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::*;

    /// A folder that only this user can write to, with these folders in it.
    fn made(folders: &[(&str, u32)]) -> TempDir {
        let top = tempfile::tempdir().unwrap();
        for (name, mode) in folders {
            let folder = top.path().join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::set_permissions(&folder, Permissions::from_mode(*mode)).unwrap();
        }
        top
    }

    #[track_caller]
    fn blames(ca_dir: &Path, folder: &Path, mode: &str) {
        let warning = warning(ca_dir).unwrap_or_else(|| panic!("{}", ca_dir.display()));
        for part in [format!("{folder:?}"), mode.to_owned()] {
            assert!(warning.contains(&part), "{part}: {warning}");
        }
    }

    #[test]
    fn a_directory_of_this_user_alone_gets_no_warning() {
        let top = made(&[("a", 0o755), ("a/ca", 0o755)]);
        for path in ["a", "a/ca", "a/new", "a/new/ca", "a/../a/ca"] {
            assert_eq!(warning(&top.path().join(path)), None, "{path}");
        }
    }

    #[test]
    fn every_parent_directory_is_checked() {
        let top = made(&[
            ("open", 0o777),
            ("open/mine", 0o755),
            ("open/mine/ca", 0o755),
        ]);
        let open = top.path().join("open");
        for path in ["", "ca", "mine", "mine/ca", "mine/new/ca"] {
            blames(&open.join(path), &open, "mode 0777");
        }
        let group = made(&[("shared", 0o775)]);
        let shared = group.path().join("shared");
        blames(&shared.join("ca"), &shared, "mode 0775");
    }

    #[test]
    fn a_sticky_directory_protects_only_existing_subdirectories() {
        let top = made(&[("tmp", 0o1777), ("tmp/mine", 0o755), ("tmp/mine/ca", 0o755)]);
        let tmp = top.path().join("tmp");
        for path in ["", "ca", "mine", "new/deep/ca"] {
            blames(&tmp.join(path), &tmp, "mode 1777");
        }
        for path in ["mine/ca", "mine/new/ca"] {
            assert_eq!(warning(&tmp.join(path)), None, "{path}");
        }
        assert_eq!(warning(top.path()), None);
    }

    #[test]
    fn symbolic_links_are_followed() {
        let top = made(&[("open", 0o777), ("mine", 0o755), ("open/ca", 0o755)]);
        let (open, mine) = (top.path().join("open"), top.path().join("mine"));
        symlink(&open, mine.join("away")).unwrap();
        symlink("../mine", open.join("back")).unwrap();
        symlink("loop", mine.join("loop")).unwrap();
        blames(&mine.join("away/ca"), &open, "mode 0777");
        blames(&open.join("back/ca"), &open, "mode 0777");
        assert_eq!(warning(&mine.join("loop/ca")), None);
    }
}
