//! Volumes, groups and nodes in memory, with the API server's rules; for tests.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use understudy_core::engine::api::VolumeId;
use understudy_crds::{ReplicatedVolume, ReplicationGroup};

use super::{Node, StoreError, Volumes};
use crate::volume::{Group, Volume};

#[derive(Debug, Default)]
struct State {
    version: u64,
    volumes: BTreeMap<VolumeId, ReplicatedVolume>,
    groups: BTreeMap<String, ReplicationGroup>,
    nodes: BTreeMap<String, Node>,
    writes_left: Option<usize>,
}

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryVolumes {
    state: Mutex<State>,
}

impl MemoryVolumes {
    /// With these nodes.
    pub fn new(nodes: impl IntoIterator<Item = Node>) -> Self {
        let nodes = nodes.into_iter().map(|node| (node.name.clone(), node)).collect();
        Self { state: Mutex::new(State { nodes, ..State::default() }) }
    }

    /// From now on, only so many writes succeed: as if its user were killed between two of them.
    pub fn fail_after(&self, writes: Option<usize>) {
        self.lock().writes_left = writes;
    }

    /// Changes a volume behind its users' backs.
    pub fn edit(&self, volume: &VolumeId, change: impl FnOnce(&mut ReplicatedVolume)) {
        let mut state = self.lock();
        let version = state.next();
        if let Some(object) = state.volumes.get_mut(volume) {
            change(object);
            object.metadata.resource_version = Some(version);
        }
    }

    /// Puts a group there, as the operator does.
    pub fn put_group(&self, mut object: ReplicationGroup) {
        let mut state = self.lock();
        object.metadata.resource_version = Some(state.next());
        let name = object.metadata.name.clone().unwrap_or_default();
        state.groups.insert(name, object);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    fn may_write(&mut self, action: &'static str, object: &str) -> Result<(), StoreError> {
        match &mut self.writes_left {
            Some(0) => {
                let (object, problem) = (object.to_owned(), "connection refused".to_owned());
                Err(StoreError::Unavailable { action, object, problem })
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn conflict(object: impl std::fmt::Display) -> StoreError {
    StoreError::Conflict { object: object.to_string() }
}

impl Volumes for MemoryVolumes {
    async fn get(&self, volume: &VolumeId) -> Result<Option<Volume>, StoreError> {
        let object = self.lock().volumes.get(volume).cloned();
        Ok(object.map(Volume::parse).transpose()?)
    }

    async fn list(&self) -> Result<Vec<Volume>, StoreError> {
        let objects: Vec<_> = self.lock().volumes.values().cloned().collect();
        Ok(objects.into_iter().map(Volume::parse).collect::<Result<_, _>>()?)
    }

    async fn create(&self, volume: &Volume) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.may_write("create", volume.handle.as_str())?;
        if state.volumes.contains_key(&volume.handle) {
            return Err(conflict(&volume.handle));
        }
        let mut object = volume.object().clone();
        object.metadata.resource_version = Some(state.next());
        state.volumes.insert(volume.handle.clone(), object);
        Ok(())
    }

    async fn update(&self, volume: &Volume) -> Result<Volume, StoreError> {
        let mut state = self.lock();
        state.may_write("update", volume.handle.as_str())?;
        let version = &volume.object().metadata.resource_version;
        let found = state.volumes.get(&volume.handle);
        if found.is_none_or(|object| object.metadata.resource_version != *version) {
            return Err(conflict(&volume.handle));
        }
        let mut object = volume.object().clone();
        object.metadata.resource_version = Some(state.next());
        state.volumes.insert(volume.handle.clone(), object.clone());
        Ok(Volume::parse(object)?)
    }

    async fn delete(&self, volume: &Volume) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.may_write("delete", volume.handle.as_str())?;
        let version = &volume.object().metadata.resource_version;
        match state.volumes.get(&volume.handle) {
            None => Ok(()),
            Some(object) if object.metadata.resource_version == *version => {
                state.volumes.remove(&volume.handle);
                Ok(())
            }
            Some(_) => Err(conflict(&volume.handle)),
        }
    }

    async fn group(&self, name: &str) -> Result<Option<Group>, StoreError> {
        let object = self.lock().groups.get(name).cloned();
        Ok(object.map(Group::parse).transpose()?)
    }

    async fn update_group(&self, group: &Group) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.may_write("update", &group.name)?;
        let version = &group.object().metadata.resource_version;
        let found = state.groups.get(&group.name);
        if found.is_none_or(|object| object.metadata.resource_version != *version) {
            return Err(conflict(&group.name));
        }
        let mut object = group.object().clone();
        object.metadata.resource_version = Some(state.next());
        state.groups.insert(group.name.clone(), object);
        Ok(())
    }

    async fn node(&self, name: &str) -> Result<Option<Node>, StoreError> {
        Ok(self.lock().nodes.get(name).cloned())
    }

    async fn nodes(&self) -> Result<Vec<Node>, StoreError> {
        Ok(self.lock().nodes.values().cloned().collect())
    }
}
