//! `ReplicatedVolume`: one disk, made by the CSI driver.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::common::{GENERATION_PATTERN, NODE_PATTERN};

/// One disk: how large it is and where it is. Its name is the CSI volume handle.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "understudy.dev",
    version = "v1alpha1",
    kind = "ReplicatedVolume",
    plural = "replicatedvolumes",
    shortname = "rvol",
    category = "understudy",
    derive = "PartialEq",
    doc = "One disk that can be replicated. Made with its persistent volume; its name is the volume handle.",
    printcolumn(
        name = "Size",
        type_ = "integer",
        format = "int64",
        json_path = ".spec.sizeBytes",
        description = "Bytes"
    ),
    printcolumn(
        name = "Node",
        type_ = "string",
        json_path = ".spec.node",
        description = "Where its only replica is, while it is in no group"
    ),
    printcolumn(
        name = "Group",
        type_ = "string",
        json_path = ".spec.group",
        description = "The ReplicationGroup that says where its replicas are"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ReplicatedVolumeSpec {
    /// Its size in bytes, a multiple of 512.
    #[schemars(range(min = 512), extend("multipleOf" = 512))]
    pub size_bytes: i64,
    /// The node that holds its only replica. Once it is in a group, the group object says where its
    /// replicas are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = NODE_PATTERN))]
    pub node: Option<String>,
    /// The pool that this replica lies in. An engine that answers with another pool is not the one
    /// that is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub pool: Option<String>,
    /// The generation of its only replica: who may write. Once it is in a group, the group object
    /// says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = GENERATION_PATTERN), length(max = 40))]
    pub generation: Option<String>,
    /// The ReplicationGroup that it is in. Absent: it is replicated nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub group: Option<String>,
}
