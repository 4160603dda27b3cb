//! The window: what the primary has queued for the peer and the peer has not acknowledged yet.
//!
//! ```text
//!     push ──► [ unsent frames ] ──sender──► [ sent, not acknowledged ] ──ack──► gone
//!              └──────────────── bytes() ≤ the window ────────────────┘
//!                drop_unsent() takes these back
//! ```
//!
//! Bounded by who pushes: [`Window::has_room`] before each frame with data. Frames without data
//! (begin-epoch, flush, status) are few and always find room.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use super::frame::{self, Ack, Body, HEADER_LEN};
use crate::runtime::{Data, Env, Signal, Stream, timeout};
use crate::units::{CLUSTER, VolumeCount, VolumeIndex, u64_of};

/// The most bytes handed to the stream at once; also what ends a cork early.
const BATCH: u64 = 128 << 10;

/// The most frames in one send: two pieces each, below the kernel's 1024.
const BATCH_FRAMES: usize = 256;

/// How many drops are told apart. Whoever waits for an older frame was woken long ago.
const DROPS_MAX: usize = 64;

/// The most answers that wait for a peer that does not read them: then its session ends.
const ANSWERS_MAX: usize = 4096;

/// The queue of one session. Clones are the same queue.
#[derive(Clone, Debug, Default)]
pub struct Window(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The most bytes queued and not acknowledged.
    limit: Cell<u64>,
    unsent: RefCell<VecDeque<Queued>>,
    unsent_bytes: Cell<u64>,
    /// Sent, oldest first: sequence and bytes.
    sent: RefCell<VecDeque<(u64, u64)>>,
    bytes: Cell<u64>,
    next: Cell<u64>,
    acknowledged: Cell<u64>,
    /// Sequences that were taken back before they were sent, as first and last; never acknowledged,
    /// though later ones are. The oldest are merged beyond [`DROPS_MAX`].
    dropped: RefCell<VecDeque<(u64, u64)>>,
    applied: Cell<u64>,
    /// Not applied yet, oldest first: sequence, and the undo space it can cost at most.
    unapplied: RefCell<VecDeque<(u64, u64)>>,
    unapplied_cost: Cell<u64>,
    /// What the peer's open undo logs held of `applied`, at its last word.
    undo: Cell<u64>,
    /// Frames of these volumes cost undo space; those of joining ones do not.
    saved: Cell<VolumeCount>,
    /// Sent is done: no acknowledgement will come.
    one_way: Cell<bool>,
    urgent: Cell<bool>,
    closed: Cell<bool>,
    /// For the sender: something to send.
    filled: Signal,
    /// For those who wait for room or an acknowledgement.
    drained: Signal,
}

/// A frame that was not sent yet.
#[derive(Debug)]
pub struct Queued {
    /// Its sequence.
    pub sequence: u64,
    /// What it says.
    pub body: Body,
    bytes: u64,
}

