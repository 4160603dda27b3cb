//! `BlockReplication`: what a platform team asks for. A second, always-recoverable copy of a VM's
//! disks on another node.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::block_replication_status::BlockReplicationStatus;
use crate::common::{ByteSize, GENERATION_PATTERN, NODE_PATTERN, TimeSpan};

/// What is to be replicated, where to, and how.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "understudy.dev",
    version = "v1alpha1",
    kind = "BlockReplication",
    plural = "blockreplications",
    shortname = "br",
    category = "understudy",
    namespaced,
    status = "BlockReplicationStatus",
    derive = "PartialEq",
    doc = "Keeps a second, always-recoverable copy of a virtual machine's disks on another node.",
    printcolumn(
        name = "State",
        type_ = "string",
        json_path = ".status.state",
        description = "Solo, Syncing, Running or Degraded: whether checkpoints complete"
    ),
    printcolumn(
        name = "Primary",
        type_ = "string",
        json_path = ".status.primary",
        description = "The node whose replica serves the VM"
    ),
    printcolumn(
        name = "Secondary",
        type_ = "string",
        json_path = ".status.secondary",
        description = "The node that a failover would go to"
    ),
    printcolumn(
        name = "Checkpoint-Age",
        type_ = "date",
        json_path = ".status.checkpoint.cutTime",
        description = "How old what a failover would bring back is"
    ),
    printcolumn(
        name = "At-Risk",
        type_ = "integer",
        format = "int64",
        json_path = ".status.bytesAtRisk",
        description = "Bytes written since, lost if the primary died now"
    ),
    printcolumn(
        name = "Protected",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Protected')].reason",
        description = "Why it is protected, or why not"
    ),
    printcolumn(
        name = "Generation",
        type_ = "string",
        json_path = ".status.generation",
        priority = "1",
        description = "What a failover must name to replace it"
    ),
    printcolumn(
        name = "Epoch",
        type_ = "integer",
        format = "int64",
        json_path = ".status.epoch",
        priority = "1",
        description = "The open epoch"
    ),
    printcolumn(
        name = "Stage",
        type_ = "string",
        json_path = ".status.stage",
        priority = "1",
        description = "The stage of the primary's replica"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("!has(self.primary) || !has(self.secondary) || self.primary.node != self.secondary.node")
        .message("spec.primary.node and spec.secondary.node must differ: a copy on the same node dies with it")
)]
#[serde(rename_all = "camelCase")]
pub struct BlockReplicationSpec {
    /// What is replicated: the disks of one virtual machine, or a list of claims. All of it moves
    /// from checkpoint to checkpoint together.
    pub source: Source,
    /// When a write is complete. Checkpointed: when the primary's disk has it; the copy follows and
    /// a failover goes back to the last checkpoint. Synchronous: when both replicas have it.
    #[serde(default)]
    pub mode: ReplicationMode,
    /// Whether the disks are replicated. Stopped takes a last checkpoint; then the primary goes on
    /// alone and the copy keeps that checkpoint.
    #[serde(default)]
    pub state: DesiredState,
    /// When checkpoints are made, and what they may cost.
    #[serde(default)]
    pub checkpoint: CheckpointPolicy,
    /// How fast the copy gets what it lacks: at first all of it, later what it missed.
    #[serde(default)]
    pub resync: ResyncPolicy,
    /// Where the replica that serves the VM begins. Without it: where the volumes already have
    /// theirs. It is read once, when replication starts; later only a failover changes who is primary,
    /// and another node here is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<Placement>,
    /// Where the copy is kept. Without it: the only other node that takes links and is neither cordoned
    /// nor tainted, or of several the one with the most space. Naming another node stops the old copy with a last checkpoint and starts a new one there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secondary: Option<Placement>,
    /// Who decides that the secondary takes over, and the order to do so.
    #[serde(default)]
    pub failover: Failover,
}

/// What is replicated: exactly one of the two.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[x_kube(
    validation = Rule::new("has(self.virtualMachine) != has(self.persistentVolumeClaims)")
        .message("spec.source must name exactly one of virtualMachine and persistentVolumeClaims")
)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// A VirtualMachine of the same namespace: all its disks that are claims or data volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_machine: Option<LocalName>,
    /// PersistentVolumeClaims of the same namespace, 1 to 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["name"],
    ))]
    pub persistent_volume_claims: Option<Vec<LocalName>>,
}

/// An object of the same namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct LocalName {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// When a write is complete.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ReplicationMode {
    /// When the primary's disk has it and it is on its way.
    #[default]
    Checkpointed,
    /// When both replicas have it.
    Synchronous,
}

/// Whether the disks are replicated.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DesiredState {
    /// Replicate.
    #[default]
    Running,
    /// A last checkpoint, then no more.
    Stopped,
}

