//! What the steps and the requests beside them share: the model, the verdict, the counts.

use std::cell::{Cell, RefCell};

use super::broken::Broken;
use super::oracle::Oracle;

/// What the steps and their requests share.
#[derive(Debug)]
pub(super) struct Shared {
    /// What may be read.
    pub(super) oracle: RefCell<Oracle>,
    /// The first thing that must not be.
    pub(super) violation: RefCell<Option<(Broken, String)>>,
    /// A disk's error was asked for.
    pub(super) injected: Cell<bool>,
    /// A pool ran full.
    pub(super) ran_full: Cell<bool>,
    /// Which consumer writes now.
    pub(super) consumer_life: Cell<u64>,
    /// What was done.
    pub(super) counts: Cell<Counts>,
    /// The last checkpoint that an answer named, and the generation it is of.
    pub(super) answered: Cell<(u64, u64)>,
}

/// What was done.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    /// Requests that ended.
    pub operations: u64,
    /// Checkpoints that were looked at.
    pub checkpoints: u64,
    /// Failovers.
    pub failovers: u64,
    /// Deaths of a node.
    pub deaths: u64,
    /// Restarts.
    pub restarts: u64,
    /// Old primaries that returned.
    pub rejoins: u64,
    /// Cuts, stalls, partitions.
    pub cuts: u64,
    /// Replicas that were asked to grow and did, or had that size.
    pub expands: u64,
    /// Volumes that joined a side.
    pub joins: u64,
    /// Requests that found no space.
    pub refused: u64,
    /// Checkpoints that were given up for want of undo space.
    pub dropped: u64,
}

impl Shared {
    /// Notes what must not be.
    pub(super) fn fail(&self, broken: Broken, what: String) {
        self.violation.borrow_mut().get_or_insert((broken, what));
    }

    /// Notes an error.
    pub(super) fn check(&self, broken: Broken, result: Result<(), String>) {
        if let Err(e) = result {
            self.fail(broken, e);
        }
    }

    /// Counts.
    pub(super) fn count(&self, what: impl FnOnce(&mut Counts)) {
        let mut c = self.counts.get();
        what(&mut c);
        self.counts.set(c);
    }
}
