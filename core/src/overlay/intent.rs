//! The intent log: which regions of a group's volumes the peer may lack, durably.
//!
//! ```text
//!   mark(range) ─ all its regions are on disk ─► at once
//!        └─ else: bits set ─► joins the next commit ─► dirty blocks written, one flush ─► back
//!
//!   caller 1 ──┐                     ┌── caller 3, 4: came while it was under way
//!   caller 2 ──┴► commit 1 ─ flush ──┴─► commit 2 ─ flush ─►
//! ```
//!
//! A superset at every moment: a bit is cleared on disk only after nobody relied on it, and a bad
//! sector reads as all marked. Memory: two bits a region, 256 KiB for 1 TiB. `format.rs` has the bytes.
//!
//! Which marks go again: `sweep.rs`.
//!
//! Nothing is spawned. The I/O of a commit belongs to the log: if all its callers are dropped, the
//! next one carries it to its end before it starts another.

mod format;
mod sweep;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

use futures::FutureExt;
use futures::future::{LocalBoxFuture, Shared, join_all};

use self::format::{Bits, Layout};
use crate::disk::{Disk, Error, ErrorKind, Result, settle};
use crate::runtime::{Data, Mono};
use crate::units::{ByteOffset, ByteRange, VolumeIndex, u64_of};

/// The unit of the intent log, in bytes.
pub const INTENT_REGION: u64 = 1 << 20;

pub use crate::disk::INTENT_HOT;

/// The intent log of a group. Clones are the same one.
pub struct IntentLog<D: Disk>(Rc<RefCell<Inner<D>>>);

struct Inner<D> {
    disk: D,
    layout: Layout,
    /// What is marked, on disk or not yet.
    wanted: Bits,
    /// What the disk surely has, whatever it was told to clear meanwhile.
    stored: Bits,
    /// Blocks whose `wanted` differs from what the disk was last told.
    dirty: BTreeSet<u64>,
    /// When regions were marked last, by a counter of marks.
    recent: BTreeMap<u64, u64>,
    /// How many of these a sweep leaves alone at most.
    most: usize,
    /// When a sweep last dropped some of these that need not go at once.
    freed: Mono,
    clock: u64,
    /// The regions of marks that have not returned yet.
    pending: BTreeMap<u64, Vec<Range<u64>>>,
    next_pending: u64,
    commit: Option<Commit>,
    /// How many commits were begun.
    begun: u64,
    /// Marks that were dropped since the last commit began: the disk still has them.
    dropped: usize,
}

#[derive(Clone)]
struct Commit {
    number: u64,
    /// The blocks it writes, and the bits they hold.
    blocks: Rc<Vec<(u64, Vec<u64>)>>,
    io: Shared<LocalBoxFuture<'static, Result<()>>>,
}

impl<D: Disk> Clone for IntentLog<D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D: Disk> std::fmt::Debug for IntentLog<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inner = self.0.borrow();
        write!(f, "IntentLog({} dirty blocks, {} commits)", inner.dirty.len(), inner.begun)
    }
}

/// Takes a mark off the list of those that have not returned, also when it is dropped.
struct Pending<D: Disk> {
    log: IntentLog<D>,
    number: u64,
}

impl<D: Disk> Drop for Pending<D> {
    fn drop(&mut self) {
        self.log.0.borrow_mut().pending.remove(&self.number);
    }
}

impl<D: Disk> IntentLog<D> {
    /// Bytes of the file for volumes of these lengths.
    pub fn file_len(lens: &[u64]) -> u64 {
        Layout::new(lens).file_len()
    }

