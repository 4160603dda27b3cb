//! The primary: serves the VM from its own disks, and keeps the peer's copy up.
//!
//! One write:
//! ```text
//!   may I? ─► range lock ─► whole sectors ─► intent mark ─► window (or missing) ─► local disk
//!                                                              │ Synchronous: acknowledged
//!                                                              ▼
//!                                                     may I still? ─► done, unlock
//! ```
//! Overlapping writes have one order, the lock's, on both sides. A local write that failed is an
//! error to the VM, and its range counts as missing at the peer: what the disk holds is unknown.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::align;
use super::counters::Counters;
use super::leg::{Completed, Ticket};
use super::local::Local;
use super::peer::{InPath, Peer};
use super::store::Store;
use crate::bug::{Bug, bug};
use crate::disk::{Disk, Error, ErrorKind, Host, Result};
use crate::link::frame::{Body, ZEROES_MAX};
use crate::overlay::{Mode, Policy, RangeGuard, RangeLock};
use crate::runtime::{Buf, Data, Signal};
use crate::units::{BUF_PIECE, ByteOffset, ByteRange, Epoch, VolumeIndex, u64_of};

/// The primary's role in a group.
pub(crate) struct Primary<H: Host> {
    pub(crate) host: H,
    pub(crate) store: Rc<Store<H>>,
    pub(crate) volumes: Vec<PrimaryVolume<H>>,
    /// `None` while solo: nobody to forward to.
    pub(crate) peer: RefCell<Option<Rc<Peer<H>>>>,
    /// Set when the role has ended: what is in flight fails before it completes (invariant 5).
    pub(crate) ended: Cell<bool>,
    pub(crate) policy: RefCell<Policy>,
    pub(crate) counters: Rc<Counters>,
    /// Something that the status shows has changed.
    pub(crate) changed: Signal,
}

/// A volume of the primary.
pub(crate) struct PrimaryVolume<H: Host> {
    pub(crate) local: Local<H>,
    /// Decides the order of overlapping writes, here and at the peer.
    pub(crate) lock: RangeLock,
}

/// What is written.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    /// These bytes.
    Data(Data),
    /// Zeroes; with `punch` the space goes back.
    Zero { len: u64, punch: bool },
}

impl Payload {
    fn len(&self) -> u64 {
        match self {
            Self::Data(d) => u64_of(d.len()),
            Self::Zero { len, .. } => *len,
        }
    }

    fn frame(&self, volume: VolumeIndex, range: ByteRange) -> Body {
        match self {
            Self::Data(d) => Body::Write(volume, range, d.clone()),
            Self::Zero { punch: true, .. } => Body::Discard(volume, range),
            Self::Zero { punch: false, .. } => Body::Zeroes(volume, range),
        }
    }
}

impl<H: Host> Primary<H> {
    pub(crate) fn new(
        host: &H,
        store: Rc<Store<H>>,
        locals: Vec<Local<H>>,
        counters: Rc<Counters>,
        changed: Signal,
    ) -> Rc<Self> {
        let policy = store.state().policy.clone();
        Rc::new(Self {
            host: host.clone(),
            store,
            volumes: locals
                .into_iter()
                .map(|local| PrimaryVolume { local, lock: RangeLock::default() })
                .collect(),
            peer: RefCell::new(None),
            ended: Cell::new(false),
            policy: RefCell::new(policy),
            counters,
            changed,
        })
    }

    fn check(&self) -> Result<()> {
        if self.ended.get() {
            return Err(Error::own(
                ErrorKind::Stale,
                "this replica is no longer the primary: attach the volume anew",
            ));
        }
        Ok(())
    }

    pub(crate) fn volume(&self, v: VolumeIndex) -> Result<&PrimaryVolume<H>> {
        self.volumes.get(v.get()).ok_or_else(|| {
            Error::own(ErrorKind::Invalid, format!("no volume {} in the group", v.0))
        })
    }

