//! Directories that vanish, even when nobody is left to remove them.
//!
//! ```text
//!   /tmp/understudy-KIND-XXXXXX/
//!     .owner        held by flock as long as the owner lives; the kernel lets go when it dies
//!     …
//! ```
//!
//! Whoever makes the next one of the same kind removes those whose owner is gone.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

/// The lock file.
const OWNER: &str = ".owner";

/// A directory of ours, removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    directory: tempfile::TempDir,
    /// Holding it open holds the lock.
    _owner: File,
}

impl Scratch {
    /// Makes one; removes those of the same kind whose owner was killed.
    pub fn new(kind: &str) -> Result<Self> {
        let prefix = format!("understudy-{kind}-");
        reap(&std::env::temp_dir(), &prefix);
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir();
        let directory = directory.context("cannot make a temporary directory")?;
        let owner = File::create(directory.path().join(OWNER))?;
        flock(&owner, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { directory, _owner: owner })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes the directories below `parent` that nobody owns any more.
fn reap(parent: &Path, prefix: &str) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        if name.is_some_and(|name| name.starts_with(prefix)) && is_orphan(&path) {
            // What cannot be removed is left to the next one.
            let _kept = std::fs::remove_dir_all(&path);
        }
    }
}

/// Whether its owner is gone. One without a lock file may just be being made.
fn is_orphan(path: &PathBuf) -> bool {
    let Ok(owner) = File::open(path.join(OWNER)) else { return false };
    flock(&owner, FlockOperation::NonBlockingLockExclusive).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_its_owner_goes_and_one_with_it_stays() {
        let parent = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = parent.path().join(name);
            std::fs::create_dir(&path).unwrap();
            File::create(path.join(OWNER)).unwrap()
        };
        let living = make("understudy-x-living");
        flock(&living, FlockOperation::LockExclusive).unwrap();
        drop(make("understudy-x-dead"));
        drop(make("understudy-y-other"));
        reap(parent.path(), "understudy-x-");
        assert!(parent.path().join("understudy-x-living").exists());
        assert!(!parent.path().join("understudy-x-dead").exists());
        assert!(parent.path().join("understudy-y-other").exists());
    }
}
