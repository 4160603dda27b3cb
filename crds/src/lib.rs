//! The Kubernetes API of Understudy, `understudy.dev/v1alpha1`.
//!
//! ```text
//!   BlockReplication (br)        what a platform team asks for          namespaced
//!        │ keeps
//!   ReplicationGroup (rgroup)    who is who: the witness's word         cluster
//!        │ names
//!   ReplicatedVolume (rvol)      one disk: its size, where it was born  cluster
//! ```
//!
//! A field enters a type together with the behaviour behind it, not before. The YAML in `yaml/` is
//! written by `crdgen` from these types; `strict` reads manifests against the very same schemas
//! where no API server does it.

#![forbid(unsafe_code)]
#![allow(clippy::duplicated_attributes, reason = "each printcolumn has its own type and priority")]
#![allow(unreachable_pub, reason = "KubeSchema repeats each struct inside a function, pub and all")]

pub mod block_replication;
pub mod block_replication_status;
pub mod common;
pub mod conditions;
pub mod generate;
pub mod names;
pub mod replicated_volume;
pub mod replication_group;
pub mod strict;

pub use block_replication::{BlockReplication, BlockReplicationSpec};
pub use block_replication_status::BlockReplicationStatus;
pub use replicated_volume::{ReplicatedVolume, ReplicatedVolumeSpec};
pub use replication_group::{ReplicationGroup, ReplicationGroupSpec};

/// The API group of every kind.
pub const GROUP: &str = "understudy.dev";
/// Group and version, as manifests name them.
pub const API_VERSION: &str = "understudy.dev/v1alpha1";