    /// Reads at any alignment.
    pub(crate) async fn read(&self, v: VolumeIndex, at: ByteOffset, buf: Buf) -> (Buf, Result<()>) {
        self.counters.reads.one();
        self.counters.read_bytes.add(u64_of(buf.len()));
        let (buf, r) = self.read_local(v, at, buf).await;
        (buf, self.answered(r))
    }

    async fn read_local(&self, v: VolumeIndex, at: ByteOffset, buf: Buf) -> (Buf, Result<()>) {
        let volume = match self.check().and_then(|()| self.volume(v)) {
            Ok(volume) => volume,
            Err(e) => return (buf, Err(e)),
        };
        let (buf, r) = align::read(&volume.local, at, buf).await;
        // A read that ends after the role did could be stale.
        (buf, r.and_then(|()| self.check()))
    }

    /// Writes at any alignment and length, piece by piece.
    pub(crate) async fn write(
        &self,
        v: VolumeIndex,
        at: ByteOffset,
        payload: Payload,
    ) -> Result<()> {
        self.counters.writes.one();
        self.counters.write_bytes.add(payload.len());
        let r = self.write_pieces(v, at, payload).await;
        self.answered(r)
    }

    /// Counts what a request came to.
    fn answered(&self, r: Result<()>) -> Result<()> {
        if r.is_err() {
            self.counters.failed.one();
        }
        r
    }

    async fn write_pieces(&self, v: VolumeIndex, at: ByteOffset, payload: Payload) -> Result<()> {
        let all = ByteRange::new(at.0, at.0 + payload.len());
        match payload {
            Payload::Data(data) if all.len() <= BUF_PIECE => {
                self.write_piece(v, all, Payload::Data(data)).await
            }
            Payload::Data(data) => {
                for piece in all.pieces(BUF_PIECE) {
                    let part = crate::units::usize_of(piece.start - all.start)
                        ..crate::units::usize_of(piece.end - all.start);
                    self.write_piece(v, piece, Payload::Data(data.slice(part))).await?;
                }
                Ok(())
            }
            Payload::Zero { punch, .. } => {
                for piece in all.pieces(ZEROES_MAX) {
                    self.zero_piece(v, piece, punch).await?;
                }
                Ok(())
            }
        }
    }

    /// Zeroes whose ends are not whole sectors: the ends are written.
    async fn zero_piece(&self, v: VolumeIndex, piece: ByteRange, punch: bool) -> Result<()> {
        let inner = piece.round_in(self.volume(v)?.local.alignment());
        let ends = if inner.is_empty() {
            [piece, ByteRange::default()]
        } else {
            let zero = Payload::Zero { len: inner.len(), punch };
            self.write_piece(v, inner, zero).await?;
            [ByteRange::new(piece.start, inner.start), ByteRange::new(inner.end, piece.end)]
        };
        for end in ends.into_iter().filter(|e| !e.is_empty()) {
            let zeroes = Data::zeroes(crate::units::usize_of(end.len()));
            self.write_piece(v, end, Payload::Data(zeroes)).await?;
        }
        Ok(())
    }

    /// One write of at most one frame.
    async fn write_piece(&self, v: VolumeIndex, range: ByteRange, payload: Payload) -> Result<()> {
        self.check()?;
        let volume = self.volume(v)?;
        let sector = volume.local.alignment();
        let _guard = volume.lock.lock(range.round_out(sector)).await;
        self.check()?;
        let (range, payload) = match payload {
            Payload::Data(data) => {
                let (range, data) =
                    align::widen(&volume.local, sector, range.offset(), data).await?;
                (range, Payload::Data(data))
            }
            zero @ Payload::Zero { .. } => (range, zero),
        };
        let peer = self.peer.borrow().clone();
        let Some(peer) = peer else {
            Self::write_local(&volume.local, range, payload).await?;
            return self.check();
        };
        let ticket = self.forward(&peer, v, range, &payload).await?;
        let local = Self::write_local(&volume.local, range, payload).await;
        if let Err(e) = local {
            if !bug(Bug::FailedWriteNotMarked) {
                peer.leg.mark_missing(v, range);
            }
            peer.note(format!("local write {range} of volume {}: {e:?}", v.0));
            return Err(e);
        }
        if self.policy.borrow().mode == Mode::Synchronous {
            peer.leg.acknowledgement(&ticket).await;
        }
        drop(ticket);
        self.check()
    }

