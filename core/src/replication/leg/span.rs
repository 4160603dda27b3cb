//! The writes of one open epoch, and the ticket that each of them holds.

use std::cell::Cell;
use std::rc::Rc;

use crate::link::Window;
use crate::overlay::Bitmap;
use crate::runtime::{Signal, Wall};
use crate::units::Epoch;

/// The writes of one open epoch.
pub(super) struct Span {
    pub(super) epoch: Epoch,
    /// Per volume: in a frame of this epoch.
    pub(super) unrecorded: Vec<Bitmap>,
    /// Local writes of it in flight. More than one counter after spans were merged.
    pub(super) local: Vec<Rc<Cell<usize>>>,
    pub(super) cut: Wall,
    pub(super) bytes: u64,
}

/// A write that entered: its place in the stream. Dropped when its local part has ended.
pub(crate) struct Ticket {
    pub(super) local: Rc<Cell<usize>>,
    pub(super) changed: Signal,
    /// The session and sequence of its frame, if it has one.
    pub(crate) frame: Option<(Window, u64)>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.local.set(self.local.get() - 1);
        if self.local.get() == 0 {
            self.changed.notify();
        }
    }
}

/// A checkpoint that both sides have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completed {
    pub(crate) epoch: Epoch,
    pub(crate) cut: Wall,
    pub(crate) bytes: u64,
}

impl Span {
    pub(super) fn new(epoch: Epoch, volumes: usize) -> Self {
        Self {
            epoch,
            unrecorded: vec![Bitmap::new(); volumes],
            local: vec![Rc::default()],
            cut: Wall::default(),
            bytes: 0,
        }
    }

    pub(super) fn dirty(&self) -> u64 {
        self.unrecorded.iter().map(Bitmap::bytes).sum()
    }

    pub(super) fn is_locally_done(&self) -> bool {
        self.local.iter().all(|l| l.get() == 0)
    }

    /// Takes in an older span, whose epoch will never complete.
    pub(super) fn absorb(&mut self, older: Self) {
        for (mine, theirs) in self.unrecorded.iter_mut().zip(&older.unrecorded) {
            mine.union_with(theirs);
        }
        self.local.extend(older.local);
        self.bytes += older.bytes;
    }
}
