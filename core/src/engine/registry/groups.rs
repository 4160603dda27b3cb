//! Groups come by their first start; what they are asked goes to their shard.
//!
//! ```text
//!   start ─┬─ adopt:   members of older solo groups come over first (adopt)
//!          ├─ unknown: check members ─ .new-GROUP ─ superblock ─ rename ─ open on a shard
//!          ├─ known:   the same members, or more behind them (join), or refused
//!          └─► shard: start
//! ```

use tokio::sync::OwnedMutexGuard;

use super::{Engine, GroupRecord, blocking, on_shard};
use crate::engine::api::{
    Epoch, Failover, Generation, GroupId, Member, Policy, Refusal, Start, VolumeId,
};
use crate::engine::error::EngineError;
use crate::engine::groups::Paths;
use crate::engine::pool::Kind;
use crate::runtime::ShardEnv;

impl Engine {
    /// Begins or resumes a role in a group.
    pub(crate) async fn start(&self, start: Start) -> Result<(), EngineError> {
        let (record, new) = self.find_or_make(&start).await?;
        let is_new = new.is_some();
        let _busy = match new {
            Some(guard) => guard,
            None => record.busy.clone().lock_owned().await,
        };
        let (group, wanted) = (start.group.clone(), start.clone());
        let started = self.shards.run(record.shard, |env| on_shard::start(env, wanted)).await;
        if started.is_err() && is_new {
            // Nothing half-made stays behind: the replicas are free again.
            let _structure = self.structure.lock().await;
            if let Err(e) = self.remove_group(&group, &record).await {
                tracing::warn!(%group, "the group that failed to start can't be removed: {e}");
            }
        }
        started?;
        tracing::info!(%group, generation = %start.generation, role = ?start.role, "group started");
        Ok(())
    }

    /// Changes the policy of a running group.
    pub(crate) async fn set_policy(
        &self,
        group: GroupId,
        generation: Generation,
        policy: Policy,
    ) -> Result<(), EngineError> {
        let name = group.clone();
        self.ask(&group, move |_| on_shard::set_policy(name, generation, policy)).await
    }

    /// Closes the open epoch and waits until its checkpoint is complete.
    pub(crate) async fn checkpoint(
        &self,
        group: GroupId,
        generation: Generation,
    ) -> Result<Epoch, EngineError> {
        let name = group.clone();
        self.ask(&group, move |_| on_shard::checkpoint(name, generation)).await
    }

    /// Ends replication.
    pub(crate) async fn stop(
        &self,
        group: GroupId,
        generation: Generation,
        abandon_peer: bool,
    ) -> Result<(), EngineError> {
        let name = group.clone();
        self.ask(&group, move |_| on_shard::stop(name, generation, abandon_peer)).await?;
        tracing::info!(%group, %generation, abandon_peer, "group stopped");
        Ok(())
    }

    /// Promotes the secondary.
    pub(crate) async fn failover(&self, failover: Failover) -> Result<Epoch, EngineError> {
        let (group, new) = (failover.group.clone(), failover.new);
        let epoch = self.ask(&group, move |_| on_shard::failover(failover)).await?;
        tracing::info!(%group, generation = %new, %epoch, "group promoted");
        self.follow(&group).await?;
        Ok(epoch)
    }

    /// The first error that no later checkpoint has cleared.
    pub(crate) async fn get_error(
        &self,
        group: GroupId,
        generation: Generation,
    ) -> Result<Option<String>, EngineError> {
        let name = group.clone();
        self.ask(&group, move |_| async move { on_shard::get_error(&name, generation) }).await
    }

    pub(super) async fn ask<T, F, Fut>(&self, group: &GroupId, make: F) -> Result<T, EngineError>
    where
        T: Send + 'static,
        F: FnOnce(ShardEnv) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, EngineError>> + 'static,
    {
        let shard = match self.state().groups.get(group) {
            Some(Ok(record)) => record.shard,
            Some(Err(e)) => return Err(e.clone()),
            None => {
                let text = format!("there is no group {group} on this engine: start it first");
                return Err(EngineError::new(Refusal::NotFound, text));
            }
        };
        self.shards.run(shard, make).await.map_err(|e| e.context(format!("group {group}")))
    }

    /// The group, and if it was made for this start, the right to start it first.
    async fn find_or_make(
        &self,
        start: &Start,
    ) -> Result<(GroupRecord, Option<OwnedMutexGuard<()>>), EngineError> {
        let _structure = self.structure.lock().await;
        let group = &start.group;
        self.check_replicas(group, &start.members)?;
        self.reshape(start).await?;
        if start.adopt {
            self.take_over(start).await?;
        }
        self.check_free(group, &start.members)?;
        let members: Vec<_> = start.members.iter().map(|m| m.volume.clone()).collect();
        let known = self.state().groups.get(group).cloned();
        if let Some(record) = known {
            let record = record?;
            if record.members != members {
                let text = format!(
                    "group {group} has the volumes {}, in this order: name the same, or use another group",
                    list(&record.members)
                );
                return Err(EngineError::new(Refusal::Exists, text));
            }
            return Ok((record, None));
        }
        let record = self.make(group, members).await?;
        let first = record.busy.clone().lock_owned().await;
        Ok((record, Some(first)))
    }

