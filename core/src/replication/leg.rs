//! The forwarding leg: what of a write goes to the peer, and what the peer still lacks. It is what
//! the seed calls the primary's filter; the primary ([`super::primary`]) is this leg beside the
//! local disk.
//!
//! ```text
//!        enter(range, frame)                      unrecorded: in a frame of epoch N, no record yet
//!              │                                     spans: [ N (closing) ] [ N+1 (open) ]
//!     Up ──────┼──► window, unrecorded[open]
//!     Draining │
//!     Down  ───┴──► missing                       missing: the peer lacks it; resync sends it
//! ```
//!
//! A frame enters the open span and the window in one step, so its place in the stream is its epoch
//! (invariant 4). What is lost with a session becomes missing at the next hello.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::link::Window;
use crate::link::frame::Body;
use crate::overlay::Bitmap;
use crate::overlay::Policy;
use crate::runtime::{Env, Signal, Wall, timeout};
use crate::units::{ByteRange, CLUSTER, Epoch, VolumeIndex};

/// The sending half of a group with a peer.
pub(crate) struct Leg<E: Env> {
    env: E,
    /// Open spans, oldest first: one, or two while a checkpoint is under way. Never none.
    spans: RefCell<VecDeque<Span>>,
    /// What the peer lacks, per volume.
    missing: RefCell<Vec<Bitmap>>,
    link: RefCell<Link>,
    /// The peer holds a checkpoint, so what it is sent costs it undo space.
    pub(crate) promotable: Cell<bool>,
    /// The highest record of the peer that was heard of.
    recorded: Cell<Epoch>,
    /// Up to which epoch our own disks were flushed after its last local write.
    flushed: Cell<Epoch>,
    /// The next cut is the last: what is written behind it counts as missing.
    pub(crate) closing: Cell<bool>,
    window: Cell<u64>,
    undo_limit: Cell<u64>,
    max_delay: Cell<Duration>,
    /// Any of the above changed.
    pub(crate) changed: Signal,
}

enum Link {
    /// No session.
    Down,
    /// Frames go out.
    Up(Window),
    /// The window was full for too long: what was sent drains, nothing new enters.
    Draining(Window),
}

/// The writes of one open epoch.
struct Span {
    epoch: Epoch,
    /// Per volume: in a frame of this epoch.
    unrecorded: Vec<Bitmap>,
    /// Local writes of it in flight. More than one counter after spans were merged.
    local: Vec<Rc<Cell<usize>>>,
    cut: Wall,
    bytes: u64,
}

/// A write that entered: its place in the stream. Dropped when its local part has ended.
pub(crate) struct Ticket {
    local: Rc<Cell<usize>>,
    changed: Signal,
    /// The session and sequence of its frame, if it has one.
    pub(crate) frame: Option<(Window, u64)>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.local.set(self.local.get() - 1);
        if self.local.get() == 0 {
            self.changed.notify();
        }
    }
}

/// A checkpoint that both sides have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completed {
    pub(crate) epoch: Epoch,
    pub(crate) cut: Wall,
    pub(crate) bytes: u64,
}

impl Span {
    fn new(epoch: Epoch, volumes: usize) -> Self {
        Self {
            epoch,
            unrecorded: vec![Bitmap::new(); volumes],
            local: vec![Rc::default()],
            cut: Wall::default(),
            bytes: 0,
        }
    }

    fn dirty(&self) -> u64 {
        self.unrecorded.iter().map(Bitmap::bytes).sum()
    }

    fn is_locally_done(&self) -> bool {
        self.local.iter().all(|l| l.get() == 0)
    }

    /// Takes in an older span, whose epoch will never complete.
    fn absorb(&mut self, older: Self) {
        for (mine, theirs) in self.unrecorded.iter_mut().zip(&older.unrecorded) {
            mine.union_with(theirs);
        }
        self.local.extend(older.local);
        self.bytes += older.bytes;
    }
}