/// When checkpoints are made, and what they may cost.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new("duration(self.interval) == duration('0s') || (duration(self.interval) >= duration('10ms') && duration(self.interval) <= duration('24h'))")
        .message("spec.checkpoint.interval must be 0s (only on demand) or between 10ms and 24h"),
    validation = Rule::new("duration(self.maxDelay) >= duration('10ms') && duration(self.maxDelay) <= duration('60s')")
        .message("spec.checkpoint.maxDelay must be between 10ms and 60s: a VM whose disk waits longer takes errors"),
    validation = Rule::new("quantity(self.window).compareTo(quantity('64Ki')) >= 0 && quantity(self.window).compareTo(quantity('1Gi')) <= 0")
        .message("spec.checkpoint.window must be between 64Ki, to hold the writes under way, and 1Gi: it is memory"),
    validation = Rule::new("quantity(self.undoLimit).compareTo(quantity(self.window)) >= 0")
        .message("spec.checkpoint.undoLimit must be at least spec.checkpoint.window: what is in the window may all need undoing"),
    validation = Rule::new("quantity(self.undoLimit).compareTo(quantity('1Mi')) >= 0 && quantity(self.undoLimit).compareTo(quantity('1Ti')) <= 0")
        .message("spec.checkpoint.undoLimit must be between 1Mi and 1Ti"),
    validation = Rule::new("quantity(self.activeLimit).compareTo(quantity('1Mi')) >= 0 && quantity(self.activeLimit).compareTo(quantity('1Ti')) <= 0")
        .message("spec.checkpoint.activeLimit must be between 1Mi and 1Ti")
)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointPolicy {
    /// Time between checkpoints, as in 1s or 500ms; what a failover can lose. 0s: only on demand.
    #[serde(default = "CheckpointPolicy::default_interval")]
    pub interval: TimeSpan,
    /// One checkpoint now: any text that differs from the last one. When it is complete,
    /// status.trigger repeats the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub trigger: Option<String>,
    /// How many bytes of old content the secondary may keep to be able to go back. An epoch that
    /// comes near it is closed early.
    #[serde(default = "CheckpointPolicy::default_undo_limit")]
    pub undo_limit: ByteSize,
    /// What happens when the secondary lacks more than fits into that, as after a long outage.
    /// KeepCheckpoint: the last checkpoint stays good, and none completes before undoLimit is raised.
    /// DropCheckpoint: it is given up, so that the copy is made whole by itself; until then nothing can fail
    /// over.
    #[serde(default)]
    pub when_undo_full: WhenUndoFull,
    /// How many bytes a consumer of the copy, such as a test of a failover, may write over a checkpoint.
    /// Beyond it its writes fail; after a failover they wait for the roll-back.
    #[serde(default = "CheckpointPolicy::default_active_limit")]
    pub active_limit: ByteSize,
    /// How many bytes may be on their way to the secondary. When it is full, the VM's writes wait,
    /// at most maxDelay.
    #[serde(default = "CheckpointPolicy::default_window")]
    pub window: ByteSize,
    /// The longest that replication may hold up a write of the VM. After that the group is
    /// degraded and the secondary catches up later.
    #[serde(default = "CheckpointPolicy::default_max_delay")]
    pub max_delay: TimeSpan,
}

impl CheckpointPolicy {
    fn default_interval() -> TimeSpan {
        TimeSpan::seconds(1)
    }

    fn default_undo_limit() -> ByteSize {
        ByteSize::mebibytes(256)
    }

    fn default_active_limit() -> ByteSize {
        ByteSize::mebibytes(1024)
    }

    fn default_window() -> ByteSize {
        ByteSize::mebibytes(8)
    }

    fn default_max_delay() -> TimeSpan {
        TimeSpan::seconds(5)
    }
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self {
            interval: Self::default_interval(),
            trigger: None,
            undo_limit: Self::default_undo_limit(),
            when_undo_full: WhenUndoFull::default(),
            active_limit: Self::default_active_limit(),
            window: Self::default_window(),
            max_delay: Self::default_max_delay(),
        }
    }
}

/// What happens when the secondary lacks more than its undo logs can hold.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WhenUndoFull {
    /// The last checkpoint stays; no other completes before undoLimit is raised.
    #[default]
    KeepCheckpoint,
    /// The checkpoint is given up, and the copy made whole.
    DropCheckpoint,
}

/// How fast the secondary gets what it lacks.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new("quantity(self.floor).compareTo(quantity('64Ki')) >= 0 && quantity(self.floor).compareTo(quantity('1Ti')) <= 0")
        .message("spec.resync.floor must be between 64Ki and 1Ti a second"),
    validation = Rule::new("!has(self.ceiling) || (quantity(self.ceiling).compareTo(quantity(self.floor)) >= 0 && quantity(self.ceiling).compareTo(quantity('1Ti')) <= 0)")
        .message("spec.resync.ceiling must be at least spec.resync.floor, and at most 1Ti a second")
)]
#[serde(rename_all = "camelCase")]
pub struct ResyncPolicy {
    /// Bytes a second that are sent at least, though the VM's writes have to wait for it, at most
    /// checkpoint.maxDelay each.
    #[serde(default = "ResyncPolicy::default_floor")]
    pub floor: ByteSize,
    /// Bytes a second that are sent at most. Absent: as many as the link takes beside the VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<ByteSize>,
}

impl ResyncPolicy {
    fn default_floor() -> ByteSize {
        ByteSize::mebibytes(4)
    }
}

impl Default for ResyncPolicy {
    fn default() -> Self {
        Self { floor: Self::default_floor(), ceiling: None }
    }
}

/// A place for a replica.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Placement {
    /// The name of the node.
    #[schemars(length(min = 1, max = 253), regex(pattern = NODE_PATTERN))]
    pub node: String,
}

/// Who decides that the secondary takes over, and the order to do so.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
pub struct Failover {
    /// Who decides. Manual: a person, by writing the trigger.
    #[serde(default)]
    pub policy: FailoverPolicy,
    /// The order to fail over, obeyed once. It may stay: what it names to replace is gone then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<FailoverTrigger>,
}

/// Who decides that the secondary takes over.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FailoverPolicy {
    /// A person.
    #[default]
    Manual,
}

/// The order to fail over. What the old primary wrote after the last checkpoint is lost by it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct FailoverTrigger {
    /// The generation to replace, as status.generation shows it. Any other is refused: the order
    /// was meant for a state that is gone.
    #[schemars(regex(pattern = GENERATION_PATTERN))]
    pub generation: String,
    /// The node that takes over: the secondary.
    #[schemars(length(min = 1, max = 253), regex(pattern = NODE_PATTERN))]
    pub target: String,
}
