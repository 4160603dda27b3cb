//! A pool that is not the one its node's replicas lie in: nearly always a disk that was not mounted.
//!
//! ```text
//!   the disk is not mounted ─► the engine starts on the empty directory below the mount point,
//!                              and makes a new pool there ─► EnginesReachable: WrongPool
//! ```
//!
//! The replicas are on the disk, and so is everything a failover would give up. The way back is a mount,
//! and a new start of the container: one that runs goes on seeing what was there when it started.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use understudy_crds::conditions::{ENGINES_REACHABLE, PROTECTED, engines, protected};
use understudy_crds::names::COMPONENT_LABEL;
use understudy_crds::{BlockReplication, BlockReplicationStatus};

use super::doctor::Finding;
use super::facts::Facts;
use super::status::condition;

/// What the operator says of it; `None`: each engine has its pool, or does not answer.
pub fn wrong(status: &BlockReplicationStatus) -> Option<&Condition> {
    condition(status, ENGINES_REACHABLE)
        .filter(|c| c.status == "False" && c.reason == engines::WRONG_POOL)
}

/// Whether it is the primary's: then the operator hears nothing of the group.
pub fn is_primarys(status: &BlockReplicationStatus) -> bool {
    condition(status, PROTECTED).is_some_and(|c| c.reason == protected::PRIMARY_UNREACHABLE)
}

/// The node that it is on.
pub fn node(status: &BlockReplicationStatus) -> &str {
    let (side, role) = if is_primarys(status) {
        (&status.primary, "the primary's node")
    } else {
        (&status.secondary, "the secondary's node")
    };
    side.as_deref().unwrap_or(role)
}

/// What there is to do if the disk does not come back.
fn way_out(name: &str, status: &BlockReplicationStatus) -> String {
    match (is_primarys(status), &status.secondary, &status.checkpoint) {
        (true, Some(_), Some(_)) => format!("kubectl understudy failover {name}"),
        (true, ..) => "restore the volumes from a backup: there is no copy".to_owned(),
        (false, ..) => "name another node in spec.secondary.node".to_owned(),
    }
}

/// The next thing for a person to do.
pub fn advice(name: &str, status: &BlockReplicationStatus) -> String {
    format!(
        "mount the pool's disk on {} and restart its engine's container (kubectl understudy doctor has \
         the command); only if that disk is lost: {}",
        node(status),
        way_out(name, status)
    )
}

/// The same with all that is known of the installation.
pub fn finding(facts: &Facts, object: &BlockReplication) -> Option<Finding> {
    let status = object.status.as_ref()?;
    let told = wrong(status)?;
    let node = node(status);
    let name = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
    let engine = facts.parts.iter().find(|p| {
        p.labels().get(COMPONENT_LABEL).is_some_and(|c| c == "engine")
            && p.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(node)
    });
    Some(Finding::problem(
        "WrongPool",
        format!("br/{name}"),
        format!(
            "{}. An engine makes a new pool of an empty directory: most likely the pool's disk was not \
             mounted when that of {node} started",
            told.message
        ),
        format!(
            "mount the disk on {node}, then restart the engine's container, which no device minds: kubectl \
             -n {} exec {} -c engine -- sh -c 'kill 1'; do not fail over before that. Only if the disk is \
             lost: {}",
            facts.namespace,
            engine.map_or("POD".to_owned(), ResourceExt::name_any),
            way_out(&name, status)
        ),
    ))
}
