//! The `BlockReplication` is gone: stop, remove the copy, let the volumes go, forget.
//!
//! ```text
//!   solo? ─no─► stop (never started: start alone) ─► copy deleted ─► group object: no secondary
//!     ─► [volumes: primary's node, pool, generation] ─► [group object removed] ─► forgotten
//! ```
//!
//! The copy goes only after the primary has recorded itself solo, under the group's generation: then
//! nothing needs the copy any more. What stands in brackets happens where volumes are kept, in a
//! cluster: they say from then on who serves them. Elsewhere the group object stays, so that the
//! word on who is primary does.

use understudy_core::engine::api::Role;

use super::{Case, Step, adopt, stop};
use crate::apply::Action;
use crate::desired::Desired;
use crate::engines::Call;
use crate::observe::Observed;

/// The next step towards a primary alone, without a copy elsewhere.
pub(super) fn delete(case: &Case<'_>) -> Step {
    if case.adopts() && !adopt::entered(case) && case.unneeded() {
        return remove_group(case);
    }
    if (case.secondary().is_some() || case.adopts())
        && !stop::is_solo(case)
        && let Some(step) = solo(case)
    {
        return step;
    }
    if let Some(secondary) = case.secondary() {
        return drop_copy(case, secondary);
    }
    if !case.adopts() {
        return forget(case.observed);
    }
    let release = adopt::release(case, true);
    if release.is_empty() { remove_group(case) } else { Step::act(release) }
}

impl Case<'_> {
    /// Whether nothing rests on the group object any more: its volumes have left it and no copy is
    /// named, or no engine ever heard of it.
    fn unneeded(&self) -> bool {
        self.secondary().is_none() || self.never_started()
    }
}

/// Brings the primary to solo. `None`: nothing is needed for that.
fn solo(case: &Case<'_>) -> Option<Step> {
    let primary = case.primary();
    if case.never_started() && !case.adopts() {
        return None;
    }
    if !case.answers(primary) {
        let hatch = "annotate it with understudy.dev/abandon=true to end it as it is";
        return Some(Step::wait(match case.secondary() {
            Some(secondary) => format!(
                "the engine of {}, the primary, to answer; fail over to {} if it is lost, or {hatch}",
                primary.node, secondary.node
            ),
            None => format!("the engine of {}, the primary, to answer; or {hatch}", primary.node),
        }));
    }
    // The volumes will say that it serves them under this generation: it has to know it. Whether a
    // start that was lost has reached it can't be told otherwise.
    if case.adopts() && case.primary_view().is_none() {
        return Some(Step::act(vec![case.start(&primary.node, Role::Primary, None)]));
    }
    case.secondary()?;
    Some(stop::stop(case))
}

fn drop_copy(case: &Case<'_>, secondary: &understudy_crds::replication_group::GroupSide) -> Step {
    let leave = case.put(|spec| spec.secondary = None);
    if case.never_started() && !case.adopts() {
        return Step::act(vec![leave]);
    }
    if !case.answers(secondary) {
        return if case.given_up() {
            Step::act(vec![leave])
        } else {
            Step::wait(format!(
                "the engine of {} to answer, to delete the copy; after {} s it is left there",
                secondary.node,
                super::ABANDON_AFTER.as_secs()
            ))
        };
    }
    let engine = case.observed.engine(&secondary.node);
    let there = case
        .group
        .members
        .iter()
        .filter(|m| {
            let replica = engine.and_then(|e| e.replica(&m.volume));
            // One of another group is not this group's copy.
            replica.is_some_and(|r| r.group.as_ref().is_none_or(|g| *g == case.group.name))
        })
        .map(|m| Case::engine(&secondary.node, Call::DeleteReplica(m.volume.clone())));
    Step::act(case.give_up(secondary).into_iter().chain(there).chain([leave]).collect())
}

fn remove_group(case: &Case<'_>) -> Step {
    Step::act(vec![Action::DeleteGroup { expected: case.group.version.clone() }])
}

/// The escape hatch: no engine is asked. The volumes are left to the primary that the group object
/// names; a copy stays where it is, and the doctor names it.
pub(super) fn abandon(case: &Case<'_>) -> Step {
    if !case.adopts() {
        return forget(case.observed);
    }
    let told = !case.never_started() || case.primary_view().is_some();
    let release = adopt::release(case, told);
    if release.is_empty() { remove_group(case) } else { Step::act(release) }
}

/// The end where there is no group object. A volume that still names it says so to a person.
pub(super) fn without_group(desired: &Desired, observed: &Observed) -> Step {
    let left = observed
        .volumes
        .iter()
        .flatten()
        .filter(|(_, volume)| volume.spec.group.as_deref() == Some(desired.group.as_str()));
    let left: Vec<_> = left.collect();
    if let Some((handle, _)) = left.first().filter(|_| !desired.abandoned) {
        return Step::hold(format!(
            "volume {handle} is in group {}, whose group object is gone: put it back, or annotate \
             this with understudy.dev/abandon=true if spec.node of its ReplicatedVolume is right",
            desired.group
        ));
    }
    let release: Vec<_> = left
        .into_iter()
        .map(|(handle, volume)| {
            let mut spec = volume.spec.clone();
            spec.group = None;
            Action::PutVolume {
                volume: handle.clone(),
                expected: volume.version.clone(),
                spec: Box::new(spec),
            }
        })
        .collect();
    if release.is_empty() { forget(observed) } else { Step::act(release) }
}

/// The last step.
fn forget(observed: &Observed) -> Step {
    if observed.remembered { Step::act(vec![Action::ForgetStatus]) } else { Step::default() }
}
