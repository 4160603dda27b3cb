//! First come, first served locking of byte ranges of one volume.
//!
//! ```text
//!   queue, in order of the calls:     [0..8 held] [16..24 held] [4..20 waits for 2] [30..34 held]
//!                                                                     ▲
//!   release of 0..8:      counts down every later one that overlaps ──┘   at 0 it is held
//! ```
//!
//! A request waits for *every* earlier request that overlaps it, held or waiting: so overlapping
//! requests have one order, that of the calls, and nobody starves. Hundreds of requests are in
//! flight at most: a scan of a small vector is faster than any tree.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::units::ByteRange;

/// The range lock of one volume. Clones are the same lock.
#[derive(Clone, Default)]
pub struct RangeLock(Rc<RefCell<Queue>>);

#[derive(Default)]
struct Queue {
    /// In order of tickets.
    entries: Vec<Entry>,
    next_ticket: u64,
}

struct Entry {
    ticket: u64,
    range: ByteRange,
    /// How many earlier entries overlap; none: it is held.
    waits_for: usize,
    waker: Option<Waker>,
}

impl std::fmt::Debug for RangeLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let queue = self.0.borrow();
        write!(f, "RangeLock({} requests)", queue.entries.len())
    }
}

/// Whether two requests must not be in flight together. An empty one is in nobody's way.
fn conflict(a: ByteRange, b: ByteRange) -> bool {
    !a.intersect(b).is_empty()
}

impl RangeLock {
    /// Waits for every earlier overlapping request, held or waiting.
    ///
    /// The place in the queue is taken at the call, not at the first poll; dropping the future
    /// gives it up.
    pub fn lock(&self, range: ByteRange) -> impl Future<Output = RangeGuard> + 'static {
        let ticket = {
            let mut queue = self.0.borrow_mut();
            let waits_for = queue.entries.iter().filter(|e| conflict(e.range, range)).count();
            let ticket = queue.next_ticket;
            queue.next_ticket += 1;
            queue.entries.push(Entry { ticket, range, waits_for, waker: None });
            ticket
        };
        Locking(Some(RangeGuard { queue: self.0.clone(), ticket, range }))
    }

    /// Whether nobody holds or waits for a part of `range`, so that [`RangeLock::lock`] would not wait.
    pub fn is_free(&self, range: ByteRange) -> bool {
        !self.0.borrow().entries.iter().any(|e| conflict(e.range, range))
    }

    /// How many ranges are held now; those that wait do not count.
    pub fn held(&self) -> usize {
        self.0.borrow().entries.iter().filter(|e| e.waits_for == 0).count()
    }
}

/// A locked range. Dropping it releases the lock.
pub struct RangeGuard {
    queue: Rc<RefCell<Queue>>,
    ticket: u64,
    range: ByteRange,
}

impl RangeGuard {
    /// What is locked.
    pub fn range(&self) -> ByteRange {
        self.range
    }
}

impl std::fmt::Debug for RangeGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RangeGuard({:?})", self.range)
    }
}

impl Drop for RangeGuard {
    fn drop(&mut self) {
        // Woken after the borrow has ended: a waker may run anything. Allocates only if someone waited.
        let mut woken = Vec::new();
        {
            let mut queue = self.queue.borrow_mut();
            let Ok(at) = queue.entries.binary_search_by_key(&self.ticket, |e| e.ticket) else {
                return;
            };
            queue.entries.remove(at);
            for later in &mut queue.entries[at..] {
                if conflict(later.range, self.range) {
                    later.waits_for -= 1;
                    if later.waits_for == 0 {
                        woken.extend(later.waker.take());
                    }
                }
            }
        }
        for waker in woken {
            waker.wake();
        }
    }
}

/// The future of [`RangeLock::lock`]: a guard that is handed out once nobody is before it.
struct Locking(Option<RangeGuard>);

