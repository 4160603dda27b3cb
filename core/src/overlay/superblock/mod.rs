//! The group superblock: one atomic step of a group's state, for all its volumes.
//!
//! ```text
//!   0          32 KiB       64 KiB
//!   ├─ slot 0 ─┼─ slot 1 ───┤      write: the slot that does not count, counter + 1, then a flush
//!   │ counter 6│ counter 7  │      open:  the whole slot with the highest counter
//! ```
//!
//! A write cut off by a crash leaves the other slot, so either the old or the new state is found.
//! What cannot be told by looking at one slot: whether the one that does not count was ever whole.
//! [`Superblock::flaw`] says what was wrong with it, for a warning.

mod format;
mod state;

pub use state::{
    ActiveId, CARRIED_MAX, CommitPosition, GroupState, HISTORY_MAX, Member, Mode, Policy, Role,
    Sessions, Stage, UNDO_LOGS_MAX, UndoFull,
};

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

use self::format::{SLOT_LEN, Slot, decode, encode};
use super::range_lock::RangeLock;
use crate::bug::{Bug, bug};
use crate::disk::{Disk, Error, ErrorKind, Result, settle};
use crate::runtime::Buf;
use crate::units::{ByteOffset, ByteRange, u64_of};

/// Bytes of the file a superblock needs.
pub const SUPERBLOCK_LEN: u64 = 2 * u64_of(SLOT_LEN);

/// The superblock of a group, open for writing. Clones are the same one.
#[derive(Clone)]
pub struct Superblock<D: Disk>(Rc<Inner<D>>);

struct Inner<D> {
    disk: D,
    /// Counter of the slot that counts.
    counter: Cell<u64>,
    /// Which slot that is.
    slot: Cell<u16>,
    /// Set while a write is under way, and for good after one that failed or was dropped: what
    /// its slot holds is then unknown, and so is which of two states a reader would find.
    unsure: Cell<bool>,
    /// One write at a time, in the order of the calls.
    turn: RangeLock,
    flaw: Option<String>,
}

impl<D: Disk> std::fmt::Debug for Superblock<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Superblock(counter {}, slot {})", self.0.counter.get(), self.0.slot.get())
    }
}

fn slot_offset(slot: u16) -> ByteOffset {
    ByteOffset(u64::from(slot) * u64_of(SLOT_LEN))
}

impl<D: Disk> Superblock<D> {
    fn with(disk: D, counter: u64, slot: u16, flaw: Option<String>) -> Self {
        Self(Rc::new(Inner {
            disk,
            counter: Cell::new(counter),
            slot: Cell::new(slot),
            unsure: Cell::new(false),
            turn: RangeLock::default(),
            flaw,
        }))
    }

    /// Writes the first state of a group to a blank disk of [`SUPERBLOCK_LEN`] bytes.
    pub async fn create(disk: D, state: &GroupState) -> Result<Self> {
        check_len(&disk)?;
        // A file that held one before must not win with its higher counter.
        disk.write_zeroes(ByteRange::new(0, SUPERBLOCK_LEN), false).await?;
        let created = Self::with(disk, 0, 1, None);
        created.write(state).await?;
        Ok(created)
    }

    /// Finds the state that counts.
    ///
    /// The disk is flushed first: what a killed process left in flight is durable, or not there.
    pub async fn open(disk: D) -> Result<(Self, GroupState)> {
        check_len(&disk)?;
        settle(&disk).await.map_err(|e| e.context("group superblock"))?;
        let mut slots = Vec::new();
        for number in 0..2 {
            let (bytes, result) = disk.read(slot_offset(number), Buf::new(SLOT_LEN)).await;
            // A slot that cannot be read is as bad as a damaged one; the other may be whole.
            slots.push(match result {
                Ok(()) => decode(&bytes, number),
                Err(e) => Slot::Bad(e.context(format!("slot {number} of the group superblock"))),
            });
        }
        let mut found: Option<(u64, u16, GroupState)> = None;
        let mut flaws = Vec::new();
        for (number, slot) in (0..).zip(slots) {
            match slot {
                Slot::Good(counter, state) => {
                    if found.as_ref().is_none_or(|(best, ..)| counter > *best) {
                        found = Some((counter, number, *state));
                    }
                }
                // Never fall back to an older slot when a newer program has written since.
                Slot::Bad(e) if e.kind() == ErrorKind::TooNew => return Err(e),
                Slot::Bad(e) => flaws.push(e),
                Slot::Blank => {}
            }
        }
        let flaw = flaws.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let Some((counter, slot, state)) = found else {
            let why = if flaws.is_empty() { "it was never written".to_owned() } else { flaw };
            let kind = match flaws.as_slice() {
                [only] | [only, ..] if only.kind() != ErrorKind::Corrupt => only.kind(),
                _ => ErrorKind::Corrupt,
            };
            return Err(Error::own(kind, format!("no slot of the group superblock counts: {why}")));
        };
        Ok((Self::with(disk, counter, slot, (!flaws.is_empty()).then_some(flaw)), state))
    }

    /// What was wrong with the slot that did not count when it was opened, if it was not simply
    /// older. After a crash in a write this is normal; else it is damage, and worth a warning.
    pub fn flaw(&self) -> Option<&str> {
        self.0.flaw.as_deref()
    }

    /// Whether a write is under way, or failed or was dropped: what is stored is unknown then.
    pub fn is_unsure(&self) -> bool {
        self.0.unsure.get()
    }

    /// Replaces the state in one atomic, durable step. Writes come in the order of their calls.
    ///
    /// A state beyond the limits is refused with [`ErrorKind::Invalid`] and nothing changes. After
    /// any other failure it is unknown which state is stored: all later writes refuse until the
    /// superblock is opened anew.
    pub fn write(&self, state: &GroupState) -> impl Future<Output = Result<()>> + 'static {
        let payload = encode(state);
        let turn = self.0.turn.lock(ByteRange::new(0, 1));
        let inner = self.0.clone();
        async move {
            let payload = payload?;
            let _turn = turn.await;
            if inner.unsure.replace(true) {
                return Err(Error::own(
                    ErrorKind::Poisoned,
                    "group superblock: an earlier write failed, so what is stored is unknown; open the group again",
                ));
            }
            let other = u16::from(!bug(Bug::SlotOverwritten));
            let slot = inner.slot.get() ^ other;
            let counter = inner.counter.get() + 1;
            let bytes = format::slot(&payload, slot, counter);
            let named = |e: Error| e.context("group superblock");
            inner.disk.write(slot_offset(slot), bytes).await.map_err(named)?;
            inner.disk.flush().await.map_err(named)?;
            inner.slot.set(slot);
            inner.counter.set(counter);
            inner.unsure.set(false);
            Ok(())
        }
    }
}

fn check_len<D: Disk>(disk: &D) -> Result<()> {
    if disk.len() < SUPERBLOCK_LEN {
        let len = disk.len();
        return Err(Error::own(
            ErrorKind::Corrupt,
            format!(
                "group superblock: the file has {len} bytes and needs {SUPERBLOCK_LEN}: it was cut off"
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
