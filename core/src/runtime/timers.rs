//! Sleeps of a shard's tasks, by their end.
//!
//! ```text
//!   (end, number) ──► waker        the first entry bounds the shard's own sleep
//! ```

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::Mono;

/// Now, on the boot clock.
pub(crate) fn boot_clock() -> Mono {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
    Mono(Duration::new(seconds, u32::try_from(t.tv_nsec).unwrap_or(0)))
}

/// The sleeps of one shard. Clones are the same set.
#[derive(Clone, Default)]
pub(crate) struct Timers(Rc<Inner>);

#[derive(Default)]
struct Inner {
    sleeping: RefCell<BTreeMap<(Mono, u64), Waker>>,
    count: Cell<u64>,
}

impl Timers {
    /// The end of the next sleep.
    pub(crate) fn next(&self) -> Option<Mono> {
        self.0.sleeping.borrow().first_key_value().map(|((at, _), _)| *at)
    }

    /// Wakes every sleep that ends at `now` or before.
    pub(crate) fn fire(&self, now: Mono) {
        loop {
            let mut sleeping = self.0.sleeping.borrow_mut();
            let due = sleeping.first_entry().filter(|e| e.key().0 <= now);
            let Some(waker) = due.map(std::collections::btree_map::OccupiedEntry::remove) else {
                return;
            };
            drop(sleeping);
            waker.wake();
        }
    }

    /// A sleep until `at`.
    pub(crate) fn sleep_until(&self, at: Mono) -> Sleep {
        self.0.count.set(self.0.count.get() + 1);
        Sleep { timers: self.clone(), key: (at, self.0.count.get()), listed: false }
    }
}

/// The future of a sleep; dropping it forgets it.
pub(crate) struct Sleep {
    timers: Timers,
    key: (Mono, u64),
    listed: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let me = &mut *self;
        if me.key.0 <= boot_clock() {
            return Poll::Ready(());
        }
        // Inserted again at every poll: the waker may be another one, or have fired early.
        me.timers.0.sleeping.borrow_mut().insert(me.key, cx.waker().clone());
        me.listed = true;
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if self.listed {
            self.timers.0.sleeping.borrow_mut().remove(&self.key);
        }
    }
}
