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
//! (invariant 4). What is lost with a session becomes missing at the next hello, save what a resync has
//! settled: both sides have that durably, though no record covers it (settle.rs).

mod answer;
mod enter;
mod epochs;
mod settle;
mod span;

pub(crate) use span::{Completed, Ticket};

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use self::span::Span;
use super::counters::Counters;
use crate::bug::{Bug, bug};
use crate::link::Window;
use crate::overlay::Bitmap;
use crate::overlay::Policy;
use crate::runtime::{Env, Signal};
use crate::units::{ByteRange, Epoch, VolumeCount, VolumeIndex};

/// The sending half of a group with a peer.
pub(crate) struct Leg<E: Env> {
    env: E,
    /// Open spans, oldest first: one, or two while a checkpoint is under way. Never none.
    spans: RefCell<VecDeque<Span>>,
    /// How long each volume is, in bytes.
    lens: Vec<u64>,
    /// What the peer lacks, per volume.
    missing: RefCell<Vec<Bitmap>>,
    link: RefCell<Link>,
    /// The peer holds a checkpoint, so what it is sent costs it undo space.
    pub(crate) promotable: Cell<bool>,
    /// How many volumes its checkpoint covers. What the others lack holds up no epoch.
    joined: Cell<VolumeCount>,
    /// The highest record of the peer that was heard of.
    recorded: Cell<Epoch>,
    /// Up to which epoch our own disks were flushed after its last local write.
    flushed: Cell<Epoch>,
    /// The next cut is the last: what is written behind it counts as missing.
    pub(crate) closing: Cell<bool>,
    window: Cell<u64>,
    undo_limit: Cell<u64>,
    max_delay: Cell<Duration>,
    /// Bytes of the window that the resync waits for: the VM leaves them free.
    claimed: Cell<u64>,
    counters: Rc<Counters>,
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

impl<E: Env> Leg<E> {
    /// No session yet. `missing` is what the peer is known to lack of volumes of these lengths.
    pub(crate) fn new(
        env: &E,
        epoch: Epoch,
        lens: Vec<u64>,
        missing: Vec<Bitmap>,
        policy: &Policy,
        counters: Rc<Counters>,
    ) -> Rc<Self> {
        let leg = Self {
            lens,
            env: env.clone(),
            spans: RefCell::new([Span::new(epoch, missing.len())].into()),
            missing: RefCell::new(missing),
            link: RefCell::new(Link::Down),
            promotable: Cell::new(false),
            joined: Cell::new(VolumeCount(u16::MAX)),
            recorded: Cell::default(),
            flushed: Cell::default(),
            closing: Cell::default(),
            window: Cell::new(0),
            undo_limit: Cell::new(0),
            max_delay: Cell::new(Duration::ZERO),
            claimed: Cell::default(),
            counters,
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

    /// A session begins: what its hellos said decides what the peer has. `epoch` is the higher of
    /// both sides' highest; `record` the peer's, and `joined` the volumes that it covers.
    pub(crate) fn session_up(
        &self,
        window: Window,
        epoch: Epoch,
        record: Epoch,
        joined: VolumeCount,
    ) {
        self.promotable.set(record != Epoch::NONE);
        self.joined.set(joined);
        window.set_saved(joined);
        let lost = bug(Bug::LostSessionCompletes);
        let record = if lost { self.open_epoch().previous() } else { record };
        self.recorded.set(self.recorded.get().max(record));
        let mut spans = self.spans.borrow_mut();
        // Spans at or below the record are complete over there; they stay until our own flush.
        let (kept, rest): (VecDeque<_>, VecDeque<_>) =
            spans.drain(..).partition(|s| s.epoch <= record);
        let mut open = Span::new(epoch, self.missing.borrow().len());
        for old in rest {
            if !bug(Bug::UnrecordedNotResent) {
                for (m, u) in self.missing.borrow_mut().iter_mut().zip(old.relied_on()) {
                    m.union_with(&u);
                }
            }
            open.keep_settled(&old);
            // Its local writes in flight still have to end before the open epoch is flushed.
            open.local.extend(old.local);
        }
        *spans = kept;
        spans.push_back(open);
        drop(spans);
        *self.link.borrow_mut() = Link::Up(window);
        self.counters.sessions.one();
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

    /// The first range that the peer lacks, at or after `from`, at most `max_len` long.
    pub(crate) fn next_missing(
        &self,
        volume: VolumeIndex,
        from: u64,
        max_len: u64,
    ) -> Option<ByteRange> {
        self.missing.borrow().get(volume.get())?.next_range(from, max_len)
    }

    /// Whether the peer lacks any of `range`, or has it only unrecorded, so that its intent mark is needed:
    /// up to where that is so of all from the beginning of `range` on.
    pub(crate) fn relied_on(&self, volume: VolumeIndex, range: ByteRange) -> Option<u64> {
        let missing = self.missing.borrow();
        // Only a run that begins in the range is followed to its end, which may be far.
        if let Some(lacks) = missing.get(volume.get()).filter(|b| b.intersects(range)) {
            let run = lacks.next_range(range.start, u64::MAX);
            return Some(run.map_or(range.end, |run| run.end.max(range.end)));
        }
        let recorded = if bug(Bug::IntentBeforeFlush) { self.recorded.get() } else { Epoch::NONE };
        let is_open = !bug(Bug::IntentUnderNewer)
            && self.spans.borrow().iter().any(|s| s.epoch > recorded && s.relies_on(volume, range));
        is_open.then_some(range.end)
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

    /// The most that the peer's open undo logs hold, in bytes.
    pub(crate) fn peer_undo(&self) -> u64 {
        self.window().map_or(0, |w| w.undo_bytes())
    }

    /// What the peer lacks, in bytes.
    pub(crate) fn missing_bytes(&self) -> u64 {
        self.missing.borrow().iter().map(Bitmap::bytes).sum()
    }

    /// What of that keeps the open epoch from being closed: joining volumes do not.
    pub(crate) fn holding_up(&self) -> u64 {
        self.missing.borrow().iter().take(self.joined.get().get()).map(Bitmap::bytes).sum()
    }

    /// The volumes that the peer's checkpoint covers; all, while it has none.
    pub(crate) fn joined(&self) -> VolumeCount {
        self.joined.get().min(VolumeCount::of(self.lens.len()))
    }

    pub(crate) fn set_joined(&self, joined: VolumeCount) {
        self.joined.set(joined);
    }

    /// Whether the resync may go on with a volume: a joining one gives way to what holds up an epoch.
    pub(crate) fn is_its_turn(&self, volume: VolumeIndex) -> bool {
        self.joined().covers(volume) || self.holding_up() == 0
    }

    /// What no record covers, in bytes; counts twice what is both unrecorded and missing.
    pub(crate) fn at_risk_bytes(&self) -> u64 {
        self.missing_bytes() + self.spans.borrow().iter().map(Span::dirty).sum::<u64>()
    }
}
