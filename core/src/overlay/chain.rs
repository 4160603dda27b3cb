//! Which logs lie over which checkpoint, and what a reader of one holds.
//!
//! ```text
//!   Chain ── current ──► Base C=2 ──► slot ──► Node log 3 ──► slot ──► Node log 4 ──► slot (empty)
//!     └── tail ───────────────────────────────────────────────────────────────────────┘  ▲
//!   Point of an older reader ──► Base C=1 ──► slot ──► Node log 2 ──► (the slot before log 3)
//! ```
//!
//! A base keeps the slot before its first log alive, and each log the slot behind it: so a reader
//! of an old checkpoint keeps every log that it may need, sees the logs that are pushed later, and
//! lets go of all of them by being dropped. `read.rs` has the reading itself.

mod read;

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use super::active::Active;
use super::undo::UndoLog;
use crate::bug::{Bug, bug};
use crate::disk::Disk;
use crate::units::{Epoch, VolumeIndex};

/// Where the next log will hang.
type Slot<D> = Rc<OnceCell<Rc<Node<D>>>>;

type Callback<D> = Rc<RefCell<Option<Rc<dyn Fn(UndoLog<D>)>>>>;

struct Node<D: Disk> {
    log: UndoLog<D>,
    next: Slot<D>,
    /// No current point needs it any more: with its last holder its file is free.
    closed: Cell<bool>,
    on_free: Callback<D>,
}

impl<D: Disk> Drop for Node<D> {
    fn drop(&mut self) {
        // One after the other: a long chain dropped by recursion would overflow the stack.
        let mut next = std::mem::take(&mut self.next);
        freed(self.closed.get(), &self.on_free, &self.log);
        while let Some(mut node) =
            Rc::into_inner(next).and_then(OnceCell::into_inner).and_then(Rc::into_inner)
        {
            // Its own drop then finds nothing behind it.
            next = std::mem::take(&mut node.next);
        }
    }
}

impl<D: Disk> Node<D> {
    /// No current point needs it any more.
    fn close(&self) {
        if bug(Bug::LogFreedUnderRead) {
            return freed(true, &self.on_free, &self.log);
        }
        self.closed.set(true);
    }
}

fn freed<D: Disk>(closed: bool, on_free: &Callback<D>, log: &UndoLog<D>) {
    let callback = on_free.borrow().clone();
    if closed && let Some(callback) = callback {
        callback(log.clone());
    }
}

/// The logs of a group over its checkpoints. Clones are the same chain.
pub struct Chain<D: Disk>(Rc<Inner<D>>);

struct Inner<D: Disk> {
    current: RefCell<Point<D>>,
    tail: RefCell<Slot<D>>,
    on_free: Callback<D>,
}

impl<D: Disk> Clone for Chain<D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D: Disk> std::fmt::Debug for Chain<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Chain(checkpoint {}, {} logs)", self.point().checkpoint(), self.logs().len())
    }
}

/// A checkpoint as its readers hold it. Clones hold the same one; the logs over it and its active
/// disks stay for as long as one of them lives.
pub struct Point<D: Disk>(Rc<Base<D>>);

struct Base<D: Disk> {
    checkpoint: Epoch,
    first: Slot<D>,
    actives: Vec<Active<D>>,
    current: Cell<bool>,
}

impl<D: Disk> Clone for Point<D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D: Disk> std::fmt::Debug for Point<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Point({}, current: {})", self.checkpoint(), self.is_current())
    }
}

/// The logs from a slot on, oldest first, as far as they were pushed when each is asked for.
fn walk<D: Disk>(first: &Slot<D>) -> impl Iterator<Item = &Node<D>> {
    std::iter::successors(first.get(), |node| node.next.get()).map(Rc::as_ref)
}

impl<D: Disk> Chain<D> {
    /// No logs over `checkpoint`. `actives` are the consumers' disks, in the order of the volumes;
    /// a volume beyond its end has none.
    pub fn new(checkpoint: Epoch, actives: Vec<Active<D>>) -> Self {
        let tail = Slot::default();
        let base = Base { checkpoint, first: tail.clone(), actives, current: Cell::new(true) };
        Self(Rc::new(Inner {
            current: RefCell::new(Point(Rc::new(base))),
            tail: RefCell::new(tail),
            on_free: Rc::default(),
        }))
    }

    /// Adds the newest log.
    pub fn push(&self, log: UndoLog<D>) {
        let next = Slot::default();
        let node = Node {
            log,
            next: next.clone(),
            closed: Cell::new(false),
            on_free: self.0.on_free.clone(),
        };
        let tail = self.0.tail.replace(next);
        // Fresh since the last push, so it is empty.
        let pushed = tail.set(Rc::new(node));
        debug_assert!(pushed.is_ok(), "the tail of a chain is empty");
    }

    /// The logs over the current checkpoint, oldest first.
    pub fn logs(&self) -> Vec<UndoLog<D>> {
        walk(&self.0.current.borrow().0.first).map(|node| node.log.clone()).collect()
    }

    /// The newest log over the current checkpoint.
    pub fn newest(&self) -> Option<UndoLog<D>> {
        walk(&self.0.current.borrow().0.first).last().map(|node| node.log.clone())
    }

    /// Checkpoint `n` is complete and now the current one, with these active disks. Logs of epochs
    /// up to it are freed when the last holder of an older point is gone, which may be now.
    pub fn complete(&self, n: Epoch, actives: Vec<Active<D>>) {
        let old = self.point();
        let mut first = old.0.first.clone();
        let most = if bug(Bug::ThirdLogLeft) { 2 } else { usize::MAX };
        for _ in 0..most {
            let next = match first.get() {
                Some(node) if node.log.epoch() <= n => {
                    node.close();
                    node.next.clone()
                }
                _ => break,
            };
            first = next;
        }
        let base = Base { checkpoint: n, first, actives, current: Cell::new(true) };
        old.0.current.set(false);
        // Dropped at the end, with no borrow held: the callback may come back to this chain.
        let replaced = self.0.current.replace(Point(Rc::new(base)));
        drop((old, replaced));
    }

    /// The current checkpoint.
    pub fn point(&self) -> Point<D> {
        self.0.current.borrow().clone()
    }

    /// Called once for each log that was completed and has no holder any more, to recycle its file.
    /// It must not hold this chain, or neither is ever dropped. Logs that are still over the current
    /// checkpoint when the chain itself is dropped are not freed: they are needed after a restart.
    pub fn on_free(&self, callback: Rc<dyn Fn(UndoLog<D>)>) {
        self.0.on_free.replace(Some(callback));
    }
}

impl<D: Disk> Point<D> {
    /// Which checkpoint it is.
    pub fn checkpoint(&self) -> Epoch {
        self.0.checkpoint
    }

    /// Whether no later checkpoint was completed since.
    pub fn is_current(&self) -> bool {
        self.0.current.get()
    }

    /// The consumer's disk over a volume.
    ///
    /// # Panics
    /// If this point was made without one for the volume: a bug of the caller, never input.
    pub fn active(&self, volume: VolumeIndex) -> Active<D> {
        self.0.actives[volume.get()].clone()
    }
}

#[cfg(test)]
mod tests;
