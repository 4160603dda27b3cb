//! Keeps a group replicating: replicas, roles, policy, one-shot checkpoints.

use understudy_core::engine::api::{LinkState, Member, Role, Stage};
use understudy_crds::replication_group::GroupSide;

use super::{Case, Step, adopt, failover, grow, join, members, replace};
use crate::apply::Action;
use crate::desired::engine_policy;
use crate::engines::Call;

/// The next steps towards both sides running.
pub(super) fn run(case: &Case<'_>) -> Step {
    let wanted = replace::wanted(case);
    let difference = members::compare(case);
    let refused = difference.refused.clone().or_else(|| wanted.clone().err());
    let refused = refused.or_else(|| failover::asked_otherwise(case));
    let wanted = wanted.ok();
    let phases: [&dyn Fn() -> Step; 7] = [
        &|| join::withdraw(case),
        &|| adopt::join(case),
        &|| grow::grow(case),
        &|| replace::replace(case, wanted.as_deref()),
        &|| roles(case),
        &|| join::enter(case),
        &|| members::take_in(case, &difference),
    ];
    let mut step = Step::default();
    for phase in phases {
        let next = phase();
        step = Step { waiting: next.waiting.clone().or(step.waiting), ..next };
        if !step.actions.is_empty() || step.held.is_some() {
            break;
        }
        if step.refused.is_some() {
            return step;
        }
    }
    if step.actions.is_empty() && step.held.is_none() {
        step.actions = policy(case);
    }
    if step.actions.is_empty() && step.held.is_none() {
        let trigger = checkpoint(case);
        step.waiting = step.waiting.or(trigger.waiting);
        step.actions = trigger.actions;
    }
    step.refused = refused;
    step
}

/// Both sides in their roles, the secondary first.
fn roles(case: &Case<'_>) -> Step {
    let primary = case.primary();
    if !case.answers(primary) {
        return Step::wait(format!("the engine of {}, the primary, to answer", primary.node));
    }
    // Only a replica that was never started may be made anew: an old one that is gone is a loss.
    let mut actions = match missing(case, primary, Role::Primary) {
        gone if gone.is_empty() => Vec::new(),
        made if case.never_started() && !case.adopts() => made,
        _ => {
            return Step::hold(format!(
                "{}, the primary, has lost replicas of {}: give its engine its pool back, or fail over",
                primary.node, case.group.name
            ));
        }
    };
    let serving = case.primary_view().filter(|v| v.stage != Stage::None);
    let alone = serving.is_none_or(|v| v.link == LinkState::Solo);
    let merging =
        serving.is_some_and(|v| matches!(v.stage, Stage::Failover | Stage::FailoverFailed));
    let peer = case.secondary().filter(|s| case.answers(s));
    let link = peer.and_then(|s| case.observed.nodes.get(&s.node)?.link.clone());
    let secondary_runs = peer.is_some_and(|s| case.follows(s));
    if let (Some(side), Some(link)) = (peer, link)
        && !merging
    {
        if !alone && secondary_runs {
            return Step::act(actions);
        }
        // The primary's start with a peer begins anew, so the secondary is started anew before it.
        actions.extend(case.give_up(side).filter(|_| !secondary_runs));
        let (removals, mut removed) = adopt::clear(case, side);
        actions.extend(removals);
        for member in outgrown(case, side) {
            actions.push(Case::engine(&side.node, Call::DeleteReplica(member.volume.clone())));
            removed.push(member);
        }
        actions.extend(missing(case, side, Role::Secondary));
        actions.extend(removed.into_iter().map(|m| create(&side.node, m)));
        actions.push(case.start(&side.node, Role::Secondary, case.proof(primary)));
        if alone {
            actions.push(case.start(&primary.node, Role::Primary, Some(link)));
            actions.push(case.put(|spec| {
                let policy = Some(case.desired.policy.clone());
                spec.primary.policy.clone_from(&policy);
                if let Some(secondary) = &mut spec.secondary {
                    secondary.policy = policy;
                }
            }));
        }
        return Step::act(actions);
    }
    if serving.is_none() {
        actions.push(case.start(&primary.node, Role::Primary, None));
        actions.push(case.put(|spec| spec.primary.policy = Some(case.desired.policy.clone())));
    }
    let waiting = match case.secondary() {
        _ if merging => Some("the roll-back to be merged before a secondary can join".to_owned()),
        Some(s) => Some(replace::awaited(case, s)),
        None => None,
    };
    Step { actions, waiting, ..Step::default() }
}

/// An old copy of fewer volumes than the group has by now: it can't be started with the longer list, and
/// would be overwritten in any case.
fn outgrown(case: &Case<'_>, side: &GroupSide) -> Vec<Member> {
    if case.view(side).is_none_or(|v| v.role == Some(Role::Primary)) || case.follows(side) {
        return Vec::new();
    }
    let (there, lacking): (Vec<_>, Vec<_>) =
        join::list(case, Role::Secondary).into_iter().partition(|m| case.has(side, &m.volume));
    if lacking.is_empty() { Vec::new() } else { there }
}

/// Calls that make what the side lacks.
pub(super) fn missing(case: &Case<'_>, side: &GroupSide, role: Role) -> Vec<Action> {
    let Some(engine) = case.observed.engine(&side.node) else { return Vec::new() };
    let members = join::list(case, role).into_iter();
    members.filter(|m| engine.replica(&m.volume).is_none()).map(|m| create(&side.node, m)).collect()
}

fn create(node: &str, member: Member) -> Action {
    Case::engine(node, Call::CreateReplica(member))
}

/// A policy that an engine was not given yet.
pub(super) fn policy(case: &Case<'_>) -> Vec<Action> {
    let wanted = &case.desired.policy;
    let behind = |side: &GroupSide| {
        let obeys = |v: &&_| {
            let view: &understudy_core::engine::api::GroupStatus = v;
            view.generation == case.group.generation && view.stage != Stage::None
        };
        side.policy.as_ref() != Some(wanted) && case.view(side).as_ref().is_some_and(obeys)
    };
    let sides = [Some(case.primary()), case.secondary()];
    let behind: Vec<_> = sides.into_iter().flatten().filter(|s| behind(s)).collect();
    if behind.is_empty() {
        return Vec::new();
    }
    let set = |side: &&GroupSide| {
        let call = Call::SetPolicy {
            group: case.group.name.clone(),
            generation: case.group.generation,
            policy: engine_policy(wanted),
        };
        Case::engine(&side.node, call)
    };
    let mut actions: Vec<_> = behind.iter().map(set).collect();
    actions.push(case.put(|spec| {
        for side in [Some(&mut spec.primary), spec.secondary.as_mut()].into_iter().flatten() {
            if behind.iter().any(|b| b.node == side.node) {
                side.policy = Some(wanted.clone());
            }
        }
    }));
    actions
}

/// A one-shot checkpoint that was asked for and is not complete.
fn checkpoint(case: &Case<'_>) -> Step {
    let Some(token) = &case.desired.checkpoint_trigger else { return Step::default() };
    if case.observed.status.trigger.as_ref().is_some_and(|t| t.token == *token) {
        return Step::default();
    }
    if case.primary_view().is_none_or(|v| v.link != LinkState::Running) {
        return Step::wait(format!(
            "checkpoints to complete again, to make the one asked for by '{token}'"
        ));
    }
    Step::act(vec![Case::engine(
        &case.primary().node,
        Call::Checkpoint {
            group: case.group.name.clone(),
            generation: case.group.generation,
            token: token.clone(),
        },
    )])
}
