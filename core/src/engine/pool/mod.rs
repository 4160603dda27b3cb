//! Where an engine keeps replicas: a directory on a local file system.
//!
//! ```text
//!   POOL/lock                         flocked by the one engine that uses it
//!   POOL/pool.yaml                    version, uuid
//!   POOL/volumes/VOLUME/              one replica: label, disk, active, active-map
//!   POOL/groups/GROUP/                one group: superblock, intent, undo-N
//!   POOL/{volumes,groups}/.new-NAME   not yet there: renamed when complete, swept at start
//!   POOL/{volumes,groups}/.gone-NAME  no longer there: swept at start
//! ```
//!
//! An engine that ends in good order and leaves an empty pool leaves an empty directory, whose attribute
//! `user.understudy.pool` remembers the uuid.
//!
//! A directory is there as a whole or not at all, also after a power cut: its content is synced
//! before it gets its name, and its parent after. Everything here blocks; the async side calls it
//! on a thread for that.

mod identity;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tracing::warn;

use super::api::{ByteLen, Capacity, Refusal, Uuid};
use super::error::EngineError;
use crate::disk::lock_file;
use crate::units::Name;

const LOCK: &str = "lock";
const NEW: &str = ".new-";
const GONE: &str = ".gone-";

/// What a directory of the pool holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A replica of a volume.
    Volume,
    /// A group.
    Group,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Volume, Self::Group];

    fn folder(self) -> &'static str {
        match self {
            Self::Volume => "volumes",
            Self::Group => "groups",
        }
    }
}

/// An open pool; nobody else has it open.
#[derive(Debug)]
pub(crate) struct Pool {
    root: PathBuf,
    uuid: Uuid,
    /// Released when dropped.
    _lock: File,
}

impl Pool {
    /// Opens the pool in `root`, or makes one of an empty directory, and sweeps leftovers.
    pub(crate) fn open(root: &Path) -> Result<Self, EngineError> {
        let metadata = fs::metadata(root).map_err(|e| missing(root, e))?;
        if !metadata.is_dir() {
            let text = format!("the pool {} is not a directory: name one", root.display());
            return Err(EngineError::new(Refusal::Invalid, text));
        }
        identity::check_is_pool_or_empty(root)?;
        let lock = lock(root)?;
        let uuid = identity::read_or_create(root)?;
        let pool = Self { root: root.to_owned(), uuid, _lock: lock };
        for kind in Kind::ALL {
            let folder = pool.root.join(kind.folder());
            fs::create_dir_all(&folder).map_err(|e| failed("make", &folder, e))?;
        }
        sync_dir(&pool.root)?;
        pool.sweep()?;
        Ok(pool)
    }

    /// Takes the pool's files away if it holds nothing, so that an engine that is removed leaves an
    /// empty directory; the next one to use that finds the same pool. Whether it did.
    ///
    /// Only for the very end: the lock goes too.
    pub(crate) fn leave_if_empty(&self) -> Result<bool, EngineError> {
        let folders = Kind::ALL.map(|kind| self.root.join(kind.folder()));
        for folder in &folders {
            if !entries(folder)?.is_empty() {
                return Ok(false);
            }
        }
        // The file that makes it a pool goes last: cut off anywhere, it is one or an empty directory.
        for folder in &folders {
            fs::remove_dir(folder).map_err(|e| failed("remove", folder, e))?;
        }
        if !identity::keep_with_directory(&self.root, self.uuid)? {
            return Ok(false);
        }
        let lock = self.root.join(LOCK);
        fs::remove_file(&lock).map_err(|e| failed("remove", &lock, e))?;
        Ok(true)
    }

    /// Its identity.
    pub(crate) fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// Where the directory of this name is, or would be.
    pub(crate) fn path(&self, kind: Kind, name: &Name) -> PathBuf {
        self.root.join(kind.folder()).join(name.as_str())
    }

    /// Whether there is a directory of this name.
    pub(crate) fn has(&self, kind: Kind, name: &Name) -> bool {
        self.path(kind, name).is_dir()
    }

    /// Makes an empty directory that is not there yet under its name; see [`publish`](Self::publish).
    pub(crate) fn draft(&self, kind: Kind, name: &Name) -> Result<PathBuf, EngineError> {
        let path = self.hidden(kind, NEW, name);
        remove_all(&path)?;
        fs::create_dir(&path).map_err(|e| failed("make", &path, e))?;
        Ok(path)
    }

    /// Gives a draft its name, durably.
    pub(crate) fn publish(&self, kind: Kind, name: &Name) -> Result<PathBuf, EngineError> {
        let (draft, path) = (self.hidden(kind, NEW, name), self.path(kind, name));
        sync_dir(&draft)?;
        fs::rename(&draft, &path).map_err(|e| failed("rename", &draft, e))?;
        sync_dir(&self.root.join(kind.folder()))?;
        Ok(path)
    }