    /// The leg's part of a write: intent mark, then its place in the stream.
    pub(crate) async fn forward(
        &self,
        peer: &Rc<Peer<H>>,
        v: VolumeIndex,
        range: ByteRange,
        payload: &Payload,
    ) -> Result<Ticket> {
        let _in_path = InPath::new(peer, v, range);
        if !peer.intent.is_marked(v, range) {
            peer.intent.mark(v, range).await?;
        }
        let len = range.len();
        let wire = match payload {
            Payload::Data(_) => len,
            // A frame without data; what it costs the peer in undo space counts all the same.
            Payload::Zero { .. } => 0,
        };
        Ok(peer.leg.enter(v, range, || payload.frame(v, range), wire).await)
    }

    async fn write_local(local: &Local<H>, range: ByteRange, payload: Payload) -> Result<()> {
        match payload {
            Payload::Data(d) => local.write(range.offset(), d).await,
            Payload::Zero { punch, .. } => local.write_zeroes(range, punch).await,
        }
    }

    /// Makes what completed before durable; in `Synchronous` mode on both sides.
    pub(crate) async fn flush(&self, v: VolumeIndex) -> Result<()> {
        self.counters.flushes.one();
        let r = self.flush_volume(v).await;
        self.answered(r)
    }

    async fn flush_volume(&self, v: VolumeIndex) -> Result<()> {
        self.check()?;
        let peer = self.peer.borrow().clone();
        if let Some(peer) = peer.filter(|_| self.policy.borrow().mode == Mode::Synchronous) {
            peer.leg.flush_peer(|| peer.flushed.get()).await;
        }
        self.volume(v)?.local.flush().await?;
        self.check()
    }

    /// Waits for all writes in flight; no other begins while the guards live.
    pub(crate) async fn hold(&self) -> Vec<RangeGuard> {
        let all = ByteRange::new(0, u64::MAX);
        let locks: Vec<_> = self.volumes.iter().map(|v| v.lock.lock(all)).collect();
        futures::future::join_all(locks).await
    }

    /// Flushes all local disks.
    pub(crate) async fn flush_all(&self) -> Result<()> {
        let all: Vec<_> = self.volumes.iter().map(|v| v.local.flush()).collect();
        futures::future::join_all(all).await.into_iter().collect()
    }

    /// Notes a complete checkpoint.
    pub(crate) fn completed(&self, peer: &Peer<H>, c: Completed) {
        let done = self.host.wall();
        peer.last.set(super::status::Checkpoint {
            epoch: c.epoch,
            cut: c.cut,
            done,
            bytes: c.bytes,
        });
        self.counters.checkpoints.one();
        self.counters.checkpoint_micros.time(done.0.saturating_sub(c.cut.0));
        *peer.error.borrow_mut() = None;
        peer.sweep_intent(&self.host);
        if peer.intent.is_due() {
            let intent = peer.intent.clone();
            // An error is told by the next mark, which is what needs it.
            let commit = self.host.spawn("intent", async move { drop(intent.commit().await) });
            peer.keep_task(commit);
        }
        self.changed.notify();
    }

    /// The highest epoch that the group ever opened, as far as this side knows.
    pub(crate) fn highest_epoch(&self, peer: &Peer<H>) -> Epoch {
        self.store.state().epoch.max(peer.leg.open_epoch())
    }

    /// Ends the role: everything in flight fails, nothing completes any more.
    pub(crate) fn end(&self) {
        self.ended.set(true);
        if let Some(peer) = self.peer.borrow_mut().take() {
            peer.end_tasks();
        }
        self.changed.notify();
    }
}
