//! A write's way into the stream, or into what is missing: room in the window and in the peer's
//! undo space, waited for only so long.

use super::span::{Span, Ticket};
use super::{Leg, Link};
use crate::bug::{Bug, bug};
use crate::link::Window;
use crate::link::frame::Body;
use std::time::Duration;

use crate::runtime::{Env, Mono, Signal, timeout};
use crate::units::{ByteRange, CLUSTER, VolumeIndex};

impl<E: Env> Leg<E> {
    /// Puts a write into the stream, or notes that the peer lacks it. Waits for room at most
    /// `max_delay`, then gives the session's unsent frames up. The caller holds the range lock.
    pub(crate) async fn enter(
        &self,
        volume: VolumeIndex,
        range: ByteRange,
        body: impl FnOnce() -> Body,
        len: u64,
    ) -> Ticket {
        let mut began = None;
        loop {
            let window = match &*self.link.borrow() {
                Link::Up(w) => w.clone(),
                Link::Down | Link::Draining(_) => return self.enter_missing(volume, range),
            };
            let undo_room = self.has_undo_room(&window, volume, range);
            if self.has_room_beside_resync(&window, len) && undo_room {
                self.note_delay(began);
                self.counters.forwarded_bytes.add(range.len());
                return self.enter_window(volume, range, body(), &window);
            }
            if !undo_room && self.holding_up() > 0 {
                // Degraded already, and waiting would not help: only a record makes undo room.
                return self.enter_missing(volume, range);
            }
            let now = self.env.now();
            let deadline = began.get_or_insert(now).after(self.max_delay.get());
            if now >= deadline {
                self.note_delay(began);
                // Also when the link is up again at once, having had nothing to drain.
                self.overflow(&window);
                return self.enter_missing(volume, range);
            }
            self.await_room(&window, deadline.since(now)).await;
        }
    }

    /// Puts a frame in, or `None` when there is no room now. For the resync, which gives way to the VM;
    /// `owed`: it may not any more, and takes the next room there is.
    pub(crate) fn try_enter(
        &self,
        volume: VolumeIndex,
        range: ByteRange,
        body: impl FnOnce() -> Body,
        len: u64,
        owed: bool,
    ) -> Option<()> {
        let window = match &*self.link.borrow() {
            Link::Up(w) => w.clone(),
            Link::Down | Link::Draining(_) => return None,
        };
        // Half of the window stays the VM's.
        let spare = if owed { 0 } else { self.window.get() / 2 };
        let fits = window.has_room(len.saturating_add(spare));
        // Where undo space is what lacks, the VM's waiting would make no room.
        self.claimed.set(if owed && !fits { len } else { 0 });
        (fits && self.has_undo_room(&window, volume, range)).then(|| {
            self.counters.resync_bytes.add(len);
            drop(self.enter_window(volume, range, body(), &window));
        })
    }

    /// How much a resync sends at once, at most `max`: what fits into its part of the window and
    /// into what is left of the undo space.
    pub(crate) fn resync_step(&self, volume: VolumeIndex, max: u64) -> u64 {
        let costs = |w: &Window| self.promotable.get() && w.is_saved(volume);
        let undo = match self.window().filter(costs) {
            Some(w) => self.undo_limit.get().saturating_sub(w.undo_bytes()),
            None => u64::MAX,
        };
        let step = max.min(self.window.get() / 4).min(undo);
        (step / CLUSTER * CLUSTER).max(CLUSTER)
    }

    /// The resync waits for no room any more.
    pub(crate) fn give_up_claim(&self) {
        self.claimed.set(0);
    }

    /// A write waited for room from `began` on.
    fn note_delay(&self, began: Option<Mono>) {
        if let Some(began) = began {
            self.counters.delayed.one();
            self.counters.delayed_micros.time(self.env.now().since(began));
        }
    }

    /// Whether a write of the VM fits into the window and leaves what the resync waits for.
    fn has_room_beside_resync(&self, window: &Window, len: u64) -> bool {
        match self.claimed.get() {
            0 => window.has_room(len),
            claimed => {
                window.bytes().saturating_add(len).saturating_add(claimed) <= self.window.get()
            }
        }
    }

