//! Flushes of one file: one at a time, shared, and fatal when one fails.
//!
//! ```text
//!   flush()  flush()  flush()
//!   │ runs 1  │ waits   │ waits
//!   └── 1 ended ┴── 2 ──┴── both want number 2: one fdatasync serves all that came during 1
//! ```
//!
//! The kernel reports lost pages to one fdatasync only. If two ran at a time, one would fail and
//! the other would vouch for data that is gone.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;

use super::{Error, ErrorKind, Result};
use crate::runtime::{Fd, Op, Reactor, Signal};

/// The flushes of one file.
#[derive(Clone, Default)]
pub(super) struct Flushes(Rc<State>);

#[derive(Default)]
struct State {
    /// Numbers of the last one begun and the last one ended well.
    begun: Cell<u64>,
    ended: Cell<u64>,
    running: Cell<bool>,
    /// The first one that failed.
    failed: RefCell<Option<(u64, io::Error)>>,
    changed: Signal,
}

impl Flushes {
    /// [`ErrorKind::Poisoned`] after one has failed.
    pub(super) fn check(&self, what: impl FnOnce() -> String) -> Result<()> {
        match &*self.0.failed.borrow() {
            None => Ok(()),
            Some((_, e)) => Err(Error::own(
                ErrorKind::Poisoned,
                format!("{}: a flush failed before ({e}); open it anew", what()),
            )),
        }
    }

    /// Makes durable what was completed before the call.
    pub(super) fn flush(
        &self,
        reactor: &Rc<Reactor>,
        fd: &Rc<Fd>,
        name: impl Fn() -> String + 'static,
    ) -> impl Future<Output = Result<()>> + 'static {
        let wanted = self.0.begun.get() + 1;
        if !self.0.running.get() && self.0.failed.borrow().is_none() {
            self.begin(reactor, fd);
        }
        let (me, reactor, fd) = (self.clone(), reactor.clone(), fd.clone());
        async move {
            loop {
                if let Some((number, e)) = &*me.0.failed.borrow()
                    && *number == wanted
                {
                    let again = e
                        .raw_os_error()
                        .map_or_else(|| e.kind().into(), io::Error::from_raw_os_error);
                    return Err(Error::new(
                        ErrorKind::Io,
                        format!("flush {}", name()),
                        Some(again),
                    ));
                }
                me.check(|| format!("flush {}", name()))?;
                if me.0.ended.get() >= wanted {
                    return Ok(());
                }
                if me.0.running.get() {
                    me.0.changed.wait().await;
                } else {
                    me.begin(&reactor, &fd);
                }
            }
        }
    }

    fn begin(&self, reactor: &Rc<Reactor>, fd: &Rc<Fd>) {
        let number = self.0.begun.get() + 1;
        self.0.begun.set(number);
        self.0.running.set(true);
        let state = self.0.clone();
        let ended = Rc::new(move |result: &io::Result<usize>| {
            state.running.set(false);
            match result {
                Ok(_) => state.ended.set(number),
                Err(e) => {
                    let kept = e
                        .raw_os_error()
                        .map_or_else(|| e.kind().into(), io::Error::from_raw_os_error);
                    state.failed.borrow_mut().get_or_insert((number, kept));
                }
            }
            state.changed.notify();
        });
        // Nobody waits for the request itself: it says by `ended` how it went, whoever is left.
        drop(reactor.submit(fd, Op::Sync { ended }, 0));
    }
}
