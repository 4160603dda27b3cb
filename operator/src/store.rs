//! Where the operator keeps what must outlive it: group objects, volumes and status; and the pods
//! that use the volumes.

use std::collections::BTreeMap;
use std::error::Error;

use understudy_core::engine::api::{Generation, GroupId, Member, VolumeId};
use understudy_core::units::ByteLen;
use understudy_crds::{BlockReplicationStatus, ReplicatedVolumeSpec, ReplicationGroupSpec};

use crate::desired::{ObjectName, unsigned};

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The object is not the version that the change was made for.
    #[error("{object} has changed meanwhile")]
    Conflict {
        /// Which.
        object: String,
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
    #[error("{action} {path} failed: {source}")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// A group object, parsed.
#[derive(Clone, PartialEq, Debug)]
pub struct Group {
    /// Its name.
    pub name: GroupId,
    /// Changes with each change; what a change must name.
    pub version: String,
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
        version: String,
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

impl Group {
    /// The members that join in the present generation.
    pub fn joining(&self) -> Vec<&Member> {
        self.marked(|mark| mark == self.spec.generation)
    }

    /// The members that joined before the last failover, of which nobody has looked yet whether they
    /// were left behind.
    pub fn undecided(&self) -> Vec<&Member> {
        self.marked(|mark| mark != self.spec.generation)
    }

    /// Whether no checkpoint covers the member yet, as far as this object knows.
    pub fn joins(&self, volume: &VolumeId) -> bool {
        self.marked(|_| true).iter().any(|m| m.volume == *volume)
    }

    /// Whether it is a member.
    pub fn has(&self, volume: &VolumeId) -> bool {
        self.members.iter().any(|m| m.volume == *volume)
    }

    fn marked(&self, is: impl Fn(&str) -> bool) -> Vec<&Member> {
        let pairs = self.members.iter().zip(&self.spec.members);
        pairs.filter(|(_, m)| m.joining.as_deref().is_some_and(&is)).map(|(m, _)| m).collect()
    }
}

/// A `ReplicatedVolume`, parsed.
#[derive(Clone, PartialEq, Debug)]
pub struct Volume {
    /// Changes with each change; what a change must name.
    pub version: String,
    /// Under which generation its only replica serves, while it is in no group.
    pub generation: Option<Generation>,
    /// The object itself.
    pub spec: ReplicatedVolumeSpec,
}

impl Volume {
    /// Parses a volume.
    pub fn parse(
        name: &VolumeId,
        version: String,
        spec: ReplicatedVolumeSpec,
    ) -> Result<Self, StoreError> {
        let generation = spec.generation.as_ref().map(|text| {
            text.parse().map_err(|e| StoreError::Unreadable {
                object: format!("ReplicatedVolume {name}"),
                problem: format!("spec.generation: {e}"),
            })
        });
        Ok(Self { version, generation: generation.transpose()?, spec })
    }
}

/// Volumes by their handles.
pub type Volumes = BTreeMap<VolumeId, Volume>;

/// A pod that uses a volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which of all pods that ever had this name.
    pub uid: String,
    /// Where it runs, once that is decided.
    pub node: Option<String>,
    /// Its deletion was asked for, with this many seconds of grace.
    pub deleting: Option<i64>,
}

/// Group objects, volumes, status and pods, wherever they are kept.
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
        expected: Option<&str>,
        spec: &ReplicationGroupSpec,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Deletes the group object if it still has that version; fine if there is none.
    fn delete_group(
        &self,
        name: &GroupId,
        expected: &str,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Those of these volumes that exist. `None`: volumes are not kept here, and the group object
    /// alone says where replicas are.
    fn volumes(
        &self,
        names: &[VolumeId],
    ) -> impl Future<Output = Result<Option<Volumes>, StoreError>> + Send;

    /// Writes a volume if it still has that version.
    fn put_volume(
        &self,
        name: &VolumeId,
        expected: &str,
        spec: &ReplicatedVolumeSpec,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The status of a `BlockReplication` as it was last written; `None`: nothing is to be
    /// remembered of it any more.
    fn status(
        &self,
        name: &ObjectName,
    ) -> impl Future<Output = Result<Option<BlockReplicationStatus>, StoreError>> + Send;

    /// Writes it.
    fn put_status(
        &self,
        name: &ObjectName,
        status: &BlockReplicationStatus,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Lets go of the object: its replication has ended.
    fn forget_status(
        &self,
        name: &ObjectName,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The pods that use one of these volumes and have not finished, as of a moment after the call.
    fn pods(
        &self,
        volumes: &[VolumeId],
    ) -> impl Future<Output = Result<Vec<Pod>, StoreError>> + Send;

    /// Deletes a pod, this one and no later one of its name; at once, if `force`, without its node
    /// having confirmed it. Fine if it is gone.
    fn delete_pod(
        &self,
        pod: &Pod,
        force: bool,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}
