//! The store in memory. A write of a group object or a volume, the deletion of a pod, and letting
//! go of a status are effects: the operator may be killed by them.

use understudy_core::engine::api::{GroupId, VolumeId};
use understudy_crds::{BlockReplicationStatus, ReplicatedVolumeSpec, ReplicationGroupSpec};

use super::World;
use crate::desired::ObjectName;
use crate::store::{Group, Pod, Store, StoreError, Volume, Volumes};

impl World {
    /// Has an effect, unless the operator is dead before it; returns unless it dies of it.
    async fn write<T>(
        &self,
        change: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if !self.effect() {
            std::future::pending::<()>().await;
        }
        let answer = change();
        if self.dead() {
            std::future::pending::<()>().await;
        }
        answer
    }
}

fn conflict(object: &impl ToString) -> StoreError {
    StoreError::Conflict { object: object.to_string() }
}

fn next(version: &str) -> String {
    (version.parse::<u64>().unwrap_or(0) + 1).to_string()
}

impl Store for World {
    async fn group(&self, name: &GroupId) -> Result<Option<Group>, StoreError> {
        Ok(self.groups.lock().unwrap().get(name).cloned())
    }

    async fn groups(&self) -> Result<Vec<Group>, StoreError> {
        Ok(self.groups.lock().unwrap().values().cloned().collect())
    }

    async fn put_group(
        &self,
        name: &GroupId,
        expected: Option<&str>,
        spec: &ReplicationGroupSpec,
    ) -> Result<(), StoreError> {
        self.write(|| {
            let mut groups = self.groups.lock().unwrap();
            if groups.get(name).map(|g| g.version.as_str()) != expected {
                return Err(conflict(&name));
            }
            let version = next(expected.unwrap_or("0"));
            groups.insert(name.clone(), Group::parse(name.clone(), version, spec.clone())?);
            Ok(())
        })
        .await
    }

    async fn delete_group(&self, name: &GroupId, expected: &str) -> Result<(), StoreError> {
        self.write(|| {
            let mut groups = self.groups.lock().unwrap();
            if groups.get(name).is_some_and(|g| g.version != expected) {
                return Err(conflict(&name));
            }
            groups.remove(name);
            Ok(())
        })
        .await
    }

    async fn volumes(&self, names: &[VolumeId]) -> Result<Option<Volumes>, StoreError> {
        let all = self.volumes.lock().unwrap();
        let named = |all: &Volumes| {
            let one = |name: &VolumeId| Some((name.clone(), all.get(name)?.clone()));
            names.iter().filter_map(one).collect()
        };
        Ok(all.as_ref().map(named))
    }

    async fn put_volume(
        &self,
        name: &VolumeId,
        expected: &str,
        spec: &ReplicatedVolumeSpec,
    ) -> Result<(), StoreError> {
        self.write(|| {
            let mut all = self.volumes.lock().unwrap();
            let volume = all.as_mut().and_then(|all| all.get_mut(name));
            match volume.filter(|v| v.version == expected) {
                None => Err(conflict(&name)),
                Some(volume) => {
                    *volume = Volume::parse(name, next(expected), spec.clone())?;
                    Ok(())
                }
            }
        })
        .await
    }

    async fn status(
        &self,
        name: &ObjectName,
    ) -> Result<Option<BlockReplicationStatus>, StoreError> {
        Ok(self.statuses.lock().unwrap().get(name).cloned())
    }

    async fn put_status(
        &self,
        name: &ObjectName,
        status: &BlockReplicationStatus,
    ) -> Result<(), StoreError> {
        if !self.dead() {
            self.statuses.lock().unwrap().insert(name.clone(), status.clone());
        }
        Ok(())
    }

    async fn forget_status(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.write(|| {
            self.statuses.lock().unwrap().remove(name);
            Ok(())
        })
        .await
    }

    async fn pods(&self, volumes: &[VolumeId]) -> Result<Vec<Pod>, StoreError> {
        let names: Vec<_> = volumes.iter().map(VolumeId::as_str).collect();
        *self.asked_pods_of.lock().unwrap() = names.join(" ");
        Ok(self.pods.lock().unwrap().clone())
    }

    async fn delete_pod(&self, pod: &Pod, force: bool) -> Result<(), StoreError> {
        self.write(|| {
            let mut pods = self.pods.lock().unwrap();
            let Some(found) = pods.iter_mut().find(|p| p.uid == pod.uid) else { return Ok(()) };
            let up = found.node.as_ref().is_some_and(|n| self.machines()[n].up);
            let mark = if force { "!" } else { "" };
            self.deleted.lock().unwrap().push(format!("{}{mark}", pod.name));
            if force || up {
                pods.retain(|p| p.uid != pod.uid);
            } else {
                found.deleting = Some(30);
            }
            Ok(())
        })
        .await
    }
}
