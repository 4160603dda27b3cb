//! Volumes enter a group and leave it again.
//!
//! ```text
//!   solo volume         rvol: node a, pool, generation 4-x          engine a: group H at 4-x
//!     begin             group object: generation 5-y, primary a
//!     join              rvol: group ns.name                         (a volume is in one group)
//!     start, adopt                                                  engine a: group ns.name at 5-y
//!     ...               group object: generation 7-z, primary b     engine b: group ns.name at 7-z
//!     release           rvol: node b, pool, generation 7-z          engine b: the same, solo
//!     and the group object goes
//! ```
//!
//! The new generation is above that of every member, so that no engine can take the old one for it.

use understudy_core::engine::api::{Generation, GroupStatus, Member, Role, Stage, VolumeId};
use understudy_crds::conditions::accepted;
use understudy_crds::replication_group::GroupSide;

use super::{Case, Step};
use crate::apply::Action;
use crate::desired::{Desired, Refusal, SourceVolume};
use crate::engines::Call;
use crate::observe::Observed;

/// The number to begin with: above every one that a member was ever served under. Or what is in the
/// way of beginning.
pub(super) fn first_number(
    desired: &Desired,
    observed: &Observed,
    volumes: &[SourceVolume],
    primary: &str,
) -> Result<u64, Box<Step>> {
    let Some(known) = &observed.volumes else { return Ok(1) };
    let mut highest = 0;
    for SourceVolume { member, .. } in volumes {
        let handle = &member.volume;
        let Some(volume) = known.get(handle) else {
            return Err(Box::new(Step::wait(format!("the ReplicatedVolume {handle} to be there"))));
        };
        match &volume.spec.group {
            Some(group) if *group == desired.group.as_str() => {
                return Err(Box::new(Step::hold(format!(
                    "volume {handle} is in group {group}, whose group object is gone: nobody can say \
                     which of its replicas counts. Put the group object back"
                ))));
            }
            Some(group) => {
                let words = format!(
                    "volume {handle} is in group {group}: a volume is in one group; take it out of \
                     that one first"
                );
                let refused = Some(Refusal::new(accepted::SOURCE_CONFLICT, words));
                return Err(Box::new(Step { refused, ..Step::default() }));
            }
            None => {}
        }
        let (Some(generation), Some(pool)) = (volume.generation, &volume.spec.pool) else {
            return Err(Box::new(Step::wait(format!(
                "the volume {handle} to be made by the CSI driver"
            ))));
        };
        let found = observed.engine(primary).map(|e| e.pool.to_string());
        if found.as_ref().is_some_and(|found| found != pool) {
            return Err(Box::new(Step::hold(format!(
                "volume {handle} lies in pool {pool}, the engine of {primary} has pool {}: give that \
                 engine its pool back",
                found.unwrap_or_default()
            ))));
        }
        if let Some((node, other)) = ahead(member, generation, observed) {
            return Err(Box::new(Step::hold(format!(
                "the replica of {handle} on {node} obeys generation {other}, the ReplicatedVolume says \
                 {generation}: nothing is touched until that is settled"
            ))));
        }
        highest = highest.max(generation.number);
    }
    Ok(highest.saturating_add(1))
}

/// A replica of the volume that has seen a later generation.
pub(super) fn ahead<'a>(
    member: &Member,
    generation: Generation,
    observed: &'a Observed,
) -> Option<(&'a str, Generation)> {
    observed.nodes.iter().find_map(|(node, seen)| {
        let engine = seen.engine.as_ref().ok()?;
        let holder = engine.replica(&member.volume)?.group.as_ref()?;
        let theirs = engine.group(holder)?.generation;
        let later = theirs.number > generation.number
            || (theirs.number == generation.number && theirs.id != generation.id);
        later.then_some((node.as_str(), theirs))
    })
}

/// Whether a volume says that it is in this group.
fn is_in(case: &Case<'_>, member: &Member) -> bool {
    let volume = case.observed.volumes.as_ref().and_then(|known| known.get(&member.volume));
    volume.is_some_and(|v| v.spec.group.as_deref() == Some(case.group.name.as_str()))
}

/// Whether any volume is in the group yet, or still.
pub(super) fn entered(case: &Case<'_>) -> bool {
    case.group.members.iter().any(|m| is_in(case, m))
}