    fn with(disk: D, layout: Layout, wanted: Bits, stored: Bits, dirty: BTreeSet<u64>) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            disk,
            layout,
            wanted,
            stored,
            dirty,
            recent: BTreeMap::new(),
            most: INTENT_HOT,
            freed: Mono::default(),
            clock: 0,
            pending: BTreeMap::new(),
            next_pending: 0,
            commit: None,
            begun: 0,
            dropped: 0,
        })))
    }

    /// A log with nothing marked, durably.
    pub async fn create(disk: D, lens: &[u64]) -> Result<Self> {
        let layout = Layout::new(lens);
        layout.check(disk.len())?;
        let (wanted, stored) = (layout.no_bits(), layout.no_bits());
        let dirty = (0..layout.blocks()).collect();
        let log = Self::with(disk, layout, wanted, stored, dirty);
        log.commit().await?;
        Ok(log)
    }

    /// Finds what is marked; flushes first. What cannot be read for sure is marked, and written so.
    pub async fn open(disk: D, lens: &[u64]) -> Result<Self> {
        let layout = Layout::new(lens);
        layout.check(disk.len())?;
        settle(&disk).await.map_err(named)?;
        let (wanted, bad) = format::load(&disk, &layout).await?;
        let stored = wanted.clone();
        let damaged = !bad.is_empty();
        let log = Self::with(disk, layout, wanted, stored, bad);
        if damaged {
            log.commit().await?;
        }
        Ok(log)
    }

    /// Whether every region that `range` touches is marked, durably.
    pub fn is_marked(&self, volume: VolumeIndex, range: ByteRange) -> bool {
        let inner = self.0.borrow();
        inner.layout.regions(volume, range).is_some_and(|regions| inner.has(regions))
    }

    /// Marks every region that `range` touches. When this returns they are durable, and a sweep
    /// that runs before the caller yields again has left them.
    pub async fn mark(&self, volume: VolumeIndex, range: ByteRange) -> Result<()> {
        self.mark_many(volume, [range]).await
    }

    /// Marks the regions of many ranges of a volume with one commit.
    pub async fn mark_many(
        &self,
        volume: VolumeIndex,
        ranges: impl IntoIterator<Item = ByteRange>,
    ) -> Result<()> {
        let mut wait_for = Vec::new();
        for range in ranges {
            let inner = &mut *self.0.borrow_mut();
            let Some(regions) = inner.layout.regions(volume, range) else {
                let why = format!("intent log: {range} is not within volume {}", volume.0);
                return Err(Error::own(ErrorKind::Invalid, why));
            };
            inner.touch(&regions);
            inner.want(regions.clone());
            if !inner.has(regions.clone()) {
                wait_for.push(regions);
            }
        }
        if wait_for.is_empty() {
            return Ok(());
        }
        self.wait(wait_for).await
    }

    /// Marks everything of a volume.
    pub async fn mark_all(&self, volume: VolumeIndex) -> Result<()> {
        let all = self.0.borrow().layout.whole(volume);
        self.mark(volume, all).await
    }

    /// Waits until these regions, which are wanted, are stored.
    async fn wait(&self, regions: Vec<Range<u64>>) -> Result<()> {
        let (_pending, before) = {
            let mut inner = self.0.borrow_mut();
            let number = inner.next_pending;
            inner.next_pending += 1;
            inner.pending.insert(number, regions.clone());
            (Pending { log: self.clone(), number }, inner.begun)
        };
        loop {
            if regions.iter().all(|r| self.0.borrow().has(r.clone())) {
                return Ok(());
            }
            let commit = self.0.borrow_mut().current_commit();
            let result = commit.io.clone().await;
            self.0.borrow_mut().finish(&commit, &result);
            // One that began before the bits were set says nothing about them.
            if commit.number > before {
                result?;
            }
        }
    }

    /// Writes everything that the disk does not have yet, cleared marks too.
    pub async fn commit(&self) -> Result<()> {
        let before = self.0.borrow().begun;
        loop {
            {
                let inner = self.0.borrow();
                if inner.commit.is_none() && inner.dirty.is_empty() {
                    return Ok(());
                }
            }
            let commit = self.0.borrow_mut().current_commit();
            let result = commit.io.clone().await;
            self.0.borrow_mut().finish(&commit, &result);
            if commit.number > before {
                return result;
            }
        }
    }

    /// What is marked of a volume, in order, neighbours merged; clipped to its length.
    pub fn marked(&self, volume: VolumeIndex) -> Vec<ByteRange> {
        let inner = self.0.borrow();
        let whole = inner.layout.whole(volume);
        let Some(regions) = inner.layout.regions(volume, whole) else { return Vec::new() };
        let bytes = |region: u64| (region - regions.start) * INTENT_REGION;
        let runs = inner.wanted.runs(regions.clone());
        runs.into_iter()
            .map(|run| ByteRange::new(bytes(run.start), bytes(run.end)).intersect(whole))
            .collect()
    }

    /// How often it was made durable, or began to be.
    pub fn commits(&self) -> u64 {
        self.0.borrow().begun
    }
}

impl<D: Disk> Inner<D> {
    /// Whether these regions are marked and stored.
    fn has(&self, mut regions: Range<u64>) -> bool {
        regions.all(|r| self.wanted.has(r) && self.stored.has(r))
    }

    fn touch(&mut self, regions: &Range<u64>) {
        // More than may stay at once is no sign of where the next writes go.
        if regions.end - regions.start <= u64_of(self.most) {
            self.clock += 1;
            for region in regions.clone() {
                self.recent.insert(region, self.clock);
            }
        }
    }

    fn want(&mut self, regions: Range<u64>) {
        for region in regions {
            if !self.wanted.has(region) {
                self.wanted.set(region);
                self.dirty.insert(Layout::block_of(region));
            }
        }
    }

    /// The commit that is under way, or a new one of all that is dirty.
    fn current_commit(&mut self) -> Commit {
        if let Some(commit) = &self.commit {
            return commit.clone();
        }
        self.begun += 1;
        self.dropped = 0;
        let mut blocks = Vec::new();
        let mut writes: Vec<(ByteOffset, Data)> = Vec::new();
        for block in std::mem::take(&mut self.dirty) {
            let (offset, data) = format::encode(&self.layout, block, &self.wanted);
            writes.push((offset, data));
            let words = self.layout.words_of(block);
            // From now on the disk may have the new block or the old one: only what both say is sure.
            let kept = self.wanted.words(words.clone());
            self.stored.intersect(words, &kept);
            blocks.push((block, kept));
        }
        let disk = self.disk.clone();
        let io = async move {
            let writes: Vec<_> =
                writes.into_iter().map(|(at, data)| disk.write(at, data)).collect();
            for result in join_all(writes).await {
                result.map_err(named)?;
            }
            disk.flush().await.map_err(named)
        };
        let commit =
            Commit { number: self.begun, blocks: Rc::new(blocks), io: io.boxed_local().shared() };
        self.commit = Some(commit.clone());
        commit
    }

    /// A commit has ended; the first who sees it says so.
    fn finish(&mut self, ended: &Commit, result: &Result<()>) {
        if self.commit.as_ref().is_none_or(|current| current.number != ended.number) {
            return;
        }
        self.commit = None;
        for (block, words) in ended.blocks.iter() {
            if result.is_ok() {
                self.stored.unite(self.layout.words_of(*block), words);
            } else {
                self.dirty.insert(*block);
            }
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn named(e: Error) -> Error {
    e.context("intent log")
}

#[cfg(test)]
mod tests;
