//! What a resync has done for good, so that no lost session, nor a restart, begins it anew.
//!
//! ```text
//!   unrecorded ──flush frame S──► settling ──peer flushed S, our local writes before S ended,──► settled
//!                                             our disks flushed
//!      session lost: unrecorded, settling ─► missing           settled stays: need not be sent again
//! ```
//! A record clears all three: it alone completes a checkpoint. Only a resync asks for this; while
//! checkpoints complete, each of them does the same.

use std::cell::Cell;
use std::rc::Rc;

use super::span::Span;
use super::{Leg, Link};
use crate::link::Window;
use crate::link::frame::Body;
use crate::overlay::Bitmap;
use crate::runtime::Env;

/// A flush that a resync asked for.
pub(crate) struct Settling {
    /// The session it is of.
    window: Window,
    /// The flush frame.
    sequence: u64,
    /// Local writes in flight whose frames stand before it.
    local: Vec<Rc<Cell<usize>>>,
}

impl<E: Env> Leg<E> {
    /// Asks the peer to make all that was sent durable. `None` without a session, or while another
    /// such flush or a checkpoint is under way.
    pub(crate) fn begin_settling(&self) -> Option<Settling> {
        let Link::Up(window) = &*self.link.borrow() else { return None };
        let mut spans = self.spans.borrow_mut();
        let span = spans.back_mut()?;
        if !span.settling.iter().all(Bitmap::is_empty) {
            return None;
        }
        let volumes = span.unrecorded.len();
        span.settling = std::mem::replace(&mut span.unrecorded, vec![Bitmap::new(); volumes]);
        let local = span.local.clone();
        // Writes from here on count by themselves.
        span.local.insert(0, Rc::default());
        let sequence = window.push(Body::Flush, true);
        Some(Settling { window: window.clone(), sequence, local })
    }

    /// Waits until all before the flush is done; `false` if its session is lost. `flushed`: the last
    /// flush that the peer answered in this session.
    pub(crate) async fn await_settling(&self, s: &Settling, flushed: impl Fn() -> u64) -> bool {
        let lost = || s.window.is_closed() || s.window.is_dropped(s.sequence);
        s.window.drained().wait_until(|| lost() || flushed() >= s.sequence).await;
        self.changed.wait_until(|| lost() || s.local.iter().all(|l| l.get() == 0)).await;
        !lost()
    }

    /// Ends it. `good`: our disks were flushed behind that, so both sides have it, unless the session
    /// was lost meanwhile; then, as when it is not good, it may have to be sent again.
    pub(crate) fn end_settling(&self, s: &Settling, good: bool) {
        let link = self.link.borrow();
        let is_same = matches!(&*link, Link::Up(w) | Link::Draining(w) if w.is(&s.window));
        drop(link);
        for span in self.spans.borrow_mut().iter_mut() {
            span.end_settling(good && is_same);
        }
    }
}

impl Span {
    fn end_settling(&mut self, good: bool) {
        let into = if good { &mut self.settled } else { &mut self.unrecorded };
        for (settling, into) in self.settling.iter_mut().zip(into) {
            into.union_with(settling);
            *settling = Bitmap::new();
        }
        let mut current = true;
        self.local.retain(|l| std::mem::take(&mut current) || l.get() > 0);
    }
}
