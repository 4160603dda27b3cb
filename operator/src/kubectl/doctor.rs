//! What is wrong with an installation, and what to do about each thing: pure.
//!
//! ```text
//!   operator, nodes and their parts, certificates     faults.rs
//!   a pool that is not the one that is meant          pool.rs
//!   replications, volumes, pods, leftovers            here
//! ```

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use understudy_crds::BlockReplication;
use understudy_crds::conditions::{
    ACCEPTED, FAILED_OVER, PROTECTED, RECONCILED, accepted, failed_over, protected, reconciled,
};

use super::facts::Facts;
use super::faults;
use super::pool;
use super::status::condition;
use super::words::{age, bytes};

/// How long a deletion may take before it is called stuck.
const ENDING_SECONDS: i64 = 60;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Something does not work, or a copy is missing.
    Problem,
    /// It works; it may not for long, or not as asked.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// In one word.
    pub fault: &'static str,
    /// With what.
    pub about: String,
    /// What is the matter.
    pub cause: String,
    /// What to do.
    pub remedy: String,
}

impl Finding {
    /// Something does not work.
    pub fn problem(
        fault: &'static str,
        about: impl Into<String>,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (about, cause, remedy) = (about.into(), cause.into(), remedy.into());
        Self { severity: Severity::Problem, fault, about, cause, remedy }
    }

    /// Something may not work for long.
    pub fn warning(
        fault: &'static str,
        about: impl Into<String>,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Warning, ..Self::problem(fault, about, cause, remedy) }
    }
}

/// Everything that is wrong, the worst first.
pub fn diagnose(facts: &Facts) -> Vec<Finding> {
    let mut found = faults::operator(facts);
    for node in &facts.nodes {
        found.extend(faults::node(facts, node));
    }
    found.extend(faults::certificates(facts));
    for object in &facts.replications {
        found.extend(replication(facts, object));
    }
    found.extend(volumes(facts));
    found.extend(faults::pods(facts));
    found.sort_by_key(|f| f.severity);
    found
}

/// The findings as text.
pub fn render(facts: &Facts, found: &[Finding]) -> String {
    let nodes = facts.nodes.iter().filter(|n| faults::is_ours(n)).count();
    let sound = facts
        .replications
        .iter()
        .filter_map(|o| condition(o.status.as_ref()?, PROTECTED))
        .filter(|c| c.status == "True")
        .count();
    let all = facts.replications.len();
    let mut text = format!(
        "{nodes} nodes run the driver; {sound} of {all} BlockReplications are protected.\n"
    );
    if found.is_empty() {
        text.push_str("Nothing is wrong.\n");
        return text;
    }
    text.push_str(&listed(found));
    let problems = found.iter().filter(|f| f.severity == Severity::Problem).count();
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let warnings = found.len() - problems;
    text.push_str(&format!("\n{}, {}.\n", count(problems, "problem"), count(warnings, "warning")));
    text
}

/// Each finding with its cause and remedy.
pub fn listed(found: &[Finding]) -> String {
    let mut text = String::new();
    for finding in found {
        let severity = match finding.severity {
            Severity::Problem => "PROBLEM",
            Severity::Warning => "WARNING",
        };
        text.push_str(&format!(
            "\n{severity}  {}  {}\n  cause:   {}\n  remedy:  {}\n",
            finding.about, finding.fault, finding.cause, finding.remedy
        ));
    }
    text
}

fn replication(facts: &Facts, object: &BlockReplication) -> Vec<Finding> {
    let name = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
    let about = format!("br/{name}");
    let mut found = Vec::new();
    let Some(status) = &object.status else {
        found.push(Finding::warning(
            "NotLookedAt",
            about,
            "the operator has not looked at it yet",
            "wait; if it stays so, see whether the operator runs",
        ));
        return found;
    };
    if let Some(ending) = &object.metadata.deletion_timestamp
        && facts.now.duration_since(ending.0).as_secs() > ENDING_SECONDS
    {
        let waits = condition(status, RECONCILED).map(|c| c.message.clone()).unwrap_or_default();
        found.push(Finding::problem(
            "EndIsStuck",
            about.clone(),
            format!("it was deleted {} ago and has not ended: {waits}", age(ending.0, facts.now)),
            format!(
                "do what it waits for; if that never comes back: kubectl annotate br -n {} {} \
                 understudy.dev/abandon=true (its volumes are left to the primary as it is)",
                object.namespace().unwrap_or_default(),
                object.name_any()
            ),
        ));
    }
    for left in &status.left_behind {
        let (volume, node) = (&left.volume, &left.node);
        found.push(Finding::warning(
            "LeftBehind",
            about.clone(),
            format!(
                "volume {volume} has no copy: a failover left it behind on {node}, as no checkpoint \
                 covered it yet"
            ),
            format!(
                "bring {node} back if it is not there; the volume joins again once {node} is the primary, \
                 or take it out of the source and replicate it by itself"
            ),
        ));
    }
    if let Some(refused) = condition(status, ACCEPTED).filter(|c| c.status == "False") {
        let fault = match refused.reason.as_str() {
            accepted::NOT_OURS => "ClaimNotOurs",
            accepted::CLAIM_NOT_BOUND => "ClaimNotBound",
            accepted::SOURCE_CONFLICT => "VolumeInTwo",
            accepted::SECONDARY_UNKNOWN => "NoSecondaryNamed",
            accepted::UNKNOWN_NODE => "NodeUnknown",
            _ => "Refused",
        };
        let remedy = "correct the BlockReplication or its source as the message says";
        found.push(Finding::problem(fault, about.clone(), refused.message.clone(), remedy));
    }
    if let Some(condition) = condition(status, RECONCILED).filter(|c| c.status == "False") {
        match condition.reason.as_str() {
            reconciled::REPLICA_AHEAD => found.push(Finding::problem(
                "OnHold",
                about.clone(),
                condition.message.clone(),
                "decide which replica counts, and restore the object that names it; nothing is touched \
                 until then",
            )),
            reconciled::ACTION_FAILED => found.push(Finding::problem(
                "ActionFails",
                about.clone(),
                condition.message.clone(),
                "the operator tries again; remove the cause that it names",
            )),
            _ => {}
        }
    }
    if let Some(refused) = condition(status, FAILED_OVER)
        .filter(|c| c.status == "False" && c.reason != failed_over::PROMOTING)
    {
        found.push(Finding::problem(
            "FailoverRefused",
            about.clone(),
            refused.message.clone(),
            format!("kubectl understudy failover {name} orders it for the state as it is"),
        ));
    }
    // With another pool all that is said of the protection is its consequence.
    match pool::finding(facts, object) {
        Some(wrong) => found.push(wrong),
        None => found.extend(protection(object, &name, &about, facts.now)),
    }
    found
}