    /// Removes a draft that came to nothing.
    pub(crate) fn abandon(&self, kind: Kind, name: &Name) {
        let draft = self.hidden(kind, NEW, name);
        if let Err(e) = remove_all(&draft) {
            warn!("{e}; the next start sweeps it");
        }
    }

    /// Removes a directory and all it holds, durably; fine if there is none.
    pub(crate) fn remove(&self, kind: Kind, name: &Name) -> Result<(), EngineError> {
        let (path, gone) = (self.path(kind, name), self.hidden(kind, GONE, name));
        remove_all(&gone)?;
        match fs::rename(&path, &gone) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|e| failed("rename", &path, e))?,
        }
        sync_dir(&self.root.join(kind.folder()))?;
        if let Err(e) = remove_all(&gone) {
            warn!("{e}; the next start sweeps it");
        }
        Ok(())
    }

    /// The names of all directories of this kind, sorted. What is none of ours is left alone.
    pub(crate) fn list(&self, kind: Kind) -> Result<Vec<Name>, EngineError> {
        let folder = self.root.join(kind.folder());
        let mut names = Vec::new();
        for entry in entries(&folder)? {
            match entry.file_name().to_str().and_then(|n| n.parse::<Name>().ok()) {
                Some(name) if entry.path().is_dir() => names.push(name),
                _ => warn!("{} is nothing an engine made: left alone", entry.path().display()),
            }
        }
        names.sort();
        Ok(names)
    }

    /// Its space.
    pub(crate) fn capacity(&self) -> Result<Capacity, EngineError> {
        let s =
            rustix::fs::statvfs(&self.root).map_err(|e| failed("measure", &self.root, e.into()))?;
        let bytes = |blocks: u64| ByteLen(blocks.saturating_mul(s.f_frsize));
        Ok(Capacity { total: bytes(s.f_blocks), available: bytes(s.f_bavail), pool: self.uuid })
    }

    fn hidden(&self, kind: Kind, prefix: &str, name: &Name) -> PathBuf {
        self.root.join(kind.folder()).join(format!("{prefix}{name}"))
    }

    /// Removes what an earlier engine had begun to make or to remove.
    fn sweep(&self) -> Result<(), EngineError> {
        for kind in Kind::ALL {
            for entry in entries(&self.root.join(kind.folder()))? {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                if name.starts_with(NEW) || name.starts_with(GONE) {
                    remove_all(&entry.path())?;
                }
            }
        }
        Ok(())
    }
}

/// Locks the pool against every other engine, for as long as the file lives.
fn lock(root: &Path) -> Result<File, EngineError> {
    use std::io::Write;
    let path = root.join(LOCK);
    let Some(file) = lock_file(&path).map_err(|e| failed("lock", &path, e))? else {
        let owner = fs::read_to_string(&path).unwrap_or_default();
        let text = format!(
            "the pool {} is in use by another engine (process {}): stop that one, or use another pool",
            root.display(),
            owner.trim()
        );
        return Err(EngineError::new(Refusal::WrongState, text));
    };
    // Only for the message above, so a full disk is no reason to stop here.
    if file.set_len(0).and_then(|()| writeln!(&file, "{}", std::process::id())).is_err() {
        warn!("{} can't be written: the pool's file system may be full", path.display());
    }
    Ok(file)
}

fn missing(root: &Path, e: io::Error) -> EngineError {
    if e.kind() != io::ErrorKind::NotFound {
        return failed("open", root, e);
    }
    let text = format!(
        "the pool {} does not exist: mount its file system or make the directory, then start again",
        root.display()
    );
    EngineError::new(Refusal::NotFound, text)
}

/// An error of the file system, with the remedies that a person has.
fn failed(doing: &str, path: &Path, e: io::Error) -> EngineError {
    let remedy = match e.kind() {
        io::ErrorKind::PermissionDenied => " (give the engine's user the right to write there)",
        io::ErrorKind::ReadOnlyFilesystem => " (mount it writable)",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => " (free some space first)",
        _ => "",
    };
    EngineError::system(format!("can't {doing} {}{remedy}", path.display()), e)
}

fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>, EngineError> {
    let read = || fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>();
    read().map_err(|e| failed("list", folder, e))
}

fn remove_all(path: &Path) -> Result<(), EngineError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, e)),
        _ => Ok(()),
    }
}

fn sync_dir(path: &Path) -> Result<(), EngineError> {
    File::open(path).and_then(|d| d.sync_all()).map_err(|e| failed("sync", path, e))
}

#[cfg(test)]
mod tests;
