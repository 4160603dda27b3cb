//! The `BlockReplication` is gone: stop, then remove the copy, then forget.
//!
//! The copy goes only after the primary has recorded itself solo, under the group's generation: then
//! nothing needs the copy any more. The group object stays, so that the word on who is primary does.

use understudy_crds::BlockReplicationStatus;

use super::{Case, Step, stop};
use crate::apply::Action;
use crate::engines::Call;
use crate::observe::Observed;

/// The next step towards a primary alone, without a copy elsewhere.
pub(super) fn delete(case: &Case<'_>) -> Step {
    let Some(secondary) = case.secondary() else { return forget(case.observed) };
    // Never started: there is nothing to stop, and no copy of ours.
    let never_started = case.primary().policy.is_none();
    if !stop::is_solo(case) && !never_started {
        return stop::stop(case);
    }
    let leave = case.put(|spec| spec.secondary = None);
    if never_started {
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
        .filter(|m| engine.is_some_and(|e| e.replica(&m.volume).is_some()))
        .map(|m| Case::engine(&secondary.node, Call::DeleteReplica(m.volume.clone())));
    Step::act(case.give_up(secondary).into_iter().chain(there).chain([leave]).collect())
}

/// The last step. A status that is blank was forgotten before.
pub(super) fn forget(observed: &Observed) -> Step {
    if observed.status == BlockReplicationStatus::default() {
        return Step::default();
    }
    Step::act(vec![Action::ForgetStatus])
}