fn protection(
    object: &BlockReplication,
    name: &str,
    about: &str,
    now: Timestamp,
) -> Option<Finding> {
    let status = object.status.as_ref()?;
    let condition = condition(status, PROTECTED).filter(|c| c.status == "False")?;
    let since = age(condition.last_transition_time.0, now);
    let secondary = status.secondary.as_deref().unwrap_or("nobody");
    let undo_full = status
        .replicas
        .iter()
        .filter_map(|r| r.error.as_ref())
        .find(|e| e.to_lowercase().contains("undo"));
    match condition.reason.as_str() {
        protected::DEGRADED if undo_full.is_some() => Some(Finding::problem(
            "UndoFull",
            about,
            format!("no checkpoint completes: {}", undo_full.cloned().unwrap_or_default()),
            "raise spec.checkpoint.undoLimit; or set spec.checkpoint.whenUndoFull to DropCheckpoint, which makes \
             the copy whole but leaves nothing to fail over to until then",
        )),
        protected::DEGRADED => Some(Finding::problem(
            "Degraded",
            about,
            format!(
                "for {since} no checkpoint has completed: {secondary} lacks {}; a failover goes back to \
                 the last one",
                status
                    .replicas
                    .iter()
                    .find_map(|r| r.missing_bytes.filter(|b| *b > 0))
                    .map_or("writes".to_owned(), bytes)
            ),
            format!("see to the network between the nodes, and to the engine of {secondary}"),
        )),
        protected::SOLO => Some(Finding::problem(
            "NoSecondary",
            about,
            format!(
                "for {since} there has been no copy that follows; the secondary is {secondary}"
            ),
            match &status.secondary {
                Some(node) => {
                    format!("bring {node} back, or name another node in spec.secondary.node")
                }
                None => "name a node in spec.secondary.node".to_owned(),
            },
        )),
        protected::PRIMARY_UNREACHABLE => Some(Finding::problem(
            "PrimaryLost",
            about,
            condition.message.clone(),
            match (&status.secondary, &status.checkpoint) {
                (Some(_), Some(_)) => {
                    format!("bring it back, or: kubectl understudy failover {name}")
                }
                _ => "bring it back: there is no copy to go on from".to_owned(),
            },
        )),
        protected::SYNCING => Some(Finding::warning(
            "Syncing",
            about,
            format!("for {since} the first copy has been on its way"),
            "wait; if it makes no progress, see to the network between the nodes",
        )),
        protected::STOPPED => Some(Finding::warning(
            "Stopped",
            about,
            "it is stopped, as asked: nothing follows",
            "set spec.state: Running",
        )),
        _ => None,
    }
}

fn volumes(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for volume in &facts.volumes {
        let about = format!("rvol/{}", volume.name_any());
        if let Some(group) = &volume.spec.group
            && !facts.groups.iter().any(|g| g.name_any() == *group)
        {
            found.push(Finding::problem(
                "GroupLost",
                about,
                format!("it is in group {group}, and there is no such ReplicationGroup"),
                "put the group object back from a backup; if spec.node of the volume is right, delete \
                 its BlockReplication with the annotation understudy.dev/abandon=true",
            ));
        } else if volume.spec.group.is_none() && volume.spec.generation.is_none() {
            found.push(Finding::warning(
                "VolumeNotMade",
                about,
                "its engine has not been told of it yet",
                "wait for the CSI controller; if it stays so, see the events of its claim",
            ));
        }
    }
    for (node, report) in &facts.reports {
        for volume in &report.leftovers {
            let known = facts.volumes.iter().any(|v| v.name_any() == *volume);
            let cause = if known {
                "a replica that its volume does not name, and that is not proven to be older"
            } else {
                "a replica of a volume that does not exist any more"
            };
            found.push(Finding::warning(
                "LeftoverReplica",
                format!("node/{node}"),
                format!("{volume}: {cause}"),
                format!(
                    "it takes space and does no other harm; if nobody needs it, call DeleteReplica of the \
                     engine API on {node}, at /run/understudy/engine.sock"
                ),
            ));
        }
    }
    found
}
