//! What will happen, and when: completions of disks, deliveries, timers.
//!
//! ```text
//!   (time, number) ─► whose ─► wake a task | do something
//! ```
//!
//! An event belongs to one life of a node (its tag) or to the world (tag 0). When a node dies, what
//! its life had begun is asked once more: an action learns how it ends.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::task::Waker;
use std::time::Duration;

/// Belongs to no node: outlives every crash.
pub(super) const WORLD: u32 = 0;

/// How an action comes to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// Its time has come.
    Happens,
    /// The power of its node failed before.
    PowerCut,
    /// Its process was killed before; the kernel lives on.
    Kill,
}

pub(super) type Action = Box<dyn FnOnce(Fate)>;

pub(super) enum Event {
    Wake(Waker),
    Act(Action),
}

/// Names an event that was scheduled.
pub(super) type EventId = (Duration, u64);

#[derive(Default)]
pub(super) struct Events {
    queue: RefCell<BTreeMap<EventId, (u32, Event)>>,
    count: Cell<u64>,
}

impl Events {
    pub(super) fn add(&self, at: Duration, tag: u32, event: Event) -> EventId {
        let id = (at, self.count.replace(self.count.get() + 1));
        self.queue.borrow_mut().insert(id, (tag, event));
        id
    }

    /// Forgets one. What it held is dropped after the queue is free again.
    pub(super) fn remove(&self, id: EventId) {
        let removed = self.queue.borrow_mut().remove(&id);
        drop(removed);
    }

    /// When the next one is due.
    pub(super) fn next_at(&self) -> Option<Duration> {
        self.queue.borrow().first_key_value().map(|(id, _)| id.0)
    }

    pub(super) fn pop(&self) -> Option<(Duration, u32, Event)> {
        let ((at, _), (tag, event)) = self.queue.borrow_mut().pop_first()?;
        Some((at, tag, event))
    }

    /// Takes out all of one tag, in order.
    pub(super) fn take(&self, tag: u32) -> Vec<Event> {
        let mut queue = self.queue.borrow_mut();
        queue.extract_if(.., |_, (owner, _)| *owner == tag).map(|(_, (_, event))| event).collect()
    }

    /// Wakes all timers of one tag: its clock changed, they must look again.
    pub(super) fn wake_timers(&self, tag: u32) {
        let woken: Vec<_> = {
            let mut queue = self.queue.borrow_mut();
            queue
                .extract_if(.., |_, (owner, e)| *owner == tag && matches!(e, Event::Wake(_)))
                .collect()
        };
        for (_, (_, event)) in woken {
            if let Event::Wake(waker) = event {
                waker.wake();
            }
        }
    }

    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *self.queue.borrow_mut());
        drop(all);
    }
}
