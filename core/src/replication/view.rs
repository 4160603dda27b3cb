//! What a consumer on the secondary's side sees and writes: the last checkpoint, and its own writes.
//!
//! ```text
//!   read   hold the checkpoint ─► active, else oldest log that has it, else the disk
//!   write  hold the checkpoint ─► lock ─► whole clusters (merged with the view) ─► active
//!            └─ replaced meanwhile? begin again: own writes are dropped at a checkpoint
//! ```

use std::rc::Rc;

use super::secondary::{Secondary, SecondaryVolume};
use crate::bug::{Bug, bug};
use crate::disk::{Disk, Error, ErrorKind, Host, Result};
use crate::overlay::Point;
use crate::runtime::{Buf, Data};
use crate::units::{
    BUF_PIECE, ByteOffset, ByteRange, CLUSTER, Epoch, VolumeIndex, u64_of, usize_of,
};

/// Why there is no view of a volume.
pub(super) const JOINING: &str =
    "this volume is joining its group: no checkpoint covers it yet, so there is no view of it";

/// A checkpoint that a consumer's request began at; its logs and active stay while this lives.
struct Hold<H: Host> {
    point: Point<H::Disk>,
    secondary: Rc<Secondary<H>>,
    slot: usize,
}

impl<H: Host> Drop for Hold<H> {
    fn drop(&mut self) {
        let mut holders = self.secondary.holders.get();
        holders[self.slot] -= 1;
        self.secondary.holders.set(holders);
        self.secondary.changed.notify();
    }
}

/// Counts a consumer's write while it is in flight.
struct Writing<H: Host>(Rc<Secondary<H>>);

impl<H: Host> Drop for Writing<H> {
    fn drop(&mut self) {
        self.0.consumer_writes.set(self.0.consumer_writes.get() - 1);
    }
}

/// Bytes that a write in flight may add to the active disk.
struct Reserved<H: Host>(Rc<Secondary<H>>, u64);

impl<H: Host> Drop for Reserved<H> {
    fn drop(&mut self) {
        self.0.active_reserved.set(self.0.active_reserved.get() - self.1);
    }
}

impl<H: Host> Secondary<H> {
    fn hold(self: &Rc<Self>, v: VolumeIndex) -> Result<Hold<H>> {
        if self.ended.get() {
            return Err(Error::own(
                ErrorKind::Stale,
                "this replica is no longer the secondary: attach the volume anew",
            ));
        }
        let point = self.chain.point();
        if self.store.state().record == Epoch::NONE {
            return Err(Error::own(
                ErrorKind::NotPermitted,
                "there is no checkpoint yet, so there is no view",
            ));
        }
        if !self.covered().covers(v) {
            return Err(Error::own(ErrorKind::NotPermitted, JOINING));
        }
        let slot = super::slot_of(self.active_id());
        let mut holders = self.holders.get();
        holders[slot] += 1;
        self.holders.set(holders);
        Ok(Hold { point, secondary: self.clone(), slot })
    }

    /// Reads the view at any alignment.
    pub(crate) async fn view_read(
        self: Rc<Self>,
        v: VolumeIndex,
        at: ByteOffset,
        buf: Buf,
    ) -> (Buf, Result<()>) {
        let (hold, disk) = match self.hold(v).and_then(|h| Ok((h, self.volume(v)?.disk.clone()))) {
            Ok(both) => both,
            Err(e) => return (buf, Err(e)),
        };
        let forgotten = self.forgotten.get();
        let (buf, r) = hold.point.read(v, &disk, disk.len(), at, buf).await;
        drop(hold);
        if self.ended.get() || self.forgotten.get() != forgotten {
            // From that moment on nothing was saved of what this may have read too late.
            return (
                buf,
                Err(Error::own(
                    ErrorKind::Stale,
                    "the checkpoint was given up while it was read: attach the volume anew",
                )),
            );
        }
        (buf, r)
    }

    /// Writes to the view at any alignment; dropped at the next checkpoint.
    pub(crate) async fn view_write(
        self: Rc<Self>,
        v: VolumeIndex,
        at: ByteOffset,
        data: Data,
    ) -> Result<()> {
        let all = ByteRange::new(at.0, at.0 + u64_of(data.len()));
        for piece in all.pieces(BUF_PIECE) {
            let part =
                data.slice(usize_of(piece.start - all.start)..usize_of(piece.end - all.start));
            self.view_change(v, piece, Some(part)).await?;
        }
        Ok(())
    }

