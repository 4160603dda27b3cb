//! Carries out what was decided, one action after the other.

use std::fmt;

use understudy_core::engine::api::{Epoch, Role, VolumeId};
use understudy_core::engine::client::ClientError;
use understudy_crds::{ReplicatedVolumeSpec, ReplicationGroupSpec};

use crate::desired::Desired;
use crate::engines::{Call, Engines};
use crate::store::{Pod, Store, StoreError};

/// One step. Every one may be repeated, and a pass may end after any of them.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Asks something of a node's engine.
    Engine {
        /// Which node.
        node: String,
        /// What.
        call: Call,
    },
    /// Changes the group object, if it still is the version that was looked at.
    PutGroup {
        /// That version; `None`: there must be none yet.
        expected: Option<String>,
        /// What it is to be.
        spec: Box<ReplicationGroupSpec>,
    },
    /// Removes the group object, if it still is the version that was looked at.
    DeleteGroup {
        /// That version.
        expected: String,
    },
    /// Changes a volume, if it still is the version that was looked at.
    PutVolume {
        /// Which.
        volume: VolumeId,
        /// That version.
        expected: String,
        /// What it is to be.
        spec: Box<ReplicatedVolumeSpec>,
    },
    /// Removes a pod whose device belongs to an older generation.
    DeletePod {
        /// Which.
        pod: Pod,
        /// Without its node having confirmed it.
        force: bool,
    },
    /// Lets go of the object: its replication has ended.
    ForgetStatus,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForgetStatus => f.write_str("letting go of the BlockReplication"),
            Self::DeleteGroup { .. } => f.write_str("removing the group object"),
            Self::PutVolume { volume, spec, .. } => match (&spec.group, &spec.node) {
                (Some(group), _) => write!(f, "taking the volume {volume} into {group}"),
                (None, node) => {
                    let node = node.as_deref().unwrap_or("nobody");
                    write!(f, "leaving the volume {volume} to {node} alone")
                }
            },
            Self::DeletePod { pod, force } => {
                let how = if *force { ", without waiting for its node" } else { "" };
                write!(f, "deleting the pod {}/{}{how}", pod.namespace, pod.name)
            }
            Self::PutGroup { spec, .. } => {
                let secondary = spec.secondary.as_ref().map_or("nobody", |s| s.node.as_str());
                let (generation, primary) = (&spec.generation, &spec.primary.node);
                write!(f, "writing the group object: {generation}, {primary} with {secondary}")
            }
            Self::Engine { node, call } => match call {
                Call::CreateReplica(m) => write!(f, "creating the replica {} on {node}", m.volume),
                Call::ExpandReplica(m) => {
                    write!(f, "growing the replica {} on {node} to {} bytes", m.volume, m.size.0)
                }
                Call::DeleteReplica(v) => write!(f, "deleting the replica {v} on {node}"),
                Call::Start(start) => match (start.role, &start.peer) {
                    (Role::Secondary, _) => write!(f, "starting {node} as secondary"),
                    (Role::Primary, None) => write!(f, "starting {node} as primary, alone"),
                    (Role::Primary, Some(peer)) => {
                        write!(f, "starting {node} as primary with its secondary at {peer}")
                    }
                },
                Call::SetPolicy { .. } => write!(f, "setting the policy on {node}"),
                Call::Checkpoint { .. } => write!(f, "making a checkpoint on {node}"),
                Call::Stop { abandon_peer: false, .. } => {
                    write!(f, "stopping on {node} after a last checkpoint")
                }
                Call::Stop { .. } => write!(f, "stopping on {node} without the other side"),
                Call::Failover(order) => write!(f, "promoting {node} to {}", order.new),
            },
        }
    }
}

/// Why an action failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The engine refused or did not answer.
    #[error(transparent)]
    Engine(#[from] ClientError),
    /// The store did.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Carries out one action; the checkpoint that it led to, if it did.
pub async fn apply<E: Engines, S: Store>(
    action: &Action,
    desired: &Desired,
    engines: &E,
    store: &S,
) -> Result<Option<Epoch>, ApplyError> {
    match action {
        Action::Engine { node, call } => Ok(engines.run(node, call).await?),
        Action::PutGroup { expected, spec } => {
            store.put_group(&desired.group, expected.as_deref(), spec).await?;
            Ok(None)
        }
        Action::DeleteGroup { expected } => {
            store.delete_group(&desired.group, expected).await?;
            Ok(None)
        }
        Action::PutVolume { volume, expected, spec } => {
            store.put_volume(volume, expected, spec).await?;
            Ok(None)
        }
        Action::DeletePod { pod, force } => {
            store.delete_pod(pod, *force).await?;
            Ok(None)
        }
        Action::ForgetStatus => {
            store.forget_status(&desired.name).await?;
            Ok(None)
        }
    }
}
