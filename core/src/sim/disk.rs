//! A disk over a file: requests with a delay, in no order, with errors.
//!
//! ```text
//!   call ──► [ the fate of the request is decided ] ── delay ──► effect ──► the future is ready
//!            a write may take effect in two halves, at two times
//! ```
//!
//! A request of a node that has died is never answered: a dead process sees nothing.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

use futures::channel::oneshot;

use super::events::Fate;
use super::faults::Operation;
use super::file::{File, Held};
use super::host::SimHost;
use super::pages::{Content, Effect};
use super::request::{self, Reply};
use crate::disk::{Disk, Error, ErrorKind, Result};
use crate::runtime::{Buf, Data};
use crate::units::{ByteOffset, ByteRange, u64_of};

/// A simulated disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Rc<Open>);

/// An open file; the lock on it lasts as long.
pub(super) struct Open {
    host: SimHost,
    file: Rc<File>,
    /// As of when it was opened.
    len: u64,
    alignment: u64,
    poisoned: Cell<bool>,
}

impl Open {
    /// Whether the process that opened it is gone, and its lock with it.
    pub(super) fn is_dead(&self) -> bool {
        self.host.is_dead()
    }

    fn check_poison(&self, what: &str, range: ByteRange) -> Result<()> {
        if !self.poisoned.get() {
            return Ok(());
        }
        let path = self.file.path.borrow();
        let text = format!("{what} {range} of {path}: a flush failed before");
        Err(Error::own(ErrorKind::Poisoned, text))
    }
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimDisk({}/{})", self.0.host.name(), self.0.file.path.borrow())
    }
}

/// Ends with the answer; never, if there will be none.
pub(super) async fn answer<T>(receiver: oneshot::Receiver<T>) -> T {
    match receiver.await {
        Ok(answer) => answer,
        Err(oneshot::Canceled) => std::future::pending().await,
    }
}

impl SimDisk {
    pub(super) fn new(host: &SimHost, file: Rc<File>) -> Self {
        let open = Rc::new(Open {
            len: file.len.get(),
            alignment: host.node().alignment.get(),
            host: host.clone(),
            file,
            poisoned: Cell::new(false),
        });
        *open.file.open.borrow_mut() = Rc::downgrade(&open);
        Self(open)
    }

    /// Bytes of its content, for oracles: no request, no delay.
    pub fn peek(&self, range: ByteRange, held: Held) -> Vec<u8> {
        self.0.file.peek(range, held)
    }

    /// All of its content, for oracles.
    pub fn snapshot_content(&self, held: Held) -> Vec<u8> {
        self.peek(ByteRange::new(0, self.0.len), held)
    }

    fn check(&self, what: &str, range: Option<ByteRange>) -> Result<ByteRange> {
        let path = self.0.file.path.borrow().clone();
        let range = range.ok_or_else(|| {
            Error::own(ErrorKind::Invalid, format!("{what} of {path} ends beyond 64 bits"))
        })?;
        self.0.check_poison(what, range)?;
        if range.end > self.0.len {
            return Err(Error::beyond_end(&format!("{what} of {path}"), range, self.0.len));
        }
        if !range.is_aligned(self.0.alignment) {
            let text = format!("{what} {range} of {path} is not aligned to {}", self.0.alignment);
            return Err(Error::own(ErrorKind::Invalid, text));
        }
        Ok(range)
    }

    fn injected(&self, operation: Operation, what: &str, range: ByteRange) -> Result<()> {
        let path = self.0.file.path.borrow().clone();
        let node = self.0.host.node();
        match node.injected.next(&path, operation, &self.0.host.world().disks) {
            Some(kind) => {
                Err(Error::own(kind, format!("{what} {range} of {path}: fault injected")))
            }
            None => Ok(()),
        }
    }

    fn change(
        &self,
        what: &'static str,
        effects: Vec<Effect>,
        range: Option<ByteRange>,
    ) -> impl Future<Output = Result<()>> + 'static {
        let (reply, receiver) = oneshot::channel();
        if !self.0.host.is_dead() {
            match self.check(what, range) {
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
                Ok(range) => {
                    self.0.host.note(what, self.0.file.path.borrow().clone(), range.start);
                    let failed = self.injected(Operation::Write, what, range).err();
                    request::submit(&self.0.host, &self.0.file, effects, failed, reply);
                }
            }
        }
        answer(receiver)
    }
}

impl Disk for SimDisk {
    fn len(&self) -> u64 {
        self.0.len
    }

    fn alignment(&self) -> u64 {
        self.0.alignment
    }

