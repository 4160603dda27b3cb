//! The store of a standalone operator: `DIR/status`, one YAML file an object.
//!
//! ```text
//!   status/.lock                                    held by the one operator of the directory
//!   status/replicationgroup-NAMESPACE.NAME.yaml     the group object; metadata.resourceVersion counts
//!   status/blockreplication-NAMESPACE.NAME.yaml     the object as it was read, with its status
//!   status/problems.yaml                            what in the directory can't be used; gone if nothing
//! ```
//!
//! A file is replaced whole by a rename, after its content is on the disk: a reader sees the old or
//! the new one, and a group object that was written is still there after a power cut.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use understudy_core::engine::api::{GroupId, VolumeId};
use understudy_crds::{
    API_VERSION, BlockReplicationStatus, ReplicatedVolumeSpec, ReplicationGroup,
    ReplicationGroupSpec,
};

use super::files::Problem;
use crate::desired::ObjectName;
use crate::store::{Group, Pod, Store, StoreError, Volumes};

const GROUP_PREFIX: &str = "replicationgroup-";
const PROBLEMS: &str = "problems.yaml";

/// How often, and how far apart, the lock is tried: two seconds in all.
const LOCK_TRIES: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// The status folder of a directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Held as long as this lives: two operators would overwrite each other's group objects.
    _lock: fs::File,
    /// The specs as they were read, shown beside the status, and their generations.
    specs: Mutex<BTreeMap<ObjectName, (i64, Value)>>,
}

impl Directory {
    /// Opens `DIR/status`, makes it if need be, and keeps every other operator out of it.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("status");
        fs::create_dir_all(&path).map_err(|e| failed("creating", &path, e))?;
        let lock_path = path.join(".lock");
        let lock = fs::File::create(&lock_path).map_err(|e| failed("creating", &lock_path, e))?;
        // The lock of an operator that was killed goes with its process, a moment later.
        let mut tries = LOCK_TRIES;
        while let Err(error) = lock.try_lock() {
            tries -= 1;
            match error {
                fs::TryLockError::WouldBlock if tries > 0 => std::thread::sleep(LOCK_PAUSE),
                fs::TryLockError::WouldBlock => {
                    let busy = "another operator works on this directory: stop it first";
                    return Err(failed("locking", &lock_path, std::io::Error::other(busy)));
                }
                fs::TryLockError::Error(error) => return Err(failed("locking", &lock_path, error)),
            }
        }
        Ok(Self { path, _lock: lock, specs: Mutex::default() })
    }

    /// Notes the spec that the object has now; its generation, one more with each change.
    pub fn note_spec(&self, name: &ObjectName, spec: Value) -> Result<i64, StoreError> {
        let file = self.read(&status_file(name))?;
        let mut specs = self.specs.lock().unwrap_or_else(PoisonError::into_inner);
        let before = specs.get(name).cloned().or_else(|| {
            let file = file?;
            let generation = file.pointer("/metadata/generation")?.as_i64()?;
            Some((generation, file.get("spec")?.clone()))
        });
        let generation = match before {
            Some((generation, known)) if known == spec => generation,
            Some((generation, _)) => generation.saturating_add(1),
            None => 1,
        };
        specs.insert(name.clone(), (generation, spec));
        Ok(generation)
    }

    /// Every object that has a status.
    pub fn with_status(&self) -> Result<Vec<GroupId>, StoreError> {
        self.names("blockreplication-")
    }

    /// Says what in the directory can't be used, or takes that back.
    pub fn put_problems(&self, problems: &[Problem]) -> Result<(), StoreError> {
        if problems.is_empty() {
            return self.remove(PROBLEMS);
        }
        let list: Vec<_> =
            problems.iter().map(|p| json!({ "file": p.file, "message": p.message })).collect();
        self.write(PROBLEMS, &json!({ "problems": list }))
    }

    fn names(&self, prefix: &str) -> Result<Vec<GroupId>, StoreError> {
        let entries = fs::read_dir(&self.path).map_err(|e| failed("reading", &self.path, e))?;
        let mut names = Vec::new();
        for entry in entries {
            let file = entry.map_err(|e| failed("reading", &self.path, e))?.file_name();
            let name = file.to_string_lossy();
            let name = name.strip_prefix(prefix).and_then(|n| n.strip_suffix(".yaml"));
            names.extend(name.and_then(|n| n.parse::<GroupId>().ok()));
        }
        names.sort();
        Ok(names)
    }

    fn read(&self, file: &str) -> Result<Option<Value>, StoreError> {
        let path = self.path.join(file);
        match fs::read_to_string(&path) {
            Ok(text) => serde_yaml::from_str(&text).map(Some).map_err(|e| StoreError::Unreadable {
                object: path.display().to_string(),
                problem: e.to_string(),
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed("reading", &path, e)),
        }
    }

    fn write(&self, file: &str, object: &Value) -> Result<(), StoreError> {
        let path = self.path.join(file);
        let text = serde_yaml::to_string(object).map_err(|e| StoreError::Unreadable {
            object: path.display().to_string(),
            problem: e.to_string(),
        })?;
        let temporary = self.path.join(format!(".{file}.new"));
        let replace = || {
            let mut new = fs::File::create(&temporary)?;
            new.write_all(text.as_bytes())?;
            new.sync_all()?;
            fs::rename(&temporary, &path)?;
            fs::File::open(&self.path)?.sync_all()
        };
        replace().map_err(|e| failed("writing", &path, e))
    }

    fn remove(&self, file: &str) -> Result<(), StoreError> {
        let path = self.path.join(file);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed("removing", &path, e)),
            _ => Ok(()),
        }
    }

    fn load(&self, name: &GroupId) -> Result<Option<Group>, StoreError> {
        let Some(value) = self.read(&group_file(name))? else { return Ok(None) };
        let unreadable = |problem: String| StoreError::Unreadable {
            object: self.path.join(group_file(name)).display().to_string(),
            problem,
        };
        let object = understudy_crds::strict::read::<ReplicationGroup>(&value)
            .map_err(|problems| unreadable(problems.join("; ")))?;
        let version = object.metadata.resource_version.unwrap_or_default();
        version.parse::<u64>().map_err(|_| {
            unreadable(format!("metadata.resourceVersion '{version}' is no number"))
        })?;
        Group::parse(name.clone(), version, object.spec).map(Some)
    }
}

