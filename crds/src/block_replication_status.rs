//! What the operator last saw of a `BlockReplication`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::conditions_schema;

/// What was last seen. Live figures are in the engines' metrics; this is written in steps.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct BlockReplicationStatus {
    /// The metadata.generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The ReplicationGroup that holds who is who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The stage of the primary's replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// Whether checkpoints complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Since when the state is this one, without a break that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_since: Option<Time>,
    /// The fencing identity of the group: who may write. A failover names the one to replace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<String>,
    /// The node whose replica serves the VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// The node that keeps the copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secondary: Option<String>,
    /// The open epoch: the span of writes that the next checkpoint will close.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// The last complete checkpoint: what a failover brings back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointStatus>,
    /// Bytes written and not covered by a checkpoint: lost if the primary died now. While it is
    /// silent: as it counted last, at the time that its replica says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_at_risk: Option<i64>,
    /// The last one-shot checkpoint that was asked for and is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<TriggerStatus>,
    /// The last failover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<FailoverStatus>,
    /// Volumes that join the running group: no checkpoint covers them yet, and a failover now would
    /// leave them behind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["volume"],
    ))]
    pub joining: Vec<JoiningStatus>,
    /// Volumes that a failover left behind, until they join again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["volume"],
    ))]
    pub left_behind: Vec<LeftBehindStatus>,
    /// Each replica as it was last seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["node"],
    ))]
    pub replicas: Vec<ReplicaStatus>,
    /// Where the volumes can be reached by NBD.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exports: Vec<ExportStatus>,
    /// What is true of the replication, each with its reason and, where it is not as asked, the
    /// remedy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}

/// The stages of a replica.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has no role.
    None,
    /// It has a role.
    Running,
    /// It was promoted; the roll-back is being merged.
    Failover,
    /// It was promoted; the merge failed and can be tried again.
    FailoverFailed,
    /// It was promoted and merged.
    Done,
}

/// Whether checkpoints complete.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No peer.
    Solo,
    /// The peer has no checkpoint yet.
    Syncing,
    /// Checkpoints complete.
    Running,
    /// The peer lacks writes of the open epoch: no checkpoint can complete until it has them.
    Degraded,
}

/// A complete checkpoint.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointStatus {
    /// The epoch that it closed.
    pub epoch: i64,
    /// The moment whose content it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_time: Option<Time>,
    /// When both replicas had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// What it took to the secondary, in bytes.
    pub bytes: i64,
}

/// A one-shot checkpoint that was asked for and is complete.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TriggerStatus {
    /// The text of spec.checkpoint.trigger that asked for it.
    pub token: String,
    /// The checkpoint that holds everything written before it was asked for.
    pub epoch: i64,
    /// When it was seen complete.
    pub completion_time: Time,
}

/// A failover that was ordered.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FailoverStatus {
    /// The generation that was replaced.
    pub replaced: String,
    /// The node that was primary before.
    pub from: String,
    /// The node that took over.
    pub target: String,
    /// The checkpoint that the new primary has gone back to, or a later one.
    pub checkpoint: i64,
}

/// A volume that joins a running group.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct JoiningStatus {
    /// The volume.
    pub volume: String,
    /// How much of all that joins has been sent, in percent. Absent: nobody knows yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_percent: Option<i64>,
}

/// A volume that a failover left behind.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct LeftBehindStatus {
    /// The volume.
    pub volume: String,
    /// The node that serves it, alone.
    pub node: String,
}

/// One replica of the group, as last seen.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaStatus {
    /// The node it is on.
    pub node: String,
    /// What the group object says it is.
    pub role: ReplicaRole,
    /// The pool that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The pool that answers at the node instead of that one. Of a secondary: if it lasts, a new copy is
    /// made there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_pool: Option<OtherPool>,
    /// Whether the node's engine answered when it was last asked.
    pub reachable: bool,
    /// Its stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// The generation it obeys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<String>,
    /// The last complete checkpoint known to it; 0 is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<i64>,
    /// Bytes that the other replica has and this one still lacks, as the primary counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_bytes: Option<i64>,
    /// In how many seconds that is sent, at the pace of the last seconds. Absent: nobody knows yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_seconds: Option<i64>,
    /// Bytes of old content kept to be able to go back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo_bytes: Option<i64>,
    /// After a promotion: bytes of the roll-back that are merged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged_bytes: Option<i64>,
    /// After a promotion: bytes of the roll-back in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge_bytes: Option<i64>,
    /// The first error that no later checkpoint has cleared, or why the engine did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When the engine last answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_time: Option<Time>,
}

/// A pool that answers in the place of a replica's.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct OtherPool {
    /// Its uuid.
    pub pool: String,
    /// Since when it answers, without a break that was seen.
    pub since: Time,
}

/// What a replica is in its group.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaRole {
    /// It serves the VM.
    Primary,
    /// It keeps the copy.
    Secondary,
    /// It was the primary before the last failover and has not come back.
    Former,
}

/// Where a volume can be reached by NBD.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct ExportStatus {
    /// The volume.
    pub volume: String,
    /// The node that serves it.
    pub node: String,
    /// What is served: primary, view, secondary or inbound.
    pub kind: String,
    /// Where, as NBD clients write it.
    pub uri: String,
}
