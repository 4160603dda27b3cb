//! Volumes that join a running group, and those that its failover left behind.
//!
//! ```text
//!   start names today's volumes and more behind them, same role and generation
//!      pause the group, and the solo groups that the new ones come from
//!        ─► one write: they are members, and joining        ─► settle: the solo groups lose them
//!   start as secondary of a newer generation, without what was joining while this was the primary
//!      pause the group ─► one write: without it             ─► settle: it is in no group, untouched
//!   failover of a secondary, with volumes that no checkpoint covers
//!      the promotion is the one write without them          ─► here they are in no group
//! ```
//!
//! A crash before the one write leaves what was; after it, the next start of the engine settles. What
//! a replaced primary had of a joining volume is its only good copy: nobody overwrites it.

use std::collections::BTreeMap;

use super::adopt::entering;
use super::{Engine, on_shard};
use crate::engine::api::{GroupId, Refusal, Replica, Role, Start, VolumeId};
use crate::engine::error::EngineError;
use crate::engine::pool::Kind;
use crate::overlay::{self, GroupState, Member, Stage};
use crate::replication::reshape::{check_joinable, check_solo};

/// What a start asks for besides a role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    /// Nothing.
    Same,
    /// What it names behind today's members joins.
    Join,
    /// Only so many members go on.
    LetGo(usize),
}

impl Engine {
    /// Brings the members of a group that is here to what `start` names, as far as it may. The caller
    /// holds `structure`, and starts the group then.
    pub(super) async fn reshape(&self, start: &Start) -> Result<(), EngineError> {
        if !matches!(self.state().groups.get(&start.group), Some(Ok(_))) {
            return Ok(());
        }
        match change(start, &self.live_state(&start.group).await?) {
            Change::Same => Ok(()),
            Change::Join => self.join(start).await,
            Change::LetGo(left) => self.let_go(&start.group, left).await,
        }
    }

    async fn join(&self, start: &Start) -> Result<(), EngineError> {
        if !(start.adopt && start.role == Role::Primary) {
            self.check_free(&start.group, &start.members)?;
        }
        let involved = self.groups_of(start);
        joining(start, &self.replicas_of(start), &self.live_states(&involved).await?)?;
        let paused = self.pause(involved, None).await?;
        let done = self.join_paused(start, paused.names()).await;
        let settled = self.settle(paused.names().to_vec()).await;
        done.and(settled)
    }

    /// The one write. What is on disk decides: nothing changes any more.
    async fn join_paused(&self, start: &Start, paused: &[GroupId]) -> Result<(), EngineError> {
        let states = self.stored_states(paused).await?;
        let members = joining(start, &self.replicas_of(start), &states)?;
        let group = &start.group;
        let volumes: Vec<_> = members.iter().map(|m| m.volume.to_string()).collect();
        self.step()?;
        let (path, shard) = (self.pool.path(Kind::Group, group), self.shards.round_robin(0));
        let done = self.shards.run(shard, |env| on_shard::join_group(env, path, members)).await;
        done.map_err(|e| e.context(format!("group {group} can't get more volumes")))?;
        tracing::info!(%group, ?volumes, role = ?start.role, "volumes join");
        self.step()
    }

    async fn let_go(&self, group: &GroupId, left: usize) -> Result<(), EngineError> {
        let paused = self.pause(vec![group.clone()], None).await?;
        let done = self.let_go_paused(group, left).await;
        let settled = self.settle(paused.names().to_vec()).await;
        done.and(settled)
    }

    async fn let_go_paused(&self, group: &GroupId, left: usize) -> Result<(), EngineError> {
        self.step()?;
        let (path, shard) = (self.pool.path(Kind::Group, group), self.shards.round_robin(0));
        self.shards.run(shard, move |env| on_shard::let_go(env, path, left)).await?;
        tracing::info!(%group, left, "what was joining stays here, in no group");
        self.step()
    }

    /// After a failover: what it left behind is in no group.
    pub(super) async fn follow(&self, group: &GroupId) -> Result<(), EngineError> {
        let kept = self.live_state(group).await?.members;
        let state = &mut *self.state();
        let Some(Ok(record)) = state.groups.get_mut(group) else { return Ok(()) };
        record.members.retain(|v| kept.iter().any(|m| m.volume == *v));
        for (volume, r) in &mut state.replicas {
            let Ok(r) = r else { continue };
            if r.group.take_if(|g| g == group && !record.members.contains(volume)).is_some() {
                tracing::warn!(%group, %volume, "no checkpoint covers it: left behind by the failover");
            }
        }
        Ok(())
    }
}

fn change(start: &Start, s: &GroupState) -> Change {
    let here: Vec<_> = s.members.iter().map(|m| &m.volume).collect();
    let wanted: Vec<_> = start.members.iter().map(|m| &m.volume).collect();
    let role = match start.role {
        Role::Primary => overlay::Role::Primary,
        Role::Secondary => overlay::Role::Secondary,
    };
    if wanted.len() > here.len() && wanted.starts_with(&here) {
        let runs = s.role == role && s.generation == start.generation;
        let has_peer = s.role == overlay::Role::Secondary || s.peer_address.is_some();
        return if runs && has_peer { Change::Join } else { Change::Same };
    }
    let is_replaced = s.role == overlay::Role::Primary
        && role == overlay::Role::Secondary
        && start.generation.number > s.generation.number
        && matches!(s.stage, Stage::Running | Stage::Done);
    let left = wanted.len();
    if is_replaced && left < here.len() && here.starts_with(&wanted) && s.joined.get() <= left {
        return Change::LetGo(left);
    }
    Change::Same
}

/// The members that join, with what they carry. `states`: the group, and all that they are in.
fn joining(
    start: &Start,
    replicas: &BTreeMap<VolumeId, Replica>,
    states: &BTreeMap<GroupId, GroupState>,
) -> Result<Vec<Member>, EngineError> {
    let refuse = |text: String| EngineError::new(Refusal::WrongState, text);
    let own = states.get(&start.group);
    let known = |v: &VolumeId| own.is_some_and(|s| s.members.iter().any(|m| m.volume == *v));
    if let Some(s) = own {
        check_joinable(s).map_err(|why| refuse(format!("{why}; nothing joins it now")))?;
    }
    let mut members = Vec::new();
    for volume in start.members.iter().map(|m| &m.volume).filter(|v| !known(v)) {
        let other = states
            .values()
            .filter(|s| s.group != start.group)
            .find_map(|s| Some((s, s.members.iter().find(|m| m.volume == *volume)?)));
        if let Some((s, _)) = other {
            check_solo(s).map_err(|why| {
                refuse(format!("{why}; volume {volume} can't join group {}", start.group))
            })?;
            if s.generation.number >= start.generation.number {
                return Err(refuse(format!(
                    "group {} of volume {volume} is of generation {}: it can't join group {} of generation {}, which must be higher",
                    s.group, s.generation, start.group, start.generation
                )));
            }
        }
        members.push(entering(volume, other.map(|(s, m)| (m, s.generation)), replicas)?);
    }
    Ok(members)
}
