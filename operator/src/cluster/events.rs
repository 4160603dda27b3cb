//! What is worth an event: pure, from two statuses that follow each other.
//!
//! A person who looks at the object's events reads its story: started, degraded, recovered, failed
//! over, refused. What stays the same is said once; the conditions say it all the time.

use understudy_crds::BlockReplicationStatus;
use understudy_crds::block_replication_status::{JoiningStatus, ReplicaRole};
use understudy_crds::conditions::{
    ACCEPTED, ENGINES_REACHABLE, FAILED_OVER, PROTECTED, RECONCILED, accepted, failed_over,
    protected, reconciled,
};

/// One event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct News {
    /// Whether somebody should look.
    pub warning: bool,
    /// What happened, in one word.
    pub reason: String,
    /// In a sentence.
    pub note: String,
    /// What the operator was at.
    pub action: &'static str,
}

/// What `after` has that `before` had not.
pub fn news(before: &BlockReplicationStatus, after: &BlockReplicationStatus) -> Vec<News> {
    let mut all = Vec::new();
    for condition in &after.conditions {
        let old = before.conditions.iter().find(|c| c.type_ == condition.type_);
        if old.is_some_and(|o| o.reason == condition.reason && o.status == condition.status) {
            continue;
        }
        let Some((warning, action)) = worth(&condition.type_, &condition.reason, old.is_some())
        else {
            continue;
        };
        let (reason, note) = (condition.reason.clone(), condition.message.clone());
        all.push(News { warning, reason, note, action });
    }
    if after.trigger != before.trigger
        && let Some(trigger) = &after.trigger
    {
        all.push(News {
            warning: false,
            reason: "CheckpointCompleted".to_owned(),
            note: format!("checkpoint {}, asked for by '{}'", trigger.epoch, trigger.token),
            action: "Checkpoint",
        });
    }
    for joining in &after.joining {
        if !before.joining.iter().any(|j| j.volume == joining.volume) {
            all.push(News {
                warning: false,
                reason: "VolumeJoins".to_owned(),
                note: format!(
                    "volume {} joins; a failover leaves it behind until a checkpoint covers it",
                    joining.volume
                ),
                action: "Replicate",
            });
        }
    }
    for left in after.left_behind.iter().filter(|l| !before.left_behind.contains(l)) {
        all.push(News {
            warning: true,
            reason: "VolumeLeftBehind".to_owned(),
            note: format!(
                "volume {} was left behind on {}: no checkpoint covered it yet",
                left.volume, left.node
            ),
            action: "Failover",
        });
    }
    let over = |j: &&JoiningStatus| {
        let same = |other: &JoiningStatus| other.volume == j.volume;
        !after.joining.iter().any(same) && !after.left_behind.iter().any(|l| l.volume == j.volume)
    };
    // One of which nothing was ever sent was taken back; without a group it has ended.
    let sent = |j: &&JoiningStatus| j.sent_percent.is_some() && after.group.is_some();
    for joined in before.joining.iter().filter(over).filter(sent) {
        all.push(News {
            warning: false,
            reason: "VolumeJoined".to_owned(),
            note: format!("volume {} is covered by checkpoints", joined.volume),
            action: "Replicate",
        });
    }
    all.extend(renewed(before, after));
    if after.failover != before.failover
        && let Some(failover) = &after.failover
    {
        all.push(News {
            warning: true,
            reason: "FailoverBegun".to_owned(),
            note: format!(
                "{} takes over from {} at checkpoint {} or later; generation {} is replaced",
                failover.target, failover.from, failover.checkpoint, failover.replaced
            ),
            action: "Failover",
        });
    }
    all
}

/// That the copy is made anew: its pool is gone for good, or it is to be on another node.
fn renewed(before: &BlockReplicationStatus, after: &BlockReplicationStatus) -> Option<News> {
    let copy = |s: &BlockReplicationStatus| {
        s.replicas.iter().find(|r| r.role == ReplicaRole::Secondary).cloned()
    };
    let (old, new) = (copy(before)?, copy(after)?);
    let (was, is) = (old.pool?, new.pool.filter(|_| before.generation == after.generation)?);
    let same_node = old.node == new.node;
    (was != is).then(|| News {
        warning: same_node,
        reason: if same_node { "CopyRenewed" } else { "CopyMoved" }.to_owned(),
        note: format!(
            "the copy in pool {was} of {} is given up: a new one is made on {}, in pool {is}",
            old.node, new.node
        ),
        action: "Replicate",
    })
}

