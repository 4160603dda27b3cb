//! What to say: the status that a person on call reads.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use understudy_core::engine::api::{self, GroupStatus, LinkState, Wall};
use understudy_crds::BlockReplicationStatus;
use understudy_crds::block_replication_status::{
    CheckpointStatus, ExportStatus, FailoverStatus, ReplicaRole, ReplicaStatus, Stage, State,
};
use understudy_crds::conditions::{
    ACCEPTED, ENGINES_REACHABLE, FAILED_OVER, PROTECTED, RECONCILED, accepted, engines, protected,
    reconciled,
};

use super::Step;
use crate::desired::{Desired, Refusal, Wish, signed};
use crate::observe::Observed;
use crate::store::Group;

/// The status before the step's actions.
pub(super) fn of(
    desired: &Desired,
    observed: &Observed,
    step: &Step,
    now: Timestamp,
) -> BlockReplicationStatus {
    let mut status = BlockReplicationStatus {
        observed_generation: desired.observed_generation,
        trigger: observed.status.trigger.clone(),
        ..BlockReplicationStatus::default()
    };
    if let Some(group) = &observed.group {
        of_group(&mut status, group, observed, now);
    }
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
    let (good, reason, words) = protection(desired, observed, &status);
    conditions.push(PROTECTED, good, reason, &words);
    if let Some((done, reason, words)) = &step.failover {
        conditions.push(FAILED_OVER, *done, reason, words);
    }
    status.conditions = conditions.all;
    status
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

fn of_group(
    status: &mut BlockReplicationStatus,
    group: &Group,
    observed: &Observed,
    now: Timestamp,
) {
    let spec = &group.spec;
    let view = |side: &understudy_crds::replication_group::GroupSide| {
        observed.view(group, &side.node, &side.pool).filter(|v| v.generation == group.generation)
    };
    let primary = view(&spec.primary);
    let secondary = spec.secondary.as_ref().and_then(view);
    status.group = Some(group.name.to_string());
    status.generation = Some(group.generation.to_string());
    status.primary = Some(spec.primary.node.clone());
    status.secondary = spec.secondary.as_ref().map(|s| s.node.clone());
    status.stage = primary.map(|v| stage(v.stage));
    status.state = primary.map(|v| state(v.link));
    status.epoch = primary.map(|v| signed(v.epoch.0));
    status.bytes_at_risk = primary.map(|v| signed(v.bytes_at_risk.0));
    // With the primary gone, the secondary's word is the one that counts.
    status.checkpoint = primary.or(secondary).and_then(checkpoint);
    status.failover = spec.promotion.as_ref().map(|p| FailoverStatus {
        replaced: p.replaces.clone(),
        from: p.from.clone(),
        target: spec.primary.node.clone(),
        checkpoint: p.checkpoint,
    });
    let mut replicas = vec![(spec.primary.node.as_str(), ReplicaRole::Primary)];
    replicas.extend(spec.secondary.iter().map(|s| (s.node.as_str(), ReplicaRole::Secondary)));
    if let Some(from) = spec.promotion.as_ref().map(|p| p.from.as_str())
        && !replicas.iter().any(|(node, _)| *node == from)
    {
        replicas.push((from, ReplicaRole::Former));
    }
    for (node, role) in replicas {
        status.replicas.push(replica(node, role, group, observed, now));
        let engine = observed.engine(node).and_then(|e| e.group(&group.name));
        let exports = engine.filter(|v| v.generation == group.generation).map(|v| &v.exports);
        status.exports.extend(exports.into_iter().flatten().map(|export| ExportStatus {
            volume: export.volume.to_string(),
            node: node.to_owned(),
            kind: export.kind.to_string(),
            uri: export.uri.clone(),
        }));
    }
}

fn replica(
    node: &str,
    role: ReplicaRole,
    group: &Group,
    observed: &Observed,
    now: Timestamp,
) -> ReplicaStatus {
    let old = observed.status.replicas.iter().find(|r| r.node == node);
    let engine = observed.nodes.get(node).map(|n| &n.engine);
    let answered = matches!(engine, Some(Ok(_)));
    let view = observed.engine(node).and_then(|e| e.group(&group.name));
    let bytes = |get: fn(&GroupStatus) -> u64| view.map(|v| signed(get(v)));
    let merging = view.is_some_and(|v| v.commit_total.0 > 0);
    ReplicaStatus {
        node: node.to_owned(),
        role,
        reachable: answered,
        stage: view.map(|v| stage(v.stage)),
        generation: view.map(|v| v.generation.to_string()),
        checkpoint: bytes(|v| v.record.0),
        missing_bytes: bytes(|v| v.missing.0).filter(|_| role == ReplicaRole::Primary),
        undo_bytes: bytes(|v| v.undo.0).filter(|_| role == ReplicaRole::Secondary),
        merged_bytes: bytes(|v| v.commit_done.0).filter(|_| merging),
        merge_bytes: bytes(|v| v.commit_total.0).filter(|_| merging),
        error: match engine {
            Some(Err(why)) => Some(why.clone()),
            Some(Ok(_)) => view.and_then(|v| v.error.clone()),
            None => Some("the node is not in the list of nodes any more".to_owned()),
        },
        observed_time: if answered {
            Some(Time(now))
        } else {
            old.and_then(|r| r.observed_time.clone())
        },
    }
}

fn checkpoint(view: &GroupStatus) -> Option<CheckpointStatus> {
    let at = |wall: Option<Wall>| {
        let millis = i64::try_from(wall?.0.as_millis()).ok()?;
        Timestamp::from_millisecond(millis).ok().map(Time)
    };
    (view.record.0 > 0).then(|| CheckpointStatus {
        epoch: signed(view.record.0),
        cut_time: at(view.checkpoint_cut),
        completion_time: at(view.checkpoint_done),
        bytes: signed(view.checkpoint_bytes.0),
    })
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
                let words = format!(
                    "at {}'s address the pool {} answers, the replica is in pool {}: correct the \
                     address, or give that engine its pool back",
                    side.node, engine.pool, side.pool
                );
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
        return (
            false,
            protected::PRIMARY_UNREACHABLE,
            format!("{primary}, the primary, gives no account of the group; {remedy}"),
        );
    };
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

fn stage(stage: api::Stage) -> Stage {
    match stage {
        api::Stage::None => Stage::None,
        api::Stage::Running => Stage::Running,
        api::Stage::Failover => Stage::Failover,
        api::Stage::FailoverFailed => Stage::FailoverFailed,
        api::Stage::Done => Stage::Done,
    }
}

fn state(link: LinkState) -> State {
    match link {
        LinkState::Solo => State::Solo,
        LinkState::Syncing => State::Syncing,
        LinkState::Running => State::Running,
        LinkState::Degraded => State::Degraded,
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
