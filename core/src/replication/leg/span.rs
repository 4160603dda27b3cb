//! The writes of one open epoch, and the ticket that each of them holds.

use std::cell::Cell;
use std::rc::Rc;

use crate::link::Window;
use crate::overlay::Bitmap;
use crate::runtime::{Signal, Wall};
use crate::units::{ByteRange, Epoch, VolumeCount, VolumeIndex};

/// The writes of one open epoch.
pub(super) struct Span {
    pub(super) epoch: Epoch,
    /// Per volume: in a frame of this epoch.
    pub(super) unrecorded: Vec<Bitmap>,
    /// Of what was sent before a flush that a resync asked for: no longer in `unrecorded`, and not
    /// known to be durable on both sides yet.
    pub(super) settling: Vec<Bitmap>,
    /// Durable on both sides, though no record covers it: need not be sent again.
    pub(super) settled: Vec<Bitmap>,
    /// Local writes of it in flight. More than one counter after spans were merged.
    pub(super) local: Vec<Rc<Cell<usize>>>,
    pub(super) cut: Wall,
    /// Once it is closed: the volumes that its checkpoint covers.
    pub(super) covers: VolumeCount,
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
            settling: vec![Bitmap::new(); volumes],
            settled: vec![Bitmap::new(); volumes],
            local: vec![Rc::default()],
            cut: Wall::default(),
            covers: VolumeCount::default(),
            bytes: 0,
        }
    }

    /// A frame of `range` enters; it has to be settled anew.
    pub(super) fn enter(&mut self, volume: VolumeIndex, range: ByteRange) {
        let v = volume.get();
        if let Some(b) = self.unrecorded.get_mut(v) {
            b.set(range);
        }
        for older in [&mut self.settling, &mut self.settled] {
            if let Some(b) = older.get_mut(v).filter(|b| !b.is_empty()) {
                b.clear(range);
            }
        }
        self.bytes += range.len();
    }

    /// What no record covers, in bytes.
    pub(super) fn dirty(&self) -> u64 {
        let all = [&self.unrecorded, &self.settling, &self.settled];
        all.into_iter().flatten().map(Bitmap::bytes).sum()
    }

    /// Per volume: what would be missing if the session were lost.
    pub(super) fn relied_on(&self) -> impl Iterator<Item = Bitmap> + '_ {
        self.unrecorded.iter().zip(&self.settling).map(|(u, s)| {
            let mut all = u.clone();
            all.union_with(s);
            all
        })
    }

    /// Whether any of that is in `range`.
    pub(super) fn relies_on(&self, volume: VolumeIndex, range: ByteRange) -> bool {
        [&self.unrecorded, &self.settling]
            .iter()
            .any(|all| all.get(volume.get()).is_some_and(|b| b.intersects(range)))
    }

    /// What is settled stays so when its session is lost.
    pub(super) fn keep_settled(&mut self, older: &Self) {
        for (mine, theirs) in self.settled.iter_mut().zip(&older.settled) {
            mine.union_with(theirs);
        }
    }

    pub(super) fn is_locally_done(&self) -> bool {
        self.local.iter().all(|l| l.get() == 0)
    }

    /// Takes in an older span, whose epoch will never complete.
    pub(super) fn absorb(&mut self, older: Self) {
        for (mine, theirs) in self.unrecorded.iter_mut().zip(older.relied_on()) {
            mine.union_with(&theirs);
        }
        self.keep_settled(&older);
        self.local.extend(older.local);
        self.bytes += older.bytes;
    }
}
