//! What an engine finds in its pool when it starts.
//!
//! ```text
//!   volumes/*  ── label ──► replicas        damaged: listed with its error, and refused
//!   groups/*   ── superblock ──► members ──► open on a shard: role, stage, epoch as they were
//! ```

use super::{Engine, ReplicaRecord, blocking, on_shard};
use crate::engine::api::{GroupId, Refusal, VolumeId};
use crate::engine::error::EngineError;
use crate::engine::pool::Kind;

impl Engine {
    /// Fills the state from the pool.
    pub(super) async fn find_again(&self) -> Result<(), EngineError> {
        let pool = self.pool.clone();
        let (volumes, groups) =
            blocking(move || Ok((pool.list(Kind::Volume)?, pool.list(Kind::Group)?))).await?;
        for volume in volumes {
            self.find_replica(volume).await;
        }
        for group in groups {
            if let Err(e) = self.find_group(&group).await {
                let e = e.context(format!("group {group} can't be opened"));
                tracing::error!(%group, "{e}");
                self.state().groups.insert(group, Err(e));
            }
        }
        Ok(())
    }

    async fn find_replica(&self, volume: VolumeId) {
        let path = self.pool.path(Kind::Volume, &volume);
        let (shard, name) = (self.shards.round_robin(0), volume.clone());
        let found = self.shards.run(shard, |env| on_shard::read_replica(env, path, name)).await;
        let record = found.map(|replica| ReplicaRecord { replica, group: None }).map_err(|e| {
            let e = e.context(format!("the replica of volume {volume} can't be opened"));
            tracing::error!(%volume, "{e}");
            e
        });
        self.state().replicas.insert(volume, record);
    }

    async fn find_group(&self, group: &GroupId) -> Result<(), EngineError> {
        let (path, shard) = (self.pool.path(Kind::Group, group), self.place());
        let file = path.clone();
        let summary = self.shards.run(shard, |env| on_shard::read_group(env, file)).await?;
        if summary.group != *group {
            let text =
                format!("its superblock is that of group {}: move the folder back", summary.group);
            return Err(EngineError::new(Refusal::DataLoss, text));
        }
        if summary.pool != self.pool.uuid() {
            let text = format!(
                "it belongs to the pool {}, this one is {}: a copied pool must not serve",
                summary.pool,
                self.pool.uuid()
            );
            return Err(EngineError::new(Refusal::DataLoss, text));
        }
        if summary.never_started {
            // Its first start was not even refused: the engine was killed in between.
            let (pool, name) = (self.pool.clone(), group.clone());
            return blocking(move || pool.remove(Kind::Group, &name)).await;
        }
        let mut members = Vec::with_capacity(summary.members.len());
        for (volume, replica) in summary.members {
            match self.state().replicas.get(&volume) {
                Some(Ok(r)) if r.replica == replica => {}
                Some(Ok(_)) => {
                    let text =
                        format!("the replica of volume {volume} is another than it was made of");
                    return Err(EngineError::new(Refusal::DataLoss, text));
                }
                Some(Err(e)) => return Err(e.clone()),
                None => {
                    let text = format!("the replica of its volume {volume} is missing in the pool");
                    return Err(EngineError::new(Refusal::DataLoss, text));
                }
            }
            members.push(volume);
        }
        self.open_group(group, path, members, shard).await.map(drop)
    }
}