    /// Every member has a replica here that is large enough.
    fn check_replicas(&self, group: &GroupId, members: &[Member]) -> Result<(), EngineError> {
        let state = self.state();
        if !state.groups.contains_key(group) && state.groups.len() >= self.limits.groups {
            let text = format!(
                "this engine has {} groups, its limit: raise limits.groups",
                state.groups.len()
            );
            return Err(EngineError::new(Refusal::Exhausted, text));
        }
        for m in members {
            let Some(record) = state.replicas.get(&m.volume) else {
                let text = format!("volume {} has no replica here: create it first", m.volume);
                return Err(EngineError::new(Refusal::NotFound, text));
            };
            let record = record.as_ref().map_err(Clone::clone)?;
            // A larger one was expanded since whoever asks has looked; the hello compares sides.
            if record.replica.size < m.size {
                let text = format!(
                    "the replica of volume {} has {} bytes here, not {}: expand it first",
                    m.volume, record.replica.size, m.size
                );
                return Err(EngineError::new(Refusal::Exists, text));
            }
        }
        Ok(())
    }

    /// No member is of another group.
    pub(super) fn check_free(
        &self,
        group: &GroupId,
        members: &[Member],
    ) -> Result<(), EngineError> {
        let state = self.state();
        for m in members {
            let of = state.replicas.get(&m.volume).and_then(|r| r.as_ref().ok()?.group.as_ref());
            if let Some(other) = of.filter(|g| *g != group) {
                let text = format!(
                    "volume {} belongs to group {other}: a volume has one group; let it be taken over, or delete that group first",
                    m.volume
                );
                return Err(EngineError::new(Refusal::WrongState, text));
            }
        }
        Ok(())
    }

    async fn make(
        &self,
        group: &GroupId,
        members: Vec<VolumeId>,
    ) -> Result<GroupRecord, EngineError> {
        let shard = self.place();
        let (pool, name) = (self.pool.clone(), group.clone());
        let draft = blocking(move || pool.draft(Kind::Group, &name)).await?;
        let paths = self.paths(draft, &members);
        let (name, uuid) = (group.clone(), self.pool.uuid());
        let made = self.shards.run(shard, move |env| on_shard::make(env, paths, uuid, name)).await;
        let (pool, name) = (self.pool.clone(), group.clone());
        let path = blocking(move || match made {
            Ok(()) => pool.publish(Kind::Group, &name),
            Err(e) => {
                pool.abandon(Kind::Group, &name);
                Err(e.context(format!("group {name} can't be made")))
            }
        })
        .await?;
        let record = self.open_group(group, path, members, shard).await;
        if record.is_err() {
            let (pool, name) = (self.pool.clone(), group.clone());
            blocking(move || pool.remove(Kind::Group, &name)).await?;
        }
        record
    }

    /// Opens a group that lies in the pool, on this shard.
    pub(super) async fn open_group(
        &self,
        group: &GroupId,
        path: std::path::PathBuf,
        members: Vec<VolumeId>,
        shard: super::ShardId,
    ) -> Result<GroupRecord, EngineError> {
        let paths = self.paths(path, &members);
        let (name, changes) = (group.clone(), self.changes.clone());
        self.shards.run(shard, move |env| on_shard::open(env, paths, name, changes)).await?;
        self.claim(group, &members);
        let mut state = self.state();
        // Whoever waits for a group that was closed and opened again waits for this one.
        let busy = state.groups.get(group).and_then(|g| Some(g.as_ref().ok()?.busy.clone()));
        let record = GroupRecord { shard, members, busy: busy.unwrap_or_default() };
        state.groups.insert(group.clone(), Ok(record.clone()));
        drop(state);
        self.changes.send_modify(|n| *n += 1);
        Ok(record)
    }

    /// Where a further group is placed.
    pub(super) fn place(&self) -> super::ShardId {
        let state = self.state();
        let sound = state.groups.values().flatten();
        self.shards.least_loaded(sound.map(|g| (g.shard, g.members.len())))
    }

    fn paths(&self, group: std::path::PathBuf, members: &[VolumeId]) -> Paths {
        Paths { group, replicas: members.iter().map(|v| self.pool.path(Kind::Volume, v)).collect() }
    }
}

fn list(volumes: &[VolumeId]) -> String {
    volumes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
