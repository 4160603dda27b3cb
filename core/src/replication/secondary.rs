//! The secondary: a copy that can always be rolled back to the last checkpoint.
//!
//! ```text
//!   link or inbound ─► staging (bounded) ─► apply: save old content │ sync │ overwrite   (apply)
//!                                              └─► undo log           └─► secondary disk
//!   consumer ─► view: active over undo logs over secondary disk                           (view.rs)
//!   begin-epoch N+1 ─► all before it applied ─► disks flushed ─► record N in the superblock (record.rs)
//! ```
//!
//! A session has ended when every staged frame is applied (after an error: dropped), no overwrite
//! and no record write is in flight; only then a hello is answered or the replica promoted.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use super::counters::Counters;
use super::group::ActiveFiles;
use super::logs::LogFiles;
use super::staging::{Staging, Taken};
use super::store::Store;
use crate::bug::{Bug, bug};
use crate::disk::{Disk, Error, ErrorKind, Host, Result};
use crate::overlay::{Active, Bitmap, Chain, RangeLock, UndoLog};
use crate::runtime::{Signal, Task};
use crate::units::{ByteRange, CLUSTER, Epoch, VolumeCount, VolumeIndex};

/// The secondary's role in a group.
pub(crate) struct Secondary<H: Host> {
    pub(crate) host: H,
    pub(crate) store: Rc<Store<H>>,
    pub(crate) volumes: Vec<SecondaryVolume<H>>,
    pub(crate) logs: Rc<LogFiles<H>>,
    pub(crate) counters: Rc<Counters>,
    /// Which logs and actives lie over the last checkpoint.
    pub(crate) chain: Chain<H::Disk>,
    /// The newest log, if it may still be written: a recovered one may not.
    pub(crate) log: RefCell<Option<UndoLog<H::Disk>>>,
    /// Per volume: the clusters of the open epoch that are saved, or about to be.
    pub(crate) claimed: RefCell<Vec<Bitmap>>,
    /// Of so many volumes old content is saved: of each from the first begin-epoch that names it on.
    pub(crate) saving: Cell<VolumeCount>,
    pub(crate) open_epoch: Cell<Epoch>,
    pub(crate) staging: Staging,
    /// Batches that are not applied, or that one before them is not, in stream order.
    pub(crate) progress: RefCell<VecDeque<Rc<Taken>>>,
    pub(crate) applied: Cell<u64>,
    /// Batches taken from staging and not finished.
    pub(crate) batches: Cell<usize>,
    /// The last sequence that was staged.
    pub(crate) received: Cell<u64>,
    /// A record write is in flight.
    pub(crate) recording: Cell<bool>,
    /// A hello is being answered: what it makes durable is on its way.
    pub(crate) taking_over: Cell<bool>,
    /// The first error of this session; it applies nothing more.
    pub(crate) failed: RefCell<Option<String>>,
    /// The first error since the last record, for `get_error`.
    pub(crate) error: RefCell<Option<String>>,
    /// What goes back to the primary of the current session.
    pub(crate) session: RefCell<Option<crate::link::Window>>,
    /// Counts sessions: the newest one counts.
    pub(crate) sessions: Cell<u64>,
    /// Cuts the current session's stream.
    pub(crate) cut_session: RefCell<Option<Rc<dyn Fn()>>>,
    /// When the last begin-epoch arrived, and the bytes of its epoch.
    pub(crate) epoch_bytes: Cell<u64>,
    pub(crate) last: Cell<super::status::Checkpoint>,
    /// Which of the two active files of each volume the current checkpoint uses, and who writes.
    pub(crate) slots: RefCell<ActiveFiles<H>>,
    pub(crate) consumer_writes: Cell<usize>,
    /// Bytes that a consumer's writes in flight may add to the active disk.
    pub(crate) active_reserved: Cell<u64>,
    /// A record is being written that keeps the active disk, which is blank: no consumer's write
    /// begins meanwhile, or it would show over the next checkpoint.
    pub(crate) keeps_active: Cell<bool>,
    /// How often the checkpoint was given up: who reads it meanwhile is told.
    pub(crate) forgotten: Cell<u64>,
    /// Consumer requests that hold a checkpoint, by the active files it uses.
    pub(crate) holders: Cell<[usize; 2]>,
    pub(crate) ended: Cell<bool>,
    pub(crate) changed: Signal,
    pub(crate) task: RefCell<Option<Task>>,
}