/// Whether a condition's new reason is an event: a warning or not, and its action.
fn worth(type_: &str, reason: &str, known: bool) -> Option<(bool, &'static str)> {
    match (type_, reason) {
        (ACCEPTED, accepted::ACCEPTED) => known.then_some((false, "Accept")),
        (ACCEPTED, _) => Some((true, "Accept")),
        // What was never there did not go away.
        (ENGINES_REACHABLE, understudy_crds::conditions::engines::REACHABLE) => {
            known.then_some((false, "Observe"))
        }
        (ENGINES_REACHABLE, _) => Some((true, "Observe")),
        (RECONCILED, reconciled::ACTION_FAILED | reconciled::REPLICA_AHEAD) => {
            Some((true, "Reconcile"))
        }
        (PROTECTED, protected::RUNNING | protected::SYNCING | protected::STOPPED) => {
            Some((false, "Replicate"))
        }
        (PROTECTED, protected::NOT_STARTED) | (FAILED_OVER, failed_over::PROMOTING) => None,
        (PROTECTED, _) => Some((true, "Replicate")),
        (FAILED_OVER, failed_over::PROMOTED | failed_over::MERGING) => Some((false, "Failover")),
        (FAILED_OVER, _) => Some((true, "Failover")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use understudy_crds::block_replication_status::LeftBehindStatus;

    fn status(conditions: &[(&str, &str)]) -> BlockReplicationStatus {
        let one = |(type_, reason): &(&str, &str)| Condition {
            type_: (*type_).to_owned(),
            status: "False".to_owned(),
            reason: (*reason).to_owned(),
            message: "words".to_owned(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        };
        BlockReplicationStatus {
            conditions: conditions.iter().map(one).collect(),
            ..BlockReplicationStatus::default()
        }
    }

    #[test]
    fn a_volume_that_joins_is_told_of_at_the_beginning_and_at_the_end() {
        let joining = |percent| BlockReplicationStatus {
            group: Some("shop.web".to_owned()),
            joining: vec![JoiningStatus { volume: "x".to_owned(), sent_percent: percent }],
            ..BlockReplicationStatus::default()
        };
        let group = BlockReplicationStatus { joining: Vec::new(), ..joining(None) };
        let left = BlockReplicationStatus {
            left_behind: vec![LeftBehindStatus { volume: "x".to_owned(), node: "a".to_owned() }],
            ..group.clone()
        };
        let table = [
            (&group, &joining(None), &["VolumeJoins"][..]),
            (&joining(None), &joining(Some(3)), &[]),
            (&joining(Some(3)), &joining(Some(99)), &[]),
            (&joining(Some(99)), &group, &["VolumeJoined"]),
            (&joining(None), &group, &[]),
            (&joining(Some(3)), &left, &["!VolumeLeftBehind"]),
            (&left, &left, &[]),
            (&left, &joining(None), &["VolumeJoins"]),
            (&joining(Some(3)), &BlockReplicationStatus::default(), &[]),
        ];
        for (before, after, expected) in table {
            assert_eq!(shown(&news(before, after)), expected, "{before:?} {after:?}");
        }
    }

    #[test]
    fn a_copy_that_is_made_anew_is_told_of_and_a_failover_is_no_such_thing() {
        let status = |generation: &str, node: &str, pool: &str| {
            let replica = json!({
                "node": node, "role": "Secondary", "reachable": true, "pool": pool,
            });
            let status = json!({ "generation": generation, "replicas": [replica] });
            serde_json::from_value::<BlockReplicationStatus>(status).unwrap()
        };
        let before = status("1-x", "b", "p");
        let table = [
            (status("1-x", "b", "p"), &[][..]),
            (status("1-x", "b", "q"), &["!CopyRenewed"]),
            (status("1-x", "c", "q"), &["CopyMoved"]),
            (status("3-y", "a", "o"), &[]),
            (BlockReplicationStatus::default(), &[]),
        ];
        for (after, expected) in table {
            assert_eq!(shown(&news(&before, &after)), expected, "{after:?}");
        }
    }

    fn shown(news: &[News]) -> Vec<String> {
        let mark = |n: &News| if n.warning { "!" } else { "" };
        news.iter().map(|n| format!("{}{}", mark(n), n.reason)).collect()
    }

    #[test]
    fn a_replication_tells_its_story_once() {
        let table = [
            (&[][..], &[(PROTECTED, "NotStarted"), (ACCEPTED, "Accepted")][..], &[][..]),
            (&[], &[(ACCEPTED, "NotOurs")], &["!NotOurs"]),
            (&[(ACCEPTED, "NotOurs")], &[(ACCEPTED, "NotOurs")], &[]),
            (&[(ACCEPTED, "NotOurs")], &[(ACCEPTED, "Accepted")], &["Accepted"]),
            (&[(PROTECTED, "Syncing")], &[(PROTECTED, "Running")], &["Running"]),
            (&[(PROTECTED, "Running")], &[(PROTECTED, "Degraded")], &["!Degraded"]),
            (&[(PROTECTED, "Degraded")], &[(PROTECTED, "Running")], &["Running"]),
            (&[], &[(FAILED_OVER, "StaleGeneration")], &["!StaleGeneration"]),
            (&[], &[(RECONCILED, "Progressing")], &[]),
            (&[], &[(RECONCILED, "ReplicaAhead")], &["!ReplicaAhead"]),
        ];
        for (before, after, expected) in table {
            let found = news(&status(before), &status(after));
            assert_eq!(shown(&found), expected, "{before:?} {after:?}");
        }
    }
}
