//! `ReplicatedVolume`: one disk, made by the CSI driver.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::common::NODE_PATTERN;

/// One disk: how large it is and where it was born. Its name is the CSI volume handle.
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
        description = "Where it was born"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ReplicatedVolumeSpec {
    /// Its size in bytes, a multiple of 512.
    #[schemars(range(min = 512), extend("multipleOf" = 512))]
    pub size_bytes: i64,
    /// The node that holds its first replica. Once it is in a group, the group object says where
    /// its replicas are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = NODE_PATTERN))]
    pub node: Option<String>,
}
