//! A promoted replica: serves the view at once, and merges it into the disk in the background.
//!
//! ```text
//!   held: clusters that a log or the active disk holds and the commit has not passed
//!
//!   read    held? ─► the view                     else ─► the disk
//!   write   held? ─► the active disk              else ─► the disk
//!   commit  per step, under its range's lock:  view ─► disk ─► flush ─► position ─► no longer held
//! ```
//! What the disk reads is the view at any moment (invariant 2); after a crash the commit goes on
//! from the position. When merging fails, the same rules hold on (the seed's FailoverFailed), and
//! unlike there it can be tried again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::align;
use super::store::Store;
use crate::disk::{Disk, Host, Result};
use crate::overlay::{Active, ActiveState, Bitmap, Chain, CommitPosition, Point, RangeLock, Stage};
use crate::runtime::{Buf, Data, Signal};
use crate::units::{
    BUF_PIECE, ByteOffset, ByteRange, CLUSTER, Epoch, VolumeIndex, u64_of, usize_of,
};

/// The most held bytes merged under one lock, with one flush and one position write.
const STEP_BYTES: u64 = 4 << 20;

/// The most bytes of volume that one step locks: scattered clusters lie far apart.
const STEP_SPAN: u64 = 256 << 20;

/// How long a step waits when the VM has requests in flight: the VM goes first.
const YIELD: Duration = Duration::from_millis(1);

/// The volumes of a promoted group.
pub(crate) struct Promoted<H: Host> {
    host: H,
    store: Rc<Store<H>>,
    volumes: Vec<PromotedVolume<H>>,
    chain: Chain<H::Disk>,
    /// The view at the moment of failover; `None` once all is merged.
    point: RefCell<Option<Point<H::Disk>>>,
    total: u64,
    /// Requests of the VM in flight.
    busy: Cell<usize>,
    pub(crate) failure: RefCell<Option<String>>,
    changed: Signal,
}

struct PromotedVolume<H: Host> {
    disk: H::Disk,
    lock: RangeLock,
    held: RefCell<Bitmap>,
}

/// Counts a request of the VM.
struct Busy<H: Host>(Rc<Promoted<H>>);

impl<H: Host> Busy<H> {
    fn new(p: &Rc<Promoted<H>>) -> Self {
        p.busy.set(p.busy.get() + 1);
        Self(p.clone())
    }
}

impl<H: Host> Drop for Busy<H> {
    fn drop(&mut self) {
        self.0.busy.set(self.0.busy.get() - 1);
    }
}

impl<H: Host> Promoted<H> {
    /// `chain` holds the logs to be undone and the active disks that count; what lies before
    /// `position` is merged.
    pub(crate) fn new(
        host: &H,
        store: Rc<Store<H>>,
        disks: Vec<H::Disk>,
        chain: Chain<H::Disk>,
        position: CommitPosition,
        changed: Signal,
    ) -> Rc<Self> {
        let point = chain.point();
        let volumes: Vec<_> = disks
            .into_iter()
            .enumerate()
            .map(|(i, disk)| {
                let v = VolumeIndex(u16::try_from(i).unwrap_or(u16::MAX));
                let mut held = Bitmap::new();
                let ranges = chain
                    .logs()
                    .into_iter()
                    .flat_map(|l| l.ranges(v))
                    .chain(point.active(v).ranges());
                for r in ranges {
                    let from = match v.cmp(&position.volume) {
                        std::cmp::Ordering::Less => u64::MAX,
                        std::cmp::Ordering::Equal => position.offset.0,
                        std::cmp::Ordering::Greater => 0,
                    };
                    held.set(r.intersect(ByteRange::new(from, u64::MAX)));
                }
                PromotedVolume { disk, lock: RangeLock::default(), held: RefCell::new(held) }
            })
            .collect();
        let total = volumes.iter().map(|v| v.held.borrow().bytes()).sum();
        Rc::new(Self {
            host: host.clone(),
            store,
            volumes,
            chain,
            point: RefCell::new(Some(point)),
            total,
            busy: Cell::new(0),
            failure: RefCell::default(),
            changed,
        })
    }

