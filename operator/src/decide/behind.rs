//! What a failover leaves behind: volumes that joined and that no checkpoint covered yet.
//!
//! ```text
//!   promoted engine has it ──► a member like the others
//!   has it not ─┬─ group object: no member, left behind on the old primary's node
//!               ├─ ReplicatedVolume: in no group; node, pool and generation are still what they were
//!               └─ once that node is back: its engine serves it alone, out of the old group
//! ```
//!
//! The promoted engine decides, for it dropped them in the same write that promoted it. The old
//! primary's replica is the only good one: it leaves the old group before anything there is
//! overwritten. Devices that are open there go on.

use understudy_core::engine::api::{
    Generation, GroupStatus, LinkState, Member, Policy, Role, Stage, Start, VolumeId,
};
use understudy_crds::replication_group::LeftBehind;

use super::{Case, Step, adopt};
use crate::apply::Action;
use crate::desired::Wish;
use crate::engines::Call;

/// The next step towards every volume being in the group wholly, or not at all.
pub(super) fn settle(case: &Case<'_>) -> Step {
    let undecided = case.group.undecided();
    if !undecided.is_empty() {
        let primary = case.primary();
        if case.primary_view().is_none() {
            return Step::wait(format!(
                "the engine of {} to say which volumes it was promoted with",
                primary.node
            ));
        }
        let lost = |m: &&&Member| !case.has(primary, &m.volume);
        let lost: Vec<_> = undecided.iter().filter(lost).map(|m| m.volume.to_string()).collect();
        return Step::act(vec![decided(case, &lost)]);
    }
    let mut step = Step::default();
    for left in &case.group.spec.left_behind {
        let Ok(volume) = left.volume.parse() else { continue };
        step.actions.extend(adopt::let_go(case, &volume));
        if step.actions.is_empty() {
            step = Step { waiting: step.waiting, ..alone(case, &volume, &left.node) };
        }
        if !step.actions.is_empty() {
            return step;
        }
    }
    if step.waiting.is_none() {
        step.actions.extend(forget(case));
    }
    step
}

/// Writes what the promoted engine says of the members that joined before.
fn decided(case: &Case<'_>, lost: &[String]) -> Action {
    case.put(|spec| {
        spec.members.retain(|m| !lost.contains(&m.volume));
        for member in &mut spec.members {
            member.joining = None;
        }
        let from = spec.promotion.as_ref().map(|p| p.from.clone()).unwrap_or_default();
        spec.left_behind.retain(|l| !lost.contains(&l.volume));
        spec.left_behind
            .extend(lost.iter().map(|v| LeftBehind { volume: v.clone(), node: from.clone() }));
    })
}

/// Has the old primary's engine serve it alone.
fn alone(case: &Case<'_>, volume: &VolumeId, node: &str) -> Step {
    let Some(engine) = case.observed.engine(node).filter(|_| node != case.primary().node) else {
        return Step::default();
    };
    let Some(replica) = engine.replica(volume) else { return Step::default() };
    let member = Member { volume: volume.clone(), size: replica.size };
    let start = |generation| {
        Case::engine(
            node,
            Call::Start(Start {
                group: volume.clone(),
                generation,
                role: Role::Primary,
                members: vec![member],
                peer: None,
                policy: Policy::default(),
                inbound: false,
                adopt: true,
            }),
        )
    };
    // Where volumes are kept, they say who serves them, before the engine does; one without a
    // generation is being deleted.
    let known = case.observed.volumes.as_ref();
    let found = known.and_then(|k| k.get(volume)).filter(|v| {
        v.spec.group.is_none()
            && v.generation.is_some()
            && v.spec.node.as_deref() == Some(node)
            && v.spec.pool == Some(engine.pool.to_string())
    });
    if known.is_some() && found.is_none() {
        return Step::default();
    }
    let said = found.and_then(|v| v.generation);
    let old = match &replica.group {
        None => return Step::act(said.map(start).into_iter().collect()),
        Some(group) if *group != case.group.name => return Step::default(),
        Some(group) => match engine.group(group) {
            Some(old) if old.generation.number < case.group.generation.number => old,
            _ => return Step::default(),
        },
    };
    if old.role != Some(Role::Primary) || !matches!(old.stage, Stage::Running | Stage::Done) {
        return Step::wait(format!(
            "the roll-back on {node} to be merged, to serve volume {volume} there alone"
        ));
    }
    // Above the one that it leaves, and below the group's: the group's number rises by two.
    let next =
        Generation { number: old.generation.number.saturating_add(1), id: case.observed.fresh_id };
    let generation = match (found, said) {
        (Some(found), Some(said)) if said.number < next.number => {
            let mut spec = found.spec.clone();
            spec.generation = Some(next.to_string());
            return Step::act(vec![Action::PutVolume {
                volume: volume.clone(),
                expected: found.version.clone(),
                spec: Box::new(spec),
            }]);
        }
        (_, said) => said.unwrap_or(next),
    };
    Step::act(give_up(node, old).into_iter().chain([start(generation)]).collect())
}

/// Ends what the old primary replicates: a volume leaves only one that is alone.
fn give_up(node: &str, old: &GroupStatus) -> Option<Action> {
    (old.link != LinkState::Solo).then(|| {
        let (group, generation) = (old.group.clone(), old.generation);
        Case::engine(node, Call::Stop { group, generation, abandon_peer: true })
    })
}

/// Takes those off the list that nobody asks for and that are settled.
fn forget(case: &Case<'_>) -> Option<Action> {
    let wanted = case.desired.volumes.as_ref().ok().filter(|_| case.desired.wish == Wish::Run)?;
    let is_over = |left: &LeftBehind| {
        let asked = wanted.iter().any(|v| v.member.volume.as_str() == left.volume);
        let engine = case.observed.engine(&left.node);
        let volume: Option<VolumeId> = left.volume.parse().ok();
        let replica = engine.zip(volume).and_then(|(e, v)| e.replica(&v));
        let held = replica.is_some_and(|r| r.group.as_ref() == Some(&case.group.name));
        !asked && engine.is_some() && !held
    };
    let over = case.group.spec.left_behind.iter().any(is_over);
    over.then(|| case.put(|spec| spec.left_behind.retain(|l| !is_over(l))))
}
