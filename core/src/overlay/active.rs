//! What a consumer on the secondary's side wrote itself, over one volume.
//!
//! ```text
//!   data file   as long as the volume, sparse: the clusters in state Data, in their own places
//!   map file    pages of two bits a cluster (active_map.rs), each in two slots
//!
//!   write:  data ──► bits in memory, page dirty
//!   flush:  data flushed ──► dirty pages to their other slot ──► map flushed
//! ```
//!
//! A crash finds what the last flush left, cluster by cluster, or newer. Memory: two sparse bitmaps.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::rc::Rc;

use super::active_map::{self, PAGE_SPAN, Sets};
use super::range_lock::RangeLock;
use crate::disk::{Disk, Error, ErrorKind, Result, settle};
use crate::runtime::{Buf, Data};
use crate::units::{ByteOffset, ByteRange, CLUSTER, ClusterIndex, Uuid, u64_of};

/// The most pages that one round of a flush holds in memory.
const ROUND: usize = 256;

/// What an active disk knows of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ActiveState {
    /// Nothing: what lies below shows.
    Absent,
    /// Its content is in the data file.
    Data,
    /// It is zeroes.
    Zero,
}

/// An active disk. Clones are the same one.
pub struct Active<D: Disk>(Rc<Inner<D>>);

struct Inner<D> {
    data: D,
    map: D,
    id: Uuid,
    len: u64,
    sets: RefCell<Sets>,
    /// Counter of each page that was ever written under this id.
    counters: RefCell<BTreeMap<u64, u64>>,
    /// Pages that differ from what is stored.
    dirty: RefCell<BTreeSet<u64>>,
    /// Set while map pages are being written, and for good when that was dropped midway.
    unsure: Cell<bool>,
    /// One flush at a time.
    turn: RangeLock,
}

impl<D: Disk> Clone for Active<D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D: Disk> std::fmt::Debug for Active<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Active({}, {} bytes)", self.0.id, self.bytes())
    }
}

impl<D: Disk> Active<D> {
    /// Bytes that the map file of a volume needs.
    pub fn map_len(volume_len: u64) -> u64 {
        active_map::map_len(volume_len)
    }

    /// An active disk with nothing in it. `id` must never have been used on these files before;
    /// whatever they hold is garbage under it. No I/O.
    pub fn blank(data: D, map: D, id: Uuid, len: u64) -> Self {
        Self::with(data, map, id, len, Sets::default(), BTreeMap::new())
    }

    /// Finds what was flushed under this id.
    pub async fn open(data: D, map: D, id: Uuid, len: u64) -> Result<Self> {
        settle(&data).await.map_err(|e| e.context("active disk"))?;
        let (sets, counters) = active_map::load(&map, id, len).await?;
        Ok(Self::with(data, map, id, len, sets, counters.into_iter().collect()))
    }

    fn with(data: D, map: D, id: Uuid, len: u64, sets: Sets, counters: BTreeMap<u64, u64>) -> Self {
        Self(Rc::new(Inner {
            data,
            map,
            id,
            len,
            sets: RefCell::new(sets),
            counters: RefCell::new(counters),
            dirty: RefCell::default(),
            unsure: Cell::new(false),
            turn: RangeLock::default(),
        }))
    }

    /// Its identity.
    pub fn id(&self) -> Uuid {
        self.0.id
    }

    /// The data and the map file, to make the next one over.
    pub fn disks(&self) -> (D, D) {
        (self.0.data.clone(), self.0.map.clone())
    }

    /// What it knows of a cluster.
    pub fn state(&self, cluster: ClusterIndex) -> ActiveState {
        let sets = self.0.sets.borrow();
        if sets.data.contains(cluster) {
            ActiveState::Data
        } else if sets.zero.contains(cluster) {
            ActiveState::Zero
        } else {
            ActiveState::Absent
        }
    }

    /// Whether it knows anything of a cluster that `range` touches.
    pub fn intersects(&self, range: ByteRange) -> bool {
        let sets = self.0.sets.borrow();
        sets.data.intersects(range) || sets.zero.intersects(range)
    }

    /// `range` in order, cut where the state changes.
    pub fn pieces(&self, range: ByteRange) -> Vec<(ByteRange, ActiveState)> {
        let sets = self.0.sets.borrow();
        let mut pieces = Vec::new();
        let mut rest = range;
        while !rest.is_empty() {
            let (data, run) = sets.data.run(rest);
            let (zero, zero_run) = sets.zero.run(rest);
            let (state, run) = match (data, zero) {
                (true, _) => (ActiveState::Data, run),
                (false, true) => (ActiveState::Zero, zero_run),
                // Absent until either begins.
                (false, false) => (ActiveState::Absent, run.intersect(zero_run)),
            };
            pieces.push((run, state));
            rest.start = run.end;
        }
        pieces
    }

    /// Whether nothing was ever written to it, zeroes included.
    pub fn is_blank(&self) -> bool {
        let sets = self.0.sets.borrow();
        sets.data.is_empty() && sets.zero.is_empty()
    }

    /// Bytes that its data takes.
    pub fn bytes(&self) -> u64 {
        self.0.sets.borrow().data.bytes()
    }

    /// How many bytes a write of `range` adds to that.
    pub fn added_by(&self, range: ByteRange) -> u64 {
        let pieces = self.pieces(range.round_out(CLUSTER)).into_iter();
        pieces.filter(|(_, state)| *state != ActiveState::Data).map(|(r, _)| r.len()).sum()
    }

    /// Everything it covers, data and zeroes, in order.
    pub fn ranges(&self) -> Vec<ByteRange> {
        let sets = self.0.sets.borrow();
        let mut all = sets.data.clone();
        all.union_with(&sets.zero);
        let end = self.0.len;
        all.ranges().map(|r| ByteRange::new(r.start, r.end.min(end))).collect()
    }

