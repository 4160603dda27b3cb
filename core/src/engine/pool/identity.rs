//! `pool.yaml`: what makes a directory a pool.
//!
//! ```yaml
//! version: 1
//! uuid: 0123456789abcdef0123456789abcdef
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{LOCK, entries, failed, sync_dir};
use crate::engine::api::{Refusal, Uuid};
use crate::engine::error::EngineError;

const FILE: &str = "pool.yaml";
const DRAFT: &str = ".pool.yaml";

/// The layout this engine reads and writes.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    version: u32,
    uuid: String,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

/// Refuses a directory that holds something else: nobody wants a pool in their home.
pub(super) fn check_is_pool_or_empty(root: &Path) -> Result<(), EngineError> {
    if root.join(FILE).exists() {
        return Ok(());
    }
    // What a new file system holds, and what an engine had begun when it was killed.
    let ours = ["lost+found", LOCK, DRAFT];
    let foreign = entries(root)?.into_iter().find(|e| !ours.iter().any(|o| e.file_name() == *o));
    foreign.map_or(Ok(()), |e| {
        let text = format!(
            "{} holds {} but no {FILE}, so it is no pool: use an empty directory, or the right one",
            root.display(),
            e.file_name().display()
        );
        Err(EngineError::new(Refusal::Invalid, text))
    })
}

/// The pool's identity; a new one if there is none. The caller holds the lock.
pub(super) fn read_or_create(root: &Path) -> Result<Uuid, EngineError> {
    let path = root.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => parse(&path, &text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => create(root),
        Err(e) => Err(failed("read", &path, e)),
    }
}

fn parse(path: &Path, text: &str) -> Result<Uuid, EngineError> {
    let damaged = |why: &dyn std::fmt::Display| {
        let text = format!("{} is damaged: {why}; restore it from a copy", path.display());
        EngineError::new(Refusal::DataLoss, text)
    };
    // The version first: what a newer one adds is not damage.
    let version = serde_yaml::from_str::<VersionOnly>(text).map_err(|e| damaged(&e))?.version;
    if version > VERSION {
        let text = format!(
            "{} is of version {version}, this engine knows {VERSION}: use a newer understudyd",
            path.display()
        );
        return Err(EngineError::new(Refusal::DataLoss, text));
    }
    let identity = serde_yaml::from_str::<Identity>(text).map_err(|e| damaged(&e))?;
    identity.uuid.parse().map_err(|e| damaged(&e))
}

fn create(root: &Path) -> Result<Uuid, EngineError> {
    let (draft, path) = (root.join(DRAFT), root.join(FILE));
    let write = || -> io::Result<Uuid> {
        let mut id = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut id)?;
        let uuid = Uuid(u128::from_le_bytes(id));
        let mut file = File::create(&draft)?;
        write!(file, "version: {VERSION}\nuuid: {uuid}\n")?;
        file.sync_all()?;
        fs::rename(&draft, &path)?;
        Ok(uuid)
    };
    let uuid = write().map_err(|e| failed("write", &path, e))?;
    sync_dir(root)?;
    Ok(uuid)
}
