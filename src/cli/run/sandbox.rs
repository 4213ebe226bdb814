//! `--sandbox`: the sidecar restricts its own access to files with Landlock (landlock(7)).
//!
//! Code that an attacker runs in the process cannot read the files of other containers on a shared volume. It cannot
//! write outside configured paths or start a program. Network access is not restricted, because the app chooses the
//! destinations.

use std::fs;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
};

use crate::config::{Config, Listen};

/// The newest version whose rights are known here. Older kernels enforce the rights that they support.
const VERSION: ABI = ABI::V5;

/// The paths for name resolution, trust roots, cgroup limits and process metrics. They are directories, because a rule
/// applies to the file that exists now, and `resolv.conf` or a certificate may be replaced. Below /proc, Landlock
/// itself denies access to the memory and environment of other processes.
const SYSTEM: &[&str] = &[
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/run/NetworkManager",
    "/run/nscd",
    "/run/resolvconf",
    "/run/systemd/resolve",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
    "/usr",
    "/var/cache/nscd",
    "/var/lib/ca-certificates",
    "/var/lib/sss",
    "/var/run/nscd",
];

/// Devices that programs usually need.
const DEVICES: &[&str] = &["/dev/null", "/dev/random", "/dev/urandom", "/dev/zero"];

/// The state of the sandbox.
#[derive(Debug)]
pub(super) enum Sandbox {
    /// `--sandbox off`.
    Off,
    /// Landlock is enforced, with the rights that the kernel supports.
    On {
        /// The version of Landlock.
        version: i32,
        /// The readable paths, without symbolic links.
        readable: Vec<PathBuf>,
    },
    /// The kernel does not support or permit it.
    Unavailable(String),
}

/// The directories that a configuration needs, in addition to those of the system.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
}

// === impl Sandbox ===

impl Sandbox {
    /// Restricts this thread and the threads that it starts. It must be called before other threads exist.
    ///
    /// `file` is the configuration file, which SIGHUP reads again.
    pub(super) fn enter(config: &Config, file: Option<&Path>) -> Self {
        if !config.sandbox {
            return Self::Off;
        }
        // Landlock would restrict the program too.
        if let Some(program) = config.credentials.program() {
            let reason = format!(
                "the credential file names the executable {program}, which has to be started"
            );
            return Self::Unavailable(reason);
        }
        let needs = Needs::of(config, file);
        let readable = needs.readable();
        match restrict(&needs) {
            Ok(RestrictionStatus {
                ruleset: RulesetStatus::NotEnforced,
                landlock,
                ..
            }) => Self::Unavailable(match landlock {
                LandlockStatus::NotEnabled => "Landlock is not enabled in this kernel".to_owned(),
                _ => "this kernel has no Landlock".to_owned(),
            }),
            Ok(RestrictionStatus { landlock, .. }) => Self::On {
                version: match landlock {
                    LandlockStatus::Available { effective_abi, .. } => effective_abi as i32,
                    _ => 0,
                },
                readable,
            },
            Err(error) => Self::Unavailable(error.to_string()),
        }
    }

    /// Logs the state.
    pub(super) fn announce(&self) {
        match self {
            Self::Off => tracing::info!("sandbox: off (--sandbox off)"),
            Self::On { version, .. } => tracing::info!(
                "sandbox: on (Landlock version {version}): reads configuration, credentials, certificates and resolver files, writes \
                 only --ca-dir and unix sockets, starts no program"
            ),
            Self::Unavailable(reason) => tracing::info!("sandbox: off: {reason}"),
        }
    }

    pub(super) const fn is_on(&self) -> bool {
        matches!(self, Self::On { .. })
    }

    /// Returns whether a file can be read. The file need not exist yet.
    pub(super) fn lets_read(&self, file: &Path) -> bool {
        let Self::On { readable, .. } = self else {
            return true;
        };
        let real = fs::canonicalize(file)
            .or_else(|_| fs::canonicalize(parent(file)))
            .unwrap_or_else(|_| file.to_owned());
        readable.iter().any(|allowed| real.starts_with(allowed))
    }
}

