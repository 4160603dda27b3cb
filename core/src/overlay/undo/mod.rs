//! The undo log of one epoch of a group: what was on the secondary disks before they were
//! overwritten. QEMU's hidden disk, as an append-only file.
//!
//! ```text
//!   append(batch): [header][data] in one write, one flush, then into the map   (format.rs, map.rs)
//!   recover(file): batches up to the first that is not whole; damage or a torn tail (recover.rs)
//!   read:          map ──► Place::At(offset in the log) | Place::Zero
//! ```
//!
//! The caller appends one batch at a time and overwrites the disk only after that has returned.
//! The space is written with zeroes once and used again under a new uuid, never truncated: a sync
//! that changes no metadata is 3 to 8 times faster.

mod format;
mod map;
mod recover;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;

use self::format::Head;
use self::map::Map;
use super::block::BLOCK;
use crate::bug::{Bug, bug};
use crate::disk::{Disk, Error, ErrorKind, Result};
use crate::runtime::{Buf, Data};
use crate::units::{ByteOffset, ByteRange, ClusterIndex, Epoch, Uuid, VolumeIndex, u64_of};

/// A range that is about to be overwritten, and what it holds.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Of which volume.
    pub volume: VolumeIndex,
    /// Whole clusters; the last cluster of a volume is padded with zeroes to its end.
    pub range: ByteRange,
    /// What it holds.
    pub content: Content,
}

/// What a saved range held.
#[derive(Clone, Debug)]
pub enum Content {
    /// These bytes, as many as the range is long.
    Data(Data),
    /// Zeroes; takes no space.
    Zero,
}

/// Where a saved range is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the log, beginning at this byte of it.
    At(ByteOffset),
    /// Nowhere: it was zeroes.
    Zero,
}

/// An undo log. Clones are the same log.
pub struct UndoLog<D: Disk>(Rc<Inner<D>>);

struct Inner<D> {
    disk: D,
    uuid: Uuid,
    epoch: Cell<Epoch>,
    /// Where the next batch goes.
    used: Cell<u64>,
    /// The sequence of the last batch that is durable.
    synced: Cell<u64>,
    /// Whether the last batch is an idle one: it names the one before as durable already.
    idle: Cell<bool>,
    /// Set while a batch is being written, and for good when that was dropped or its flush failed:
    /// a request may then still be in flight, and the next one must not meet it.
    unsure: Cell<bool>,
    map: RefCell<Map>,
}

impl<D: Disk> Clone for UndoLog<D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D: Disk> std::fmt::Debug for UndoLog<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (epoch, used, extents) = (self.epoch(), self.used(), self.0.map.borrow().len());
        write!(f, "UndoLog({} of epoch {epoch}, {used} bytes, {extents} extents)", self.uuid())
    }
}

impl<D: Disk> UndoLog<D> {
    fn with(
        disk: D,
        uuid: Uuid,
        epoch: Epoch,
        used: u64,
        synced: u64,
        idle: bool,
        map: Map,
    ) -> Self {
        Self(Rc::new(Inner {
            disk,
            uuid,
            epoch: Cell::new(epoch),
            used: Cell::new(used),
            synced: Cell::new(synced),
            idle: Cell::new(idle),
            unsure: Cell::new(false),
            map: RefCell::new(map),
        }))
    }

