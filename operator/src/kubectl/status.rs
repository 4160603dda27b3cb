//! What is protected, how old the checkpoint is, what is at risk: pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use understudy_crds::block_replication_status::{ReplicaRole, ReplicaStatus};
use understudy_crds::conditions::{
    ACCEPTED, ENGINES_REACHABLE, FAILED_OVER, PROTECTED, RECONCILED, protected,
};
use understudy_crds::{BlockReplication, BlockReplicationStatus};

use super::pool;
use super::words::{age, bytes, span, table};

/// A condition of it.
pub fn condition<'a>(status: &'a BlockReplicationStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|c| c.type_ == type_)
}

/// Whether a failover would bring back a recent checkpoint, and the reason.
pub fn protection(status: &BlockReplicationStatus) -> (bool, String) {
    match condition(status, PROTECTED) {
        Some(condition) => (condition.status == "True", condition.reason.clone()),
        None => match condition(status, ACCEPTED).filter(|c| c.status == "False") {
            Some(refused) => (false, refused.reason.clone()),
            None => (false, "not looked at yet".to_owned()),
        },
    }
}

/// Of a namespace that has none: whether others have. `None`: who asks may not look into them.
pub fn none_in(namespace: &str, everywhere: Option<&[BlockReplication]>) -> String {
    let here = format!("There is no BlockReplication in namespace {namespace}");
    let Some(objects) = everywhere else {
        return format!(
            "{here}; kubectl understudy status -n NAMESPACE looks into another (you may not list all)\n"
        );
    };
    let mut others: Vec<_> = objects.iter().filter_map(ResourceExt::namespace).collect();
    others.sort();
    others.dedup();
    match others.as_slice() {
        [] => format!("{here}, nor in any other: nothing is replicated.\n"),
        [only] => {
            format!("{here}; {only} has {}: kubectl understudy status -n {only}\n", objects.len())
        }
        more => format!(
            "{here}; {} others have {}: kubectl understudy status -A\n",
            more.len(),
            objects.len()
        ),
    }
}

/// Every replication in a line.
pub fn list(objects: &[BlockReplication], now: Timestamp) -> String {
    if objects.is_empty() {
        return "There is no BlockReplication in any namespace: nothing is replicated.\n"
            .to_owned();
    }
    let header =
        ["NAMESPACE", "NAME", "PROTECTED", "PRIMARY", "SECONDARY", "CHECKPOINT", "AT RISK"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let mut open = Vec::new();
    for object in objects {
        let status = object.status.clone().unwrap_or_default();
        let (good, reason) = protection(&status);
        if !good {
            open.push(format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any()));
        }
        let text = |t: &Option<String>| t.clone().unwrap_or_else(|| "-".to_owned());
        rows.push(vec![
            object.namespace().unwrap_or_default(),
            object.name_any(),
            if good { "yes".to_owned() } else { format!("NO: {reason}") },
            text(&status.primary),
            text(&status.secondary),
            checkpoint_age(&status, now).map_or("none".to_owned(), |a| format!("{a} ago")),
            match status.bytes_at_risk {
                None => "unknown".to_owned(),
                Some(count) if status.state.is_some() => bytes(count),
                Some(count) => format!("{} or more", bytes(count)),
            },
        ]);
    }
    let mut text = table(&rows);
    if let Some(first) = open.first() {
        text.push_str(&format!(
            "\n{} of {} {} not protected: kubectl understudy status {first} says what to do.\n",
            open.len(),
            objects.len(),
            if open.len() == 1 { "is" } else { "are" },
        ));
    }
    text
}

/// How old what a failover would bring back is.
pub fn checkpoint_age(status: &BlockReplicationStatus, now: Timestamp) -> Option<String> {
    let checkpoint = status.checkpoint.as_ref()?;
    Some(age(checkpoint.cut_time.as_ref()?.0, now))
}

