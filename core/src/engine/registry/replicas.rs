//! Replicas come and go.
//!
//! ```text
//!   create:  .new-VOLUME ── disk, label ── rename ──► VOLUME          there as a whole, or not
//!   delete:  out of its group first ─────────────────┬─ VOLUME ── rename ──► .gone-VOLUME
//!              stopped: the group goes                 │
//!              solo primary, no client: it leaves the group, which goes with its last one
//! ```

use super::{Engine, ReplicaRecord, blocking, on_shard};
use crate::engine::api::{GroupId, Member, Refusal, Replica, VolumeId};
use crate::engine::error::EngineError;
use crate::engine::pool::Kind;
use crate::overlay::Stage;
use crate::replication::reshape::check_solo;

impl Engine {
    /// Makes a replica of zeroes; fine if there is one of that size.
    pub(crate) async fn create_replica(&self, wanted: Member) -> Result<Replica, EngineError> {
        let _structure = self.structure.lock().await;
        let Member { volume, size } = wanted;
        match self.state().replicas.get(&volume) {
            Some(Ok(r)) if r.replica.size == size => return Ok(r.replica),
            Some(Ok(r)) => {
                let text = format!(
                    "volume {volume} has a replica of {} bytes here, not of {size}: delete that one first, or ask for its size",
                    r.replica.size
                );
                return Err(EngineError::new(Refusal::Exists, text));
            }
            Some(Err(e)) => return Err(e.clone()),
            None => {}
        }
        let (pool, name) = (self.pool.clone(), volume.clone());
        let draft = blocking(move || pool.draft(Kind::Volume, &name)).await?;
        let (shard, name) = (self.shards.round_robin(0), volume.clone());
        let made =
            self.shards.run(shard, move |env| on_shard::make_replica(env, draft, name, size)).await;
        let (pool, name) = (self.pool.clone(), volume.clone());
        let replica = blocking(move || match made {
            Ok(replica) => pool.publish(Kind::Volume, &name).map(|_| replica),
            Err(e) => {
                pool.abandon(Kind::Volume, &name);
                Err(e.context(format!("the replica of volume {name} can't be made")))
            }
        })
        .await?;
        self.state().replicas.insert(volume.clone(), Ok(ReplicaRecord { replica, group: None }));
        self.changes.send_modify(|n| *n += 1);
        tracing::info!(%volume, uuid = %replica.uuid, bytes = size.0, "replica made");
        Ok(replica)
    }

    /// Deletes a replica and its content; fine if there is none. It leaves its group first, if that
    /// is solo and nobody has the volume open; a stopped group goes with it.
    pub(crate) async fn delete_replica(&self, volume: VolumeId) -> Result<(), EngineError> {
        let _structure = self.structure.lock().await;
        let group = match self.state().replicas.get(&volume) {
            None => return Ok(()),
            Some(Ok(r)) => r.group.clone(),
            Some(Err(_)) => None,
        };
        self.check_groups_are_known(&volume)?;
        if let Some(group) = group {
            self.leave_group(&group, &volume).await?;
        }
        self.step()?;
        let (pool, name) = (self.pool.clone(), volume.clone());
        blocking(move || pool.remove(Kind::Volume, &name)).await?;
        self.state().replicas.remove(&volume);
        self.changes.send_modify(|n| *n += 1);
        tracing::info!(%volume, "replica deleted");
        Ok(())
    }

    /// A group that can't be read may be anybody's: then no replica is known to be free.
    fn check_groups_are_known(&self, volume: &VolumeId) -> Result<(), EngineError> {
        let state = self.state();
        let Some((group, Err(e))) = state.groups.iter().find(|(_, g)| g.is_err()) else {
            return Ok(());
        };
        let text = format!(
            "whether volume {volume} is in use is not known, for group {group} can't be read ({e}): mend it, or move {} away, and restart the engine",
            self.pool.path(Kind::Group, group).display()
        );
        Err(EngineError::new(Refusal::WrongState, text))
    }

    /// Takes a volume out of its group, for good.
    async fn leave_group(&self, group: &GroupId, volume: &VolumeId) -> Result<(), EngineError> {
        let Some(Ok(record)) = self.state().groups.get(group).cloned() else { return Ok(()) };
        let state = self.live_state(group).await?;
        if state.stage == Stage::None {
            let Ok(_busy) = record.busy.try_lock() else {
                let text = format!(
                    "group {group} of volume {volume} is just being started: stop it first"
                );
                return Err(EngineError::new(Refusal::WrongState, text));
            };
            return self.remove_group(group, &record).await;
        }
        let in_use = |why: String| {
            EngineError::new(
                Refusal::WrongState,
                format!("volume {volume} can't be deleted: {why}"),
            )
        };
        check_solo(&state).map_err(in_use)?;
        let paused = self.pause(vec![group.clone()], Some(volume)).await?;
        let left = self.leave_behind(group, vec![volume.clone()]).await;
        let settled = self.settle(paused.names().to_vec()).await;
        left.map(drop).and(settled)
    }

    /// Ends a group that nobody uses, and removes all that it remembers.
    pub(super) async fn remove_group(
        &self,
        group: &GroupId,
        record: &super::GroupRecord,
    ) -> Result<(), EngineError> {
        let name = group.clone();
        self.shards.run(record.shard, |_| on_shard::close(name)).await?;
        let (pool, name) = (self.pool.clone(), group.clone());
        blocking(move || pool.remove(Kind::Group, &name)).await?;
        let mut state = self.state();
        state.groups.remove(group);
        for r in state.replicas.values_mut().flatten() {
            r.group.take_if(|g| g == group);
        }
        Ok(())
    }
}
