//! Failover by hand: the order is checked, the generation raised, the secondary promoted.
//!
//! ```text
//!   order names the generation ─► group object: generation + 2, roles changed ─► engine: failover
//!                                 (from here it is finished, never taken back)
//! ```
//!
//! The number rises by 2 because it is to be above any that was ever seen.

use understudy_core::engine::api::{Failover, Generation, Role, Stage};
use understudy_crds::conditions::{accepted, failed_over as reasons};
use understudy_crds::replication_group::Promotion;

use super::{Case, Step};
use crate::desired::{FailoverOrder, Refusal, signed};
use crate::engines::Call;

/// What becomes of the order in the manifest.
pub(super) fn ordered(case: &Case<'_>) -> Step {
    match &case.desired.failover {
        None => Step::default(),
        Some(order) if obeyed(case, order) => said(case, order),
        Some(order) => match check(case, order) {
            Err((reason, words)) => {
                Step { failover: Some((false, reason, words)), ..Step::default() }
            }
            Ok(checkpoint) => Step::act(vec![raise(case, order, checkpoint)]),
        },
    }
}

/// Why the primary that the manifest names is not made one. After a failover the one before may stay
/// named: roles are swapped.
pub(super) fn asked_otherwise(case: &Case<'_>) -> Option<Refusal> {
    let primary = &case.primary().node;
    let before = case.group.spec.promotion.as_ref().map(|p| &p.from);
    let asked = case.desired.primary.as_ref();
    let asked = asked.filter(|asked| *asked != primary && Some(*asked) != before)?;
    let name = &case.desired.name;
    Some(Refusal::new(
        accepted::PRIMARY_CHANGED,
        format!(
            "spec.primary.node names {asked}, but {primary} is the primary: it says where a replication \
             begins, and moves none. Name {primary}; where the copy is the VM goes by `kubectl \
             understudy failover {} -n {}`, which loses what was written since the last checkpoint",
            name.name, name.namespace
        ),
    ))
}

/// Whether this very order led to the group's present generation.
fn obeyed(case: &Case<'_>, order: &FailoverOrder) -> bool {
    let promotion = case.group.spec.promotion.as_ref();
    case.primary().node == order.target
        && promotion.is_some_and(|p| p.replaces == order.replace.to_string())
}

/// How far an order that was obeyed has come.
fn said(case: &Case<'_>, order: &FailoverOrder) -> Step {
    let target = &order.target;
    let words = match case.primary_view().map(|v| v.stage) {
        None => (false, reasons::PROMOTING, format!("waiting for {target} to be promoted")),
        Some(Stage::Failover) => (
            true,
            reasons::MERGING,
            format!("{target} serves the volumes; the roll-back is being merged"),
        ),
        Some(Stage::FailoverFailed) => (
            true,
            reasons::MERGE_FAILED,
            format!(
                "{target} serves the volumes, but merging the roll-back failed; it is tried again"
            ),
        ),
        Some(Stage::None | Stage::Running | Stage::Done) => {
            (true, reasons::PROMOTED, format!("{target} serves the volumes"))
        }
    };
    let (done, reason, mut words) = words;
    let left = &case.group.spec.left_behind;
    if done && !left.is_empty() {
        let left: Vec<_> = left.iter().map(|l| format!("{} on {}", l.volume, l.node)).collect();
        words.push_str(&format!(
            "; left behind, for no checkpoint covered it yet: {}",
            left.join(", ")
        ));
    }
    let words = (done, reason, words);
    Step { failover: Some(words), ..Step::default() }
}

/// Whether the order can be obeyed; the checkpoint that the target has.
fn check(case: &Case<'_>, order: &FailoverOrder) -> Result<i64, (&'static str, String)> {
    let (target, ours) = (&order.target, case.group.generation);
    if order.replace != ours {
        return Err((
            reasons::STALE_GENERATION,
            format!(
                "the order is to replace generation {}, the group is at {ours} with {} as primary: \
                 if it is still meant, name {ours}",
                order.replace,
                case.primary().node
            ),
        ));
    }
    let side = match case.secondary() {
        Some(side) if side.node == *target => side,
        other => {
            let holder = other.map_or("nobody".to_owned(), |s| s.node.clone());
            return Err((
                reasons::NOT_THE_SECONDARY,
                format!(
                    "{target} is not the secondary, {holder} is: only the secondary has a copy"
                ),
            ));
        }
    };
    if !case.answers(side) {
        return Err((
            reasons::TARGET_UNREACHABLE,
            format!(
                "the engine of {target} that holds the copy does not answer: start it; the order stands"
            ),
        ));
    }
    let view = case.view(side).filter(|v| v.role != Some(Role::Primary) && v.generation == ours);
    match view {
        Some(view) if view.record.0 > 0 => Ok(signed(view.record.0)),
        _ => Err((
            reasons::NOTHING_TO_PROMOTE,
            format!(
                "{target} has no complete checkpoint of generation {ours}: its copy would not be \
                 consistent. Let the first checkpoint complete, or start the VM on {} again",
                case.primary().node
            ),
        )),
    }
}

fn raise(case: &Case<'_>, order: &FailoverOrder, checkpoint: i64) -> crate::apply::Action {
    let next = Generation {
        number: case.group.generation.number.saturating_add(2),
        id: case.observed.fresh_id,
    };
    case.put(|spec| {
        let from = spec.primary.node.clone();
        if let Some(secondary) = spec.secondary.take() {
            spec.primary = secondary;
        }
        let replaces = order.replace.to_string();
        spec.promotion = Some(Promotion { replaces, from, checkpoint, pods: None });
        spec.generation = next.to_string();
    })
}

/// Finishes a promotion that the group object announces, whoever announced it.
pub(super) fn finish(case: &Case<'_>) -> Step {
    let Some(promotion) = &case.group.spec.promotion else { return Step::default() };
    let side = case.primary();
    if !case.answers(side) {
        return Step::default();
    }
    let Ok(replace) = promotion.replaces.parse() else { return Step::default() };
    let Some(view) = case.view(side) else {
        return Step::hold(format!(
            "{} is to be primary of {} at generation {}, but its engine has no replica of it: \
             give the engine its pool back",
            side.node, case.group.name, case.group.generation
        ));
    };
    let behind = view.generation != case.group.generation;
    if behind || view.stage == Stage::FailoverFailed {
        let call = Call::Failover(Failover {
            group: case.group.name.clone(),
            replace,
            new: case.group.generation,
            keep_active: false,
        });
        return Step::act(vec![Case::engine(&side.node, call)]);
    }
    Step::default()
}
