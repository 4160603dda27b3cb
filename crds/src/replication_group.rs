//! `ReplicationGroup`: the group object, the witness's copy of who is who.
//!
//! It is changed by compare-and-swap only, and outlives the `BlockReplication` that it serves: as
//! long as replicas exist, so does the word on which of them counts.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::common::{GENERATION_PATTERN, NODE_PATTERN};

/// Who is who in a group. Written by the operator only.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "understudy.dev",
    version = "v1alpha1",
    kind = "ReplicationGroup",
    plural = "replicationgroups",
    shortname = "rgroup",
    category = "understudy",
    derive = "PartialEq",
    doc = "The witness's copy of who is who in a group of volumes. Written by the operator only; do not edit.",
    printcolumn(
        name = "Generation",
        type_ = "string",
        json_path = ".spec.generation",
        description = "Who may write"
    ),
    printcolumn(
        name = "Primary",
        type_ = "string",
        json_path = ".spec.primary.node",
        description = "The node whose replica serves the VM"
    ),
    printcolumn(
        name = "Secondary",
        type_ = "string",
        json_path = ".spec.secondary.node",
        description = "The node that keeps the copy"
    ),
    printcolumn(
        name = "Namespace",
        type_ = "string",
        json_path = ".spec.owner.namespace",
        description = "Where its BlockReplication is"
    ),
    printcolumn(
        name = "Owner",
        type_ = "string",
        json_path = ".spec.owner.name",
        description = "Its BlockReplication"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("!has(self.secondary) || self.primary.node != self.secondary.node")
        .message("spec.primary.node and spec.secondary.node must differ"),
    validation = Rule::new("int(self.generation.split('-')[0]) >= int(oldSelf.generation.split('-')[0])")
        .message("spec.generation never goes back: a raised generation is finished, not taken back"),
    validation = Rule::new("self.generation == oldSelf.generation || int(self.generation.split('-')[0]) > int(oldSelf.generation.split('-')[0])")
        .message("spec.generation with another id needs a greater number"),
    validation = Rule::new("self.primary.node == oldSelf.primary.node || self.generation != oldSelf.generation")
        .message("another primary needs another spec.generation")
)]
#[serde(rename_all = "camelCase")]
pub struct ReplicationGroupSpec {
    /// The BlockReplication that it serves.
    pub owner: Owner,
    /// The fencing identity: a number that grows with every change of primary, and a random id.
    #[schemars(regex(pattern = GENERATION_PATTERN), length(max = 40))]
    pub generation: String,
    /// The volumes, in the order in which both engines number them.
    #[schemars(length(min = 1, max = 64))]
    pub members: Vec<GroupMember>,
    /// The replica that serves the VM.
    pub primary: GroupSide,
    /// The replica that keeps the copy. Absent: the primary is alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secondary: Option<GroupSide>,
    /// Volumes that a failover left behind, because no checkpoint covered them yet, until they join
    /// again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["volume"],
    ))]
    pub left_behind: Vec<LeftBehind>,
    /// The last change of primary. While the primary's engine does not know spec.generation yet, the
    /// operator finishes this promotion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotion: Option<Promotion>,
}

/// A BlockReplication.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A volume of the group.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GroupMember {
    /// The volume's handle.
    pub volume: String,
    /// Its size in bytes.
    #[schemars(range(min = 512))]
    pub size_bytes: i64,
    /// The generation in which it joins the running group: no checkpoint covers it yet, and a failover
    /// leaves it behind. Absent: checkpoints cover it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = GENERATION_PATTERN), length(max = 40))]
    pub joining: Option<String>,
}

impl GroupMember {
    /// A volume that checkpoints cover, or will from the first one on.
    pub fn new(volume: impl Into<String>, size_bytes: i64) -> Self {
        Self { volume: volume.into(), size_bytes, joining: None }
    }
}

/// A volume that was in the group when its primary was lost, and not covered by a checkpoint.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct LeftBehind {
    /// The volume's handle.
    #[schemars(length(max = 253))]
    pub volume: String,
    /// The node whose replica is the only good one.
    #[schemars(length(max = 253), regex(pattern = NODE_PATTERN))]
    pub node: String,
}

/// One replica of the group.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GroupSide {
    /// Its node.
    #[schemars(length(max = 253), regex(pattern = NODE_PATTERN))]
    pub node: String,
    /// The pool it lies in. An engine that answers with another pool is not the one that is meant.
    pub pool: String,
    /// The policy that was last given to its engine. Absent: none yet under this role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<AppliedPolicy>,
}

/// A policy as an engine takes it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct AppliedPolicy {
    /// Whether a write waits for both replicas.
    pub synchronous: bool,
    /// Milliseconds between checkpoints; 0 is only on demand.
    pub interval_millis: i64,
    /// Most bytes of old content.
    pub undo_limit_bytes: i64,
    /// Most bytes under way.
    pub window_bytes: i64,
    /// Longest hold-up of a write, in milliseconds.
    pub max_delay_millis: i64,
    /// Whether a full undo space costs the checkpoint.
    #[serde(default)]
    pub drop_checkpoint: bool,
    /// Most bytes of a consumer's own writes on the secondary; 0: the engine's default.
    #[serde(default)]
    pub active_limit_bytes: i64,
    /// Bytes a second of a resync at least; 0: the engine's default.
    #[serde(default)]
    pub resync_floor_bytes: i64,
    /// Bytes a second of a resync at most; 0: no limit.
    #[serde(default)]
    pub resync_ceiling_bytes: i64,
}

/// A change of primary.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Promotion {
    /// The generation that it replaces.
    #[schemars(regex(pattern = GENERATION_PATTERN))]
    pub replaces: String,
    /// The node that was primary until then.
    pub from: String,
    /// The last complete checkpoint that the new primary reported when it was chosen: it comes up
    /// with this one or a later one.
    pub checkpoint: i64,
    /// The uids of the pods that used the volumes when the generation was raised, as far as they
    /// are still there: their devices belong to the old generation, so they are deleted. Absent: not
    /// looked for yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub pods: Option<Vec<String>>,
}
