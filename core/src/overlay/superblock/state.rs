//! What a group remembers about itself over a restart.
//!
//! ```text
//!   GroupState ─┬─ who:      group, pool, generation and its history, members (volume, uuid, size,
//!               │            generations carried over, sessions), how many of them a record covers
//!               ├─ what:     role, stage, policy, peer address, inbound, error
//!               ├─ when:     epoch (highest opened), record, its times and bytes
//!               └─ promoted: active that counts, logs to undo, how far the commit has come
//! ```

use std::time::Duration;

use crate::runtime::Wall;
use crate::units::{
    ByteOffset, Epoch, Generation, GroupId, Uuid, VolumeCount, VolumeId, VolumeIndex,
};

/// The most generations a history keeps.
pub const HISTORY_MAX: usize = 32;

/// The most logs one promotion can name. Each is an epoch that was open at once.
pub const UNDO_LOGS_MAX: usize = 512;

/// The most older generations whose devices go on in this one, for each volume.
pub const CARRIED_MAX: usize = 8;

/// What a replica is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Role {
    /// Not started.
    #[default]
    None,
    /// It serves the VM.
    Primary,
    /// It receives.
    Secondary,
}

/// How far a replica has come: the states of the seed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Stage {
    /// Not started.
    #[default]
    None,
    /// Started.
    Running,
    /// Promoted; the roll-back is being merged.
    Failover,
    /// Promoted; merging failed and can be retried.
    FailoverFailed,
    /// Promoted, and merged.
    Done,
}

/// When a write is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// When the local disk has it and the window has taken it.
    #[default]
    Checkpointed,
    /// When the peer has acknowledged it too.
    Synchronous,
}

/// What happens when the peer lacks more than its undo logs can hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum UndoFull {
    /// The last checkpoint stays, and none completes before the limit is raised.
    #[default]
    KeepCheckpoint,
    /// The checkpoint is dropped: nothing can fail over until the copy is whole again.
    DropCheckpoint,
}

/// What was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// When a write is complete.
    pub mode: Mode,
    /// How often an epoch is closed; zero: only when asked.
    pub checkpoint_interval: Duration,
    /// The most bytes of undo logs.
    pub undo_limit: u64,
    /// The most bytes of frames on their way.
    pub window: u64,
    /// The longest a write is held up by a full window.
    pub max_delay: Duration,
    /// What happens when the peer lacks more than its undo logs can hold.
    pub undo_full: UndoFull,
    /// The most bytes of a consumer's own writes on the secondary.
    pub active_limit: u64,
    /// A resync sends at least so many bytes a second, though the VM has to wait for it.
    pub resync_floor: u64,
    /// A resync sends at most so many bytes a second; zero: as many as it can.
    pub resync_ceiling: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: Mode::Checkpointed,
            checkpoint_interval: Duration::from_secs(1),
            undo_limit: 256 << 20,
            window: 8 << 20,
            max_delay: Duration::from_secs(5),
            undo_full: UndoFull::KeepCheckpoint,
            active_limit: 1 << 30,
            resync_floor: 4 << 20,
            resync_ceiling: 0,
        }
    }
}

/// One volume of the group, by the order of [`VolumeIndex`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its name.
    pub volume: VolumeId,
    /// The replica here.
    pub uuid: Uuid,
    /// Its size in bytes.
    pub size: u64,
    /// Primary: older generations whose devices go on in this one, oldest first; at most
    /// [`CARRIED_MAX`]. Nothing was lost between them and this one.
    pub carried: Vec<Generation>,
    /// Primary: who of its consumers came last.
    pub sessions: Sessions,
}

/// The sessions of a volume: numbers that grow, through all generations that are carried over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sessions {
    /// The highest number that was given out.
    pub issued: u64,
    /// The highest number that was let in: older ones never are again. 0: none.
    pub let_in: u64,
    /// The generation that its device is bound to: never dropped from `carried`.
    pub bound: Generation,
}