    async fn await_room(&self, window: &Window, limit: Duration) {
        let drained = window.drained().wait();
        let changed = self.changed.wait();
        timeout(&self.env, limit, futures::future::select(drained, changed)).await;
    }

    fn enter_window(
        &self,
        volume: VolumeIndex,
        range: ByteRange,
        body: Body,
        window: &Window,
    ) -> Ticket {
        let mut spans = self.spans.borrow_mut();
        let Some(span) = spans.back_mut() else { unreachable!("there is always an open span") };
        let sequence = window.push(body, false);
        span.enter(volume, range);
        if let Some(m) = self.missing.borrow_mut().get_mut(volume.get()).filter(|m| !m.is_empty()) {
            m.clear(whole_clusters(range, self.lens.get(volume.get()).copied()));
        }
        Self::ticket(span, &self.changed, Some((window.clone(), sequence)))
    }

    fn enter_missing(&self, volume: VolumeIndex, range: ByteRange) -> Ticket {
        self.mark_missing(volume, range);
        let mut spans = self.spans.borrow_mut();
        let Some(span) = spans.back_mut() else { unreachable!("there is always an open span") };
        Self::ticket(span, &self.changed, None)
    }

    fn ticket(span: &mut Span, changed: &Signal, frame: Option<(Window, u64)>) -> Ticket {
        let local = span.local.first().cloned().unwrap_or_default();
        local.set(local.get() + 1);
        Ticket { local, changed: changed.clone(), frame }
    }

    /// Notes that the peer lacks `range`, whatever was sent before.
    pub(crate) fn mark_missing(&self, volume: VolumeIndex, range: ByteRange) {
        if let Some(m) = self.missing.borrow_mut().get_mut(volume.get()) {
            m.set(range);
        }
        self.changed.notify();
    }

    /// The window stayed full: the VM waits no longer. Unsent frames are dropped, an unsent
    /// begin-epoch with them, and their ranges count as missing.
    pub(super) fn overflow(&self, window: &Window) {
        {
            let mut link = self.link.borrow_mut();
            match &*link {
                Link::Up(w) if w.is(window) => *link = Link::Draining(window.clone()),
                Link::Up(_) | Link::Down | Link::Draining(_) => return,
            }
        }
        self.counters.overflows.one();
        for q in window.drop_unsent() {
            match q.body {
                Body::Write(v, r, _)
                | Body::Resync(v, r, _)
                | Body::Zeroes(v, r)
                | Body::Discard(v, r) => {
                    self.mark_missing(v, r);
                }
                Body::BeginEpoch(..) if bug(Bug::DroppedBeginKept) => {}
                Body::BeginEpoch(..) => {
                    self.merge_spans();
                    window.set_saved(self.joined());
                }
                Body::Hello(_)
                | Body::Flush
                | Body::Ack(_)
                | Body::Record(_)
                | Body::Flushed(_)
                | Body::Error(_)
                | Body::Status
                | Body::Stop(_) => {}
            }
        }
        self.acknowledged();
        self.changed.notify();
    }

    /// The begin-epoch between the two spans never reached the peer: they are one epoch, the newer.
    fn merge_spans(&self) {
        let mut spans = self.spans.borrow_mut();
        while spans.len() > 1 {
            let Some(older) = spans.pop_front() else { break };
            if let Some(next) = spans.front_mut() {
                next.absorb(older);
            }
        }
    }

    /// What the peer says its open logs hold, and what it has not applied yet at its full cost.
    fn has_undo_room(&self, window: &Window, volume: VolumeIndex, range: ByteRange) -> bool {
        let cost = range.round_out(CLUSTER).len();
        let used = window.undo_bytes();
        let costs = self.promotable.get() && window.is_saved(volume);
        !costs || used == 0 || used.saturating_add(cost) <= self.undo_limit.get()
    }
}

/// The clusters that `range` covers to their end, or to that of their volume.
fn whole_clusters(range: ByteRange, len: Option<u64>) -> ByteRange {
    let is_tail = len.is_some_and(|len| range.end >= len);
    let end = if is_tail { range.end.next_multiple_of(CLUSTER) } else { range.end };
    ByteRange::new(range.start, end).round_in(CLUSTER)
}
