//! Ends replication after a last checkpoint. The primary goes on alone; the copy stays as it is.
//!
//! ```text
//!   the peer ─┬─ has no checkpoint yet ─────────────► stopped without it, at once
//!             ├─ does not answer ──────┐
//!             ├─ lacks writes ─────────┴─ 30 s ─────► stopped without it: it keeps the one before
//!             └─ lacks nothing ─► a last checkpoint ► stopped
//! ```

use understudy_core::engine::api::{GroupStatus, LinkState, Role, Stage};
use understudy_crds::block_replication_status::State;

use super::{ABANDON_AFTER, Case, Step, failover, members, run};
use crate::desired::Wish;
use crate::engines::Call;

/// Whether the primary has recorded that it has no peer.
pub(super) fn is_solo(case: &Case<'_>) -> bool {
    let own =
        |v: &&GroupStatus| v.generation == case.group.generation && v.role != Some(Role::Secondary);
    case.view(case.primary()).filter(own).is_some_and(|v| v.link == LinkState::Solo)
}

/// The next step where that is all that is wanted; and what else the manifest says that is not obeyed
/// before replication is asked for again.
pub(super) fn as_asked(case: &Case<'_>) -> Step {
    let mut step = stop(case);
    let difference = members::compare(case);
    if step.actions.is_empty() && step.waiting.is_none() {
        let moved = || {
            let asked = case.desired.secondary.as_ref().filter(|n| **n != case.primary().node)?;
            let there = case.secondary().is_none_or(|s| s.node == *asked);
            (!there).then(|| format!("make the copy on {asked}"))
        };
        let more =
            || difference.names_more().then(|| "take in what the source names more".to_owned());
        step.waiting =
            more().or_else(moved).map(|what| format!("spec.state to be Running, to {what}"));
    }
    step.refused = difference.refused.or_else(|| failover::asked_otherwise(case));
    step
}

/// The next step towards a primary alone.
pub(super) fn stop(case: &Case<'_>) -> Step {
    let Some(secondary) = case.secondary() else { return Step::default() };
    let primary = case.primary();
    if !case.answers(primary) {
        return Step::wait(format!(
            "the engine of {}, the primary, to answer; without it nothing can be stopped. Fail over \
             to {} if it is lost",
            primary.node, secondary.node
        ));
    }
    if is_solo(case) || (case.never_started() && case.primary_view().is_none()) {
        return Step::default();
    }
    let Some(view) = case.primary_view().filter(|v| v.stage != Stage::None) else {
        return Step::wait(format!("{} to take up its role as primary again", primary.node));
    };
    // There is nothing to keep, and to get there may take hours.
    let keeps_nothing = view.link == LinkState::Syncing || view.record.0 == 0;
    let is_away = !case.answers(secondary) && case.given_up();
    let abandon_peer = keeps_nothing || is_away || is_without_checkpoint(case, view);
    if !abandon_peer {
        // A limit that was raised may be all that the last checkpoint needs.
        if let Some(step) = policy(case) {
            return step;
        }
        if let Some(words) = lacks(case, view, &secondary.node) {
            let after = ABANDON_AFTER.as_secs();
            return Step::wait(format!("{words}; after {after} s it is stopped without"));
        }
    }
    let call = Call::Stop {
        group: case.group.name.clone(),
        generation: case.group.generation,
        abandon_peer,
    };
    Step::act(vec![Case::engine(&primary.node, call)])
}

/// What is in the way of a last checkpoint.
fn lacks(case: &Case<'_>, view: &GroupStatus, secondary: &str) -> Option<String> {
    let answers = case.secondary().is_some_and(|s| case.answers(s));
    if !answers {
        return Some(format!(
            "the engine of {secondary}, the secondary, to answer for a last checkpoint"
        ));
    }
    let why = view.error.as_ref().map(|e| format!(" ({e})")).unwrap_or_default();
    (view.link == LinkState::Degraded).then(|| {
        format!(
            "{secondary}, the secondary, to get the {} bytes that it lacks for a last checkpoint{why}",
            view.missing
        )
    })
}

/// Whether no checkpoint has completed for so long that a stop goes on without a last one. Both engines
/// may answer us all the while: the link between them is another way, and undo space may be full.
fn is_without_checkpoint(case: &Case<'_>, view: &GroupStatus) -> bool {
    let status = &case.observed.status;
    let seen = status.state == Some(State::Degraded)
        && status.generation == Some(case.group.generation.to_string());
    let long =
        status.state_since.as_ref().is_some_and(|since| case.is_past(since.0, ABANDON_AFTER));
    // Of a copy that is to be kept the last checkpoint is worth another try.
    let tried = case.observed.failure.as_ref().is_some_and(|f| f.no_last_checkpoint)
        && case.desired.wish != Wish::Stop;
    (view.link == LinkState::Degraded && seen && long) || tried
}

/// The policy, before the stop that may need it. It must not be what keeps a group from stopping.
fn policy(case: &Case<'_>) -> Option<Step> {
    if case.desired.wish == Wish::Delete || case.observed.failure.is_some() {
        return None;
    }
    Some(run::policy(case)).filter(|actions| !actions.is_empty()).map(Step::act)
}