impl Window {
    /// An empty window of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        let w = Self::default();
        w.0.limit.set(limit);
        w.0.next.set(1);
        w.0.saved.set(VolumeCount(u16::MAX));
        w
    }

    /// A queue whose frames nobody acknowledges: the secondary's answers, few and small.
    pub fn one_way() -> Self {
        let w = Self::new(u64::MAX);
        w.0.one_way.set(true);
        w
    }

    /// Whether `other` is the same session's.
    pub fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Whether a frame with `len` bytes of data fits. An empty window takes any.
    pub fn has_room(&self, len: u64) -> bool {
        self.0.bytes.get() == 0 || self.0.bytes.get().saturating_add(len) <= self.0.limit.get()
    }

    /// Queues a frame and says its sequence. With `urgent` the sender does not wait for company.
    pub fn push(&self, body: Body, urgent: bool) -> u64 {
        let i = &*self.0;
        if i.one_way.get() && !self.has_room_for_answer(&body) {
            return i.next.get() - 1;
        }
        let sequence = i.next.get();
        i.next.set(sequence + 1);
        let len = match &body {
            Body::Write(.., d) | Body::Resync(.., d) => d.len(),
            _ => 0,
        };
        let place = match &body {
            Body::Write(v, r, _)
            | Body::Resync(v, r, _)
            | Body::Zeroes(v, r)
            | Body::Discard(v, r) => Some((*v, *r)),
            _ => None,
        };
        let saved = place.filter(|(v, _)| self.is_saved(*v));
        let cost = saved.map_or(0, |(_, r)| r.round_out(CLUSTER).len());
        if cost > 0 && !i.one_way.get() {
            i.unapplied.borrow_mut().push_back((sequence, cost));
            i.unapplied_cost.set(i.unapplied_cost.get() + cost);
        }
        // Signs of life and the like take no room: nobody acknowledges them by themselves, and a
        // window that waits to be empty must not wait for them.
        let bytes = if place.is_some() { u64_of(len + HEADER_LEN) } else { 0 };
        let was_empty = i.unsent.borrow().is_empty();
        i.unsent.borrow_mut().push_back(Queued { sequence, body, bytes });
        i.bytes.set(i.bytes.get() + bytes);
        i.unsent_bytes.set(i.unsent_bytes.get() + bytes);
        if urgent {
            i.urgent.set(true);
        }
        if was_empty || urgent || i.unsent_bytes.get() >= BATCH {
            i.filled.notify();
        }
        sequence
    }

    /// Bounds the answers to a peer that does not read: a newer acknowledgement takes the place of
    /// one that waits, signs of life wait for nobody, and too many others end the session.
    fn has_room_for_answer(&self, body: &Body) -> bool {
        let mut unsent = self.0.unsent.borrow_mut();
        match (body, unsent.back_mut()) {
            (Body::Ack(ack), Some(Queued { body: Body::Ack(waiting), .. })) => {
                *waiting = *ack;
                return false;
            }
            (Body::Status, Some(_)) => return false,
            _ => {}
        }
        let is_full = unsent.len() >= ANSWERS_MAX;
        drop(unsent);
        if is_full {
            self.close();
        }
        !is_full
    }

    /// Takes the peer's word of how far it has come.
    pub fn acknowledge(&self, ack: Ack) {
        let i = &*self.0;
        let Ack { received, applied, undo } = ack;
        let mut sent = i.sent.borrow_mut();
        while let Some((_, bytes)) = sent.front().filter(|(s, _)| *s <= received).copied() {
            sent.pop_front();
            i.bytes.set(i.bytes.get() - bytes);
        }
        drop(sent);
        // A hostile peer may acknowledge what was never sent; that only ends its own session's order.
        let received = received.min(i.next.get() - 1);
        i.acknowledged.set(i.acknowledged.get().max(received));
        i.applied.set(i.applied.get().max(applied.min(received)));
        let mut unapplied = i.unapplied.borrow_mut();
        while let Some((_, cost)) =
            unapplied.front().filter(|(s, _)| *s <= i.applied.get()).copied()
        {
            unapplied.pop_front();
            i.unapplied_cost.set(i.unapplied_cost.get() - cost);
        }
        drop(unapplied);
        i.undo.set(undo);
        i.drained.notify();
    }

    /// Takes back all frames that were not handed to the stream, in order.
    pub fn drop_unsent(&self) -> Vec<Queued> {
        let i = &*self.0;
        let dropped: Vec<_> = i.unsent.borrow_mut().drain(..).collect();
        i.bytes.set(i.bytes.get() - i.unsent_bytes.take());
        let mut unapplied = i.unapplied.borrow_mut();
        if let (Some(first), Some(last)) = (dropped.first(), dropped.last()) {
            let mut drops = i.dropped.borrow_mut();
            drops.push_back((first.sequence, last.sequence));
            if drops.len() > DROPS_MAX
                && let (Some(oldest), Some(next)) = (drops.pop_front(), drops.front_mut())
            {
                next.0 = oldest.0;
            }
            while let Some((_, cost)) =
                unapplied.back().filter(|(s, _)| *s >= first.sequence).copied()
            {
                unapplied.pop_back();
                i.unapplied_cost.set(i.unapplied_cost.get() - cost);
            }
        }
        drop(unapplied);
        i.drained.notify();
        dropped
    }

    /// Bytes queued and not acknowledged.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.get()
    }

    /// The sequence of the last frame that was queued.
    pub fn last_queued(&self) -> u64 {
        self.0.next.get() - 1
    }

    /// The most that the peer's open undo logs hold once everything queued is applied, in bytes.
    pub fn undo_bytes(&self) -> u64 {
        self.0.undo.get().saturating_add(self.0.unapplied_cost.get())
    }

    /// From here on the peer saves what frames of these volumes overwrite; of others it does not.
    pub fn set_saved(&self, volumes: VolumeCount) {
        self.0.saved.set(volumes);
    }

    /// Whether frames of a volume cost the peer undo space.
    pub fn is_saved(&self, volume: VolumeIndex) -> bool {
        self.0.saved.get().covers(volume)
    }

    /// Whether the peer has applied everything that was queued and costs it undo space.
    pub fn is_applied(&self) -> bool {
        self.0.unapplied.borrow().is_empty()
    }

    /// Up to where the peer has staged.
    pub fn acknowledged(&self) -> u64 {
        self.0.acknowledged.get()
    }

    /// Whether the peer has staged the frame of this sequence: not so if it was taken back.
    pub fn is_acknowledged(&self, sequence: u64) -> bool {
        self.acknowledged() >= sequence && !self.is_dropped(sequence)
    }

    /// Whether the frame of this sequence was taken back before it was sent.
    pub fn is_dropped(&self, sequence: u64) -> bool {
        let drops = self.0.dropped.borrow();
        drops.iter().any(|(first, last)| (*first..=*last).contains(&sequence))
    }

    /// Up to where the peer has applied.
    pub fn applied(&self) -> u64 {
        self.0.applied.get()
    }

    /// Notified when room was made, something was acknowledged, or the window closed.
    pub fn drained(&self) -> &Signal {
        &self.0.drained
    }

    /// Whether all that was queued was handed to the stream.
    pub fn is_sent(&self) -> bool {
        self.0.unsent.borrow().is_empty()
    }

    /// Somebody waits for an acknowledgement: what is queued goes out without waiting for company.
    pub fn hurry(&self) {
        if !self.0.unsent.borrow().is_empty() && !self.0.urgent.replace(true) {
            self.0.filled.notify();
        }
    }

    /// Ends the sender; nothing queued goes out any more.
    pub fn close(&self) {
        self.0.closed.set(true);
        self.0.filled.notify();
        self.0.drained.notify();
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        self.0.closed.get()
    }

    /// Changes the limit.
    pub fn set_limit(&self, limit: u64) {
        self.0.limit.set(limit);
        self.0.drained.notify();
    }

    /// Sends what is queued until closed or the stream fails. What is not urgent waits up to
    /// `cork` for company: one wake-up of the peer for many writes.
    pub async fn run<E: Env>(
        &self,
        env: &E,
        stream: &E::Stream,
        cork: Duration,
    ) -> std::io::Result<()> {
        let i = &*self.0;
        loop {
            i.filled.wait_until(|| i.closed.get() || !i.unsent.borrow().is_empty()).await;
            let go = || i.closed.get() || i.urgent.get() || i.unsent_bytes.get() >= BATCH;
            if !cork.is_zero() && !go() {
                timeout(env, cork, i.filled.wait_until(go)).await;
            }
            if i.closed.get() {
                return Ok(());
            }
            let batch = self.take();
            stream.send(batch).await?;
            i.drained.notify();
        }
    }

    /// The next frames to send, as bytes.
    fn take(&self) -> Vec<Data> {
        let i = &*self.0;
        let mut out = Vec::new();
        let mut bytes = 0;
        let mut unsent = i.unsent.borrow_mut();
        let mut sent = i.sent.borrow_mut();
        while let Some(q) = unsent.front() {
            if sent_enough(out.len(), bytes, q.bytes) {
                break;
            }
            let Some(q) = unsent.pop_front() else { break };
            let (header, payload) = frame::encode(q.sequence, &q.body);
            out.push(header);
            out.extend(payload);
            bytes += q.bytes;
            if i.one_way.get() {
                i.bytes.set(i.bytes.get() - q.bytes);
            } else {
                sent.push_back((q.sequence, q.bytes));
            }
        }
        i.unsent_bytes.set(i.unsent_bytes.get() - bytes);
        if unsent.is_empty() {
            i.urgent.set(false);
        }
        out
    }
}

fn sent_enough(pieces: usize, bytes: u64, next: u64) -> bool {
    pieces > 0 && (bytes + next > 4 * BATCH || pieces >= 2 * BATCH_FRAMES)
}

#[cfg(test)]
mod tests;
