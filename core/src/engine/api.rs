//! The engine API in types: what a client asks and what it hears, already checked.
//!
//! ```text
//!   Start { group, generation, role, members, peer, policy, inbound }
//!   Failover { group, replace, new, keep_active }
//!   EngineStatus ─┬─ GroupStatus ── ExportStatus
//!                 └─ ReplicaStatus
//! ```
//!
//! A value of these types can't be malformed; whether the engine accepts it depends on its state.

use std::time::Duration;

pub use crate::runtime::{Address, Wall};
pub use crate::units::{ByteLen, Epoch, Generation, GroupId, Uuid, VolumeId};

/// Which side of a group a replica is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Serves the VM.
    Primary,
    /// Receives what the primary writes.
    Secondary,
}

/// When a write completes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Mode {
    /// When the local disk has it and it is queued for the peer.
    #[default]
    Checkpointed,
    /// When the peer has acknowledged it too.
    Synchronous,
}

/// The seed's states of a replica.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stage {
    /// Not started.
    None,
    /// Replicating, or serving solo.
    Running,
    /// Promoted; the roll-back is being merged.
    Failover,
    /// Promoted; the merge stopped at an error and can be tried again.
    FailoverFailed,
    /// Promoted and merged.
    Done,
}

/// How the two sides of a group stand to each other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LinkState {
    /// No peer.
    Solo,
    /// The peer has no checkpoint yet.
    Syncing,
    /// Checkpoints complete.
    Running,
    /// The peer lacks writes; no checkpoint can complete until it has them.
    Degraded,
}

/// What happens when the secondary lacks more than its undo logs can hold.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum UndoFull {
    /// The last checkpoint stays, and none completes before the limit is raised.
    #[default]
    KeepCheckpoint,
    /// The checkpoint is dropped: nothing can fail over before the copy is whole again.
    DropCheckpoint,
}

/// How a group replicates. `None` is the engine's default.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// When a write completes.
    pub mode: Mode,
    /// Time between checkpoints; `None`: only on demand.
    pub checkpoint_interval: Option<Duration>,
    /// The most bytes one epoch may cost in undo log.
    pub undo_limit: Option<ByteLen>,
    /// The most bytes queued for the peer.
    pub window: Option<ByteLen>,
    /// The longest the link may hold up a write.
    pub max_delay: Option<Duration>,
    /// What happens when the secondary lacks more than its undo logs can hold.
    pub undo_full: UndoFull,
    /// The most bytes of a consumer's own writes on the secondary.
    pub active_limit: Option<ByteLen>,
    /// Bytes a second that a resync sends at least, though the VM has to wait.
    pub resync_floor: Option<ByteLen>,
    /// Bytes a second that it sends at most; `None`: no limit.
    pub resync_ceiling: Option<ByteLen>,
}

/// A volume of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its name.
    pub volume: VolumeId,
    /// Its length; the replica must have exactly this one.
    pub size: ByteLen,
}

/// Begins or resumes a role in a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Start {
    /// The group.
    pub group: GroupId,
    /// Its generation.
    pub generation: Generation,
    /// What this engine's replicas are in it.
    pub role: Role,
    /// Its volumes: the same list in the same order on both sides.
    pub members: Vec<Member>,
    /// Primary: where the secondary's engine takes links; `None`: solo. Secondary: where the primary
    /// is; if that names a node (`tls:NODE@…`), links of other nodes are refused.
    pub peer: Option<Address>,
    /// How it replicates.
    pub policy: Policy,
    /// Secondary: writes come from an NBD client through the inbound exports.
    pub inbound: bool,
    /// Primary: members that are in solo groups under an older generation come over from there, and
    /// devices bound to that generation go on in this one.
    pub adopt: bool,
}

/// Promotes the secondary to its last checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failover {
    /// The group.
    pub group: GroupId,
    /// The generation to replace.
    pub replace: Generation,
    /// What the group is from now on.
    pub new: Generation,
    /// Keep what a consumer wrote on this side, instead of dropping it.
    pub keep_active: bool,
}

/// A replica as it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replica {
    /// Its identity.
    pub uuid: Uuid,
    /// Its length.
    pub size: ByteLen,
}

/// The space of a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacity {
    /// All of it.
    pub total: ByteLen,
    /// What a new replica could take.
    pub available: ByteLen,
    /// The pool.
    pub pool: Uuid,
}

/// An engine at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EngineStatus {
    /// Its pool.
    pub pool: Uuid,
    /// Its version.
    pub version: String,
    /// Its groups, by name.
    pub groups: Vec<GroupStatus>,
    /// Its replicas, by volume.
    pub replicas: Vec<ReplicaStatus>,
}

