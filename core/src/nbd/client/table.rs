//! The requests in flight: what each awaits, and what of it has come.
//!
//! ```text
//!   cookie = serial(32) slot(32)      a late answer to an old request never meets a new one
//! ```

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

use slab::Slab;

use crate::disk::{Error, Result};
use crate::nbd::wire::Extent;
use crate::runtime::{Buf, Mono, Signal};
use crate::units::{ByteRange, u64_of, usize_of};

/// The most separate runs of a read's answer we keep account of.
const RUNS_MAX: usize = 1024;

/// What a request awaits, filled as it comes.
#[derive(Debug)]
pub(super) enum Answer {
    /// Data. The buffer is away while it is being received into.
    Read(Option<Buf>),
    /// Extents.
    Status(Vec<Extent>),
    /// Only that it is done.
    Plain,
}

/// What kind of answer a request awaits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Read,
    Status,
    Plain,
}

#[derive(Debug)]
struct Slot {
    cookie: u64,
    range: ByteRange,
    since: Mono,
    answer: Answer,
    covered: Covered,
    error: Option<Error>,
    done: bool,
    /// Nobody waits any more; the answer is still to come.
    abandoned: bool,
    waker: Option<Waker>,
}

/// The requests in flight.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: RefCell<Slab<Slot>>,
    serial: Cell<u32>,
    begun: Signal,
}

impl Table {
    /// A new request; its cookie.
    pub(super) fn begin(&self, range: ByteRange, since: Mono, answer: Answer) -> u64 {
        let serial = self.serial.get().wrapping_add(1);
        self.serial.set(serial);
        let mut slots = self.slots.borrow_mut();
        let entry = slots.vacant_entry();
        let cookie = u64::from(serial) << 32 | u64_of(entry.key()) & 0xffff_ffff;
        entry.insert(Slot {
            cookie,
            range,
            since,
            answer,
            covered: Covered::default(),
            error: None,
            done: false,
            abandoned: false,
            waker: None,
        });
        drop(slots);
        self.begun.notify();
        cookie
    }

