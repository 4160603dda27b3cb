//! What other threads may touch of a shard: its inbox, its finished pool jobs, and its sleep.
//!
//! ```text
//!   other thread                                   shard
//!     push into inbox / completions                  asleep = true
//!     poked = true                                   look again at all queues
//!     if asleep was true: write the eventfd ───────► sleeping in the ring or in epoll
//! ```
//!
//! Either the shard sees what was pushed before it sleeps, or the pusher sees that it sleeps.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use super::shard::ShardEnv;

/// What another thread wants done on the shard.
pub(crate) type Errand = Box<dyn FnOnce(&ShardEnv) + Send>;

/// The thread-safe part of a shard.
pub(crate) struct Remote {
    /// Written to end the shard's sleep.
    pub(crate) eventfd: OwnedFd,
    asleep: AtomicBool,
    poked: AtomicBool,
    stop: AtomicBool,
    /// `None` once the shard has ended.
    inbox: Mutex<Option<Vec<Errand>>>,
    completions: Mutex<Vec<(u64, io::Result<usize>)>>,
}

impl Remote {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            eventfd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            asleep: AtomicBool::new(false),
            poked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            inbox: Mutex::new(Some(Vec::new())),
            completions: Mutex::default(),
        })
    }

    /// Ends the shard's sleep, or keeps it from falling asleep.
    pub(crate) fn notify(&self) {
        self.poked.store(true, Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            // Adds a large number of no meaning. One write per sleep: the counter can't overflow.
            let _ = rustix::io::write(&self.eventfd, &[1; 8]);
        }
    }

    /// Forgets the write that ended a sleep.
    pub(crate) fn drain(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.eventfd, &mut count);
    }

    /// Whether something came since [`clear_poke`](Self::clear_poke).
    pub(crate) fn is_poked(&self) -> bool {
        self.poked.load(Ordering::SeqCst)
    }

    /// Called before all queues are looked at: errands, ready tasks, completions. Whatever is
    /// looked at only before this may lie there through the next sleep.
    pub(crate) fn clear_poke(&self) {
        if self.is_poked() {
            self.poked.store(false, Ordering::SeqCst);
        }
    }

    /// Called before a sleep; `false` if something came meanwhile and there is none.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        if self.is_poked() {
            self.asleep.store(false, Ordering::SeqCst);
            return false;
        }
        true
    }

    /// Called after a sleep.
    pub(crate) fn awake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Hands over an errand; drops it if the shard has ended.
    pub(crate) fn send(&self, errand: Errand) {
        if let Some(inbox) = &mut *lock(&self.inbox) {
            inbox.push(errand);
        }
        self.notify();
    }

    /// The errands that came.
    pub(crate) fn errands(&self) -> Vec<Errand> {
        lock(&self.inbox).as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// No errand is taken from now on; those that nobody ran are dropped.
    pub(crate) fn close(&self) {
        let rest = lock(&self.inbox).take();
        drop(rest);
    }

    /// A pool thread has ended the flight `token`.
    pub(crate) fn complete(&self, token: u64, result: io::Result<usize>) {
        lock(&self.completions).push((token, result));
        self.notify();
    }

    /// Moves what pool threads have ended to `out`.
    pub(crate) fn completions(&self, out: &mut Vec<(u64, io::Result<usize>)>) {
        out.append(&mut lock(&self.completions));
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.notify();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing can panic while one of these is held.
    m.lock().unwrap_or_else(PoisonError::into_inner)
}