impl<E: Env> Leg<E> {
    /// No session yet. `missing` is what the peer is known to lack.
    pub(crate) fn new(env: &E, epoch: Epoch, missing: Vec<Bitmap>, policy: &Policy) -> Rc<Self> {
        let leg = Self {
            env: env.clone(),
            spans: RefCell::new([Span::new(epoch, missing.len())].into()),
            missing: RefCell::new(missing),
            link: RefCell::new(Link::Down),
            promotable: Cell::new(false),
            recorded: Cell::default(),
            flushed: Cell::default(),
            closing: Cell::default(),
            window: Cell::new(0),
            undo_limit: Cell::new(0),
            max_delay: Cell::new(Duration::ZERO),
            changed: Signal::new(),
        };
        leg.set_policy(policy);
        Rc::new(leg)
    }

    pub(crate) fn set_policy(&self, policy: &Policy) {
        self.window.set(policy.window);
        self.undo_limit.set(policy.undo_limit);
        self.max_delay.set(policy.max_delay);
        if let Link::Up(w) | Link::Draining(w) = &*self.link.borrow() {
            w.set_limit(policy.window);
        }
        self.changed.notify();
    }

    /// Puts a write into the stream, or notes that the peer lacks it. Waits for room at most
    /// `max_delay`, then gives the session's unsent frames up. The caller holds the range lock.
    pub(crate) async fn enter(
        &self,
        volume: VolumeIndex,
        range: ByteRange,
        body: impl FnOnce() -> Body,
        len: u64,
    ) -> Ticket {
        let mut deadline = None;
        loop {
            let window = match &*self.link.borrow() {
                Link::Up(w) => w.clone(),
                Link::Down | Link::Draining(_) => return self.enter_missing(volume, range),
            };
            let undo_room = self.has_undo_room(&window, range);
            if window.has_room(len) && undo_room {
                return self.enter_window(volume, range, body(), &window);
            }
            if !undo_room && self.missing_bytes() > 0 {
                // Degraded already, and waiting would not help: only a record makes undo room.
                return self.enter_missing(volume, range);
            }
            let now = self.env.now();
            let deadline = *deadline.get_or_insert(now.after(self.max_delay.get()));
            if now >= deadline {
                // Also when the link is up again at once, having had nothing to drain.
                self.overflow(&window);
                return self.enter_missing(volume, range);
            }
            self.await_room(&window, deadline.since(now)).await;
        }
    }

    /// Puts a frame in, or `None` when there is no room now. For the resync, which gives way to the VM.
    pub(crate) fn try_enter(
        &self,
        volume: VolumeIndex,
        range: ByteRange,
        body: impl FnOnce() -> Body,
        len: u64,
    ) -> Option<()> {
        let window = match &*self.link.borrow() {
            Link::Up(w) => w.clone(),
            Link::Down | Link::Draining(_) => return None,
        };
        // Half of the window stays the VM's.
        let room = window.has_room(len.saturating_add(self.window.get() / 2))
            && self.has_undo_room(&window, range);
        room.then(|| drop(self.enter_window(volume, range, body(), &window)))
    }