impl Member {
    /// A member of which no generation was carried over and no session is known.
    pub fn new(volume: VolumeId, uuid: Uuid, size: u64) -> Self {
        Self { volume, uuid, size, carried: Vec::new(), sessions: Sessions::default() }
    }

    /// Devices bound to `generation` go on in the one after it.
    pub fn carry(&mut self, generation: Generation) {
        if generation.number == 0 || self.carried.contains(&generation) {
            return;
        }
        self.carried.push(generation);
        if self.carried.len() > CARRIED_MAX {
            let bound = self.sessions.bound;
            let spare = self.carried.iter().position(|g| *g != bound).unwrap_or(0);
            self.carried.remove(spare);
        }
    }

    /// The line ends here: whatever was bound to it is stale, and sessions are counted anew.
    pub fn begin_anew(&mut self) {
        self.carried.clear();
        self.sessions = Sessions::default();
    }
}

/// Which active disk counts: one of any other id is garbage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActiveId {
    /// The id its map pages carry.
    pub id: Uuid,
    /// The generation it lies over.
    pub generation: Generation,
    /// The checkpoint it lies over.
    pub checkpoint: Epoch,
}

/// How far the commit has come: all before it, in the order of the group's volumes, is merged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct CommitPosition {
    /// The volume that is being merged.
    pub volume: VolumeIndex,
    /// The first byte of it that is not.
    pub offset: ByteOffset,
}

/// Everything the superblock of a group holds.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, not a state of a machine"
)]
pub struct GroupState {
    /// The name of the group.
    pub group: GroupId,
    /// The pool it lies in.
    pub pool: Uuid,
    /// What this replica is for.
    pub role: Role,
    /// How far it has come.
    pub stage: Stage,
    /// Who may write, as far as it knows.
    pub generation: Generation,
    /// The generations it was of, newest last; at most [`HISTORY_MAX`].
    pub history: Vec<Generation>,
    /// The highest epoch that was opened.
    pub epoch: Epoch,
    /// The last checkpoint that is complete here.
    pub record: Epoch,
    /// When that checkpoint was cut.
    pub record_cut: Wall,
    /// When it was complete.
    pub record_done: Wall,
    /// How many bytes its epoch brought.
    pub record_bytes: u64,
    /// Where the peer is; at most 1024 bytes.
    pub peer_address: Option<String>,
    /// What was asked for.
    pub policy: Policy,
    /// Whether a foreign primary writes through the inbound export.
    pub inbound: bool,
    /// Whether an error was stored that only a later record clears.
    pub error: bool,
    /// Nothing was ever written to these replicas: they hold zeroes.
    pub blank: bool,
    /// Primary: the peer has to forget what it holds, since nothing is known of it. Secondary: its primary
    /// has not said yet that it knows that.
    pub anew: bool,
    /// The volumes, at most 64.
    pub members: Vec<Member>,
    /// How many of them, from the first, a record covers. Those behind are joining: a failover leaves
    /// them out. On a secondary without a record all count, for its first one covers all. A primary
    /// knows what its last secondary said: at least so many are covered there, and a failover to it
    /// leaves none of them behind.
    pub joined: VolumeCount,
    /// The active disk that counts, if one does.
    pub active: Option<ActiveId>,
    /// The logs to be undone, oldest first; at most [`UNDO_LOGS_MAX`].
    pub undo: Vec<Uuid>,
    /// How far undoing them has come.
    pub commit: CommitPosition,
    /// Which intent log counts; it changes with the shape of the group.
    pub intent: u32,
}

impl GroupState {
    /// The volumes that no record covers, though there is one for the others.
    pub fn joining(&self) -> &[Member] {
        self.members.get(self.joined.get()..).unwrap_or_default()
    }

    /// No record covers any volume, so none is joining: the first record covers all.
    pub fn all_joined(&mut self) {
        self.joined = VolumeCount::of(self.members.len());
    }
}
