//! What a primary with a peer has besides: the leg, the intent marks, and how checkpoints stand.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::leg::Leg;
use crate::disk::Host;
use crate::overlay::IntentLog;
use crate::runtime::{Mono, Task};
use crate::units::{ByteRange, VolumeIndex};

/// What a primary with a peer has besides.
pub(crate) struct Peer<H: Host> {
    pub(crate) leg: Rc<Leg<H>>,
    pub(crate) intent: Rc<IntentLog<H::Disk>>,
    /// Ranges whose writes are on their way from intent mark to bitmap: their marks stay.
    in_path: RefCell<Vec<(VolumeIndex, ByteRange)>>,
    /// Up to which flush frame the peer has answered in this session.
    pub(crate) flushed: Cell<u64>,
    /// Checkpoints that were asked for: the cut must come after.
    pub(crate) requested: Cell<u64>,
    /// Of these, how many a cut has served.
    pub(crate) served: Cell<u64>,
    /// The last checkpoint that is complete.
    pub(crate) last: Cell<super::status::Checkpoint>,
    /// What is wrong now, if anything is.
    pub(crate) trouble: RefCell<Option<String>>,
    /// The first error since the last complete checkpoint, for `get_error`.
    pub(crate) error: RefCell<Option<String>>,
    /// Bytes a second that a resync makes; 0 while there is none, or nothing is known yet.
    pub(crate) resync_rate: Cell<u64>,
    /// When the next sweep of the intent log may come.
    sweep_next: Cell<Mono>,
    /// The peer forgets its checkpoint at the next hello, and what it lacks is known all the same.
    pub(crate) is_dropping: Cell<bool>,
    /// The last frame was sent; what is written from here on is the solo primary's.
    pub(crate) stopping: Cell<bool>,
    pub(crate) tasks: RefCell<Vec<Task>>,
}

impl<H: Host> Peer<H> {
    pub(crate) fn new(
        leg: Rc<Leg<H>>,
        intent: Rc<IntentLog<H::Disk>>,
        last: super::status::Checkpoint,
    ) -> Rc<Self> {
        Rc::new(Self {
            leg,
            intent,
            in_path: RefCell::default(),
            flushed: Cell::default(),
            requested: Cell::default(),
            served: Cell::default(),
            last: Cell::new(last),
            trouble: RefCell::default(),
            error: RefCell::default(),
            resync_rate: Cell::default(),
            sweep_next: Cell::default(),
            is_dropping: Cell::default(),
            stopping: Cell::default(),
            tasks: RefCell::default(),
        })
    }

    /// Notes what is wrong; the first since the last checkpoint stays for `get_error`.
    pub(crate) fn note(&self, what: String) {
        self.error.borrow_mut().get_or_insert_with(|| what.clone());
        *self.trouble.borrow_mut() = Some(what);
    }

    /// Clears the intent marks that nothing relies on any more; of a very large group now and then only,
    /// so that it takes no more than a 50th of the time.
    pub(crate) fn sweep_intent(&self, host: &H) {
        let began = host.now();
        if began < self.sweep_next.get() {
            return;
        }
        self.sweep_all(began);
        self.sweep_next.set(began.after(host.now().since(began) * 50));
    }

    fn sweep_all(&self, now: Mono) {
        self.intent.sweep(now, |v, r| {
            let in_path =
                || self.in_path.borrow().iter().any(|(iv, ir)| *iv == v && ir.overlaps(r));
            self.leg.relied_on(v, r).or_else(|| in_path().then_some(r.end))
        });
    }

    /// Clears all that nothing relies on, durably: nobody writes any more, so none needs to stay for speed, and
    /// whoever opens the group again sends none of it in vain.
    pub(crate) async fn close_intent(&self, now: Mono) {
        self.intent.limit_hot(0);
        self.sweep_all(now);
        // On an error marks stay that nothing needs: more to send, and nothing lost.
        let _ = self.intent.commit().await;
    }

    /// Ends a task with the peer, if it has not ended before.
    pub(crate) fn keep_task(&self, task: Task) {
        let mut tasks = self.tasks.borrow_mut();
        tasks.retain(|t| !t.is_done());
        tasks.push(task);
    }

    pub(crate) fn end_tasks(&self) {
        for t in self.tasks.take() {
            t.cancel();
        }
        self.leg.session_down();
    }
}

/// Keeps a range in a peer's `in_path` list.
pub(crate) struct InPath<H: Host>(Rc<Peer<H>>, VolumeIndex, ByteRange);

impl<H: Host> InPath<H> {
    pub(crate) fn new(peer: &Rc<Peer<H>>, volume: VolumeIndex, range: ByteRange) -> Self {
        peer.in_path.borrow_mut().push((volume, range));
        Self(peer.clone(), volume, range)
    }
}

impl<H: Host> Drop for InPath<H> {
    fn drop(&mut self) {
        let mut list = self.0.in_path.borrow_mut();
        if let Some(i) = list.iter().position(|(v, r)| *v == self.1 && *r == self.2) {
            list.swap_remove(i);
        }
    }
}
