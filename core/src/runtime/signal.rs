//! "Something changed, look again", between tasks of one thread.
//!
//! ```text
//!   waiter:   loop { if done() { break }  signal.wait().await }
//!   changer:  state.set(..);  signal.notify();
//! ```
//!
//! There is no lost wake-up: a task of one thread can't be interrupted between its look and its wait.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Wakes all that wait. Clones are the same signal.
#[derive(Clone, Default)]
pub struct Signal(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    /// Counts notifications: a waiter is done when it moved on from what the waiter saw.
    count: u64,
    /// Who to wake, in the order they came.
    waiting: Vec<Waker>,
}

impl std::fmt::Debug for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signal({} waiting)", self.0.borrow().waiting.len())
    }
}

impl Signal {
    /// A signal that nobody waits for.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes every task that waits now, in the order they began to.
    pub fn notify(&self) {
        let woken = {
            let mut s = self.0.borrow_mut();
            s.count += 1;
            std::mem::take(&mut s.waiting)
        };
        for w in woken {
            w.wake();
        }
    }

    /// Ends at the first `notify` after this call.
    pub fn wait(&self) -> Wait {
        Wait { signal: self.clone(), seen: self.0.borrow().count }
    }

    /// Ends once `done` says so; looks again after each `notify`.
    pub async fn wait_until(&self, mut done: impl FnMut() -> bool) {
        while !done() {
            self.wait().await;
        }
    }
}

/// The future of [`Signal::wait`].
#[derive(Debug)]
pub struct Wait {
    signal: Signal,
    seen: u64,
}

impl Future for Wait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut s = self.signal.0.borrow_mut();
        if s.count != self.seen {
            return Poll::Ready(());
        }
        if !s.waiting.iter().any(|w| w.will_wake(cx.waker())) {
            s.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}
