//! Ends replication after a last checkpoint. The primary goes on alone; the copy stays as it is.

use understudy_core::engine::api::{GroupStatus, LinkState, Role, Stage};

use super::{Case, Step};
use crate::engines::Call;

/// Whether the primary has recorded that it has no peer.
pub(super) fn is_solo(case: &Case<'_>) -> bool {
    let own =
        |v: &&GroupStatus| v.generation == case.group.generation && v.role != Some(Role::Secondary);
    case.view(case.primary()).filter(own).is_some_and(|v| v.link == LinkState::Solo)
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
    if case.primary_view().is_none_or(|v| v.stage == Stage::None) {
        return Step::wait(format!("{} to take up its role as primary again", primary.node));
    }
    let reachable = case.answers(secondary);
    if !reachable && !case.given_up() {
        return Step::wait(format!(
            "the engine of {}, the secondary, to answer for a last checkpoint; after {} s it is \
             stopped without",
            secondary.node,
            super::ABANDON_AFTER.as_secs()
        ));
    }
    let call = Call::Stop {
        group: case.group.name.clone(),
        generation: case.group.generation,
        abandon_peer: !reachable,
    };
    Step::act(vec![Case::engine(&primary.node, call)])
}