/// A volume of the secondary.
pub(crate) struct SecondaryVolume<H: Host> {
    pub(crate) disk: H::Disk,
    /// Orders overlapping overwrites as the stream does.
    pub(crate) lock: RangeLock,
    /// Orders a consumer's overlapping writes.
    pub(crate) active_lock: RangeLock,
}

impl<H: Host> Secondary<H> {
    pub(crate) fn volume(&self, v: VolumeIndex) -> Result<&SecondaryVolume<H>> {
        self.volumes.get(v.get()).ok_or_else(|| {
            Error::own(ErrorKind::Invalid, format!("no volume {} in the group", v.0))
        })
    }

    /// Whether a frame is one that this group can take; says why not.
    pub(crate) fn check_place(&self, v: VolumeIndex, range: ByteRange) -> Result<()> {
        let len = self.volume(v)?.disk.len();
        if range.end > len {
            return Err(Error::beyond_end("frame", range, len));
        }
        Ok(())
    }

    /// Notes the first error of the session: nothing more is applied, no record written. The
    /// primary hears of it, and what is staged is dropped.
    pub(crate) fn fail(&self, why: &Error) {
        if self.failed.borrow().is_some() {
            return;
        }
        self.counters.secondary_errors.one();
        let text = format!("{why:?}");
        *self.failed.borrow_mut() = Some(text.clone());
        self.error.borrow_mut().get_or_insert_with(|| text.clone());
        if let Some(w) = &*self.session.borrow() {
            w.push(crate::link::frame::Body::Error(text), true);
        }
        self.changed.notify();
        self.staging.signal.notify();
    }

    /// Whether nothing more may be applied or recorded: the session failed, or the role ended.
    pub(crate) fn is_over(&self) -> bool {
        self.failed.borrow().is_some() || self.ended.get()
    }

    /// Drops what is staged after an error, telling who waits.
    pub(crate) fn drop_staged(&self) {
        let why = self.failed.borrow().clone().unwrap_or_default();
        for s in self.staging.drop_all() {
            if let Some(done) = s.done {
                let _ = done.send(Err(Error::own(ErrorKind::Io, why.clone())));
            }
        }
    }

    /// Ends when nothing of the last session is under way any more.
    pub(crate) async fn quiet(&self) {
        let calm = || {
            let applied = self.staging.is_empty() && self.batches.get() == 0;
            (applied || bug(Bug::OldFrameLate))
                && (!self.recording.get() || bug(Bug::HelloDuringRecord))
                && !self.taking_over.get()
        };
        while !calm() {
            let a = self.staging.signal.wait();
            let b = self.changed.wait();
            let _ = futures::future::select(a, b).await;
        }
    }

    /// Drops its checkpoint: the primary knows nothing of what is here and sends everything anew.
    pub(crate) async fn forget(&self) -> Result<()> {
        if self.store.state().record == Epoch::NONE {
            return Ok(());
        }
        self.store
            .update(|g| {
                g.record = Epoch::NONE;
                g.all_joined();
            })
            .await?;
        let point = self.chain.point();
        let same = (0..self.volumes.len()).map(|i| point.active(VolumeIndex::of(i))).collect();
        self.chain.complete(self.open_epoch.get(), same);
        *self.log.borrow_mut() = None;
        *self.claimed.borrow_mut() = vec![Bitmap::new(); self.volumes.len()];
        self.saving.set(VolumeCount::default());
        self.forgotten.set(self.forgotten.get() + 1);
        self.last.set(super::status::Checkpoint::default());
        Ok(())
    }

    /// Makes what these replicas have beyond the primary's end zeroes, so that both sides agree on it
    /// once the primary grows. Of a volume that a record covers that is so already: nobody writes there.
    pub(crate) async fn clear_overhang(&self, primary: &crate::link::frame::Hello) -> Result<()> {
        let covered = {
            let s = self.store.state();
            let is_known = s.record != Epoch::NONE;
            if s.blank && !is_known {
                return Ok(());
            }
            if is_known { s.joined.get() } else { 0 }
        };
        for (volume, (_, size)) in self.volumes.iter().zip(&primary.members).skip(covered) {
            let (from, end) = (size.next_multiple_of(CLUSTER), volume.disk.len());
            if from < end {
                volume.disk.write_zeroes(ByteRange::new(from, end), true).await?;
            }
        }
        Ok(())
    }

