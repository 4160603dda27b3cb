//! The names by which the parts find each other in a cluster, each once.

/// The CSI driver, in every StorageClass and PersistentVolume.
pub const DRIVER: &str = "csi.understudy.dev";

/// The label of every node that runs the driver; the kubelet sets it. Such a node has an engine.
pub const INSTALLATION_LABEL: &str = "csi.understudy.dev/installation";

/// Keeps a BlockReplication until its replication has ended.
pub const FINALIZER: &str = "understudy.dev/replication";

/// The annotation that ends a deleted BlockReplication without asking any engine: the escape hatch
/// for when what it would wait for never comes back.
pub const ABANDON: &str = "understudy.dev/abandon";

/// The owner of the fields that the operator writes.
pub const FIELD_MANAGER: &str = "understudy-operator";

/// The signer of the parts' certificates.
pub const SIGNER: &str = "understudy.dev/node";

/// The lease of the one operator that works.
pub const LEASE: &str = "understudy-operator";

/// The ConfigMap with the public part of the certificate authority.
pub const CA_CONFIG_MAP: &str = "understudy-ca";

/// The Secret with the authority itself; only the operator reads it.
pub const CA_SECRET: &str = "understudy-ca";

/// The Secret with which a scraper reads the engines' metrics.
pub const METRICS_SECRET: &str = "understudy-metrics";

/// The ConfigMap in which the operator says how each node's engine is.
pub const NODES_CONFIG_MAP: &str = "understudy-nodes";

/// The label whose value names the part that a pod is, as in `engine`.
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";

/// The label that every object of an installation carries, with the value `understudy`.
pub const PART_LABEL: &str = "app.kubernetes.io/part-of";
