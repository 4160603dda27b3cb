//! What a group is asked, in replication's words.

use super::find;
use crate::engine::api::{Epoch, Failover, Generation, GroupId, Mode, Policy, Role, Stage, Start};
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
        policy: policy(&start.policy),
        inbound: start.inbound,
    };
    Ok(local.group.start(spec).await?)
}

pub(in crate::engine) async fn set_policy(
    group: GroupId,
    generation: Generation,
    wanted: Policy,
) -> Result<(), EngineError> {
    Ok(find(&group)?.group.set_policy(generation, policy(&wanted)).await?)
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

/// Where the group is in the seed's states.
pub(in crate::engine) fn stage(group: &GroupId) -> Result<Stage, EngineError> {
    Ok(super::status::stage_of(&find(group)?.group.status()))
}

/// The policy with replication's defaults where none was given.
fn policy(wanted: &Policy) -> overlay::Policy {
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
    }
}