    pub(crate) fn disk(&self, v: VolumeIndex) -> &H::Disk {
        &self.part(v).disk
    }

    fn part(&self, v: VolumeIndex) -> &PromotedVolume<H> {
        // The primary checks the index before it comes here.
        &self.volumes[v.get()]
    }

    /// Merged so far, and in total, in bytes.
    pub(crate) fn progress(&self) -> (u64, u64) {
        let left: u64 = self.volumes.iter().map(|v| v.held.borrow().bytes()).sum();
        (self.total.saturating_sub(left), self.total)
    }

    pub(crate) async fn read(
        self: Rc<Self>,
        v: VolumeIndex,
        at: ByteOffset,
        buf: Buf,
    ) -> (Buf, Result<()>) {
        let part = self.part(v);
        let range = ByteRange::new(at.0, at.0 + u64_of(buf.len()));
        let point = self.point.borrow().clone();
        let is_held = part.held.borrow().intersects(range);
        let Some(point) = point.filter(|_| is_held) else { return part.disk.read(at, buf).await };
        let _busy = Busy::new(&self);
        // Clusters of the range that are merged already may have been overwritten since: they are
        // the disk's, whatever a log says.
        let mut out = buf;
        let pieces = runs(&part.held.borrow(), range);
        for (piece, held) in pieces {
            let part_buf = Buf::new(usize_of(piece.len()));
            let (got, r) = if held {
                point.read(v, &part.disk, part.disk.len(), piece.offset(), part_buf).await
            } else {
                align::read(&part.disk, piece.offset(), part_buf).await
            };
            if r.is_err() {
                return (out, r);
            }
            let skip = usize_of(piece.start - range.start);
            if let Some(to) = out.get_mut(skip..skip + got.len()) {
                to.copy_from_slice(&got);
            }
        }
        (out, Ok(()))
    }

    pub(crate) async fn write(
        self: Rc<Self>,
        v: VolumeIndex,
        at: ByteOffset,
        data: Data,
    ) -> Result<()> {
        let part = self.part(v);
        let range = ByteRange::new(at.0, at.0 + u64_of(data.len()));
        if self.point.borrow().is_none() {
            return part.disk.write(at, data).await;
        }
        let _busy = Busy::new(&self);
        let _guard = part.lock.lock(range.round_out(CLUSTER)).await;
        let point = self.point.borrow().clone();
        let pieces = runs(&part.held.borrow(), range);
        for (piece, held) in pieces {
            let bytes =
                data.slice(usize_of(piece.start - range.start)..usize_of(piece.end - range.start));
            match &point {
                Some(point) if held => self.write_active(point, v, piece, bytes).await?,
                Some(_) | None => align::write(&part.disk, piece.offset(), bytes).await?,
            }
        }
        Ok(())
    }

    /// Whole clusters go to the active disk: what the piece leaves of them comes from the view.
    async fn write_active(
        &self,
        point: &Point<H::Disk>,
        v: VolumeIndex,
        piece: ByteRange,
        data: Data,
    ) -> Result<()> {
        let wide = piece.round_out(CLUSTER);
        let is_new = !is_all(&point.active(v), wide, ActiveState::Data);
        if wide == piece {
            point.active(v).write(piece, data).await?;
            return self.keep(point, v, is_new).await;
        }
        let disk = &self.part(v).disk;
        let (mut whole, r) =
            point.read(v, disk, disk.len(), wide.offset(), Buf::new(usize_of(wide.len()))).await;
        r?;
        let skip = usize_of(piece.start - wide.start);
        if let Some(to) = whole.get_mut(skip..skip + data.len()) {
            to.copy_from_slice(&data);
        }
        point.active(v).write(wide, whole.freeze()).await?;
        self.keep(point, v, is_new).await
    }

