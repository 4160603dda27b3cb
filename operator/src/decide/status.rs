//! What to say: the status that a person on call reads.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use understudy_core::engine::api::{self, GroupStatus, LinkState, Wall};
use understudy_crds::BlockReplicationStatus;
use understudy_crds::block_replication_status::{
    CheckpointStatus, ExportStatus, FailoverStatus, LeftBehindStatus, OtherPool, ReplicaRole,
    ReplicaStatus, Stage, State,
};
use understudy_crds::replication_group::{GroupSide, LeftBehind};

use super::{Step, conditions, join};
use crate::desired::{Desired, signed};
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
    status.conditions = conditions::of(desired, observed, step, &status, now);
    status
}

fn of_group(
    status: &mut BlockReplicationStatus,
    group: &Group,
    observed: &Observed,
    now: Timestamp,
) {
    let spec = &group.spec;
    let view = |side: &GroupSide| {
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
    // While the primary is silent, what it counted last is the least that is at risk.
    let before = Some(&observed.status).filter(|s| s.generation == status.generation);
    status.bytes_at_risk = match primary {
        Some(view) => Some(signed(view.bytes_at_risk.0)),
        None => before.and_then(|s| s.bytes_at_risk),
    };
    // With the primary gone, the secondary's word is the one that counts.
    let known = before.filter(|s| s.state == status.state).and_then(|s| s.state_since.clone());
    status.state_since = status.state.map(|_| known.unwrap_or(Time(now)));
    status.checkpoint = primary.or(secondary).and_then(checkpoint);
    status.joining = join::progress(group, primary);
    if primary.is_none() {
        // How far it was; without the primary it comes no further.
        let old = &observed.status.joining;
        for joining in &mut status.joining {
            let found = old.iter().find(|o| o.volume == joining.volume);
            joining.sent_percent = found.and_then(|o| o.sent_percent);
        }
    }
    let left = |l: &LeftBehind| LeftBehindStatus { volume: l.volume.clone(), node: l.node.clone() };
    status.left_behind = spec.left_behind.iter().map(left).collect();
    status.failover = spec.promotion.as_ref().map(|p| FailoverStatus {
        replaced: p.replaces.clone(),
        from: p.from.clone(),
        target: spec.primary.node.clone(),
        checkpoint: p.checkpoint,
    });
    let place = |s: &'_ GroupSide| (s.node.clone(), Some(s.pool.clone()));
    let mut replicas = vec![(place(&spec.primary), ReplicaRole::Primary)];
    replicas.extend(spec.secondary.iter().map(|s| (place(s), ReplicaRole::Secondary)));
    if let Some(from) = spec.promotion.as_ref().map(|p| p.from.as_str())
        && !replicas.iter().any(|((node, _), _)| *node == from)
    {
        replicas.push(((from.to_owned(), None), ReplicaRole::Former));
    }
    for ((node, pool), role) in replicas {
        let mut replica = replica(&node, role, group, observed, now);
        replica.other_pool = pool.as_ref().and_then(|p| other_pool(&node, p, observed, now));
        replica.pool = pool;
        status.replicas.push(replica);
        let engine = observed.engine(&node).and_then(|e| e.group(&group.name));
        let exports = engine.filter(|v| v.generation == group.generation).map(|v| &v.exports);
        status.exports.extend(exports.into_iter().flatten().map(|export| ExportStatus {
            volume: export.volume.to_string(),
            node: node.clone(),
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
        pool: None,
        other_pool: None,
        reachable: answered,
        stage: view.map(|v| stage(v.stage)),
        generation: view.map(|v| v.generation.to_string()),
        checkpoint: bytes(|v| v.record.0),
        missing_bytes: bytes(|v| v.missing.0).filter(|_| role == ReplicaRole::Primary),
        missing_seconds: view
            .filter(|v| role == ReplicaRole::Primary && v.missing.0 > 0)
            .and_then(|v| v.missing.0.checked_div(v.resync_rate.0))
            .map(signed),
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

/// The pool that answers in the place of the replica's, and since when.
fn other_pool(node: &str, pool: &str, observed: &Observed, now: Timestamp) -> Option<OtherPool> {
    let found = observed.engine(node).map(|e| e.pool.to_string()).filter(|p| p != pool)?;
    let mut old = observed.status.replicas.iter();
    let old = old.find(|r| r.node == node && r.pool.as_deref() == Some(pool));
    let known = old.and_then(|r| r.other_pool.clone()).filter(|o| o.pool == found);
    Some(known.unwrap_or(OtherPool { pool: found, since: Time(now) }))
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
