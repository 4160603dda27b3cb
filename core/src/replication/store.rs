//! The durable state of a group: one superblock, changed one atomic step at a time.

use std::cell::{Cell, Ref, RefCell};

use crate::disk::{Host, Result};
use crate::overlay::RangeLock;
use crate::overlay::{GroupState, Superblock};
use crate::units::ByteRange;

/// The group superblock and what it says.
pub(crate) struct Store<H: Host> {
    superblock: Superblock<H::Disk>,
    /// What is durable: changed only after the superblock was.
    state: RefCell<GroupState>,
    /// One change at a time.
    turn: RangeLock,
    /// A change could not be written: what is stored is unknown, and no other is taken.
    broken: Cell<bool>,
}

impl<H: Host> Store<H> {
    pub(crate) fn new(superblock: Superblock<H::Disk>, state: GroupState) -> Self {
        Self {
            superblock,
            state: RefCell::new(state),
            turn: RangeLock::default(),
            broken: Cell::default(),
        }
    }

    /// What is durable now.
    pub(crate) fn state(&self) -> Ref<'_, GroupState> {
        self.state.borrow()
    }

    /// Whether a change failed in a way that leaves unknown what is stored.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// Makes `change` durable in one step, for all volumes of the group. On an error nothing
    /// changed in memory, and the superblock accepts no further change (its disk is poisoned).
    pub(crate) async fn update(&self, change: impl FnOnce(&mut GroupState)) -> Result<()> {
        let _turn = self.turn.lock(ByteRange::new(0, 1)).await;
        let mut next = self.state.borrow().clone();
        change(&mut next);
        // What is stored after a failed write is unknown: then it is not "there already".
        if next == *self.state.borrow() && !self.superblock.is_unsure() {
            return Ok(());
        }
        let written = self.superblock.write(&next).await;
        self.broken.set(self.superblock.is_unsure());
        written?;
        *self.state.borrow_mut() = next;
        Ok(())
    }
}
