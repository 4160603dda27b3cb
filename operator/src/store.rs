//! Where the operator keeps what must outlive it: group objects and status.

use understudy_core::engine::api::{Generation, GroupId, Member};
use understudy_core::units::ByteLen;
use understudy_crds::{BlockReplicationStatus, ReplicationGroupSpec};

use crate::desired::{ObjectName, unsigned};

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The object is not the version that the change was made for.
    #[error("the group object {group} has changed meanwhile")]
    Conflict {
        /// Which.
        group: String,
    },
    /// What is stored can't be read; it is not overwritten.
    #[error("{object} can't be read: {problem}")]
    Unreadable {
        /// Which.
        object: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The store itself failed.
    #[error("{action} {path} failed")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A group object, parsed.
#[derive(Clone, PartialEq, Debug)]
pub struct Group {
    /// Its name.
    pub name: GroupId,
    /// Changes with each change; what a change must name.
    pub version: u64,
    /// Who may write.
    pub generation: Generation,
    /// The volumes in order.
    pub members: Vec<Member>,
    /// The object itself.
    pub spec: ReplicationGroupSpec,
}

impl Group {
    /// Parses a group object.
    pub fn parse(
        name: GroupId,
        version: u64,
        spec: ReplicationGroupSpec,
    ) -> Result<Self, StoreError> {
        let unreadable = |problem: String| StoreError::Unreadable {
            object: format!("group object {name}"),
            problem,
        };
        let generation = spec.generation.parse().map_err(|e| unreadable(format!("{e}")))?;
        if let Some(promotion) = &spec.promotion {
            promotion.replaces.parse::<Generation>().map_err(|e| unreadable(format!("{e}")))?;
        }
        let members = spec
            .members
            .iter()
            .map(|m| {
                let volume = m.volume.parse().map_err(|e| unreadable(format!("{e}")))?;
                Ok(Member { volume, size: ByteLen(unsigned(m.size_bytes)) })
            })
            .collect::<Result<_, StoreError>>()?;
        Ok(Self { name, version, generation, members, spec })
    }
}

/// Group objects and status, wherever they are kept.
pub trait Store: Send + Sync {
    /// The group object.
    fn group(
        &self,
        name: &GroupId,
    ) -> impl Future<Output = Result<Option<Group>, StoreError>> + Send;

    /// Every group object.
    fn groups(&self) -> impl Future<Output = Result<Vec<Group>, StoreError>> + Send;

    /// Writes the group object if it still has that version (`None`: does not exist).
    fn put_group(
        &self,
        name: &GroupId,
        expected: Option<u64>,
        spec: &ReplicationGroupSpec,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The status of a `BlockReplication` as it was last written.
    fn status(
        &self,
        name: &ObjectName,
    ) -> impl Future<Output = Result<BlockReplicationStatus, StoreError>> + Send;

    /// Writes it.
    fn put_status(
        &self,
        name: &ObjectName,
        status: &BlockReplicationStatus,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Removes it: the object is gone.
    fn forget_status(
        &self,
        name: &ObjectName,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}
