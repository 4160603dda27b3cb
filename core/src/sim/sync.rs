//! Sync points: every request that makes something durable, numbered, to cut the power exactly
//! before or after.
//!
//! ```text
//!   flush | create | remove | rename | grow
//!     │ call: number n ──► crash_at_sync(n, Before): the power fails, it never begins
//!     ▼
//!   durable ─────────────► crash_at_sync(n, After): the power fails, nobody hears of it
//! ```

use std::rc::Rc;

use super::events::Fate;
use super::host::SimHost;

/// On which side of a sync point the power fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// It never begins.
    Before,
    /// It has happened, but nobody heard of it.
    After,
}

/// The sync point at which the power is to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Armed {
    pub(super) point: u64,
    pub(super) when: When,
    /// Of all nodes in that moment.
    pub(super) all: bool,
}

impl SimHost {
    /// Counts a sync point; `None` when the power fails right now.
    pub(super) fn sync_begins(&self, what: &'static str, of: impl Into<Rc<str>>) -> Option<u64> {
        let node = self.node();
        let point = node.syncs.get();
        node.syncs.set(point + 1);
        self.note(what, of, point);
        if self.power_fails(point, When::Before) { None } else { Some(point) }
    }

    /// The sync point has happened; true when the power fails right behind it.
    pub(super) fn sync_ended(&self, point: u64) -> bool {
        self.power_fails(point, When::After)
    }

    /// Cuts the power if that was asked for here.
    fn power_fails(&self, point: u64, when: When) -> bool {
        let node = self.node();
        let Some(armed) = node.armed.get().filter(|a| (a.point, a.when) == (point, when)) else {
            return false;
        };
        self.world().end(node, Fate::PowerCut, false);
        if armed.all {
            let others = self.world().nodes.borrow().clone();
            for other in others.iter().filter(|other| other.id != node.id) {
                self.world().end(other, Fate::PowerCut, false);
            }
        }
        true
    }
}