    /// Makes part of the view read as zeroes.
    pub(crate) async fn view_zero(self: Rc<Self>, v: VolumeIndex, range: ByteRange) -> Result<()> {
        let inner = range.round_in(CLUSTER);
        if inner.is_empty() {
            return self
                .clone()
                .view_write(v, range.offset(), Data::zeroes(usize_of(range.len())))
                .await;
        }
        for end in [ByteRange::new(range.start, inner.start), ByteRange::new(inner.end, range.end)]
        {
            if !end.is_empty() {
                self.view_change(v, end, Some(Data::zeroes(usize_of(end.len())))).await?;
            }
        }
        self.view_change(v, inner, None).await
    }

    /// Makes a consumer's own writes durable.
    pub(crate) async fn view_flush(self: Rc<Self>, v: VolumeIndex) -> Result<()> {
        let hold = self.hold(v)?;
        hold.point.active(v).flush().await
    }

    /// The same of all volumes.
    pub(crate) async fn flush_actives(&self) -> Result<()> {
        let point = self.chain.point();
        for i in (0..).map(VolumeIndex).take(self.volumes.len()) {
            point.active(i).flush().await?;
        }
        Ok(())
    }

    /// Room in the active disk for a write of `range`; an error at the policy's limit.
    fn reserve(
        self: &Rc<Self>,
        point: &Point<H::Disk>,
        v: VolumeIndex,
        range: ByteRange,
        is_data: bool,
    ) -> Result<Reserved<H>> {
        let needed = if is_data { point.active(v).added_by(range) } else { 0 };
        let limit = self.store.state().policy.active_limit;
        let taken = self.active_bytes().saturating_add(self.active_reserved.get());
        if needed > 0 && taken.saturating_add(needed) > limit {
            self.counters.active_full.one();
            return Err(Error::own(
                ErrorKind::NoSpace,
                format!(
                    "ActiveFull: own writes over a checkpoint may take {limit} bytes; they go at the \
                     next checkpoint, or raise activeLimit"
                ),
            ));
        }
        self.active_reserved.set(self.active_reserved.get() + needed);
        Ok(Reserved(self.clone(), needed))
    }

    /// `None`: zeroes, of whole clusters.
    async fn view_change(
        self: &Rc<Self>,
        v: VolumeIndex,
        range: ByteRange,
        data: Option<Data>,
    ) -> Result<()> {
        let volume = self.volume(v)?;
        let _guard = volume.active_lock.lock(range.round_out(CLUSTER)).await;
        loop {
            self.changed.wait_until(|| !self.keeps_active.get()).await;
            if self.store.is_broken() {
                // A record whose write failed may be stored all the same, with this very active disk.
                return Err(Error::own(
                    ErrorKind::Poisoned,
                    "the group superblock could not be written, so it is unknown over which checkpoint \
                     this would be: see to the pool's disk, then restart the engine",
                ));
            }
            self.consumer_writes.set(self.consumer_writes.get() + 1);
            let writing = Writing(self.clone());
            let hold = self.hold(v)?;
            let _room = self.reserve(&hold.point, v, range, data.is_some())?;
            let written = change_at(&hold.point, v, volume, range, data.clone()).await;
            let is_current = hold.point.is_current();
            drop((writing, hold));
            if is_current || bug(Bug::ConsumerOnReplaced) {
                return written;
            }
        }
    }
}

async fn change_at<H: Host>(
    point: &Point<H::Disk>,
    v: VolumeIndex,
    volume: &SecondaryVolume<H>,
    range: ByteRange,
    data: Option<Data>,
) -> Result<()> {
    let Some(data) = data else { return point.active(v).zero(range).await };
    let wide = range.round_out(CLUSTER);
    if wide == range {
        return point.active(v).write(range, data).await;
    }
    let disk = &volume.disk;
    let (mut whole, r) =
        point.read(v, disk, disk.len(), wide.offset(), Buf::new(usize_of(wide.len()))).await;
    r?;
    let skip = usize_of(range.start - wide.start);
    if let Some(part) = whole.get_mut(skip..skip + data.len()) {
        part.copy_from_slice(&data);
    }
    point.active(v).write(wide, whole.freeze()).await
}