impl EngineStatus {
    /// The group of this name.
    pub fn group(&self, name: &GroupId) -> Option<&GroupStatus> {
        self.groups.iter().find(|g| g.group == *name)
    }

    /// The replica of this volume.
    pub fn replica(&self, volume: &VolumeId) -> Option<&ReplicaStatus> {
        self.replicas.iter().find(|r| r.volume == *volume)
    }
}

/// A replica at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaStatus {
    /// Its volume.
    pub volume: VolumeId,
    /// Its identity.
    pub uuid: Uuid,
    /// Its length.
    pub size: ByteLen,
    /// The group it belongs to.
    pub group: Option<GroupId>,
}

/// One side of a group at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupStatus {
    /// Its name.
    pub group: GroupId,
    /// Its generation; number 0: it has none yet.
    pub generation: Generation,
    /// What this side is; `None`: not started.
    pub role: Option<Role>,
    /// Where this side is in the seed's states.
    pub stage: Stage,
    /// How the sides stand to each other.
    pub link: LinkState,
    /// The open epoch.
    pub epoch: Epoch,
    /// The last complete checkpoint known here; 0: none.
    pub record: Epoch,
    /// When that checkpoint's cut was made.
    pub checkpoint_cut: Option<Wall>,
    /// When it was complete.
    pub checkpoint_done: Option<Wall>,
    /// What it took to the peer.
    pub checkpoint_bytes: ByteLen,
    /// Written and not yet covered by a checkpoint.
    pub bytes_at_risk: ByteLen,
    /// Of these, what the peer still lacks.
    pub missing: ByteLen,
    /// Bytes a second at which that is sent; 0: not known.
    pub resync_rate: ByteLen,
    /// Queued for the peer, not acknowledged.
    pub window: ByteLen,
    /// Secondary: held in open undo logs.
    pub undo: ByteLen,
    /// A consumer's own writes on this side.
    pub active: ByteLen,
    /// After a promotion: merged so far.
    pub commit_done: ByteLen,
    /// After a promotion: to be merged in all.
    pub commit_total: ByteLen,
    /// Frames sent in this session.
    pub frames_sent: u64,
    /// Of these, acknowledged.
    pub frames_acknowledged: u64,
    /// Frames applied in this session.
    pub frames_applied: u64,
    /// The first error that no later checkpoint has cleared.
    pub error: Option<String>,
    /// What consumers may open.
    pub exports: Vec<ExportStatus>,
    /// Volumes that no checkpoint covers yet: a failover leaves them behind.
    pub joining: Vec<VolumeId>,
}

/// What a consumer may open over NBD.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExportStatus {
    /// The NBD export name.
    pub name: String,
    /// The volume.
    pub volume: VolumeId,
    /// What of it.
    pub kind: ExportKind,
    /// `nbd+unix:///NAME?socket=PATH` or `nbd://HOST:PORT/NAME`; empty if NBD listens nowhere.
    pub uri: String,
    /// How many connections have it open.
    pub clients: u32,
}

/// What of a volume an export shows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ExportKind {
    /// The volume itself, on the primary.
    Primary,
    /// The last checkpoint and the consumer's own writes, on the secondary.
    View,
    /// The secondary disk, read-only, for diagnosis.
    Secondary,
    /// Where a QEMU primary replicates into.
    Inbound,
}

impl ExportKind {
    /// As the export name and the API write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::View => "view",
            Self::Secondary => "secondary",
            Self::Inbound => "inbound",
        }
    }
}

impl std::fmt::Display for ExportKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for ExportKind {
    type Err = crate::units::ParseError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        [Self::Primary, Self::View, Self::Secondary, Self::Inbound]
            .into_iter()
            .find(|k| k.as_str() == s)
            .ok_or_else(|| {
                crate::units::ParseError(format!(
                    "'{}' is no kind of export: there are primary, view, secondary and inbound",
                    s.escape_debug().take(40).collect::<String>()
                ))
            })
    }
}

/// What kind of refusal, as `engine.proto` lists them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// Bad input, refused whole.
    Invalid,
    /// No such volume or group.
    NotFound,
    /// It is there, but different.
    Exists,
    /// Wrong stage, role or generation.
    WrongState,
    /// No space, or a limit is reached.
    Exhausted,
    /// The peer or a disk did not answer; try again.
    Unavailable,
    /// What is stored is damaged.
    DataLoss,
    /// The engine does not know the call: it is older.
    Unimplemented,
    /// A failure the engine has no word for.
    Internal,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Invalid,
        Self::NotFound,
        Self::Exists,
        Self::WrongState,
        Self::Exhausted,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unimplemented,
        Self::Internal,
    ];
}
