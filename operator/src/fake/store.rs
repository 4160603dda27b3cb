//! The store in memory. A write of the group object, and forgetting a status, are effects: the
//! operator may be killed by them.

use understudy_core::engine::api::GroupId;
use understudy_crds::{BlockReplicationStatus, ReplicationGroupSpec};

use super::World;
use crate::desired::ObjectName;
use crate::store::{Group, Store, StoreError};

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
        expected: Option<u64>,
        spec: &ReplicationGroupSpec,
    ) -> Result<(), StoreError> {
        if !self.effect() {
            std::future::pending::<()>().await;
        }
        {
            let mut groups = self.groups.lock().unwrap();
            if groups.get(name).map(|g| g.version) != expected {
                return Err(StoreError::Conflict { group: name.to_string() });
            }
            let version = expected.unwrap_or(0) + 1;
            groups.insert(name.clone(), Group::parse(name.clone(), version, spec.clone())?);
        }
        if self.dead() {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    async fn status(&self, name: &ObjectName) -> Result<BlockReplicationStatus, StoreError> {
        Ok(self.statuses.lock().unwrap().get(name).cloned().unwrap_or_default())
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
        if !self.effect() {
            std::future::pending::<()>().await;
        }
        self.statuses.lock().unwrap().remove(name);
        Ok(())
    }
}