    /// How many there are, those included that nobody waits for.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots.borrow().len()
    }

    /// Notified when a request begins.
    pub(super) fn begun(&self) -> &Signal {
        &self.begun
    }

    /// When the oldest request that was not answered began.
    pub(super) fn oldest(&self) -> Option<Mono> {
        self.slots.borrow().iter().filter(|(_, s)| !s.done).map(|(_, s)| s.since).min()
    }

    fn with<T>(&self, cookie: u64, f: impl FnOnce(&mut Slot) -> T) -> Option<T> {
        let mut slots = self.slots.borrow_mut();
        slots.get_mut(usize_of(cookie & 0xffff_ffff)).filter(|s| s.cookie == cookie).map(f)
    }

    /// What an unanswered request awaits, and for which bytes; `None` if there is no such request.
    pub(super) fn awaited(&self, cookie: u64) -> Option<(Kind, ByteRange)> {
        self.with(cookie, |s| {
            let kind = match s.answer {
                Answer::Read(_) => Kind::Read,
                Answer::Status(_) => Kind::Status,
                Answer::Plain => Kind::Plain,
            };
            (!s.done).then_some((kind, s.range))
        })
        .flatten()
    }

    /// Takes a read's buffer out, for receiving into it.
    pub(super) fn take(&self, cookie: u64) -> Option<Buf> {
        self.with(cookie, |s| match &mut s.answer {
            Answer::Read(buf) => buf.take(),
            Answer::Status(_) | Answer::Plain => None,
        })
        .flatten()
    }

    /// Puts it back, or another of the same length. `false` if `filled` is not new.
    pub(super) fn put(&self, cookie: u64, buf: Buf, filled: ByteRange) -> bool {
        self.with(cookie, |s| {
            s.answer = Answer::Read(Some(buf));
            s.covered.add(filled)
        })
        .unwrap_or(false)
    }

    /// Adds extents. `false` if there were some already.
    pub(super) fn extents(&self, cookie: u64, extents: Vec<Extent>) -> bool {
        self.with(cookie, |s| match &mut s.answer {
            Answer::Status(list) if list.is_empty() => {
                *list = extents;
                true
            }
            Answer::Read(_) | Answer::Status(_) | Answer::Plain => false,
        })
        .unwrap_or(false)
    }

    /// Notes the first error of a request.
    pub(super) fn error(&self, cookie: u64, error: Error) {
        self.with(cookie, |s| s.error.get_or_insert(error).clone());
    }

    /// The request was answered. `false` if the answer lacks something.
    pub(super) fn done(&self, cookie: u64) -> bool {
        let whole = self.with(cookie, |s| {
            let whole = s.error.is_some()
                || match &s.answer {
                    Answer::Read(_) => s.covered.bytes() == s.range.len(),
                    Answer::Status(extents) => !extents.is_empty(),
                    Answer::Plain => true,
                };
            s.done = whole;
            // Who waits for an answer that lacks something is woken when the connection ends for it.
            (whole, s.abandoned, s.waker.take_if(|_| whole))
        });
        let Some((whole, abandoned, waker)) = whole else { return false };
        if whole && abandoned {
            self.remove(cookie);
        }
        if let Some(waker) = waker {
            waker.wake();
        }
        whole
    }

    /// Fails every request that was not answered.
    pub(super) fn fail(&self, error: &Error) {
        let mut wakers = Vec::new();
        self.slots.borrow_mut().retain(|_, s| {
            if !s.done {
                s.done = true;
                s.error.get_or_insert_with(|| error.clone());
                wakers.extend(s.waker.take());
            }
            !s.abandoned
        });
        for waker in wakers {
            waker.wake();
        }
    }

    /// Waits for the answer. Also after an error the answer comes back: it may hold a buffer.
    pub(super) async fn wait(&self, cookie: u64) -> (Answer, Result<()>) {
        poll_fn(|cx| {
            let done = self.with(cookie, |s| {
                if !s.done {
                    s.waker = Some(cx.waker().clone());
                }
                s.done
            });
            if done == Some(false) { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        match self.remove(cookie) {
            Some(slot) => (slot.answer, slot.error.map_or(Ok(()), Err)),
            None => (Answer::Plain, Err(super::corrupt("a request was waited for twice"))),
        }
    }

    /// Nobody waits for it any more.
    pub(super) fn abandon(&self, cookie: u64) {
        let done = self.with(cookie, |s| {
            s.abandoned = true;
            s.done
        });
        if done == Some(true) {
            self.remove(cookie);
        }
    }

    fn remove(&self, cookie: u64) -> Option<Slot> {
        let key = usize_of(cookie & 0xffff_ffff);
        self.with(cookie, |_| ())?;
        self.slots.borrow_mut().try_remove(key)
    }
}

/// Which bytes of a read have come: each exactly once, or the buffer would show foreign memory.
#[derive(Debug, Default)]
struct Covered(Vec<ByteRange>);

impl Covered {
    /// Adds a run; `false` if a part of it was there, or there are too many.
    fn add(&mut self, run: ByteRange) -> bool {
        let at = self.0.partition_point(|r| r.start < run.start);
        let before = at.checked_sub(1).and_then(|i| self.0.get_mut(i));
        let clash = before.as_ref().is_some_and(|r| r.overlaps(run))
            || self.0.get(at).is_some_and(|r| r.overlaps(run) || r.start == run.start);
        if clash || run.is_empty() {
            return false;
        }
        match self.0.get_mut(at.wrapping_sub(1)) {
            Some(before) if before.end == run.start => before.end = run.end,
            _ => self.0.insert(at, run),
        }
        self.0.len() <= RUNS_MAX
    }

    fn bytes(&self) -> u64 {
        self.0.iter().map(|r| r.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_that_comes_twice_is_noticed() {
        let mut c = Covered::default();
        assert!(c.add(ByteRange::new(0, 10)) && c.add(ByteRange::new(20, 30)));
        assert!(c.add(ByteRange::new(10, 20)));
        assert_eq!(c.bytes(), 30);
        for (start, end) in [(0, 1), (29, 31), (5, 25), (20, 20), (9, 10)] {
            assert!(!c.add(ByteRange::new(start, end)), "{start}..{end}");
        }
        assert!(c.add(ByteRange::new(30, 31)));
    }
}