/// Makes each volume say that it is in the group, before an engine hears of the group.
pub(super) fn join(case: &Case<'_>) -> Step {
    let Some(known) = &case.observed.volumes else { return Step::default() };
    let fresh = case.never_started();
    let mut actions = Vec::new();
    let mut waiting = None;
    for member in case.group.members.iter().filter(|m| !is_in(case, m)) {
        let handle = &member.volume;
        match known.get(handle) {
            None if fresh => {
                return Step::hold(format!(
                    "the ReplicatedVolume {handle} is gone: put it back, or delete this \
                     BlockReplication"
                ));
            }
            // What runs goes on; the volume can be told apart without it.
            None => waiting = Some(format!("the ReplicatedVolume {handle} to be put back")),
            Some(volume) => match &volume.spec.group {
                Some(other) if fresh => {
                    let words = format!(
                        "volume {handle} has joined group {other} meanwhile: a volume is in one \
                         group; delete this BlockReplication or that one"
                    );
                    let refused = Some(Refusal::new(accepted::SOURCE_CONFLICT, words));
                    return Step { refused, ..Step::default() };
                }
                Some(other) => {
                    waiting = Some(format!("the volume {handle} to leave group {other}"));
                }
                None => {
                    let mut spec = volume.spec.clone();
                    spec.group = Some(case.group.name.to_string());
                    let expected = volume.version.clone();
                    let volume = handle.clone();
                    actions.push(Action::PutVolume { volume, expected, spec: Box::new(spec) });
                }
            },
        }
    }
    Step { actions, waiting, ..Step::default() }
}

/// Takes a volume out of the group again: who served it before serves it still.
pub(super) fn let_go(case: &Case<'_>, handle: &VolumeId) -> Option<Action> {
    let volume = case.observed.volumes.as_ref()?.get(handle)?;
    let mut spec = volume.spec.clone();
    spec.group.take().filter(|g| *g == case.group.name.as_str())?;
    let (volume, expected) = (handle.clone(), volume.version.clone());
    Some(Action::PutVolume { volume, expected, spec: Box::new(spec) })
}

/// Leaves each volume to the primary alone. `told`: the primary serves it under the group's
/// generation; else what the volume said before is still true, as it is of one that joins and that the
/// primary does not have.
pub(super) fn release(case: &Case<'_>, told: bool) -> Vec<Action> {
    let primary = case.primary();
    let left = case.group.spec.left_behind.iter().filter_map(|l| l.volume.parse().ok());
    let handles = case.group.members.iter().map(|m| m.volume.clone()).chain(left);
    handles
        .filter_map(|handle| {
            let mut action = let_go(case, &handle)?;
            let covered = case.group.has(&handle) && !case.group.joins(&handle);
            let view = case.primary_view();
            let serves = covered || (view.is_some() && case.has(primary, &handle));
            if let Action::PutVolume { spec, .. } = &mut action
                && told
                && serves
            {
                spec.node = Some(primary.node.clone());
                spec.pool = Some(primary.pool.clone());
                spec.generation = Some(case.group.generation.to_string());
            }
            Some(action)
        })
        .collect()
}

/// Removes what an older group has left in the place of a new secondary, and which members that
/// concerns.
pub(super) fn clear(case: &Case<'_>, side: &GroupSide) -> (Vec<Action>, Vec<Member>) {
    let (mut actions, mut cleared) = (Vec::new(), Vec::new());
    let Some(engine) = case.observed.engine(&side.node) else { return (actions, cleared) };
    if case.observed.volumes.is_none() {
        return (actions, cleared);
    }
    let mut stopped: Vec<&GroupStatus> = Vec::new();
    for member in &case.group.members {
        let Some(replica) = engine.replica(&member.volume) else { continue };
        if let Some(name) = replica.group.as_ref().filter(|g| **g != case.group.name) {
            let Some(old) = engine.group(name) else { continue };
            // Never what is not proven to be older.
            if old.generation.number >= case.group.generation.number {
                continue;
            }
            let follows = old.role == Some(Role::Secondary) && old.stage == Stage::Running;
            if follows && !stopped.iter().any(|s| s.group == *name) {
                stopped.push(old);
                let (group, generation) = (name.clone(), old.generation);
                let call = Call::Stop { group, generation, abandon_peer: true };
                actions.push(Case::engine(&side.node, call));
            }
        } else if replica.group.is_some() {
            continue;
        }
        cleared.push(member.clone());
        actions.push(Case::engine(&side.node, Call::DeleteReplica(member.volume.clone())));
    }
    (actions, cleared)
}
