//! Where volumes, groups and nodes are written down: the Kubernetes API, or memory for tests.
//!
//! ```text
//!   Controller, Node ── Volumes ─┬─ kube     ReplicatedVolume, ReplicationGroup, Node
//!                                └─ memory   the same rules, for tests
//! ```
//!
//! Changes are compare-and-swap: an object that has changed since it was read is not overwritten.

pub mod kube;
pub mod memory;

use understudy_core::engine::api::VolumeId;
use understudy_core::engine::attach::api::EngineAddresses;

use crate::fault::{Fault, Problem};
use crate::volume::{Group, Unreadable, Volume};

/// A node that runs the driver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The installation that it belongs to.
    pub installation: String,
    /// Where other nodes reach its engine; `None`: it has no address.
    pub engine: Option<EngineAddresses>,
}

/// Why the store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It is not the version that the change was made for.
    #[error("{object} has changed meanwhile: try again")]
    Conflict {
        /// Which object.
        object: String,
    },
    /// An object that can't be read.
    #[error("{0}: correct it by hand")]
    Unreadable(#[from] Unreadable),
    /// The store does not take it.
    #[error("the Kubernetes API refuses to {action} {object}: {problem}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// With what.
        object: String,
        /// Its words.
        problem: String,
    },
    /// The store does not answer.
    #[error("the Kubernetes API did not answer ({action} {object}): {problem}")]
    Unavailable {
        /// What was tried.
        action: &'static str,
        /// With what.
        object: String,
        /// Why.
        problem: String,
    },
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        let problem = match &error {
            StoreError::Conflict { .. } => Problem::Busy,
            StoreError::Unreadable(_) | StoreError::Refused { .. } => Problem::Internal,
            StoreError::Unavailable { .. } => Problem::Unavailable,
        };
        Self::new(problem, error.to_string())
    }
}

/// Volumes, groups and nodes.
pub trait Volumes: Send + Sync + 'static {
    /// A volume.
    fn get(
        &self,
        volume: &VolumeId,
    ) -> impl Future<Output = Result<Option<Volume>, StoreError>> + Send;

    /// Every volume that can be read, by handle.
    fn list(&self) -> impl Future<Output = Result<Vec<Volume>, StoreError>> + Send;

    /// Writes a volume that is not there; [`StoreError::Conflict`] if it is.
    fn create(&self, volume: &Volume) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Writes a changed volume, if it is still as it was read; as it is then.
    fn update(&self, volume: &Volume) -> impl Future<Output = Result<Volume, StoreError>> + Send;

    /// Removes a volume, if it is still as it was read; fine if it is gone.
    fn delete(&self, volume: &Volume) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// A group.
    fn group(&self, name: &str) -> impl Future<Output = Result<Option<Group>, StoreError>> + Send;

    /// Writes a changed group, if it is still as it was read.
    fn update_group(&self, group: &Group) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// A node that runs the driver.
    fn node(&self, name: &str) -> impl Future<Output = Result<Option<Node>, StoreError>> + Send;

    /// All nodes that run the driver, by name.
    fn nodes(&self) -> impl Future<Output = Result<Vec<Node>, StoreError>> + Send;
}