    /// What the active disk newly holds is in its file, but that it does, only in memory. A VM
    /// outlives a restart of the engine, so no write may end before a restart would find it.
    async fn keep(&self, point: &Point<H::Disk>, v: VolumeIndex, is_new: bool) -> Result<()> {
        if is_new { point.active(v).flush().await } else { Ok(()) }
    }

    pub(crate) async fn write_zeroes(
        self: Rc<Self>,
        v: VolumeIndex,
        range: ByteRange,
        punch: bool,
    ) -> Result<()> {
        let part = self.part(v);
        if self.point.borrow().is_none() {
            return part.disk.write_zeroes(range, punch).await;
        }
        let _busy = Busy::new(&self);
        let _guard = part.lock.lock(range.round_out(CLUSTER)).await;
        let point = self.point.borrow().clone();
        let pieces = runs(&part.held.borrow(), range);
        for (piece, held) in pieces {
            let Some(point) = point.as_ref().filter(|_| held) else {
                align::zero(&part.disk, piece, punch).await?;
                continue;
            };
            let inner = piece.round_in(CLUSTER);
            let ends = if inner.is_empty() {
                [piece, ByteRange::default()]
            } else {
                let is_new = !is_all(&point.active(v), inner, ActiveState::Zero);
                point.active(v).zero(inner).await?;
                self.keep(point, v, is_new).await?;
                [ByteRange::new(piece.start, inner.start), ByteRange::new(inner.end, piece.end)]
            };
            for end in ends.into_iter().filter(|e| !e.is_empty()) {
                self.write_active(point, v, end, Data::zeroes(usize_of(end.len()))).await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn flush(self: Rc<Self>, v: VolumeIndex) -> Result<()> {
        let point = self.point.borrow().clone();
        if let Some(point) = point {
            point.active(v).flush().await?;
        }
        self.part(v).disk.flush().await
    }

    /// What is held counts as allocated: its zeroes are known only when read.
    pub(crate) async fn allocation(
        self: Rc<Self>,
        v: VolumeIndex,
        range: ByteRange,
    ) -> Result<Vec<(ByteRange, bool)>> {
        let part = self.part(v);
        let mut out: Vec<(ByteRange, bool)> = Vec::new();
        let pieces = runs(&part.held.borrow(), range);
        for (piece, held) in pieces {
            if held {
                out.push((piece, true));
            } else {
                out.extend(part.disk.allocation(piece).await?);
            }
        }
        Ok(out)
    }

    /// Merges until all is merged or it fails; says which in the superblock.
    pub(crate) async fn commit(self: Rc<Self>) {
        *self.failure.borrow_mut() = None;
        let result = match self.merge_all().await {
            Ok(()) => self.finish().await,
            Err(e) => Err(e),
        };
        if let Err(e) = result {
            *self.failure.borrow_mut() = Some(format!("merging the roll-back: {e:?}"));
            // If even this can't be written, a restart resumes the commit, which is as good.
            let _ = self.store.update(|s| s.stage = Stage::FailoverFailed).await;
        }
        self.changed.notify();
    }

    async fn merge_all(&self) -> Result<()> {
        if self.store.state().stage != Stage::Failover {
            self.store.update(|s| s.stage = Stage::Failover).await?;
        }
        for i in 0..self.volumes.len() {
            let v = VolumeIndex(u16::try_from(i).unwrap_or(u16::MAX));
            while self.merge_step(v).await? {
                self.changed.notify();
                if self.busy.get() > 0 {
                    self.host.sleep(YIELD).await;
                } else {
                    crate::runtime::yield_now().await;
                }
            }
        }
        Ok(())
    }

    /// Merges the next step of a volume; `false` if nothing of it is left.
    async fn merge_step(&self, v: VolumeIndex) -> Result<bool> {
        let part = self.part(v);
        let Some(step) = next_step(&part.held.borrow()) else { return Ok(false) };
        let _guard = part.lock.lock(step).await;
        let Some(point) = self.point.borrow().clone() else { return Ok(false) };
        let pieces: Vec<_> =
            runs(&part.held.borrow(), step).into_iter().filter(|(_, held)| *held).collect();
        for (run, _) in pieces {
            for piece in run.pieces(BUF_PIECE) {
                let buf = Buf::new(usize_of(piece.len()));
                let (buf, r) =
                    point.read(v, &part.disk, part.disk.len(), piece.offset(), buf).await;
                r?;
                if buf.iter().all(|b| *b == 0) {
                    part.disk.write_zeroes(piece, true).await?;
                } else {
                    part.disk.write(piece.offset(), buf.freeze()).await?;
                }
            }
        }
        part.disk.flush().await?;
        let position = CommitPosition { volume: v, offset: ByteOffset(step.end) };
        self.store.update(|s| s.commit = position).await?;
        part.held.borrow_mut().clear(step);
        Ok(true)
    }

    async fn finish(&self) -> Result<()> {
        self.store
            .update(|s| {
                s.stage = Stage::Done;
                s.undo.clear();
                s.active = None;
                s.commit = CommitPosition::default();
            })
            .await?;
        let actives = self.point.borrow().as_ref().map(|p| {
            (0..self.volumes.len())
                .map(|i| p.active(VolumeIndex(u16::try_from(i).unwrap_or(u16::MAX))))
                .collect()
        });
        *self.point.borrow_mut() = None;
        if let Some(actives) = actives {
            self.chain.complete(Epoch(u64::MAX), actives);
        }
        Ok(())
    }
}

/// Whether the active disk has all of `range` in this state.
fn is_all<D: Disk>(active: &Active<D>, range: ByteRange, state: ActiveState) -> bool {
    active.pieces(range).iter().all(|(_, s)| *s == state)
}

/// The span of the next step: from the first held cluster, as far as both limits allow.
fn next_step(held: &Bitmap) -> Option<ByteRange> {
    let first = held.next_range(0, STEP_BYTES)?;
    let mut step = first;
    let mut bytes = first.len();
    while let Some(next) = held.next_range(step.end, STEP_BYTES - bytes.min(STEP_BYTES - CLUSTER)) {
        bytes += next.len();
        if bytes > STEP_BYTES || next.end - step.start > STEP_SPAN {
            break;
        }
        step.end = next.end;
    }
    Some(step)
}

/// `range` cut where "held" changes.
fn runs(held: &Bitmap, range: ByteRange) -> Vec<(ByteRange, bool)> {
    let mut out = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let (is_set, run) = held.run(ByteRange::new(at, range.end));
        let end = run.end.clamp(at + 1, range.end);
        out.push((ByteRange::new(at, end), is_set));
        at = end;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_ends_at_its_byte_limit_and_at_its_span() {
        let mut held = Bitmap::new();
        assert_eq!(next_step(&held), None);
        held.set(ByteRange::new(CLUSTER, 3 * CLUSTER));
        held.set(ByteRange::new(10 * CLUSTER, 11 * CLUSTER));
        assert_eq!(next_step(&held), Some(ByteRange::new(CLUSTER, 11 * CLUSTER)));
        held.set(ByteRange::new(STEP_SPAN + 10 * CLUSTER, STEP_SPAN + 11 * CLUSTER));
        assert_eq!(next_step(&held), Some(ByteRange::new(CLUSTER, 11 * CLUSTER)));
        held.set(ByteRange::new(20 * CLUSTER, 20 * CLUSTER + 2 * STEP_BYTES));
        let step = next_step(&held).unwrap();
        assert!(step.end <= 20 * CLUSTER + STEP_BYTES, "{step:?}");
    }

    #[test]
    fn runs_cover_a_range_at_any_alignment() {
        let mut held = Bitmap::new();
        held.set(ByteRange::new(CLUSTER, 2 * CLUSTER));
        let got = runs(&held, ByteRange::new(100, 2 * CLUSTER + 7));
        assert_eq!(
            got,
            [
                (ByteRange::new(100, CLUSTER), false),
                (ByteRange::new(CLUSTER, 2 * CLUSTER), true),
                (ByteRange::new(2 * CLUSTER, 2 * CLUSTER + 7), false)
            ]
        );
    }
}