impl Future for Locking {
    type Output = RangeGuard;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<RangeGuard> {
        if let Some(guard) = &self.0 {
            let mut queue = guard.queue.borrow_mut();
            if let Ok(at) = queue.entries.binary_search_by_key(&guard.ticket, |e| e.ticket) {
                let entry = &mut queue.entries[at];
                if entry.waits_for > 0 {
                    match &mut entry.waker {
                        Some(waker) => waker.clone_from(context.waker()),
                        none => *none = Some(context.waker().clone()),
                    }
                    return Poll::Pending;
                }
            }
        }
        // Polled after its end it never ends again, as futures may.
        self.0.take().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::executor::block_on;

    type Waiting = Pin<Box<dyn Future<Output = RangeGuard>>>;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange::new(start, end)
    }

    #[test]
    fn overlapping_requests_are_served_in_the_order_of_their_calls() {
        let lock = RangeLock::default();
        let first = block_on(lock.lock(range(0, 10)));
        let mut second = Box::pin(lock.lock(range(5, 15)));
        let mut third = Box::pin(lock.lock(range(12, 20)));
        // Free by what is held, but the second came before it.
        assert!(third.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        assert!(!lock.is_free(range(16, 17)));
        assert!(lock.is_free(range(20, 21)));
        assert_eq!(lock.held(), 1);
        drop(first);
        assert!(third.as_mut().now_or_never().is_none());
        drop(second.as_mut().now_or_never().unwrap());
        assert!(third.as_mut().now_or_never().is_some());
        assert_eq!(lock.held(), 0);
    }

    #[test]
    fn the_place_is_taken_at_the_call_and_not_at_the_first_poll() {
        let lock = RangeLock::default();
        let mut early = Box::pin(lock.lock(range(0, 4)));
        let mut late = Box::pin(lock.lock(range(0, 4)));
        assert!(late.as_mut().now_or_never().is_none());
        assert!(early.as_mut().now_or_never().is_some());
    }

    #[test]
    fn a_dropped_future_gives_its_place_up() {
        let lock = RangeLock::default();
        let held = block_on(lock.lock(range(0, 4)));
        let waiting = lock.lock(range(0, 8));
        let mut last = Box::pin(lock.lock(range(6, 8)));
        assert!(last.as_mut().now_or_never().is_none());
        drop(waiting);
        assert!(last.as_mut().now_or_never().is_some());
        drop(held);
        assert!(lock.is_free(range(0, 100)));
    }

    #[test]
    fn a_guard_that_ends_wakes_who_waited() {
        let lock = RangeLock::default();
        let held = block_on(lock.lock(range(0, 4)));
        let waiting = lock.lock(range(2, 3));
        block_on(async {
            futures::join!(
                async {
                    assert_eq!(waiting.await.range(), range(2, 3));
                },
                async {
                    drop(held);
                }
            )
        });
    }

    #[test]
    fn random_requests_never_overlap_and_keep_their_order() {
        let mut random = crate::overlay::tests::Random::from_environment("range lock");
        let lock = RangeLock::default();
        let mut held: Vec<RangeGuard> = Vec::new();
        let mut waiting: Vec<(ByteRange, Waiting)> = Vec::new();
        for _ in 0..4000 {
            if waiting.len() < 20 && random.below(2) == 0 {
                let start = random.below(64);
                let r = range(start, start + 1 + random.below(16));
                waiting.push((r, Box::pin(lock.lock(r))));
            } else if !held.is_empty() && random.below(3) > 0 {
                held.swap_remove(usize::try_from(random.below(held.len() as u64)).unwrap());
            } else if !waiting.is_empty() && random.below(6) == 0 {
                drop(waiting.remove(usize::try_from(random.below(waiting.len() as u64)).unwrap()));
            }
            let mut still = Vec::new();
            for (r, mut future) in std::mem::take(&mut waiting) {
                let free = held.iter().all(|g| !g.range().overlaps(r))
                    && still.iter().all(|(w, _): &(ByteRange, Waiting)| !w.overlaps(r));
                if let Some(guard) = future.as_mut().now_or_never() {
                    assert!(free, "{r:?} was granted too early");
                    held.push(guard);
                } else {
                    assert!(!free, "{r:?} should have been granted");
                    still.push((r, future));
                }
            }
            waiting = still;
        }
    }
}
