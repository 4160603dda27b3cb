//! Which node and pool are to hold the copy, and the way there when that is another than now.
//!
//! ```text
//!   the manifest names another node ────────────────┐
//!   its node is gone, and silent for 5 minutes ─────┤ the old copy ends (stop), then the group object
//!   another pool answers at its node for 5 minutes ─┘ names the other: a new copy
//! ```
//!
//! The last two happen without anybody asking, so that a replaced disk or node heals. They need a
//! primary that serves, with all its replicas, and without a session with the old copy: as long as there
//! is one the copy lives, and what is wrong is our list of nodes. A pool that is mounted late, or a node
//! that registers anew, is back within the time.

use understudy_core::engine::api::{LinkState, Role, Stage};
use understudy_crds::conditions::accepted;
use understudy_crds::replication_group::GroupSide;

use super::{Case, RENEW_AFTER, Step, begin, run, stop};
use crate::desired::Refusal;

/// The node that is to hold the copy.
pub(super) fn wanted(case: &Case<'_>) -> Result<String, Refusal> {
    let primary = &case.primary().node;
    let before = case.group.spec.promotion.as_ref().map(|p| p.from.as_str());
    let asked = case.desired.secondary.as_deref();
    if before.is_none() && asked == Some(primary.as_str()) {
        return Err(Refusal::new(
            accepted::SECONDARY_UNKNOWN,
            format!("{primary} is the primary: name another node in spec.secondary.node"),
        ));
    }
    let node = match case.secondary() {
        // What there is stays, unless the manifest asks for another.
        Some(side) if asked.is_none() && case.observed.nodes.contains_key(&side.node) => {
            side.node.clone()
        }
        Some(side) if asked.is_none() => instead(case, side, before)?,
        _ => begin::secondary(asked, primary, before, case.observed)
            .ok_or_else(|| begin::no_secondary(primary, case.observed))?,
    };
    begin::takes_links(case.observed, &node)?;
    Ok(node)
}

/// The node in place of one that is gone, that nobody named.
fn instead(case: &Case<'_>, gone: &GroupSide, before: Option<&str>) -> Result<String, Refusal> {
    let primary = &case.primary().node;
    let other = begin::secondary(None, primary, before, case.observed);
    let seen = case.observed.status.replicas.iter().find(|r| r.node == gone.node);
    let last = seen.and_then(|r| r.observed_time.as_ref());
    let long = last.is_none_or(|last| case.is_past(last.0, RENEW_AFTER));
    let cut_off = cut_off(case);
    let remedy = match (other, cut_off) {
        (Some(other), true) if long => return Ok(other),
        (Some(other), true) => format!(
            "once its engine has been silent for {} minutes a new copy is made on {other}",
            RENEW_AFTER.as_secs() / 60
        ),
        (Some(_), false) => "nothing is given up as long as the primary does not serve, or has a \
             session with that copy"
            .to_owned(),
        (None, _) => begin::no_secondary(primary, case.observed).message,
    };
    Err(Refusal::new(
        accepted::UNKNOWN_NODE,
        format!(
            "the node {}, which keeps the copy, is gone: bring it back, or name another in \
             spec.secondary.node; {remedy}",
            gone.node
        ),
    ))
}

/// Makes the group object name the node that is wanted: the old one ends with a last checkpoint, if it
/// can.
pub(super) fn replace(case: &Case<'_>, wanted: Option<&str>) -> Step {
    let Some(wanted) = wanted else { return Step::default() };
    if case.secondary().is_some_and(|s| s.node == wanted && !is_renewed(case, s)) {
        return Step::default();
    }
    if case.secondary().is_some() && !stop::is_solo(case) {
        return stop::stop(case);
    }
    match case.observed.engine(wanted) {
        Some(engine) => {
            let side =
                GroupSide { node: wanted.to_owned(), pool: engine.pool.to_string(), policy: None };
            Step::act(vec![case.put(|spec| spec.secondary = Some(side))])
        }
        None => Step::wait(format!("the engine of {wanted}, which is to hold the copy, to answer")),
    }
}

/// Whether another pool has answered at the secondary's node for so long that the copy's own is not
/// waited for any more.
fn is_renewed(case: &Case<'_>, side: &GroupSide) -> bool {
    let Some(pool) = other_pool(case, side) else { return false };
    let mut seen = case.observed.status.replicas.iter();
    let seen = seen.find(|r| r.node == side.node && r.pool.as_ref() == Some(&side.pool));
    let since = seen.and_then(|r| r.other_pool.as_ref()).filter(|o| o.pool == pool);
    since.is_some_and(|o| case.is_past(o.since.0, RENEW_AFTER)) && obstacle(case, side).is_none()
}

/// The pool that answers at the side's node, if it is not the one that is meant.
fn other_pool(case: &Case<'_>, side: &GroupSide) -> Option<String> {
    case.observed.engine(&side.node).map(|e| e.pool.to_string()).filter(|pool| *pool != side.pool)
}

/// Why no new copy is made onto the other pool that answers.
fn obstacle(case: &Case<'_>, side: &GroupSide) -> Option<String> {
    let pool = other_pool(case, side)?;
    let mut others = case.observed.nodes.keys().filter(|n| **n != side.node);
    if let Some(twice) =
        others.find(|n| case.observed.engine(n).is_some_and(|e| e.pool.to_string() == pool))
    {
        return Some(format!("that pool is also {twice}'s: correct the addresses"));
    }
    (!cut_off(case)).then(|| {
        format!(
            "{}, the primary, does not serve, or has a session with the copy: correct the address, \
             or name another node in spec.secondary.node",
            case.primary().node
        )
    })
}

/// Whether the primary serves with all that it has, and no session with the copy.
fn cut_off(case: &Case<'_>) -> bool {
    let whole = run::missing(case, case.primary(), Role::Primary).is_empty();
    let serves = |stage| matches!(stage, Stage::Running | Stage::Done);
    whole
        && case.primary_view().is_some_and(|v| {
            serves(v.stage) && matches!(v.link, LinkState::Degraded | LinkState::Solo)
        })
}

/// What is waited for while the copy's engine does not answer, or another pool does.
pub(super) fn awaited(case: &Case<'_>, side: &GroupSide) -> String {
    let Some(other) = other_pool(case, side) else {
        return format!("the engine of {}, the secondary, to answer", side.node);
    };
    let then = obstacle(case, side).unwrap_or_else(|| {
        format!("after {} minutes a new copy is made there", RENEW_AFTER.as_secs() / 60)
    });
    format!(
        "the pool {} of {}, which has the copy: the pool {other} answers there; {then}",
        side.pool, side.node
    )
}