    fn read(
        &self,
        at: ByteOffset,
        mut buf: Buf,
    ) -> impl Future<Output = (Buf, Result<()>)> + 'static {
        let (reply, receiver) = oneshot::channel();
        let range = ByteRange::at(at, u64_of(buf.len()));
        if !self.0.host.is_dead() {
            match self.check("read", range) {
                Err(error) => {
                    let _ = reply.send((buf, Err(error)));
                }
                Ok(range) => {
                    self.0.host.note("read", self.0.file.path.borrow().clone(), range.start);
                    let result = self.injected(Operation::Read, "read", range);
                    let open = self.0.clone();
                    let action = move |fate: Fate| {
                        if fate == Fate::Happens {
                            open.file.read(range, &mut buf);
                            let result = result.and(open.check_poison("read", range));
                            if result.is_err() {
                                buf.fill(0xee);
                            }
                            let _ = reply.send((buf, result));
                        }
                    };
                    let world = self.0.host.world();
                    world.act_after(
                        self.0.host.file_delay(&self.0.file),
                        self.0.host.tag(),
                        Box::new(action),
                    );
                }
            }
        }
        answer(receiver)
    }

    fn write(&self, at: ByteOffset, data: Data) -> impl Future<Output = Result<()>> + 'static {
        self.writev(at, vec![data])
    }

    fn writev(
        &self,
        at: ByteOffset,
        data: Vec<Data>,
    ) -> impl Future<Output = Result<()>> + 'static {
        let len = data.iter().map(|d| u64_of(d.len())).sum();
        let range = ByteRange::at(at, len);
        let mut start = at.0;
        let effects = data.into_iter().filter(|_| range.is_some()).map(|data| {
            let end = start.saturating_add(u64_of(data.len()));
            let range = ByteRange::new(std::mem::replace(&mut start, end), end);
            Effect { range, content: Content::Bytes(data) }
        });
        self.change("write", effects.collect(), range)
    }

    fn write_zeroes(
        &self,
        range: ByteRange,
        punch: bool,
    ) -> impl Future<Output = Result<()>> + 'static {
        let effect = Effect { range, content: Content::Zero { punch } };
        self.change(if punch { "discard" } else { "zero" }, vec![effect], Some(range))
    }

    fn flush(&self) -> impl Future<Output = Result<()>> + 'static {
        let (reply, receiver) = oneshot::channel();
        if !self.0.host.is_dead() {
            match self.check("flush", Some(ByteRange::default())) {
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
                Ok(range) => {
                    self.submit_flush(self.injected(Operation::Flush, "flush", range), reply);
                }
            }
        }
        answer(receiver)
    }

    fn forget_cached(&self) -> impl Future<Output = ()> + 'static {
        if !self.0.host.is_dead() {
            self.0.file.forget_cached();
        }
        std::future::ready(())
    }

    fn allocation(
        &self,
        range: ByteRange,
    ) -> impl Future<Output = Result<Vec<(ByteRange, bool)>>> + 'static {
        let (reply, receiver) = oneshot::channel();
        if !self.0.host.is_dead() {
            let path = self.0.file.path.borrow().clone();
            let result = if range.end > self.0.len {
                Err(Error::beyond_end(&format!("allocation of {path}"), range, self.0.len))
            } else {
                self.0.check_poison("allocation of", range).map(|()| self.0.file.allocation(range))
            };
            let _ = reply.send(result);
        }
        answer(receiver)
    }
}

impl SimDisk {
    fn submit_flush(&self, injected: Result<()>, reply: Reply<Result<()>>) {
        let host = self.0.host.clone();
        let path = self.0.file.path.borrow().clone();
        let Some(point) = host.sync_begins("flush", path) else { return };
        let horizon = self.0.file.horizon();
        let open = self.0.clone();
        let action = move |fate: Fate| {
            if fate != Fate::Happens {
                return;
            }
            // One that ran beside it and failed took the lost pages along: this one vouches for nothing.
            match injected.and(open.check_poison("flush", ByteRange::default())) {
                Ok(()) => {
                    open.file.sync(horizon);
                    if !open.host.sync_ended(point) {
                        let _ = reply.send(Ok(()));
                    }
                }
                Err(error) => {
                    open.file.sync_failed(horizon, &open.host.world().disks);
                    open.poisoned.set(true);
                    let _ = reply.send(Err(error));
                }
            }
        };
        let world = self.0.host.world();
        world.act_after(
            self.0.host.file_delay(&self.0.file) * 2,
            self.0.host.tag(),
            Box::new(action),
        );
    }
}
