//! What the state directory remembers of a device: written before it is made, removed after it is gone.
//!
//! ```text
//!   DIRECTORY/
//!     .lock            held by the daemon: one daemon for one directory
//!     VOLUME.json      the record below, replaced as a whole
//!     VOLUME.lock      held by the device's holder from before its first step until it is dead
//!     ID.sock          where the holder takes questions (a path has some 100 bytes, a name up to 128)
//!
//!   record there │ lock held │ device in the kernel
//!       yes      │   yes     │   soon, or yes            attached, or being attached
//!       yes      │   no      │   maybe                   left over: `leftover` removes what it can
//!       no       │   no      │   no                      nothing
//! ```
//!
//! Whoever removes a record holds the lock and removes everything else first, so a process that is
//! killed at any moment leaves something by which the rest is found.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::lock_file;
use crate::units::VolumeId;

/// The form of a record that this program writes.
const VERSION: u32 = 1;

/// What is remembered of a device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The form of this record.
    pub version: u32,
    /// Random: tells this device from every other, also from the next one of the same volume.
    pub id: String,
    /// The volume.
    pub volume: String,
    /// The generation it is bound to.
    pub generation: String,
    /// Where the engine takes calls.
    pub engine_api: String,
    /// Where the engine serves NBD.
    pub engine_nbd: String,
    /// Whether it can't be written.
    pub read_only: bool,
    /// Its session at the engine; none yet, or the engine knows none.
    pub session: Option<u64>,
}

impl Record {
    /// The version that new ones have.
    pub fn version() -> u32 {
        VERSION
    }

    /// The NBD export that the device asks for.
    pub fn export(&self) -> String {
        let session = self.session.map(|s| format!("#{s}")).unwrap_or_default();
        format!("{}/primary@{}{session}", self.volume, self.generation)
    }
}

/// A directory of records. Clones are the same one.
#[derive(Clone, Debug)]
pub struct StateDirectory(PathBuf);

impl StateDirectory {
    /// Opens it, making it if it is missing.
    pub fn open(path: &Path) -> io::Result<Self> {
        let named = |e: io::Error| {
            io::Error::new(e.kind(), format!("state directory {}: {e}", path.display()))
        };
        fs::create_dir_all(path).map_err(named)?;
        Ok(Self(fs::canonicalize(path).map_err(named)?))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Takes it for this process; `None` if another one has it.
    pub fn lock(&self) -> io::Result<Option<File>> {
        lock_file(&self.0.join(".lock"))
    }

    /// Removes the lock's file where no device is held; the caller has the lock, and ends.
    pub fn leave(&self) -> io::Result<()> {
        if self.volumes()?.is_empty() {
            gone(fs::remove_file(self.0.join(".lock")))
        } else {
            Ok(())
        }
    }

    /// Takes a volume's lock; `None` if its holder lives.
    pub fn lock_volume(&self, volume: &VolumeId) -> io::Result<Option<File>> {
        lock_file(&self.0.join(format!("{volume}.lock")))
    }

    /// The holder's socket.
    pub fn socket(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}.sock"))
    }

    fn record(&self, volume: &VolumeId) -> PathBuf {
        self.0.join(format!("{volume}.json"))
    }

    /// Writes a record, as a whole and durably.
    pub fn write(&self, volume: &VolumeId, record: &Record) -> io::Result<()> {
        let path = self.record(volume);
        let draft = self.0.join(format!(".{volume}.json"));
        let text = serde_json::to_vec_pretty(record).map_err(io::Error::other)?;
        let mut file = File::create(&draft)?;
        io::Write::write_all(&mut file, &text)?;
        file.sync_all()?;
        fs::rename(&draft, &path)?;
        File::open(&self.0)?.sync_all()
    }

