//! What a group is asked, in replication's words.

use super::find;
use crate::engine::api::{
    Epoch, Failover, Generation, GroupId, Mode, Policy, Refusal, Role, Start, UndoFull, VolumeId,
};
use crate::engine::error::EngineError;
use crate::overlay;
use crate::replication::{FailoverSpec, StartSpec};
use crate::runtime::ShardEnv;

pub(in crate::engine) async fn start(_env: ShardEnv, start: Start) -> Result<(), EngineError> {
    let local = find(&start.group)?;
    let spec = StartSpec {
        generation: start.generation,
        role: match start.role {
            Role::Primary => overlay::Role::Primary,
            Role::Secondary => overlay::Role::Secondary,
        },
        peer: start.peer,
        policy: policy_of(&start.policy),
        inbound: start.inbound,
        adopt: start.adopt,
    };
    Ok(local.group.start(spec).await?)
}

pub(in crate::engine) async fn set_policy(
    group: GroupId,
    generation: Generation,
    wanted: Policy,
) -> Result<(), EngineError> {
    Ok(find(&group)?.group.set_policy(generation, policy_of(&wanted)).await?)
}

pub(in crate::engine) async fn checkpoint(
    group: GroupId,
    generation: Generation,
) -> Result<Epoch, EngineError> {
    Ok(find(&group)?.group.checkpoint(generation).await?)
}

pub(in crate::engine) async fn stop(
    group: GroupId,
    generation: Generation,
    abandon_peer: bool,
) -> Result<(), EngineError> {
    Ok(find(&group)?.group.stop(generation, abandon_peer).await?)
}

pub(in crate::engine) async fn failover(failover: Failover) -> Result<Epoch, EngineError> {
    let Failover { group, replace, new, keep_active } = failover;
    let spec = FailoverSpec { replace, new, keep_active };
    Ok(find(&group)?.group.failover(spec).await?)
}

pub(in crate::engine) fn get_error(
    group: &GroupId,
    generation: Generation,
) -> Result<Option<String>, EngineError> {
    Ok(find(group)?.group.get_error(generation)?)
}

/// What the group remembers.
pub(in crate::engine) fn state(group: &GroupId) -> Result<overlay::GroupState, EngineError> {
    Ok(find(group)?.group.durable())
}

/// Gives out a session of a volume.
pub(in crate::engine) async fn open_session(
    group: GroupId,
    volume: VolumeId,
    generation: Generation,
) -> Result<u64, EngineError> {
    let local = find(&group)?;
    let index = local.index_of(&volume)?;
    let served = local.group.durable().generation;
    if generation.number > served.number {
        let text = format!(
            "volume {volume} is of generation {served} here, not yet of {generation}: try again"
        );
        return Err(EngineError::new(Refusal::Unavailable, text));
    }
    Ok(local.group.issue_session(index, generation).await?)
}

/// Ends a session of a volume.
pub(in crate::engine) fn close_session(
    group: &GroupId,
    volume: &VolumeId,
    session: u64,
) -> Result<(), EngineError> {
    let local = find(group)?;
    let index = local.index_of(volume)?;
    let known = local.group.durable().members.get(index.get()).map(|m| m.sessions);
    local.hall.close_session(index, session, known.unwrap_or_default());
    Ok(())
}

/// The policy with replication's defaults where none was given.
pub(in crate::engine) fn policy_of(wanted: &Policy) -> overlay::Policy {
    let default = overlay::Policy::default();
    overlay::Policy {
        mode: match wanted.mode {
            Mode::Checkpointed => overlay::Mode::Checkpointed,
            Mode::Synchronous => overlay::Mode::Synchronous,
        },
        checkpoint_interval: wanted.checkpoint_interval.unwrap_or_default(),
        undo_limit: wanted.undo_limit.map_or(default.undo_limit, |n| n.0),
        window: wanted.window.map_or(default.window, |n| n.0),
        max_delay: wanted.max_delay.unwrap_or(default.max_delay),
        undo_full: match wanted.undo_full {
            UndoFull::KeepCheckpoint => overlay::UndoFull::KeepCheckpoint,
            UndoFull::DropCheckpoint => overlay::UndoFull::DropCheckpoint,
        },
        active_limit: wanted.active_limit.map_or(default.active_limit, |n| n.0),
        resync_floor: wanted
            .resync_floor
            .map_or(default.resync_floor, |n| n.0)
            .min(wanted.resync_ceiling.map_or(u64::MAX, |n| n.0)),
        resync_ceiling: wanted.resync_ceiling.map_or(0, |n| n.0),
    }
}
