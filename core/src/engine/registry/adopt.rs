//! Volumes that a primary takes over from groups of an older generation.
//!
//! ```text
//!   solo group A { a } ─┐                          paused: connections cut, files closed
//!   solo group B { b } ─┴─► group T { a, b }       one write: T's folder appears, or its superblock
//!                             │                    names them. From here on T has them
//!                             └─ settle (restart)  A and B lose them, or go; what is left opens again
//! ```
//!
//! Nothing is copied and nothing lost: the replicas are the same files. So devices bound to the
//! older generation go on; T's superblock names it for each member. A crash before the one write
//! leaves what was; after it, the next start of the engine goes on with settling.

use std::collections::BTreeMap;

use super::{Engine, blocking, on_shard};
use crate::engine::api::{Generation, GroupId, Refusal, Replica, Start, VolumeId};
use crate::engine::error::EngineError;
use crate::engine::groups::policy_of;
use crate::engine::pool::Kind;
use crate::overlay::{GroupState, Member};
use crate::replication::reshape::{TakeOver, check_solo};

impl Engine {
    /// Takes the members of `start` over from where they are, if they are anywhere else. The caller
    /// holds `structure`, and starts the group then.
    pub(super) async fn take_over(&self, start: &Start) -> Result<(), EngineError> {
        let involved = self.groups_of(start);
        let live = self.live_states(&involved).await?;
        if plan(start, &self.replicas_of(start), live.values())?.is_none() {
            return Ok(());
        }
        let paused = self.pause(involved, None).await?;
        let done = self.take_over_paused(start, paused.names()).await;
        let mut names = paused.names().to_vec();
        if !names.contains(&start.group) {
            names.push(start.group.clone());
        }
        let settled = self.settle(names).await;
        done.and(settled)
    }

    /// The one write. What is on disk decides: nothing changes any more.
    async fn take_over_paused(&self, start: &Start, paused: &[GroupId]) -> Result<(), EngineError> {
        let states = self.stored_states(paused).await?;
        let Some(members) = plan(start, &self.replicas_of(start), states.values())? else {
            return Ok(());
        };
        let group = start.group.clone();
        let over = TakeOver {
            group: group.clone(),
            pool: self.pool.uuid(),
            generation: start.generation,
            policy: policy_of(&start.policy),
            members,
        };
        self.step()?;
        let shard = self.shards.round_robin(0);
        if states.contains_key(&group) {
            let path = self.pool.path(Kind::Group, &group);
            self.shards.run(shard, |env| on_shard::rewrite_over(env, path, over)).await?;
        } else {
            let (pool, name) = (self.pool.clone(), group.clone());
            let draft = blocking(move || pool.draft(Kind::Group, &name)).await?;
            let made = self.shards.run(shard, |env| on_shard::create_over(env, draft, over)).await;
            let ready = made.and_then(|()| self.step());
            let (pool, name) = (self.pool.clone(), group.clone());
            blocking(move || match ready {
                Ok(()) => pool.publish(Kind::Group, &name).map(drop),
                Err(e) => {
                    pool.abandon(Kind::Group, &name);
                    Err(e.context(format!("group {name} can't be made")))
                }
            })
            .await?;
        }
        tracing::info!(%group, generation = %start.generation, from = ?states.keys(), "volumes taken over");
        self.step()
    }

    /// The group to be started, if it is here, and those that its members are in.
    pub(super) fn groups_of(&self, start: &Start) -> Vec<GroupId> {
        let state = self.state();
        let of = |v: &VolumeId| state.replicas.get(v)?.as_ref().ok()?.group.clone();
        let mut groups: Vec<GroupId> = start.members.iter().filter_map(|m| of(&m.volume)).collect();
        groups.extend(state.groups.contains_key(&start.group).then(|| start.group.clone()));
        groups.sort();
        groups.dedup();
        groups
    }

