//! Epochs of the stream: when the open one is closed, and when a closed one is complete.

use super::span::{Completed, Span};
use super::{Leg, Link};
use crate::bug::{Bug, bug};
use crate::link::frame::Body;
use crate::overlay::Bitmap;
use crate::runtime::Env;
use crate::units::{CLUSTER, Epoch, VolumeCount};

impl<E: Env> Leg<E> {
    /// Whether an epoch can be closed now: the peer lacks nothing of the volumes that its checkpoint
    /// covers, no checkpoint is under way.
    pub(crate) fn can_cut(&self) -> bool {
        self.is_up() && self.spans.borrow().len() == 1 && self.holding_up() == 0
    }

    /// The volumes that a checkpoint cut now covers: those of the last one, and of those behind them,
    /// in their order, as many as lack nothing.
    fn next_covered(&self) -> VolumeCount {
        let missing = self.missing.borrow();
        let joined = self.joined().get();
        let whole = |m: &&Bitmap| m.is_empty() || bug(Bug::JoinsLacking);
        VolumeCount::of(joined + missing.iter().skip(joined).take_while(whole).count())
    }

    /// Closes the open epoch: `next` is opened. To be called right after [`can_cut`](Self::can_cut).
    pub(crate) fn cut(&self, next: Epoch) -> Option<Epoch> {
        let mut link = self.link.borrow_mut();
        let Link::Up(window) = &*link else { return None };
        let window = window.clone();
        if self.closing.get() {
            *link = Link::Draining(window.clone());
        }
        drop(link);
        // No await since it was seen that nothing is missing.
        let covers = self.next_covered();
        let mut spans = self.spans.borrow_mut();
        let (closed, cut) = {
            let span = spans.back_mut()?;
            // The peer's record will be the one below the epoch that it begins.
            span.epoch = next.previous();
            span.cut = self.env.wall();
            span.covers = covers;
            (span.epoch, span.cut)
        };
        let volumes = self.missing.borrow().len();
        window.push(Body::BeginEpoch(next, cut, covers), true);
        window.set_saved(covers);
        spans.push_back(Span::new(next, volumes));
        Some(closed)
    }

    /// Ends when no local write of epochs up to `epoch` is in flight.
    pub(crate) async fn locally_done(&self, epoch: Epoch) {
        self.changed
            .wait_until(|| {
                self.spans.borrow().iter().filter(|s| s.epoch <= epoch).all(Span::is_locally_done)
            })
            .await;
    }

    /// The peer's record, or our own flush, has reached `epoch`. Returns what is complete by that.
    pub(crate) fn advance(
        &self,
        recorded: Option<Epoch>,
        flushed: Option<Epoch>,
    ) -> Option<Completed> {
        if let Some(r) = recorded {
            // A record of an epoch that was not closed is no answer to anything we sent.
            let open = self.open_epoch();
            self.recorded.set(self.recorded.get().max(r.min(open.previous())));
        }
        if let Some(f) = flushed {
            self.flushed.set(self.flushed.get().max(f));
        }
        let early = bug(Bug::ReportedBeforeFlush);
        let flushed = if early { Epoch(u64::MAX) } else { self.flushed.get() };
        let done = self.recorded.get().min(flushed);
        let mut completed = None;
        let mut spans = self.spans.borrow_mut();
        while spans.len() > 1 && spans.front().is_some_and(|s| s.epoch <= done) {
            if let Some(s) = spans.pop_front() {
                self.promotable.set(true);
                self.joined.set(s.covers);
                completed = Some(Completed { epoch: s.epoch, cut: s.cut, bytes: s.bytes });
                if bug(Bug::OneBitmap) {
                    spans.iter_mut().for_each(|s| s.unrecorded.fill(Bitmap::new()));
                }
            }
        }
        drop(spans);
        if completed.is_some() {
            self.changed.notify();
        }
        completed
    }

    /// Whether the next epoch should be closed early: a quarter of the peer's undo space is used.
    pub(crate) fn wants_early_cut(&self) -> bool {
        let used = self.peer_undo();
        self.promotable.get() && self.spans.borrow().len() == 1 && used > self.undo_limit.get() / 4
    }

    /// Whether nothing but a person or a higher limit gets the peer out of this: what it lacks does
    /// not fit into its undo space, and no record is pending that would free some.
    pub(crate) fn is_undo_full(&self) -> bool {
        let Some(window) = self.window() else { return false };
        self.promotable.get()
            && self.holding_up() > 0
            && self.spans.borrow().len() == 1
            && window.is_applied()
            && window.undo_bytes().saturating_add(CLUSTER) > self.undo_limit.get()
    }

    /// Whether no checkpoint is under way.
    pub(crate) fn is_single(&self) -> bool {
        self.spans.borrow().len() == 1
    }

    /// The number of the open epoch.
    pub(crate) fn open_epoch(&self) -> Epoch {
        self.spans.borrow().back().map_or(Epoch::NONE, |s| s.epoch)
    }
}
