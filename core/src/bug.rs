//! Deliberate bugs: to show that the simulator would find real ones.
//!
//! ```text
//!   a test        plant(Bug::X) ─► the switch of this thread ─► bug(Bug::X), at its place: true
//!   release       IS_POSSIBLE is false, bug(..) is the constant false: the compiler leaves it out
//! ```
//!
//! Each bug is one line at the place that it breaks. The switch exists only where the simulator is
//! built in *and* debug assertions are on; `understudyd` does not compile with it in release. One is
//! planted at a time, and for one thread: a simulated world lives on one.

use std::cell::Cell;

/// Whether this build can have bugs planted.
pub const IS_POSSIBLE: bool = cfg!(all(feature = "sim", debug_assertions));

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Whether this bug is planted here and now.
#[inline]
pub(crate) fn bug(which: Bug) -> bool {
    IS_POSSIBLE && PLANTED.get() == Some(which)
}

/// Plants a bug, or none, in this thread for as long as the result lives.
#[must_use = "the bug is gone when this is dropped"]
pub fn plant(bug: Option<Bug>) -> Planted {
    Planted(PLANTED.replace(bug))
}

/// A bug is planted; the one before it comes back when this is dropped.
#[derive(Debug)]
pub struct Planted(Option<Bug>);

impl Drop for Planted {
    fn drop(&mut self) {
        PLANTED.set(self.0);
    }
}

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A deliberate bug. Each says what is done wrong.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Bug {
            $($(#[$doc])* $name,)*
        }

        impl Bug {
            /// All of them, in the order of the way of a write.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

bugs! {
    /// Saving: a batch of old content counts as durable without a sync.
    UndoSyncSkipped,
    /// Saving: the secondary disk is overwritten before its old content is in the log.
    OverwriteBeforeUndo,
    /// Undoing: of two logs that hold a cluster the newer one is taken.
    UndoNewestFirst,
    /// Saving: what frames behind a begin-epoch overwrite is saved with what those before it did.
    BatchOverTwoEpochs,
    /// Saving: a discard does not save what it makes go away.
    DiscardNotSaved,
    /// Saving: a fresh replica saves nothing behind its first begin-epoch either.
    FreshSavesNothing,
    /// Record: written while frames of its epoch are still being applied.
    RecordBeforeApplied,
    /// Record: written before the secondary's disks are flushed.
    RecordBeforeFlush,
    /// Record: frees two logs at most, so that a third, of a lost session, lies over it.
    ThirdLogLeft,
    /// Undo log: batches of an older log in the same file are taken for its own.
    RecycledReplayed,
    /// Undo log: a damaged batch with later ones behind it is taken for a torn tail.
    RotTakenForTail,
    /// Superblock: a state overwrites the one that counts, in its slot.
    SlotOverwritten,
    /// Opening: what is read counts as durable although a killed process may not have synced it.
    OpenedUnsynced,
    /// Session: an epoch whose session was lost before its record is complete all the same.
    LostSessionCompletes,
    /// Session: a record whose answer was lost counts as never written.
    LostAnswerIsNever,
    /// Session: frames of the last session are applied behind the hello of the next.
    OldFrameLate,
    /// Session: a hello is answered while a record is being written.
    HelloDuringRecord,
    /// Session: what no record covers when it is lost is not sent again.
    UnrecordedNotResent,
    /// Window: a begin-epoch that was dropped unsent counts as sent.
    DroppedBeginKept,
    /// Resync: reads and sends without the lock of the range.
    ResyncUnlocked,
    /// Resync: of a used replica too only what is allocated is sent.
    HolesLeft,
    /// Resync: what was sent counts as settled before the peer has flushed it.
    SettledThereEarly,
    /// Resync: what was sent counts as settled before our own disks are flushed.
    SettledHereEarly,
    /// Intent log: marks go when the secondary has recorded, before the primary has flushed.
    IntentBeforeFlush,
    /// Intent log: marks go although a newer write relies on them.
    IntentUnderNewer,
    /// Checkpoint: reported before the primary has flushed its half.
    ReportedBeforeFlush,
    /// Checkpoint: the primary flushes without waiting for its local writes in flight.
    FlushWithoutWaiting,
    /// Checkpoint: both open epochs share one bitmap of what is unrecorded.
    OneBitmap,
    /// Checkpoint: the number of an epoch is not durable before it is used.
    EpochUsedTwice,
    /// Primary: a local write that failed is not noted as missing at the peer.
    FailedWriteNotMarked,
    /// View: a log is used again although a reader still holds it.
    LogFreedUnderRead,
    /// View: a consumer's write is done although its checkpoint was replaced meanwhile.
    ConsumerOnReplaced,
    /// View: the active files count whatever checkpoint they lay over.
    StaleActiveValid,
    /// Commit: copies without the lock of the range.
    CommitUnlocked,
    /// Commit: its position is written before what it passed is flushed.
    PositionBeforeFlush,
    /// Opening: after a flush that failed, what only memory holds counts as durable. Was real.
    PoisonForgotten,
    /// Join: a volume that a begin-epoch names counts as joined before that record is written.
    JoinedBeforeRecord,
    /// Join: a begin-epoch names a volume that the peer still lacks something of.
    JoinsLacking,
    /// Join: nothing is saved of a volume behind the begin-epoch that names it.
    JoiningSavesNothing,
    /// Join: a failover keeps a volume that no record covers.
    FailoverKeepsJoining,
    /// Join: a used replica counts as blank where the copy that it joins is. Was real.
    UsedJoinsAsBlank,
    /// Session: a first record may hold what the primary wrote while solo and has neither flushed nor marked.
    /// Was real.
    FirstRecordUnflushed,
}

impl Bug {
    /// Its name for people and commands: `undo-sync-skipped`.
    pub fn name(self) -> String {
        let mut name = String::new();
        for c in format!("{self:?}").chars() {
            if c.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(c.to_ascii_lowercase());
        }
        name
    }
}

impl std::str::FromStr for Bug {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().copied().find(|b| b.name() == text);
        found.ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(|b| b.name()).collect();
            format!("there is no bug {text}; there are {}", all.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bug_is_planted_for_one_thread_and_for_a_time() {
        let planted = plant(Some(Bug::HolesLeft));
        assert_eq!(bug(Bug::HolesLeft), IS_POSSIBLE);
        assert!(!bug(Bug::OneBitmap));
        std::thread::scope(|s| {
            s.spawn(|| assert!(!bug(Bug::HolesLeft)));
        });
        drop(planted);
        assert!(!bug(Bug::HolesLeft));
    }

    #[test]
    fn every_bug_has_a_name_that_finds_it() {
        assert_eq!(Bug::UndoSyncSkipped.name(), "undo-sync-skipped");
        for b in Bug::ALL {
            assert_eq!(b.name().parse(), Ok(*b));
        }
        assert!("none".parse::<Bug>().is_err());
    }
}
