//! What one engine answers to each call.

use understudy_core::engine::api::{
    Epoch, Generation, GroupId, Member, Refusal, Role, Stage, Start, VolumeId,
};
use understudy_core::engine::client::ClientError;

use super::{Held, Machine, refused};
use crate::engines::Call;

impl Machine {
    pub(super) fn run(&mut self, call: &Call) -> Result<Option<Epoch>, ClientError> {
        match call {
            Call::CreateReplica(member) => {
                let size = *self.replicas.entry(member.volume.clone()).or_insert(member.size);
                if size != member.size {
                    return Err(refused(Refusal::Exists, "another size"));
                }
                Ok(None)
            }
            Call::ExpandReplica(member) => {
                let size = self.replicas.get_mut(&member.volume);
                let size = size.ok_or_else(|| refused(Refusal::NotFound, "no such replica"))?;
                *size = (*size).max(member.size);
                let size = *size;
                let held = self.groups.values_mut().flat_map(|h| &mut h.members);
                held.filter(|m| m.volume == member.volume).for_each(|m| m.size = size);
                Ok(None)
            }
            Call::DeleteReplica(volume) => {
                let holds = |h: &Held| h.members.iter().any(|m| m.volume == *volume);
                // A member of a primary that is alone may leave.
                let alone = |h: &Held| h.role == Role::Primary && h.peer.is_none();
                let runs = |h: &Held| holds(h) && h.stage != Stage::None && !alone(h);
                if self.groups.values().any(runs) {
                    return Err(refused(Refusal::WrongState, "its group runs"));
                }
                self.replicas.remove(volume);
                self.groups.retain(|_, h| h.members.iter().all(|m| m.volume != *volume));
                Ok(None)
            }
            Call::Start(start) => self.start(start),
            Call::SetPolicy { group, generation, policy } => {
                self.held(group, *generation)?.policy = policy.clone();
                Ok(None)
            }
            Call::Checkpoint { group, generation, .. } => {
                self.checkpoints += 1;
                let held = self.held(group, *generation)?;
                held.record += 1;
                Ok(Some(Epoch(held.record)))
            }
            Call::Stop { group, generation, abandon_peer } => {
                let held = self.held(group, *generation)?;
                if held.role == Role::Secondary {
                    if !abandon_peer {
                        return Err(refused(Refusal::WrongState, "stopped at its primary"));
                    }
                    (held.stage, held.record) = (Stage::None, 0);
                }
                held.peer = None;
                Ok(None)
            }
            Call::Failover(order) => {
                let held = self.groups.get_mut(&order.group);
                let held = held.ok_or_else(|| refused(Refusal::NotFound, "no such group"))?;
                if held.generation == order.new {
                    return Ok(Some(Epoch(held.record)));
                }
                if held.generation != order.replace || held.record == 0 {
                    return Err(refused(Refusal::WrongState, "stale, or nothing to promote"));
                }
                held.generation = order.new;
                held.role = Role::Primary;
                held.stage = Stage::Failover;
                held.peer = None;
                // In the same write: what no checkpoint covers is left behind, in no group.
                let joining = std::mem::take(&mut held.joining);
                held.members.retain(|m| !joining.contains(&m.volume));
                Ok(Some(Epoch(held.record)))
            }
        }
    }

    pub(super) fn holder(&self, volume: &VolumeId) -> Option<GroupId> {
        let mut groups = self.groups.iter();
        let holds = |h: &Held| h.members.iter().any(|m| m.volume == *volume);
        groups.find(|(_, h)| holds(h)).map(|(name, _)| name.clone())
    }

    fn held(&mut self, group: &GroupId, generation: Generation) -> Result<&mut Held, ClientError> {
        let held = self.groups.get_mut(group);
        let held = held.ok_or_else(|| refused(Refusal::NotFound, "no such group"))?;
        if held.generation != generation {
            return Err(refused(Refusal::WrongState, "stale generation"));
        }
        Ok(held)
    }

    fn start(&mut self, start: &Start) -> Result<Option<Epoch>, ClientError> {
        for member in &start.members {
            if self.replicas.get(&member.volume) != Some(&member.size) {
                return Err(refused(Refusal::NotFound, "no such replica"));
            }
        }
        let known = self.groups.get(&start.group).cloned();
        if let Some(held) = &known {
            check_known(held, start)?;
        }
        self.take_over(start)?;
        let begins_anew = Held {
            generation: start.generation,
            role: start.role,
            stage: Stage::Running,
            peer: start.peer.clone(),
            members: start.members.clone(),
            policy: start.policy.clone(),
            record: 0,
            joining: Vec::new(),
        };
        let held = match known {
            Some(held) if same_life(&held, start) => {
                let new = start.members.iter().skip(held.members.len()).map(|m| m.volume.clone());
                // Before the first record, that one covers all.
                let new: Vec<_> = if held.record == 0 { Vec::new() } else { new.collect() };
                let joining = held.joining.iter().cloned().chain(new).collect();
                Held { members: start.members.clone(), joining, ..held }
            }
            _ => begins_anew,
        };
        self.groups.insert(start.group.clone(), held);
        Ok(None)
    }

    /// Takes members out of the older groups that they are in alone.
    fn take_over(&mut self, start: &Start) -> Result<(), ClientError> {
        for member in &start.members {
            let other = self.holder(&member.volume).filter(|g| *g != start.group);
            let Some(old) = other.and_then(|g| self.groups.get_mut(&g)) else { continue };
            let older = old.generation.number < start.generation.number;
            if !start.adopt || old.peer.is_some() || old.role != Role::Primary || !older {
                return Err(refused(Refusal::Exists, "it belongs to another group"));
            }
            old.members.retain(|m| m.volume != member.volume);
            self.groups.retain(|_, held| !held.members.is_empty());
        }
        Ok(())
    }
}

/// Whether a start of a group that is here can be.
fn check_known(held: &Held, start: &Start) -> Result<(), ClientError> {
    if held.generation.number > start.generation.number {
        return Err(refused(Refusal::WrongState, "stale generation"));
    }
    if held.generation == start.generation && held.role != start.role {
        return Err(refused(Refusal::Exists, "another role in this generation"));
    }
    let runs = held.stage == Stage::Running && held.role == Role::Secondary;
    if runs && held.generation != start.generation {
        return Err(refused(Refusal::WrongState, "it runs already: stop it first"));
    }
    // Sizes are compared by the sides.
    let list = |members: &[Member]| members.iter().map(|m| m.volume.clone()).collect::<Vec<_>>();
    let (old, new) = (list(&held.members), list(&start.members));
    let has_peer = held.role == Role::Secondary || held.peer.is_some();
    if old == new || (new.starts_with(&old) && same_life(held, start) && has_peer) {
        return Ok(());
    }
    // A replaced primary lets go of what joined there.
    let covered = |v: &VolumeId| !held.joining.contains(v);
    let replaced = held.role == Role::Primary
        && start.role == Role::Secondary
        && held.generation.number < start.generation.number;
    if replaced && old.starts_with(&new) && !old.iter().skip(new.len()).any(covered) {
        return Ok(());
    }
    Err(refused(Refusal::Exists, "the group has other volumes: name the same"))
}

/// Whether what runs goes on by this start: as it was, or with more volumes.
fn same_life(held: &Held, start: &Start) -> bool {
    let runs = held.stage != Stage::None && held.generation == start.generation;
    // A primary that is given a peer begins anew.
    let goes_on = held.role == Role::Secondary || held.peer == start.peer;
    runs && held.role == start.role && goes_on
}