    /// Adopts the open epoch that a hello agreed on: all open logs become its.
    pub(crate) fn adopt_epoch(&self, epoch: Epoch) {
        let epoch = epoch.max(self.open_epoch.get());
        self.open_epoch.set(epoch);
        for log in self.chain.logs() {
            log.set_epoch(epoch);
        }
        // What a begin-epoch named whose record never came is still joining.
        self.saving.set(self.covered());
        self.claim_logs();
    }

    /// The volumes that the last record covers; none without a record.
    pub(crate) fn covered(&self) -> VolumeCount {
        let s = self.store.state();
        if s.record == Epoch::NONE { VolumeCount::default() } else { s.joined }
    }

    /// What the open epoch's logs hold is saved.
    fn claim_logs(&self) {
        let mut claimed = self.claimed.borrow_mut();
        // What was claimed by a batch that then failed is in no log.
        *claimed = vec![Bitmap::new(); self.volumes.len()];
        for log in self.chain.logs() {
            for (i, bitmap) in claimed.iter_mut().enumerate() {
                let v = VolumeIndex::of(i);
                for r in log.ranges(v) {
                    bitmap.set(r);
                }
            }
        }
    }

    /// Counts batches as applied, in stream order.
    pub(crate) fn note_progress(&self) {
        let mut progress = self.progress.borrow_mut();
        while progress.front().is_some_and(|t| t.is_applied.get()) {
            if let Some(t) = progress.pop_front() {
                self.applied.set(t.last);
            }
        }
    }

    /// How far it has come. The undo space is that of what is applied, so that the primary can add
    /// what is not.
    pub(crate) fn acknowledgement(&self) -> crate::link::frame::Body {
        let on_its_way: u64 = self.progress.borrow().iter().map(|t| t.saved.get()).sum();
        crate::link::frame::Body::Ack(crate::link::frame::Ack {
            received: self.received.get(),
            applied: self.applied.get(),
            undo: self.undo_bytes().saturating_sub(on_its_way),
        })
    }

    /// Bytes in open logs.
    pub(crate) fn undo_bytes(&self) -> u64 {
        self.chain.logs().iter().map(UndoLog::used).sum()
    }

    /// A consumer's own bytes.
    pub(crate) fn active_bytes(&self) -> u64 {
        let point = self.chain.point();
        (0..self.volumes.len()).map(|i| point.active(VolumeIndex::of(i)).bytes()).sum()
    }

    /// Whether a consumer has written anything over the current checkpoint; zeroes take no bytes.
    pub(crate) fn is_view_written(&self) -> bool {
        let point = self.chain.point();
        (0..self.volumes.len()).any(|i| !point.active(VolumeIndex::of(i)).is_blank())
    }

    /// The actives for a new checkpoint: nothing in them, in the files that the last ones do not use.
    pub(crate) fn blank_actives(&self, id: crate::units::Uuid) -> Vec<Active<H::Disk>> {
        let slot = super::slot_of(id);
        self.slots
            .borrow()
            .iter()
            .map(|s| {
                let (data, map) = s[slot].clone();
                let len = data.len().next_multiple_of(CLUSTER);
                Active::blank(data, map, id, len)
            })
            .collect()
    }

    /// Ends the role.
    pub(crate) fn end(&self) {
        self.ended.set(true);
        self.cut();
        self.changed.notify();
        self.staging.signal.notify();
    }

    /// Ends the current session's stream; what it brought is still applied.
    pub(crate) fn cut(&self) {
        // A hello that still waits for the session before it is too late as well.
        self.sessions.set(self.sessions.get() + 1);
        if let Some(w) = self.session.borrow_mut().take() {
            w.close();
        }
        if let Some(cut) = self.cut_session.borrow_mut().take() {
            cut();
        }
        self.staging.signal.notify();
    }
}
