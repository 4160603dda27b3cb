//! Everything that is looked at, as plain data.

use std::collections::BTreeMap;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, Pod};
use k8s_openapi::jiff::Timestamp;
use understudy_crds::{BlockReplication, ReplicatedVolume, ReplicationGroup};

use crate::cluster::sweep::NodeReport;

/// What the API server says at one moment.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// When.
    pub now: Timestamp,
    /// Where the installation is.
    pub namespace: String,
    /// What is asked for.
    pub replications: Vec<BlockReplication>,
    /// Who is who.
    pub groups: Vec<ReplicationGroup>,
    /// Disks.
    pub volumes: Vec<ReplicatedVolume>,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// The nodes on which the kubelet knows our driver.
    pub drivers: Vec<String>,
    /// What the operator says of engines.
    pub reports: BTreeMap<String, NodeReport>,
    /// Pods of the installation.
    pub parts: Vec<Pod>,
    /// Pods that use claims, of namespaces that have volumes of ours.
    pub users: Vec<Pod>,
    /// Volumes of our driver.
    pub persistent_volumes: Vec<PersistentVolume>,
    /// Requests for certificates of ours.
    pub requests: Vec<CertificateSigningRequest>,
    /// Who leads.
    pub lease: Option<Lease>,
}
