//! Groups that are closed, changed on disk, and opened again, as if the engine had been restarted.
//!
//! ```text
//!   pause ─► connections cut, requests ended, files closed ─► what the caller changes on disk
//!         ─► settle: who has which volume ─► opened on the same shard, as after a restart
//! ```
//!
//! Meanwhile calls and connections are told to try again. Clients connect again; within the
//! generation nothing is lost.

use tokio::sync::OwnedMutexGuard;

use super::{Engine, on_shard};
use crate::engine::api::{GroupId, Refusal, VolumeId};
use crate::engine::error::EngineError;
use crate::engine::pool::Kind;
use crate::overlay::GroupState;

/// Groups whose files nobody has open. The caller settles them in every case.
#[derive(Default)]
pub(super) struct Paused {
    names: Vec<GroupId>,
    /// Nobody starts them meanwhile.
    busy: Vec<OwnedMutexGuard<()>>,
}

impl Paused {
    pub(super) fn names(&self) -> &[GroupId] {
        &self.names
    }
}

impl Engine {
    /// Closes groups, with `unused` only if nobody has that volume open. On an error all go on.
    pub(super) async fn pause(
        &self,
        groups: Vec<GroupId>,
        unused: Option<&VolumeId>,
    ) -> Result<Paused, EngineError> {
        let mut paused = Paused::default();
        for name in groups {
            if let Err(e) = self.pause_one(&mut paused, name, unused).await {
                self.settle(paused.names.clone()).await?;
                return Err(e);
            }
        }
        Ok(paused)
    }

    async fn pause_one(
        &self,
        paused: &mut Paused,
        name: GroupId,
        unused: Option<&VolumeId>,
    ) -> Result<(), EngineError> {
        let record = match self.state().groups.get(&name) {
            Some(Ok(record)) => record.clone(),
            Some(Err(e)) => return Err(e.clone()),
            None => return Ok(()),
        };
        let Ok(busy) = record.busy.clone().try_lock_owned() else {
            let text = format!("group {name} is just being started: try again");
            return Err(EngineError::new(Refusal::Unavailable, text));
        };
        let (group, unused) = (name.clone(), unused.cloned());
        self.shards.run(record.shard, |_| on_shard::pause(group, unused)).await?;
        paused.names.push(name);
        paused.busy.push(busy);
        Ok(())
    }

    /// What a group that is open remembers.
    pub(super) async fn live_state(&self, group: &GroupId) -> Result<GroupState, EngineError> {
        let name = group.clone();
        self.ask(group, move |_| async move { on_shard::state(&name) }).await
    }

    /// What a group that is closed remembers.
    pub(super) async fn stored_state(&self, group: &GroupId) -> Result<GroupState, EngineError> {
        let path = self.pool.path(Kind::Group, group);
        let shard = self.shards.round_robin(0);
        self.shards.run(shard, |env| on_shard::read_group(env, path)).await
    }

    /// A point between two durable steps; tests end the engine here.
    #[cfg_attr(
        not(test),
        allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "see above")
    )]
    pub(super) fn step(&self) -> Result<(), EngineError> {
        #[cfg(test)]
        self.crash.step()?;
        Ok(())
    }
}
