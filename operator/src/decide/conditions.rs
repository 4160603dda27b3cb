//! The conditions: what is true, why, and the remedy where it is not as asked.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use understudy_crds::BlockReplicationStatus;
use understudy_crds::block_replication_status::State;
use understudy_crds::conditions::{
    ACCEPTED, ENGINES_REACHABLE, FAILED_OVER, PROTECTED, RECONCILED, accepted, engines, protected,
    reconciled,
};

use super::{Step, join};
use crate::desired::{Desired, Refusal, Wish};
use crate::observe::Observed;
use crate::store::Group;

/// Every condition. `status` holds the rest of the status already.
pub(super) fn of(
    desired: &Desired,
    observed: &Observed,
    step: &Step,
    status: &BlockReplicationStatus,
    now: Timestamp,
) -> Vec<Condition> {
    let mut conditions =
        Conditions { before: &observed.status.conditions, now, desired, all: vec![] };
    let refused = step.refused.as_ref();
    conditions.push(
        ACCEPTED,
        refused.is_none(),
        refused.map_or(accepted::ACCEPTED, |r| r.reason),
        refused.map_or("the manifest and what it names can be obeyed", |r| &r.message),
    );
    if let Some(group) = &observed.group {
        let (good, reason, words) = reach(group, observed);
        conditions.push(ENGINES_REACHABLE, good, reason, &words);
    }
    let (good, reason, words) = progress(step, observed);
    conditions.push(RECONCILED, good, reason, &words);
    let (good, reason, words) = protection(desired, observed, status);
    conditions.push(PROTECTED, good, reason, &words);
    if let Some((done, reason, words)) = &step.failover {
        conditions.push(FAILED_OVER, *done, reason, words);
    }
    conditions.all
}

/// The status of a manifest that can't even be read.
pub fn refused(
    before: &BlockReplicationStatus,
    observed_generation: Option<i64>,
    refusal: &Refusal,
    now: Timestamp,
) -> BlockReplicationStatus {
    let mut status = before.clone();
    let old = before.conditions.iter().find(|c| c.type_ == ACCEPTED);
    let since = old.filter(|c| c.status == "False").map_or(now, |c| c.last_transition_time.0);
    status.conditions.retain(|c| c.type_ != ACCEPTED);
    status.conditions.insert(
        0,
        Condition {
            type_: ACCEPTED.to_owned(),
            status: "False".to_owned(),
            reason: refusal.reason.to_owned(),
            message: refusal.message.clone(),
            observed_generation,
            last_transition_time: Time(since),
        },
    );
    status
}

fn reach(group: &Group, observed: &Observed) -> (bool, &'static str, String) {
    let sides = [Some(&group.spec.primary), group.spec.secondary.as_ref()];
    for side in sides.into_iter().flatten() {
        match observed.nodes.get(&side.node).map(|n| &n.engine) {
            None => {
                let words =
                    format!("{} is not in the list of nodes any more: add it again", side.node);
                return (false, engines::UNREACHABLE, words);
            }
            Some(Err(why)) => {
                return (false, engines::UNREACHABLE, format!("{}: {why}", side.node));
            }
            Some(Ok(engine)) if engine.pool.to_string() != side.pool => {
                let mut words = format!(
                    "at {}'s address the pool {} answers, the replica is in pool {}: correct the \
                     address, or give that engine its pool back",
                    side.node, engine.pool, side.pool
                );
                if *side != group.spec.primary {
                    words.push_str("; if that is lost, Reconciled says when a new copy is made");
                }
                return (false, engines::WRONG_POOL, words);
            }
            Some(Ok(_)) => {}
        }
    }
    (true, engines::REACHABLE, "every engine that holds a replica answers".to_owned())
}

fn progress(step: &Step, observed: &Observed) -> (bool, &'static str, String) {
    if let Some(held) = &step.held {
        return (false, reconciled::REPLICA_AHEAD, held.clone());
    }
    if let Some(failure) = &observed.failure {
        return (false, reconciled::ACTION_FAILED, failure.message.clone());
    }
    if let Some(action) = step.actions.first() {
        return (false, reconciled::PROGRESSING, action.to_string());
    }
    if let Some(waiting) = &step.waiting {
        return (false, reconciled::PROGRESSING, format!("waiting for {waiting}"));
    }
    (true, reconciled::SETTLED, "nothing is left to do".to_owned())
}

fn protection(
    desired: &Desired,
    observed: &Observed,
    status: &BlockReplicationStatus,
) -> (bool, &'static str, String) {
    let Some(group) = &observed.group else {
        return match desired.wish {
            Wish::Run => {
                (false, protected::NOT_STARTED, "replication has not begun yet".to_owned())
            }
            Wish::Stop | Wish::Delete => {
                (false, protected::STOPPED, "stopped, as asked; there is no copy".to_owned())
            }
        };
    };
    let held = status.checkpoint.as_ref().map_or(0, |c| c.epoch);
    let primary = &group.spec.primary.node;
    let Some(state) = status.state else {
        let remedy = match &group.spec.secondary {
            Some(side) if held > 0 => format!(
                "to go on from checkpoint {held} on {0}, set spec.failover.trigger to \
                 {{generation: {1}, target: {0}}}",
                side.node, group.generation
            ),
            _ => format!("there is no copy to go on from: bring {primary} back"),
        };
        let mut words = format!("{primary}, the primary, gives no account of the group; {remedy}");
        if !status.joining.is_empty() && held > 0 {
            words.push_str(&format!(
                ". That leaves {} behind, which no checkpoint covers yet",
                join::names(&status.joining)
            ));
        }
        return (false, protected::PRIMARY_UNREACHABLE, words);
    };
    let (good, reason, mut words) = standing(desired, state, primary, held);
    if let Some(joins) = join::words(&status.joining) {
        words.push_str(&format!("; {joins}"));
    }
    (good, reason, words)
}

fn standing(
    desired: &Desired,
    state: State,
    primary: &str,
    held: i64,
) -> (bool, &'static str, String) {
    match state {
        State::Running => (true, protected::RUNNING, "checkpoints complete".to_owned()),
        State::Syncing => {
            (false, protected::SYNCING, "the secondary has no checkpoint yet".to_owned())
        }
        State::Degraded => (
            false,
            protected::DEGRADED,
            format!("no checkpoint can complete; a failover goes back to checkpoint {held}"),
        ),
        State::Solo if desired.wish == Wish::Run => {
            (false, protected::SOLO, format!("{primary} is alone: there is no copy that follows"))
        }
        State::Solo => {
            (false, protected::STOPPED, format!("stopped, as asked; {primary} goes on alone"))
        }
    }
}

/// Conditions under construction. A time of transition stays as long as the status does.
struct Conditions<'a> {
    before: &'a [Condition],
    now: Timestamp,
    desired: &'a Desired,
    all: Vec<Condition>,
}

impl Conditions<'_> {
    fn push(&mut self, type_: &str, good: bool, reason: &str, message: &str) {
        let status = if good { "True" } else { "False" };
        let old = self.before.iter().find(|c| c.type_ == type_ && c.status == status);
        self.all.push(Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            observed_generation: self.desired.observed_generation,
            last_transition_time: Time(old.map_or(self.now, |c| c.last_transition_time.0)),
        });
    }
}
