//! A lock file: who has it locked is alone with what it stands for, for as long as the file lives.
//!
//! ```text
//!   open ─► flock ─┬─ somebody has it ─► None
//!                  └─ is it still the file of that name? ─ no: its owner left and took it away ─► again
//! ```

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// Takes the lock, making the file if there is none; `None` if somebody else has it.
pub(crate) fn lock_file(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
        let there = fs::metadata(path).map(|m| m.ino()).ok();
        if there == Some(file.metadata()?.ino()) {
            return Ok(Some(file));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_one_s_alone_until_he_leaves_and_takes_its_file_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = lock_file(&path).unwrap().unwrap();
        assert!(lock_file(&path).unwrap().is_none());
        fs::remove_file(&path).unwrap();
        drop(first);
        assert!(lock_file(&path).unwrap().is_some());
    }
}
