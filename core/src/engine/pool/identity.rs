//! `pool.yaml`: what makes a directory a pool.
//!
//! ```yaml
//! version: 1
//! uuid: 0123456789abcdef0123456789abcdef
//! ```
//!
//! A directory whose pool was empty when its engine ended holds no file; its attribute [`ATTRIBUTE`]
//! remembers the uuid. The attribute is there only as long as the file is not: a pool whose files
//! somebody removed is another pool, and whoever asks for its replicas must learn that.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{LOCK, entries, failed, sync_dir};
use crate::engine::api::{Refusal, Uuid};
use crate::engine::error::EngineError;

const FILE: &str = "pool.yaml";
const DRAFT: &str = ".pool.yaml";

/// Where an empty directory remembers which pool it was.
const ATTRIBUTE: &str = "user.understudy.pool";

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
    let uuid = match fs::read_to_string(&path) {
        Ok(text) => parse(&path, &text)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => create(root)?,
        Err(e) => return Err(failed("read", &path, e)),
    };
    match rustix::fs::removexattr(root, ATTRIBUTE) {
        Ok(()) => sync_dir(root)?,
        // None there, or a file system without attributes.
        Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
        Err(e) => return Err(failed("clear the attribute of", root, e.into())),
    }
    Ok(uuid)
}

/// Moves the identity of an empty pool from its file to its directory; `false`: the file system has no
/// attributes, and the file stays.
pub(super) fn keep_with_directory(root: &Path, uuid: Uuid) -> Result<bool, EngineError> {
    match rustix::fs::setxattr(root, ATTRIBUTE, uuid.to_string().as_bytes(), XattrFlags::empty()) {
        Ok(()) => {}
        Err(Errno::OPNOTSUPP) => return Ok(false),
        Err(e) => return Err(failed("set the attribute of", root, e.into())),
    }
    sync_dir(root)?;
    let path = root.join(FILE);
    fs::remove_file(&path).map_err(|e| failed("remove", &path, e))?;
    Ok(true)
}

/// What the directory remembers.
fn remembered(root: &Path) -> Option<Uuid> {
    let mut text = [0; 64];
    let length = rustix::fs::getxattr(root, ATTRIBUTE, &mut text).ok()?;
    std::str::from_utf8(text.get(..length)?).ok()?.parse().ok()
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
    let random = || -> io::Result<Uuid> {
        let mut id = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut id)?;
        Ok(Uuid(u128::from_le_bytes(id)))
    };
    let write = || -> io::Result<Uuid> {
        let uuid = remembered(root).map_or_else(random, Ok)?;
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