    /// An empty log. `uuid` must never have been used on this disk before: it alone tells the
    /// batches of this log from what the file held earlier. Does no I/O.
    #[allow(
        clippy::unused_async,
        reason = "a later layout may have to write here; callers must not mind"
    )]
    pub async fn create(disk: D, uuid: Uuid, epoch: Epoch) -> Result<Self> {
        if disk.len() < 2 * BLOCK {
            let why = format!("undo log: a file of {} bytes has no room for a batch", disk.len());
            return Err(Error::own(ErrorKind::Invalid, why));
        }
        Ok(Self::with(disk, uuid, epoch, 0, 0, true, Map::default()))
    }

    /// Finds the log that a disk holds; flushes it first.
    ///
    /// `None` if there is none: never used, or no batch of it was ever whole. What follows the last
    /// whole batch is dropped as a torn tail, unless a later batch proves that it had been durable:
    /// that is damage, [`ErrorKind::Corrupt`].
    ///
    /// `freed` is the highest epoch whose logs are nobody's: the record, or `u64::MAX` for who needs
    /// no log at all. Damage to such a log is no error, and whole batches of one behind a bad first
    /// header are only what was there before; batches of newer epochs in that place prove damage.
    ///
    /// A recycled file that got no whole batch yet still shows the log it held before: the caller
    /// knows by uuid or epoch which logs count.
    pub async fn recover(disk: D, freed: Epoch) -> Result<Option<Self>> {
        recover::recover(disk, freed).await
    }

    /// Its identity.
    pub fn uuid(&self) -> Uuid {
        self.0.uuid
    }

    /// The epoch it counts as.
    pub fn epoch(&self) -> Epoch {
        self.0.epoch.get()
    }

    /// Lets it count as another epoch's, in memory and in batches to come: after a lost session
    /// all open logs are the open epoch's.
    pub fn set_epoch(&self, epoch: Epoch) {
        self.0.epoch.set(epoch);
    }

    /// Bytes of batches written.
    pub fn used(&self) -> u64 {
        self.0.used.get()
    }

    /// Bytes its file has.
    pub fn capacity(&self) -> u64 {
        self.0.disk.len()
    }

    /// The disk it is stored on, to be used again for another log when this one is freed.
    pub fn disk(&self) -> D {
        self.0.disk.clone()
    }

    /// Whether it refuses further batches: one was not written to its end. What it holds stays good.
    pub fn is_broken(&self) -> bool {
        self.0.unsure.get()
    }

    /// Whether a batch of these fits. One block more is kept back for an idle batch.
    pub fn room_for(&self, batch: &[Saved]) -> bool {
        let needed = format::header_len(batch.len()) + format::data_len(batch) + BLOCK;
        self.used().saturating_add(needed) <= self.capacity()
    }

    /// Saves a batch: one write, one flush; it is durable and in the map when this returns.
    ///
    /// One at a time. [`ErrorKind::NoSpace`] when it does not fit, and nothing is written then.
    /// After a write that failed it can be tried again; after a flush that failed, or a future that
    /// was dropped, the log refuses.
    pub async fn append(&self, batch: Vec<Saved>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        format::check(&batch)?;
        if !self.room_for(&batch) {
            let why = format!(
                "undo log of epoch {}: {} of {} bytes are used",
                self.epoch(),
                self.used(),
                self.capacity()
            );
            return Err(Error::own(ErrorKind::NoSpace, why));
        }
        self.write(batch).await
    }

    /// Makes a batch that names the last one as durable, so that damage to that one is told from a
    /// torn tail; does nothing when there is one already, or no room.
    pub async fn idle_sync(&self) -> Result<()> {
        if self.0.idle.get() || self.used() + BLOCK > self.capacity() {
            return Ok(());
        }
        self.write(Vec::new()).await
    }

    async fn write(&self, batch: Vec<Saved>) -> Result<()> {
        let inner = &self.0;
        let named = |e: Error| e.context(format_args!("undo log of epoch {}", inner.epoch.get()));
        if inner.unsure.replace(true) {
            return Err(named(Error::own(
                ErrorKind::Poisoned,
                "an earlier batch was not written to its end, so what is stored is unknown",
            )));
        }
        let at = inner.used.get();
        let head = Head {
            uuid: inner.uuid,
            epoch: inner.epoch.get(),
            sequence: inner.synced.get() + 1,
            known: inner.synced.get(),
            at,
            header_len: format::header_len(batch.len()),
            data_len: format::data_len(&batch),
        };
        let mut pieces = Vec::with_capacity(batch.len() + 1);
        pieces.push(format::encode(&head, &batch));
        pieces.extend(batch.iter().filter_map(|saved| match &saved.content {
            Content::Data(data) => Some(data.clone()),
            Content::Zero => None,
        }));
        if let Err(e) = inner.disk.writev(ByteOffset(at), pieces).await {
            inner.unsure.set(false);
            return Err(named(e));
        }
        if !bug(Bug::UndoSyncSkipped) {
            inner.disk.flush().await.map_err(named)?;
        }
        let mut map = inner.map.borrow_mut();
        let mut place = at + head.header_len;
        for saved in &batch {
            let twice = match saved.content {
                Content::Data(_) => {
                    let twice = map.insert(saved.volume, saved.range, Place::At(ByteOffset(place)));
                    place += saved.range.len();
                    twice
                }
                Content::Zero => map.insert(saved.volume, saved.range, Place::Zero),
            };
            debug_assert_eq!(
                twice, 0,
                "{} of volume {} was saved before",
                saved.range, saved.volume.0
            );
        }
        inner.used.set(at + head.header_len + head.data_len);
        inner.synced.set(head.sequence);
        inner.idle.set(batch.is_empty());
        inner.unsure.set(false);
        Ok(())
    }

    /// Whether it holds this cluster.
    pub fn contains(&self, volume: VolumeIndex, cluster: ClusterIndex) -> bool {
        self.0.map.borrow().contains(volume, cluster.range().start)
    }

    /// Whether it holds a cluster that `range` touches.
    pub fn intersects(&self, volume: VolumeIndex, range: ByteRange) -> bool {
        self.0.map.borrow().intersects(volume, range)
    }

    /// `range` in order, cut where the place changes; `None` for what it does not hold.
    pub fn pieces(&self, volume: VolumeIndex, range: ByteRange) -> Vec<(ByteRange, Option<Place>)> {
        self.0.map.borrow().pieces(volume, range)
    }

    /// What it holds of a volume, in order, neighbours merged.
    pub fn ranges(&self, volume: VolumeIndex) -> Vec<ByteRange> {
        self.0.map.borrow().ranges(volume)
    }

    /// Reads `range`, which lies within one of [`pieces`](Self::pieces), into `buf` of its length.
    pub fn read(
        &self,
        volume: VolumeIndex,
        range: ByteRange,
        mut buf: Buf,
    ) -> impl Future<Output = (Buf, Result<()>)> + 'static {
        let found = self.pieces(volume, range);
        let place = match found.as_slice() {
            [(_, Some(place))] if u64_of(buf.len()) == range.len() => Some(*place),
            _ => None,
        };
        let disk = self.0.disk.clone();
        async move {
            match place {
                Some(Place::At(at)) => disk.read(at, buf).await,
                Some(Place::Zero) => {
                    buf.fill(0);
                    (buf, Ok(()))
                }
                None => {
                    let why = format!("undo log: {range} is not one piece of volume {}", volume.0);
                    (buf, Err(Error::own(ErrorKind::Invalid, why)))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
