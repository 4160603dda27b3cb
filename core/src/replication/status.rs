//! What a group says of itself: plain data.

use super::counters::Counts;
use crate::overlay::{Role, Stage};
use crate::runtime::Wall;
use crate::units::{Epoch, Generation, GroupId, VolumeCount, VolumeId};

/// How it stands with the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LinkState {
    /// No peer.
    #[default]
    Solo,
    /// The peer has no checkpoint yet.
    Syncing,
    /// Checkpoints complete.
    Running,
    /// The peer lacks writes of the open epoch: no checkpoint completes until it has them.
    Degraded,
}

/// A checkpoint that is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Checkpoint {
    /// Its number; [`Epoch::NONE`] before the first.
    pub epoch: Epoch,
    /// When its cut was made, by the primary's clock (on a secondary: when the cut arrived).
    pub cut: Wall,
    /// When it was complete.
    pub done: Wall,
    /// How many bytes it took to the peer.
    pub bytes: u64,
}

/// The state of a group on this engine.
#[derive(Clone, Debug, Default)]
pub struct GroupStatus {
    /// Role and stage; `None` only in the default value.
    pub role: Option<(Role, Stage)>,
    /// The current generation.
    pub generation: Generation,
    /// How it stands with the peer.
    pub link: LinkState,
    /// The open epoch.
    pub epoch: Epoch,
    /// The last complete checkpoint that is known here.
    pub checkpoint: Checkpoint,
    /// How many volumes it has.
    pub volumes: VolumeCount,
    /// How many of its volumes, from the first, the checkpoint covers: the others are joining.
    pub joined: VolumeCount,
    /// Written and not covered by a checkpoint, in bytes; an upper bound.
    pub at_risk: u64,
    /// Of these: what the peer still lacks.
    pub missing: u64,
    /// Bytes a second at which that is sent; 0: not known.
    pub resync_rate: u64,
    /// Queued for the peer and not acknowledged, in bytes.
    pub window: u64,
    /// Held in open undo logs, in bytes; on the primary what it counts for the peer.
    pub undo: u64,
    /// A consumer's own writes on the secondary, in bytes.
    pub active: u64,
    /// After a promotion: merged so far, and in total, in bytes.
    pub commit: (u64, u64),
    /// Frames of this session: queued, acknowledged, applied.
    pub frames: (u64, u64, u64),
    /// What the peer lacks does not fit into its undo logs: no checkpoint completes.
    pub undo_full: bool,
    /// The limits that `window`, `undo` and `active` can come to, in bytes.
    pub limits: Limits,
    /// What it has done since it was opened.
    pub counts: Counts,
    /// How often its intent log was made durable.
    pub intent_syncs: u64,
    /// The first error that no later checkpoint has cleared.
    pub error: Option<String>,
}

/// What a group may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Queued for the peer, in bytes.
    pub window: u64,
    /// In open undo logs, in bytes.
    pub undo: u64,
    /// A consumer's own writes, in bytes.
    pub active: u64,
}

/// The identity of a group and its volumes.
#[derive(Clone, Debug)]
pub struct GroupNames {
    /// The group.
    pub group: GroupId,
    /// Its volumes and their sizes in bytes, in group order.
    pub members: Vec<(VolumeId, u64)>,
}