    /// A volume's record, if there is one.
    pub fn read(&self, volume: &VolumeId) -> io::Result<Option<Record>> {
        let path = self.record(volume);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let bad = |why: String| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()))
        };
        let record: Record = serde_json::from_slice(&text).map_err(|e| {
            bad(format!("{e}: it is no record of a device; remove it if nothing is attached"))
        })?;
        if record.version > VERSION {
            let own = VERSION;
            let text = format!("version {}, this program knows {own}: update it", record.version);
            return Err(bad(text));
        }
        Ok(Some(record))
    }

    /// The volumes that have records, sorted.
    pub fn volumes(&self) -> io::Result<Vec<VolumeId>> {
        let mut volumes = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            // Drafts begin with a dot, which no volume does.
            let volume = name.to_str().and_then(|n| n.strip_suffix(".json")?.parse().ok());
            volumes.extend(volume);
        }
        volumes.sort();
        Ok(volumes)
    }

    /// Removes all but the record.
    pub fn remove_rest(&self, volume: &VolumeId, id: &str) -> io::Result<()> {
        gone(fs::remove_file(self.socket(id)))?;
        gone(fs::remove_file(self.0.join(format!(".{volume}.json"))))
    }

    /// Removes the record, and the lock, which the caller holds.
    pub fn remove(&self, volume: &VolumeId) -> io::Result<()> {
        gone(fs::remove_file(self.record(volume)))?;
        gone(fs::remove_file(self.0.join(format!("{volume}.lock"))))
    }

    /// Removes what has no record: what a process left that was killed in between.
    pub fn sweep(&self) -> io::Result<()> {
        let volumes = self.volumes()?;
        let mut ids = Vec::new();
        for volume in &volumes {
            ids.extend(self.read(volume)?.map(|r| r.id));
        }
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            let stray = if let Some(id) = name.strip_suffix(".sock") {
                !ids.iter().any(|known| known == id)
            } else if let Some(volume) = name.strip_suffix(".lock").filter(|v| !v.is_empty()) {
                !volumes.iter().any(|known| known.as_str() == volume)
            } else {
                name.strip_prefix('.').is_some_and(|draft| draft.strip_suffix(".json").is_some())
            };
            if stray {
                gone(fs::remove_file(self.0.join(name)))?;
            }
        }
        Ok(())
    }
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(volume: &str) -> Record {
        Record {
            version: VERSION,
            id: "0123456789abcdef".to_owned(),
            volume: volume.to_owned(),
            generation: "3-00c0ffee00c0ffee".to_owned(),
            engine_api: "unix:/run/a".to_owned(),
            engine_nbd: "unix:/run/b".to_owned(),
            read_only: false,
            session: Some(7),
        }
    }

    #[test]
    fn a_record_reads_back_and_names_its_export() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&directory.path().join("attach")).unwrap();
        let volume = "pvc-1".parse().unwrap();
        assert_eq!(state.read(&volume).unwrap(), None);
        state.write(&volume, &record("pvc-1")).unwrap();
        assert_eq!(state.read(&volume).unwrap(), Some(record("pvc-1")));
        assert_eq!(state.volumes().unwrap(), [volume]);
        assert_eq!(record("pvc-1").export(), "pvc-1/primary@3-00c0ffee00c0ffee#7");
        let older = Record { session: None, ..record("pvc-1") };
        assert_eq!(older.export(), "pvc-1/primary@3-00c0ffee00c0ffee");
    }

    #[test]
    fn a_record_of_a_newer_version_is_refused_and_not_overlooked() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(directory.path()).unwrap();
        let volume = "pvc-1".parse().unwrap();
        state.write(&volume, &Record { version: VERSION + 1, ..record("pvc-1") }).unwrap();
        let error = state.read(&volume).unwrap_err().to_string();
        assert!(error.contains("update it"), "{error}");
    }

    #[test]
    fn what_has_no_record_is_swept_away() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(directory.path()).unwrap();
        let volume = "pvc-1".parse().unwrap();
        state.write(&volume, &record("pvc-1")).unwrap();
        for stray in ["other.lock", "fedcba9876543210.sock", ".pvc-2.json"] {
            fs::write(directory.path().join(stray), "").unwrap();
        }
        fs::write(state.socket(&record("pvc-1").id), "").unwrap();
        let held = state.lock_volume(&volume).unwrap().unwrap();
        assert!(state.lock_volume(&volume).unwrap().is_none());
        state.sweep().unwrap();
        let mut names: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["0123456789abcdef.sock", "pvc-1.json", "pvc-1.lock"]);
        state.remove_rest(&volume, &record("pvc-1").id).unwrap();
        state.remove(&volume).unwrap();
        drop(held);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