    /// How much a resync sends at once, at most `max`: what fits into its part of the window and
    /// into what is left of the undo space.
    pub(crate) fn resync_step(&self, max: u64) -> u64 {
        let undo = match self.window().filter(|_| self.promotable.get()) {
            Some(w) => self.undo_limit.get().saturating_sub(w.undo_bytes()),
            None => u64::MAX,
        };
        let step = max.min(self.window.get() / 4).min(undo);
        (step / CLUSTER * CLUSTER).max(CLUSTER)
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
        if let Some(b) = span.unrecorded.get_mut(volume.get()) {
            b.set(range);
        }
        span.bytes += range.len();
        if let Some(m) = self.missing.borrow_mut().get_mut(volume.get()).filter(|m| !m.is_empty()) {
            m.clear(range.round_in(CLUSTER));
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
    fn overflow(&self, window: &Window) {
        {
            let mut link = self.link.borrow_mut();
            match &*link {
                Link::Up(w) if w.is(window) => *link = Link::Draining(window.clone()),
                Link::Up(_) | Link::Down | Link::Draining(_) => return,
            }
        }
        for q in window.drop_unsent() {
            match q.body {
                Body::Write(v, r, _)
                | Body::Resync(v, r, _)
                | Body::Zeroes(v, r)
                | Body::Discard(v, r) => {
                    self.mark_missing(v, r);
                }
                Body::BeginEpoch(..) => self.merge_spans(),
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

    /// A session begins: what its hellos said decides what the peer has. `epoch` is the higher of
    /// both sides' highest; `record` the peer's.
    pub(crate) fn session_up(&self, window: Window, epoch: Epoch, record: Epoch) {
        self.recorded.set(self.recorded.get().max(record));
        self.promotable.set(record != Epoch::NONE);
        let mut spans = self.spans.borrow_mut();
        // Spans at or below the record are complete over there; they stay until our own flush.
        let (kept, rest): (VecDeque<_>, VecDeque<_>) =
            spans.drain(..).partition(|s| s.epoch <= record);
        let mut open = Span::new(epoch, self.missing.borrow().len());
        for old in rest {
            for (m, u) in self.missing.borrow_mut().iter_mut().zip(&old.unrecorded) {
                m.union_with(u);
            }
            // Its local writes in flight still have to end before the open epoch is flushed.
            open.local.extend(old.local);
        }
        *spans = kept;
        spans.push_back(open);
        drop(spans);
        *self.link.borrow_mut() = Link::Up(window);
        self.changed.notify();
    }

    /// The session ended.
    pub(crate) fn session_down(&self) {
        if let Link::Up(w) | Link::Draining(w) =
            std::mem::replace(&mut *self.link.borrow_mut(), Link::Down)
        {
            w.close();
        }
        self.changed.notify();
    }

    /// After an acknowledgement: a drained link takes frames again.
    pub(crate) fn acknowledged(&self) {
        let mut link = self.link.borrow_mut();
        if let Link::Draining(w) = &*link
            && w.bytes() == 0
            && !self.closing.get()
        {
            *link = Link::Up(w.clone());
            self.changed.notify();
        }
    }

    /// Whether an epoch can be closed now: the peer lacks nothing, no checkpoint is under way.
    pub(crate) fn can_cut(&self) -> bool {
        self.is_up() && self.spans.borrow().len() == 1 && self.missing_bytes() == 0
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
        let mut spans = self.spans.borrow_mut();
        let (closed, cut) = {
            let span = spans.back_mut()?;
            // The peer's record will be the one below the epoch that it begins.
            span.epoch = next.previous();
            span.cut = self.env.wall();
            (span.epoch, span.cut)
        };
        let volumes = self.missing.borrow().len();
        window.push(Body::BeginEpoch(next, cut), true);
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
        let done = self.recorded.get().min(self.flushed.get());
        let mut completed = None;
        let mut spans = self.spans.borrow_mut();
        while spans.len() > 1 && spans.front().is_some_and(|s| s.epoch <= done) {
            if let Some(s) = spans.pop_front() {
                self.promotable.set(true);
                completed = Some(Completed { epoch: s.epoch, cut: s.cut, bytes: s.bytes });
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
        let used = self.window().map_or(0, |w| w.undo_bytes());
        self.promotable.get() && self.spans.borrow().len() == 1 && used > self.undo_limit.get() / 4
    }

    /// What the peer says its open logs hold, and what it has not applied yet at its full cost.
    fn has_undo_room(&self, window: &Window, range: ByteRange) -> bool {
        let cost = range.round_out(CLUSTER).len();
        let used = window.undo_bytes();
        !self.promotable.get() || used == 0 || used.saturating_add(cost) <= self.undo_limit.get()
    }

    /// Whether nothing but a person or a higher limit gets the peer out of this: what it lacks does
    /// not fit into its undo space, and no record is pending that would free some.
    pub(crate) fn is_undo_full(&self) -> bool {
        let Some(window) = self.window() else { return false };
        self.promotable.get()
            && self.missing_bytes() > 0
            && self.spans.borrow().len() == 1
            && window.is_applied()
            && window.undo_bytes().saturating_add(CLUSTER) > self.undo_limit.get()
    }

    /// The first range that the peer lacks, at or after `from`, at most `max_len` long.
    pub(crate) fn next_missing(
        &self,
        volume: VolumeIndex,
        from: u64,
        max_len: u64,
    ) -> Option<ByteRange> {
        self.missing.borrow().get(volume.get())?.next_range(from, max_len)
    }

    /// Whether the peer lacks any of `range`, or has it only unrecorded: its intent mark is needed.
    pub(crate) fn is_relied_on(&self, volume: VolumeIndex, range: ByteRange) -> bool {
        let hit = |b: Option<&Bitmap>| b.is_some_and(|b| b.intersects(range));
        hit(self.missing.borrow().get(volume.get()))
            || self.spans.borrow().iter().any(|s| hit(s.unrecorded.get(volume.get())))
    }

    /// Whether no checkpoint is under way.
    pub(crate) fn is_single(&self) -> bool {
        self.spans.borrow().len() == 1
    }

    /// The number of the open epoch.
    pub(crate) fn open_epoch(&self) -> Epoch {
        self.spans.borrow().back().map_or(Epoch::NONE, |s| s.epoch)
    }

    /// Whether frames go out.
    pub(crate) fn is_up(&self) -> bool {
        matches!(&*self.link.borrow(), Link::Up(_))
    }

    /// The session's window, if there is a session.
    pub(crate) fn window(&self) -> Option<Window> {
        match &*self.link.borrow() {
            Link::Up(w) | Link::Draining(w) => Some(w.clone()),
            Link::Down => None,
        }
    }

    /// What the peer lacks, in bytes.
    pub(crate) fn missing_bytes(&self) -> u64 {
        self.missing.borrow().iter().map(Bitmap::bytes).sum()
    }

    /// What no record covers, in bytes; counts twice what is both unrecorded and missing.
    pub(crate) fn at_risk_bytes(&self) -> u64 {
        self.missing_bytes() + self.spans.borrow().iter().map(Span::dirty).sum::<u64>()
    }

    /// Flushes the peer's disks: ends when all that was sent before is durable there, or when the
    /// session is over or given up (then `false`).
    pub(crate) async fn flush_peer(&self, flushed: impl Fn() -> u64) -> bool {
        let Some(window) = self.window().filter(|_| self.is_up()) else { return false };
        let sequence = window.push(Body::Flush, true);
        let wait = window
            .drained()
            .wait_until(|| window.is_closed() || !self.is_up() || flushed() >= sequence);
        let ended = timeout(&self.env, self.max_delay.get(), wait).await.is_some();
        ended && flushed() >= sequence
    }

    /// Ends when the peer has acknowledged the ticket's frame, or it never will on this session, or
    /// `max_delay` has passed: then the link counts as too slow, and is given up.
    pub(crate) async fn acknowledgement(&self, ticket: &Ticket) -> bool {
        let Some((window, sequence)) = &ticket.frame else { return false };
        if window.acknowledged() >= *sequence {
            return true;
        }
        window.hurry();
        let wait = window.drained().wait_until(|| {
            window.is_closed() || window.acknowledged() >= *sequence || !self.is_up()
        });
        if timeout(&self.env, self.max_delay.get(), wait).await.is_none() {
            self.overflow(window);
        }
        window.acknowledged() >= *sequence
    }
}