fn restrict(needs: &Needs) -> Result<RestrictionStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeSock
        | AccessFs::RemoveFile;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(VERSION))?
        .create()?;
    let system = SYSTEM.iter().map(Path::new).map(|path| (path, read));
    let devices = DEVICES.iter().map(Path::new);
    let devices = devices.map(|path| (path, AccessFs::ReadFile | AccessFs::WriteFile));
    let readable = needs.read.iter().map(|path| (&**path, read));
    let writable = needs.write.iter().map(|path| (&**path, write));
    for (path, access) in system.chain(devices).chain(readable).chain(writable) {
        // A path that does not exist needs no rule.
        if let Ok(opened) = PathFd::new(path) {
            rules = rules.add_rule(PathBeneath::new(opened, suited(path, access)))?;
        }
    }
    rules.restrict_self()
}

/// Returns the rights that apply to the path. The kernel rejects rights of directories for a file.
fn suited(path: &Path, access: BitFlags<AccessFs>) -> BitFlags<AccessFs> {
    if path.is_dir() {
        access
    } else {
        access & AccessFs::from_file(VERSION)
    }
}

// === impl Needs ===

impl Needs {
    fn of(config: &Config, file: Option<&Path>) -> Self {
        let mut needs = Self::default();
        let upstream = &config.upstream;
        let files = upstream.ca_files.iter().chain(&upstream.system_ca_file);
        let files = files.map(PathBuf::as_path).chain(file);
        for file in files.chain(config.credentials.paths()) {
            needs.read_file(file);
        }
        // Read by the loader of the system's trust roots (rustls-native-certs).
        if let Some(folder) = std::env::var_os("SSL_CERT_DIR") {
            needs.read.extend(std::env::split_paths(&folder));
        }
        let intercept = config.intercept.as_ref();
        if let Some(folder) = intercept.and_then(|intercept| intercept.ca_dir.as_ref()) {
            // A rule needs an existing directory. If it cannot be created, the start reports that.
            let _ = fs::create_dir_all(folder);
            needs.write.push(folder.clone());
        }
        for route in &config.routes {
            if let Listen::Unix(socket) = &route.listen {
                needs.write.push(parent(socket));
            }
        }
        needs
    }

    /// Returns the readable paths that exist, because a rule needs an existing path.
    fn readable(&self) -> Vec<PathBuf> {
        let system = SYSTEM.iter().map(Path::new);
        let own = self.read.iter().chain(&self.write).map(PathBuf::as_path);
        let all = system.chain(own);
        all.filter_map(|path| fs::canonicalize(path).ok()).collect()
    }

    /// Adds a file that may be replaced while the sidecar runs, as Kubernetes and editors do: its directory, and that
    /// of the target of a symbolic link. In the root directory, it adds only the file.
    fn read_file(&mut self, file: &Path) {
        let real = fs::canonicalize(file).ok();
        for file in [Some(file), real.as_deref()].into_iter().flatten() {
            let folder = parent(file);
            let is_root = fs::canonicalize(&folder).is_ok_and(|folder| folder.parent().is_none());
            self.read
                .push(if is_root { file.to_owned() } else { folder });
        }
        self.read.dedup();
    }
}

/// Returns the directory of a path.
fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_the_root_directory_does_not_make_all_files_readable() {
        let mut needs = Needs::default();
        needs.read_file(Path::new("/etc/../c.yaml"));
        needs.read_file(Path::new("/c.yaml"));
        let all = Path::new("/").canonicalize().unwrap();
        let opened = needs
            .read
            .iter()
            .filter_map(|path| path.canonicalize().ok());
        assert!(!opened.collect::<Vec<_>>().contains(&all), "{needs:?}");
    }

    #[test]
    fn a_symlinked_configuration_is_reloaded_from_both_directories() {
        let (real, link) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (file, linked) = (real.path().join("c.yaml"), link.path().join("c.yaml"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &linked).unwrap();
        let mut needs = Needs::default();
        needs.read_file(&linked);
        assert_eq!(
            needs.read,
            [link.path().to_owned(), real.path().canonicalize().unwrap()]
        );
    }
}
