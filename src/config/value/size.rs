//! Sizes of memory, and the kernel's limit for this process.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use super::super::diagnostic::quote;

/// The default without a limit of the kernel.
const DEFAULT: usize = 256 << 20;

/// The minimum. A smaller budget has no room for one connection and its buffers.
const LEAST: usize = 1 << 20;

/// A limit of this size or more counts as no limit: version 1 writes the largest multiple of a page.
const UNLIMITED: u64 = 1 << 60;

/// Suffixes in lower case without the optional `B`: as in Kubernetes, `K` is 1000 and `Ki` is 1024.
const UNITS: [(&str, u64); 9] = [
    ("", 1),
    ("k", 1_000),
    ("m", 1_000_000),
    ("g", 1_000_000_000),
    ("t", 1_000_000_000_000),
    ("ki", 1 << 10),
    ("mi", 1 << 20),
    ("gi", 1 << 30),
    ("ti", 1 << 40),
];

/// Parses `268435456`, `256Mi`, `256MiB`, `256M`.
pub(in crate::config) fn parse(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let bytes = bytes(text).ok_or_else(|| {
        format!(
            "{} is not a size: write 256Mi, 1Gi or a number of bytes",
            quote(text)
        )
    })?;
    if bytes < LEAST {
        let meant = match text.parse::<u64>() {
            Ok(number @ 1..) => format!(" ({number}Mi for {number} mebibytes)"),
            _ => String::new(),
        };
        return Err(format!(
            "{} is too small: write at least 1Mi{meant}",
            quote(text)
        ));
    }
    Ok(bytes)
}

fn bytes(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let bytes = number.parse::<u64>().ok()?.checked_mul(*factor)?;
    usize::try_from(bytes).ok()
}

/// Returns half of the cgroup's limit, otherwise 256 MiB. It is read once, because the sandbox may later deny access to
/// the files.
pub(in crate::config) fn default() -> usize {
    static HALF: OnceLock<usize> = OnceLock::new();
    *HALF.get_or_init(|| {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        limit(&groups, Path::new("/sys/fs/cgroup"))
            .and_then(|limit| usize::try_from(limit / 2).ok())
            .map_or(DEFAULT, |half| half.max(LEAST))
    })
}

/// Returns the lowest limit of the process's cgroup and its parents, in either version. `groups` is /proc/self/cgroup.
fn limit(groups: &str, root: &Path) -> Option<u64> {
    groups
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let (root, file) = match controllers {
                "" => (root.to_owned(), "memory.max"),
                names if names.split(',').any(|name| name == "memory") => {
                    (root.join("memory"), "memory.limit_in_bytes")
                }
                _ => return None,
            };
            // A container without a cgroup namespace sees the host's path, but its own group at the root.
            let own = root.join(path.trim_start_matches('/'));
            own.ancestors()
                .take_while(|group| group.starts_with(&root))
                .filter_map(|group| fs::read_to_string(group.join(file)).ok())
                .filter_map(|text| text.trim().parse().ok())
                .filter(|limit| *limit < UNLIMITED)
                .min()
        })
        .min()
}

/// Prints a size in the largest binary unit that gives a whole number.
pub(in crate::config) fn printed(bytes: &usize) -> String {
    const UNITS: [(u32, &str); 3] = [(30, "Gi"), (20, "Mi"), (10, "Ki")];
    UNITS
        .iter()
        .find(|(shift, _)| bytes.trailing_zeros() >= *shift)
        .map_or_else(
            || bytes.to_string(),
            |(shift, unit)| format!("{}{unit}", bytes >> shift),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_every_usual_spelling() {
        for (text, bytes) in [
            ("1048576", 1 << 20),
            ("256Mi", 256 << 20),
            ("256MiB", 256 << 20),
            (" 256 mib ", 256 << 20),
            ("2Gi", 2 << 30),
            ("2048Ki", 2 << 20),
            ("256M", 256_000_000),
            ("256MB", 256_000_000),
            ("2000k", 2_000_000),
            ("1G", 1_000_000_000),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "Mi",
            "-1Mi",
            "1.5Gi",
            "256X",
            "256Mi2",
            "99999999Ti",
            "off",
            "é",
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains("is not a size: write 256Mi"), "{error}");
        }
        assert_eq!(
            parse("512Ki").unwrap_err(),
            "\"512Ki\" is too small: write at least 1Mi"
        );
        assert!(parse("0").is_err());
    }

    #[test]
    fn the_lowest_limit_of_a_cgroup_and_its_parents_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        let limit = |groups: &str| limit(groups, root.path());
        write("pods/one/memory.max", "max\n");
        assert_eq!(limit("0::/pods/one\n"), None);
        write("pods/memory.max", "400000000\n");
        assert_eq!(limit("0::/pods/one\n"), Some(400_000_000));
        write("pods/one/memory.max", "134217728\n");
        assert_eq!(limit("0::/pods/one\n"), Some(128 << 20));
        // The container's own group is mounted at the root, whatever the path says.
        write("memory.max", "100000000\n");
        assert_eq!(limit("0::/../../elsewhere\n"), Some(100_000_000));

        // Version 1, with and without a limit, and beside the hierarchy of version 2.
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        let both = "5:cpu,cpuacct:/a\n4:memory:/a\n0::/none\n";
        assert_eq!(limit("4:memory:/a\n"), None);
        write("memory/a/memory.limit_in_bytes", "67108864\n");
        assert_eq!(limit("4:memory:/a\n"), Some(64 << 20));
        assert_eq!(limit(both), Some(64 << 20));
        assert_eq!(limit(""), None);
        assert_eq!(limit("nonsense\n1:memory\n"), None);
    }
}