impl Store for Directory {
    async fn group(&self, name: &GroupId) -> Result<Option<Group>, StoreError> {
        self.load(name)
    }

    async fn groups(&self) -> Result<Vec<Group>, StoreError> {
        let names = self.names(GROUP_PREFIX)?;
        names.iter().filter_map(|name| self.load(name).transpose()).collect()
    }

    async fn put_group(
        &self,
        name: &GroupId,
        expected: Option<&str>,
        spec: &ReplicationGroupSpec,
    ) -> Result<(), StoreError> {
        // Nobody else writes between the look and the rename: the directory is locked, and one
        // task alone works on a group.
        let before = self.load(name)?.map(|g| g.version);
        if before.as_deref() != expected {
            return Err(StoreError::Conflict { object: format!("the group object {name}") });
        }
        let before = before.and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
        let version = before.saturating_add(1).to_string();
        let object = json!({
            "apiVersion": API_VERSION,
            "kind": "ReplicationGroup",
            "metadata": { "name": name.as_str(), "resourceVersion": version },
            "spec": spec,
        });
        self.write(&group_file(name), &object)
    }

    async fn delete_group(&self, name: &GroupId, expected: &str) -> Result<(), StoreError> {
        if self.load(name)?.is_some_and(|g| g.version != expected) {
            return Err(StoreError::Conflict { object: format!("the group object {name}") });
        }
        self.remove(&group_file(name))
    }

    // Manifests of volumes are their author's: the group object alone says where replicas are.
    async fn volumes(&self, _: &[VolumeId]) -> Result<Option<Volumes>, StoreError> {
        Ok(None)
    }

    async fn put_volume(
        &self,
        name: &VolumeId,
        _: &str,
        _: &ReplicatedVolumeSpec,
    ) -> Result<(), StoreError> {
        let source = "a directory keeps no volumes".into();
        Err(StoreError::Failed { action: "writing", path: name.to_string(), source })
    }

    async fn pods(&self, _: &[VolumeId]) -> Result<Vec<Pod>, StoreError> {
        Ok(Vec::new())
    }

    async fn delete_pod(&self, _: &Pod, _: bool) -> Result<(), StoreError> {
        Ok(())
    }

    async fn status(
        &self,
        name: &ObjectName,
    ) -> Result<Option<BlockReplicationStatus>, StoreError> {
        let file = status_file(name);
        let value = match self.read(&file) {
            // Unlike a group object it can be told anew.
            Err(StoreError::Unreadable { .. }) => Some(Value::Null),
            other => other?,
        };
        let status = |v: Value| serde_json::from_value(v.get("status")?.clone()).ok();
        Ok(value.map(|v| status(v).unwrap_or_default()))
    }

    async fn put_status(
        &self,
        name: &ObjectName,
        status: &BlockReplicationStatus,
    ) -> Result<(), StoreError> {
        let (generation, spec) = {
            let specs = self.specs.lock().unwrap_or_else(PoisonError::into_inner);
            specs.get(name).cloned().unwrap_or((0, Value::Null))
        };
        let object = json!({
            "apiVersion": API_VERSION,
            "kind": "BlockReplication",
            "metadata": { "name": name.name, "namespace": name.namespace, "generation": generation },
            "spec": spec,
            "status": status,
        });
        self.write(&status_file(name), &object)
    }

    async fn forget_status(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.specs.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.remove(&status_file(name))
    }
}

fn group_file(name: &GroupId) -> String {
    format!("{GROUP_PREFIX}{name}.yaml")
}

fn status_file(name: &ObjectName) -> String {
    format!("blockreplication-{}.{}.yaml", name.namespace, name.name)
}

fn failed(action: &'static str, path: &Path, source: std::io::Error) -> StoreError {
    StoreError::Failed { action, path: path.display().to_string(), source: source.into() }
}
