//! Requests to a promoted volume: each piece of a range goes where its clusters are.

use std::rc::Rc;

use super::super::align;
use super::{Busy, Promoted, runs};
use crate::disk::{Disk, Error, ErrorKind, Host, Result};
use crate::overlay::{Active, ActiveState, Point, RangeGuard};
use crate::runtime::{Buf, Data};
use crate::units::{ByteOffset, ByteRange, CLUSTER, VolumeIndex, u64_of, usize_of};

impl<H: Host> Promoted<H> {
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
        let _guard = self.lock(v, range).await?;
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

    /// The range's lock, once the active disk has room for what of it is held; without room the commit
    /// has to pass it first.
    async fn lock(&self, v: VolumeIndex, range: ByteRange) -> Result<RangeGuard> {
        let part = self.part(v);
        let mut waited = false;
        loop {
            let guard = part.lock.lock(range.round_out(CLUSTER)).await;
            if self.unsure.get().is_some_and(|(u, step)| u == v && step.overlaps(range)) {
                return Err(Error::own(
                    ErrorKind::Poisoned,
                    "the group superblock could not be written, so where this write belongs is unknown: \
                     see to the pool's disk, then restart the engine",
                ));
            }
            let needed = self.needed(v, range);
            let limit = self.store.state().policy.active_limit;
            let added = self.added.get().saturating_add(needed);
            if needed == 0 || added <= limit {
                self.added.set(added);
                return Ok(guard);
            }
            drop(guard);
            if !waited {
                self.counters.active_full.one();
                waited = true;
            }
            if let Some(why) = &*self.failure.borrow() {
                let text = format!(
                    "ActiveFull: {limit} bytes were written over what the failover has to undo, and \
                     that does not go on: {why}"
                );
                return Err(Error::own(ErrorKind::NoSpace, text));
            }
            // The commit goes on while anything is held, or its failure is told: no limit is needed.
            self.changed
                .wait_until(|| self.needed(v, range) == 0 || self.failure.borrow().is_some())
                .await;
        }
    }

    /// How many bytes a write of `range` adds to the active disk at most.
    fn needed(&self, v: VolumeIndex, range: ByteRange) -> u64 {
        let Some(point) = self.point.borrow().clone() else { return 0 };
        let held = runs(&self.part(v).held.borrow(), range);
        held.into_iter().filter(|(_, h)| *h).map(|(r, _)| point.active(v).added_by(r)).sum()
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
        let _guard = self.lock(v, range).await?;
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
}

/// Whether the active disk has all of `range` in this state.
fn is_all<D: Disk>(active: &Active<D>, range: ByteRange, state: ActiveState) -> bool {
    active.pieces(range).iter().all(|(_, s)| *s == state)
}