/// One replication in full.
pub fn describe(object: &BlockReplication, now: Timestamp) -> String {
    let status = object.status.clone().unwrap_or_default();
    let name = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
    let (good, reason) = protection(&status);
    let head = if good { "protected".to_owned() } else { format!("NOT PROTECTED ({reason})") };
    let mut rows = Vec::new();
    let mut row = |what: &str, words: String| rows.push(vec![format!("  {what}"), words]);
    let source = &object.spec.source;
    row(
        "source",
        match (&source.virtual_machine, &source.persistent_volume_claims) {
            (Some(machine), _) => format!("VirtualMachine {}", machine.name),
            (None, Some(claims)) => {
                let names: Vec<_> = claims.iter().map(|c| c.name.as_str()).collect();
                format!("claims {}", names.join(", "))
            }
            (None, None) => "none".to_owned(),
        },
    );
    for replica in &status.replicas {
        let role = match replica.role {
            ReplicaRole::Primary => "primary",
            ReplicaRole::Secondary => "secondary",
            ReplicaRole::Former => "former",
        };
        row(role, side(replica, now));
    }
    if status.secondary.is_none() {
        row("secondary", "none".to_owned());
    }
    for joining in &status.joining {
        let sent =
            joining.sent_percent.map_or("nothing sent yet".into(), |p| format!("{p} % sent"));
        row("joins", format!("{}, {sent}; a failover now would leave it behind", joining.volume));
    }
    for left in &status.left_behind {
        row(
            "left behind",
            format!("{}, served by {} alone: not replicated", left.volume, left.node),
        );
    }
    if let Some(generation) = &status.generation {
        row("generation", generation.clone());
    }
    row(
        "checkpoint",
        match (&status.checkpoint, checkpoint_age(&status, now)) {
            (Some(checkpoint), Some(age)) => {
                format!("{}, {age} old, {}", checkpoint.epoch, bytes(checkpoint.bytes))
            }
            (Some(checkpoint), None) => format!("{}, of unknown age", checkpoint.epoch),
            (None, _) => "none yet".to_owned(),
        },
    );
    row(
        "at risk",
        match (status.bytes_at_risk, &status.primary) {
            (Some(count), Some(primary)) if status.state.is_some() => {
                format!("{} written since: lost if {primary} died now", bytes(count))
            }
            (Some(count), Some(primary)) => {
                format!("at least {}, which is what {primary} counted last", bytes(count))
            }
            _ => "unknown: the primary gives no account".to_owned(),
        },
    );
    let mut text = format!("{name}: {head}\n{}", table(&rows));
    // What is said of a primary that gives no account is for one that is lost.
    let misled = pool::wrong(&status).is_some() && pool::is_primarys(&status);
    for type_ in [ACCEPTED, ENGINES_REACHABLE, PROTECTED, RECONCILED, FAILED_OVER] {
        if misled && type_ == PROTECTED {
            continue;
        }
        if let Some(condition) = condition(&status, type_).filter(|c| c.status != "True") {
            text.push_str(&format!("  {}: {}\n", condition.reason, condition.message));
        }
    }
    text.push_str(&format!("  what to do: {}\n", advice(&name, &status)));
    text
}

fn side(replica: &ReplicaStatus, now: Timestamp) -> String {
    let mut words = vec![replica.node.clone()];
    if replica.reachable {
        words.extend(replica.stage.map(|s| format!("{s:?}")));
        words
            .extend(replica.checkpoint.filter(|c| *c > 0).map(|c| format!("holds checkpoint {c}")));
        if let (Some(done), Some(all)) = (replica.merged_bytes, replica.merge_bytes)
            && done < all
        {
            words.push(format!("merging the roll-back: {} of {}", bytes(done), bytes(all)));
        }
        words.extend(replica.missing_bytes.filter(|b| *b > 0).map(
            |b| match replica.missing_seconds {
                Some(s) => format!("{} still to be sent, about {}", bytes(b), span(s)),
                None => format!("{} still to be sent", bytes(b)),
            },
        ));
    } else {
        let seen = replica.observed_time.as_ref().map(|t| age(t.0, now));
        let seen = seen.map_or("never seen".to_owned(), |a| format!("last seen {a} ago"));
        words.push(format!("SILENT, {seen}"));
    }
    words.extend(replica.error.clone());
    words.join(", ")
}

/// The next thing for a person to do.
pub fn advice(name: &str, status: &BlockReplicationStatus) -> String {
    let (_, reason) = protection(status);
    let held = status.checkpoint.as_ref().is_some_and(|c| c.epoch > 0);
    if condition(status, ACCEPTED).is_some_and(|c| c.status == "False") {
        return "correct what is refused above; what runs goes on".to_owned();
    }
    if pool::wrong(status).is_some() {
        return pool::advice(name, status);
    }
    match reason.as_str() {
        protected::RUNNING if !status.joining.is_empty() => {
            "wait: what joins is being sent; what was there before is protected".to_owned()
        }
        protected::RUNNING => "nothing".to_owned(),
        protected::SYNCING => "wait: the first copy is being made".to_owned(),
        protected::DEGRADED => {
            "if it stays so, look at the link and the secondary: kubectl understudy doctor"
                .to_owned()
        }
        protected::PRIMARY_UNREACHABLE if held && status.secondary.is_some() => format!(
            "bring {} back; if it is lost: kubectl understudy failover {name}",
            status.primary.as_deref().unwrap_or("the primary")
        ),
        protected::PRIMARY_UNREACHABLE => "bring the primary back: there is no copy".to_owned(),
        protected::SOLO => "give it a secondary, or bring the one it has back".to_owned(),
        protected::STOPPED => "set spec.state: Running to be protected".to_owned(),
        _ => "kubectl understudy doctor looks at the whole installation".to_owned(),
    }
}
