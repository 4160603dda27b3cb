//! Programs of the machine, and the one rule for what it lacks.
//!
//! A missing tool is named in one line with its remedy. Under `CI=true` that fails; elsewhere the
//! test counts as skipped, visibly.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

/// Each tool that a test may need, and the package that brings it.
const PACKAGES: &[(&str, &str)] = &[
    ("busybox", "busybox-static"),
    ("containerd", "containerd"),
    ("ip", "iproute2"),
    ("losetup", "mount"),
    ("musl-gcc", "musl-tools"),
    ("nsenter", "util-linux"),
    ("resize2fs", "e2fsprogs"),
    ("runc", "runc"),
    ("unshare", "util-linux"),
    ("e2fsck", "e2fsprogs"),
    ("fio", "fio"),
    ("mkfs.ext4", "e2fsprogs"),
    ("debugfs", "e2fsprogs"),
    ("nbdcopy", "libnbd-bin"),
    ("nbdinfo", "libnbd-bin"),
    ("nbdkit", "nbdkit"),
    ("qemu-img", "qemu-utils"),
    ("qemu-io", "qemu-utils"),
    ("qemu-nbd", "qemu-utils"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("setpriv", "util-linux"),
    ("kill", "procps"),
    ("blkdiscard", "util-linux"),
    ("blockdev", "util-linux"),
    ("env", "coreutils"),
    ("losetup", "mount"),
    ("mount", "mount"),
    ("umount", "mount"),
];

/// Directories of system tools that a user's PATH often leaves out.
const SYSTEM_DIRECTORIES: &[&str] = &["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// Where `tool` is; the error is one line that names the remedy.
///
/// `UNDERSTUDY_QEMU` names another `qemu-system` binary than the one in PATH.
pub fn find(tool: &str) -> Result<PathBuf> {
    if tool == "qemu-system-x86_64"
        && let Some(path) = std::env::var_os("UNDERSTUDY_QEMU")
    {
        return Ok(path.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path);
    directories
        .chain(SYSTEM_DIRECTORIES.iter().map(PathBuf::from))
        .map(|directory| directory.join(tool))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| missing(tool))
}

fn missing(tool: &str) -> anyhow::Error {
    let package = PACKAGES.iter().find(|(name, _)| *name == tool).map_or(tool, |(_, p)| *p);
    anyhow!("{tool} is missing: run scripts/setup.sh as root, or apt-get install {package}")
}

/// Whether a missing tool is a failure here.
pub fn must_have_everything() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// The tools a test needs, or `None` after saying what is skipped and why.
///
/// # Panics
/// Under `CI=true`, when a tool is missing.
pub fn require<const N: usize>(test: &str, tools: [&str; N]) -> Option<[PathBuf; N]> {
    let mut found = tools.map(PathBuf::from);
    for path in &mut found {
        match find(&path.to_string_lossy()) {
            Ok(place) => *path = place,
            Err(error) => {
                skip(test, &error.to_string());
                return None;
            }
        }
    }
    Some(found)
}

/// Says that `test` is skipped, past the capture of the test runner, in the form `make test` counts.
///
/// # Panics
/// Under `CI=true`: there, nothing may be skipped.
pub fn skip(test: &str, why: &str) {
    assert!(!must_have_everything(), "{why} (CI=true: nothing may be skipped)");
    // A closed standard error leaves nobody to tell.
    let _closed = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// The directory that cargo builds our binaries into: beside this one.
fn build_directory() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let directory = own.parent().unwrap_or(Path::new("."));
    // Tests lie in deps/, binaries one above.
    let in_deps = directory.file_name().is_some_and(|name| name == "deps");
    let directory = if in_deps { directory.parent().unwrap_or(directory) } else { directory };
    Ok(directory.to_owned())
}

/// One of the project's own binaries, as built beside this one.
pub fn own(binary: &str) -> Result<PathBuf> {
    let path = build_directory()?.join(binary);
    if path.is_file() {
        return Ok(path);
    }
    Err(anyhow!("{} is not built: run `cargo build --workspace --bins`", path.display()))
}

/// The workspace's root, for tests that read its files.
pub fn workspace() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_named_with_its_remedy() {
        let error = find("no-such-tool-of-ours").unwrap_err().to_string();
        assert!(error.contains("no-such-tool-of-ours is missing: "), "{error}");
        assert!(error.contains("setup.sh"), "{error}");
    }

    #[test]
    fn system_tools_are_found_without_the_directory_in_path() {
        assert!(find("setpriv").is_ok());
        assert!(find("sh").is_ok());
    }
}
