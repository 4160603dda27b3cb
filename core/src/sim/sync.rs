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

impl SimHost {
    /// Counts a sync point; `None` when the power fails right now.
    pub(super) fn sync_begins(&self, what: &'static str, of: impl Into<Rc<str>>) -> Option<u64> {
        let node = self.node();
        let point = node.syncs.get();
        node.syncs.set(point + 1);
        self.note(what, of, point);
        if node.armed.get() == Some((point, When::Before)) {
            self.world().end(node, Fate::PowerCut, false);
            return None;
        }
        Some(point)
    }

    /// The sync point has happened; true when the power fails right behind it.
    pub(super) fn sync_ended(&self, point: u64) -> bool {
        let node = self.node();
        let fails = node.armed.get() == Some((point, When::After));
        if fails {
            self.world().end(node, Fate::PowerCut, false);
        }
        fails
    }
}