    pub(super) fn replicas_of(&self, start: &Start) -> BTreeMap<VolumeId, Replica> {
        let state = self.state();
        let replica = |v: &VolumeId| Some(state.replicas.get(v)?.as_ref().ok()?.replica);
        let named = start.members.iter().map(|m| &m.volume);
        named.filter_map(|v| Some((v.clone(), replica(v)?))).collect()
    }

    pub(super) async fn live_states(
        &self,
        groups: &[GroupId],
    ) -> Result<BTreeMap<GroupId, GroupState>, EngineError> {
        let mut states = BTreeMap::new();
        for name in groups {
            states.insert(name.clone(), self.live_state(name).await?);
        }
        Ok(states)
    }

    pub(super) async fn stored_states(
        &self,
        groups: &[GroupId],
    ) -> Result<BTreeMap<GroupId, GroupState>, EngineError> {
        let mut states = BTreeMap::new();
        for name in groups {
            states.insert(name.clone(), self.stored_state(name).await?);
        }
        Ok(states)
    }
}

/// What a volume is in a group that it enters: with what it carries from the one it comes from, or as the
/// replica that is here.
pub(super) fn entering(
    volume: &VolumeId,
    from: Option<(&Member, Generation)>,
    replicas: &BTreeMap<VolumeId, Replica>,
) -> Result<Member, EngineError> {
    if let Some((member, generation)) = from {
        let mut member = member.clone();
        member.carry(generation);
        return Ok(member);
    }
    let replica = replicas.get(volume).ok_or_else(|| {
        let text = format!("volume {volume} has no replica here: create it first");
        EngineError::new(Refusal::NotFound, text)
    })?;
    Ok(Member::new(volume.clone(), replica.uuid, replica.size.0))
}

/// The members of the group from now on, with what they carry; `None` if there is nothing to take
/// over: they are in it already, or in no group. `states`: the group itself, if it is there, and
/// all that its members are in.
fn plan<'s>(
    start: &Start,
    replicas: &BTreeMap<VolumeId, Replica>,
    states: impl Iterator<Item = &'s GroupState>,
) -> Result<Option<Vec<Member>>, EngineError> {
    let wanted: Vec<&VolumeId> = start.members.iter().map(|m| &m.volume).collect();
    let mut from: BTreeMap<&VolumeId, (&Member, Generation)> = BTreeMap::new();
    let (mut others, mut rewritten) = (0, false);
    for s in states {
        if s.group == start.group {
            if s.members.iter().map(|m| &m.volume).eq(wanted.iter().copied()) {
                return Ok(None);
            }
            check_none_left_out(s, &wanted)?;
            rewritten = true;
        } else {
            others += 1;
        }
        let refuse = |text| Err(EngineError::new(Refusal::WrongState, text));
        if let Err(why) = check_solo(s) {
            return refuse(format!("{why}; group {} can't take its volumes over", start.group));
        }
        if start.generation.number <= s.generation.number {
            return refuse(format!(
                "group {} is of generation {}: what takes its volumes over must be of a higher one than {}",
                s.group, s.generation, start.generation
            ));
        }
        from.extend(s.members.iter().map(|m| (&m.volume, (m, s.generation))));
    }
    if others == 0 && !rewritten {
        return Ok(None);
    }
    let entering = |volume| entering(volume, from.get(volume).copied(), replicas);
    wanted.into_iter().map(entering).collect::<Result<_, _>>().map(Some)
}

/// A volume that the list no longer names would be served by nobody.
fn check_none_left_out(s: &GroupState, wanted: &[&VolumeId]) -> Result<(), EngineError> {
    let Some(left) = s.members.iter().find(|m| !wanted.contains(&&m.volume)) else {
        return Ok(());
    };
    let text = format!(
        "group {} has volume {}, which the list leaves out: first start another group that takes it over, or delete its replica",
        s.group, left.volume
    );
    Err(EngineError::new(Refusal::Exists, text))
}