    fn check(&self, what: &str, range: ByteRange) -> Result<()> {
        let whole = range.start.is_multiple_of(CLUSTER)
            && (range.end.is_multiple_of(CLUSTER) || range.end == self.0.len)
            && range.end <= self.0.len.next_multiple_of(CLUSTER);
        if whole {
            return Ok(());
        }
        let why =
            format!("active disk: {what} {range} is not of whole clusters of {} bytes", self.0.len);
        Err(Error::own(ErrorKind::Invalid, why))
    }

    fn mark_dirty(&self, range: ByteRange) {
        if !range.is_empty() {
            self.0
                .dirty
                .borrow_mut()
                .extend(range.start / PAGE_SPAN..range.end.div_ceil(PAGE_SPAN));
        }
    }

    /// Writes whole clusters (the volume may end within the last one). The caller holds the range
    /// lock. Durable after the next flush.
    pub async fn write(&self, range: ByteRange, data: Data) -> Result<()> {
        self.check("write", range)?;
        if u64_of(data.len()) != range.len() {
            let why = format!("active disk: {} bytes of data for {range}", data.len());
            return Err(Error::own(ErrorKind::Invalid, why));
        }
        self.0.data.write(range.offset(), data).await.map_err(|e| e.context("active disk"))?;
        let sets = &mut *self.0.sets.borrow_mut();
        let changed = sets.data.set(range) + sets.zero.clear(range);
        if changed > 0 {
            self.mark_dirty(range);
        }
        Ok(())
    }

    /// Makes whole clusters zeroes and gives their space back. The caller holds the range lock.
    pub async fn zero(&self, range: ByteRange) -> Result<()> {
        self.check("zero", range)?;
        let held: Vec<ByteRange> = {
            let sets = self.0.sets.borrow();
            let mut rest = range;
            std::iter::from_fn(|| {
                let run = sets.data.next_range(rest.start, rest.len())?.intersect(rest);
                rest.start = run.end;
                (!run.is_empty()).then_some(run)
            })
            .collect()
        };
        // Before the bits change: the file's clusters then are zeroes under either state.
        for part in held {
            let part = part.intersect(ByteRange::new(0, self.0.data.len()));
            self.0.data.discard(part).await.map_err(|e| e.context("active disk"))?;
        }
        let sets = &mut *self.0.sets.borrow_mut();
        let changed = sets.zero.set(range) + sets.data.clear(range);
        if changed > 0 {
            self.mark_dirty(range);
        }
        Ok(())
    }

    /// Reads from the data file: clusters in state Data.
    pub fn read(
        &self,
        at: ByteOffset,
        buf: Buf,
    ) -> impl Future<Output = (Buf, Result<()>)> + 'static {
        self.0.data.read(at, buf)
    }

    /// The length and the alignment of its data file.
    pub(super) fn data_shape(&self) -> (u64, u64) {
        (self.0.data.len(), self.0.data.alignment())
    }

    /// Makes everything that was written and zeroed before this call durable.
    pub fn flush(&self) -> impl Future<Output = Result<()>> + 'static {
        let turn = self.0.turn.lock(ByteRange::new(0, 1));
        let active = self.clone();
        async move {
            let _turn = turn.await;
            active.flush_in_turn().await.map_err(|e| e.context("active disk"))
        }
    }

    async fn flush_in_turn(&self) -> Result<()> {
        let inner = &self.0;
        if inner.unsure.replace(true) {
            return Err(Error::own(
                ErrorKind::Poisoned,
                "an earlier flush was not carried to its end, so what is stored is unknown; open it again",
            ));
        }
        // Each page is written once: what gets dirty meanwhile was not written before this call.
        let mut after = 0;
        loop {
            let pages: Vec<u64> =
                inner.dirty.borrow().range(after..).take(ROUND).copied().collect();
            // What the pages say is fixed before the data is flushed, never after.
            let slots: Vec<(u64, u64, Data)> = pages
                .iter()
                .map(|page| {
                    let counter = inner.counters.borrow().get(page).copied().unwrap_or(0) + 1;
                    (
                        *page,
                        counter,
                        active_map::encode(inner.id, *page, counter, &inner.sets.borrow()),
                    )
                })
                .collect();
            {
                let mut dirty = inner.dirty.borrow_mut();
                for page in &pages {
                    dirty.remove(page);
                }
            }
            let result = self.write_slots(&slots).await;
            if let Err(e) = result {
                inner.dirty.borrow_mut().extend(pages);
                // A write that failed may be tried again, to the same slots; after a failed flush
                // the disk itself refuses.
                inner.unsure.set(false);
                return Err(e);
            }
            match pages.last() {
                Some(last) if pages.len() == ROUND => after = last + 1,
                _ => break,
            }
        }
        inner.unsure.set(false);
        Ok(())
    }

    async fn write_slots(&self, slots: &[(u64, u64, Data)]) -> Result<()> {
        let inner = &self.0;
        // Also with no page to write: the data may have been overwritten in place.
        inner.data.flush().await?;
        if slots.is_empty() {
            return Ok(());
        }
        let writes: Vec<_> = slots
            .iter()
            .map(|(page, counter, data)| {
                inner.map.write(active_map::slot_offset(*page, *counter), data.clone())
            })
            .collect();
        for result in futures::future::join_all(writes).await {
            result?;
        }
        inner.map.flush().await?;
        // Only now: until then the older slot is the one that counts.
        inner
            .counters
            .borrow_mut()
            .extend(slots.iter().map(|(page, counter, _)| (*page, *counter)));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
