//! Replicas that grow, under whatever uses them.
//!
//! ```text
//!   pause its group ─► the new label: this decides ─► settle
//!                                                       └─ opening grows the disk, the active files,
//!                                                          the intent log, and the superblock's size
//! ```
//!
//! A crash before the new label leaves what was; after it, the next opening does the rest. Both
//! sides of a group may be of different size meanwhile, if the secondary is the larger one.

use super::{Engine, on_shard};
use crate::engine::api::{ByteLen, GroupId, Refusal, VolumeId};
use crate::engine::error::EngineError;
use crate::engine::pool::Kind;
use crate::overlay::{GroupState, Stage};

impl Engine {
    /// Grows a replica; says its size. Fine if it has that size.
    pub(crate) async fn expand_replica(
        &self,
        volume: VolumeId,
        size: ByteLen,
    ) -> Result<ByteLen, EngineError> {
        let _structure = self.structure.lock().await;
        let record = match self.state().replicas.get(&volume) {
            Some(Ok(record)) => record.clone(),
            Some(Err(e)) => return Err(e.clone()),
            None => {
                let text = format!("volume {volume} has no replica here: create it first");
                return Err(EngineError::new(Refusal::NotFound, text));
            }
        };
        let now = record.replica.size;
        if now == size {
            return Ok(now);
        }
        if now > size {
            let text =
                format!("volume {volume} has {now} bytes: it can't shrink to {size}, ask for more");
            return Err(EngineError::new(Refusal::WrongState, text));
        }
        let groups: Vec<GroupId> = record.group.into_iter().collect();
        for group in &groups {
            check(&volume, &self.live_state(group).await?)?;
        }
        let paused = self.pause(groups, None).await?;
        let done = self.expand_paused(&volume, size, paused.names()).await;
        self.find_replica(volume.clone()).await;
        let settled = self.settle(paused.names().to_vec()).await;
        done.and(settled)?;
        tracing::info!(%volume, bytes = size.0, before = now.0, "replica expanded");
        Ok(size)
    }

    async fn expand_paused(
        &self,
        volume: &VolumeId,
        size: ByteLen,
        paused: &[GroupId],
    ) -> Result<(), EngineError> {
        for group in paused {
            check(volume, &self.stored_state(group).await?)?;
        }
        self.step()?;
        let path = self.pool.path(Kind::Volume, volume);
        let shard = self.shards.round_robin(0);
        let done =
            self.shards.run(shard, move |env| on_shard::expand_replica(env, path, size)).await;
        done.map_err(|e| e.context(format!("volume {volume} can't be expanded")))?;
        self.step()
    }
}

/// Whether a group can be opened again with a larger volume.
fn check(volume: &VolumeId, s: &GroupState) -> Result<(), EngineError> {
    let why = match s.stage {
        Stage::Failover => {
            "still merges the roll-back of its promotion: try again when its stage is Done"
        }
        Stage::FailoverFailed => {
            "could not merge the roll-back of its promotion: ask for the failover again first"
        }
        Stage::Running if s.inbound => {
            "takes writes from an NBD client, which would end with an error: stop it first"
        }
        Stage::None | Stage::Running | Stage::Done => return Ok(()),
    };
    let text = format!("volume {volume} can't be expanded now: group {} {why}", s.group);
    Err(EngineError::new(Refusal::WrongState, text))
}
