//! The CRDs as YAML: what `crdgen` writes and the staleness test compares.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{BlockReplication, ReplicatedVolume, ReplicationGroup};

/// The folders that hold the YAML, seen from the root of the repository. A chart's copy is a copy
/// because Helm packs only what lies below the chart.
pub const FOLDERS: [&str; 2] = ["crds/yaml", "charts/understudy/crds"];

const HEADER: &str =
    "# Generated from crds/src by `cargo run -p understudy-crds --bin crdgen`; do not edit.\n";

/// Every CRD.
pub fn definitions() -> [CustomResourceDefinition; 3] {
    [BlockReplication::crd(), ReplicationGroup::crd(), ReplicatedVolume::crd()]
}

/// File name and content of every CRD's YAML.
pub fn files() -> Result<Vec<(String, String)>, serde_yaml::Error> {
    definitions()
        .iter()
        .map(|crd| {
            let name = format!("{}.yaml", crd.spec.names.plural);
            // serde_yaml leaves the strings yes, no, on and off unquoted, which kubectl reads as
            // booleans: no value of the API is named so. serde-saphyr is the drop-in that quotes.
            Ok((name, format!("{HEADER}{}", serde_yaml::to_string(crd)?)))
        })
        .collect()
}
