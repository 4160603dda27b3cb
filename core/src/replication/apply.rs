//! Applies staged frames: three stages that overlap from batch to batch.
//!
//! ```text
//!   batch k+1:  read old content
//!   batch k  :                    append to the undo log, one sync, into the map
//!   batch k-1:                                                                    overwrite
//! ```
//!
//! The old content is durable before the secondary disk is touched (invariant 3). No batch spans
//! two epochs: a begin-epoch waits until everything before it is applied. Overlapping overwrites
//! take their range locks in stream order.

use std::cell::Cell;
use std::rc::Rc;

use futures::future::join_all;

use super::align;
use super::record;
use super::secondary::{Item, Secondary, Staged, bytes_of};
use crate::disk::{Disk, Error, Host, Result};
use crate::link::frame::Body;
use crate::overlay::{Content, Saved, UndoLog};
use crate::runtime::{Buf, Signal};
use crate::units::{BUF_PIECE, ByteRange, CLUSTER, VolumeIndex, usize_of};

/// The most frames of one batch.
const BATCH_FRAMES: usize = 256;

/// The most bytes of one batch.
const BATCH_BYTES: u64 = 4 << 20;

/// Whether the second stage is busy: it takes one batch at a time, in order.
#[derive(Clone, Default)]
struct Busy(Rc<Cell<bool>>, Signal);

impl Busy {
    async fn wait_idle(&self) {
        self.1.wait_until(|| !self.0.get()).await;
    }

    fn set(&self, on: bool) {
        self.0.set(on);
        self.1.notify();
    }
}

/// Runs until the role ends.
pub(crate) async fn run<H: Host>(s: Rc<Secondary<H>>) {
    let busy = Busy::default();
    loop {
        s.staging.signal.wait_until(|| s.ended.get() || !s.staging.is_empty()).await;
        if s.failed.borrow().is_some() {
            s.drop_staged();
        }
        let batch = s.staging.take_batch(BATCH_FRAMES, BATCH_BYTES);
        if batch.is_empty() {
            if s.ended.get() {
                return;
            }
            continue;
        }
        s.batches.set(s.batches.get() + 1);
        let last = batch.last().map_or(0, |b| b.sequence);
        let done = Rc::new(Cell::new(false));
        s.progress.borrow_mut().push_back((last, done.clone()));
        if batch.iter().any(|b| b.item.place().is_none()) {
            s.changed.wait_until(|| s.batches.get() == 1).await;
            if s.failed.borrow().is_some() {
                finish(
                    &s,
                    batch,
                    &done,
                    Err(Error::own(crate::disk::ErrorKind::Io, "the session has failed")),
                );
                continue;
            }
            let result = barrier(&s, &batch).await;
            finish(&s, batch, &done, result);
        } else {
            let mut batch = batch;
            let saved = read_old(&s, &batch).await.map(|saved| spare_equal(&s, &mut batch, saved));
            busy.wait_idle().await;
            busy.set(true);
            let (s2, busy2) = (s.clone(), busy.clone());
            s.host.spawn("apply", async move {
                save_and_overwrite(s2, batch, saved, done, busy2).await
            });
        }
    }
}

/// What is neither write nor zeroes: everything before it is applied.
async fn barrier<H: Host>(s: &Rc<Secondary<H>>, batch: &[Staged]) -> Result<()> {
    for b in batch {
        match &b.item {
            Item::Flush => {
                record::flush_disks(s).await?;
                if let Some(w) = &*s.session.borrow() {
                    w.push(Body::Flushed(b.sequence), true);
                }
            }
            Item::BeginEpoch(e, cut) => record::begin_epoch(s, *e, *cut).await?,
            Item::Stop(e) => record::stop(s, *e).await?,
            Item::Spared | Item::Write(..) | Item::Resync(..) | Item::Zero { .. } => {}
        }
    }
    Ok(())
}

/// The old content of every cluster that the batch will change and no log of this epoch holds.
async fn read_old<H: Host>(s: &Rc<Secondary<H>>, batch: &[Staged]) -> Result<Vec<Saved>> {
    if !s.saving.get() {
        return Ok(Vec::new());
    }
    let mut wanted: Vec<(VolumeIndex, ByteRange, bool)> = Vec::new();
    for b in batch {
        if let Some((v, range)) = b.item.place() {
            let is_zero = matches!(b.item, Item::Zero { .. });
            claim(s, v, range, |r| wanted.push((v, r, is_zero)));
        }
    }
    // All reads are in flight together.
    let reads: Vec<_> = wanted
        .into_iter()
        .flat_map(|(v, range, is_zero)| range.pieces(BUF_PIECE).map(move |r| (v, r, is_zero)))
        .map(|(v, range, is_zero)| read_one(s, v, range, is_zero))
        .collect();
    let mut saved = Vec::new();
    for part in join_all(reads).await {
        saved.extend(part?);
    }
    Ok(saved)
}

/// Resync often sends what is here already (its bitmaps are coarse after a crash). Such a frame is
/// neither saved nor written, unless another frame of the batch touches the same place.
fn spare_equal<H: Host>(
    s: &Secondary<H>,
    batch: &mut [Staged],
    mut saved: Vec<Saved>,
) -> Vec<Saved> {
    for i in 0..batch.len() {
        let Some(Staged { item: Item::Resync(v, range, data), .. }) = batch.get(i) else {
            continue;
        };
        let (v, range) = (*v, *range);
        let others =
            batch.iter().enumerate().filter(|(j, _)| *j != i).filter_map(|(_, b)| b.item.place());
        let is_alone =
            !others.clone().any(|(ov, or)| ov == v && or.round_out(CLUSTER).overlaps(range));
        let old: Vec<_> =
            saved.iter().filter(|o| o.volume == v && o.range.overlaps(range)).collect();
        let covered: u64 = old.iter().map(|o| o.range.len()).sum();
        if !is_alone || covered != range.len() || !old.iter().all(|o| is_equal(o, range, data)) {
            continue;
        }
        saved.retain(|o| o.volume != v || !o.range.overlaps(range));
        if let Some(claimed) = s.claimed.borrow_mut().get_mut(v.get()) {
            claimed.clear(range);
        }
        if let Some(b) = batch.get_mut(i) {
            b.item = Item::Spared;
        }
    }
    saved
}

fn is_equal(old: &Saved, range: ByteRange, data: &[u8]) -> bool {
    let Content::Data(old_data) = &old.content else { return false };
    let Some(start) = old.range.start.checked_sub(range.start).map(usize_of) else { return false };
    data.get(start..start + old_data.len()).is_some_and(|new| new == &old_data[..])
}

/// Claims the clusters of `range` that are not saved yet, in runs.
fn claim<H: Host>(
    s: &Secondary<H>,
    v: VolumeIndex,
    range: ByteRange,
    mut run: impl FnMut(ByteRange),
) {
    let mut claimed = s.claimed.borrow_mut();
    let Some(claimed) = claimed.get_mut(v.get()) else { return };
    let mut open: Option<ByteRange> = None;
    for c in range.clusters() {
        let cluster = c.range();
        if claimed.contains(c) {
            open.take().into_iter().for_each(&mut run);
        } else {
            claimed.set(cluster);
            open = Some(open.map_or(cluster, |o| ByteRange::new(o.start, cluster.end)));
        }
    }
    open.into_iter().for_each(&mut run);
}

fn read_one<H: Host>(
    s: &Secondary<H>,
    v: VolumeIndex,
    range: ByteRange,
    is_zero: bool,
) -> impl Future<Output = Result<Vec<Saved>>> + use<H> {
    let disk = s.volume(v).map(|vol| vol.disk.clone());
    async move {
        let disk = disk?;
        if !is_zero {
            let (buf, r) = disk.read(range.offset(), Buf::new(usize_of(range.len()))).await;
            r?;
            return Ok(vec![Saved { volume: v, range, content: Content::Data(buf.freeze()) }]);
        }
        // A discard of what is not allocated saves a line instead of the zeroes.
        let mut out = Vec::new();
        for (part, allocated) in disk.allocation(range).await? {
            let part = if allocated { part.round_out(CLUSTER) } else { part.round_in(CLUSTER) }
                .intersect(range);
            let part = ByteRange::new(
                part.start.max(out.last().map_or(range.start, |s: &Saved| s.range.end)),
                part.end,
            );
            if part.is_empty() {
                continue;
            }
            let content = if allocated {
                let (buf, r) = disk.read(part.offset(), Buf::new(usize_of(part.len()))).await;
                r?;
                Content::Data(buf.freeze())
            } else {
                Content::Zero
            };
            out.push(Saved { volume: v, range: part, content });
        }
        Ok(out)
    }
}

/// The second and third stage of one batch.
async fn save_and_overwrite<H: Host>(
    s: Rc<Secondary<H>>,
    batch: Vec<Staged>,
    saved: Result<Vec<Saved>>,
    done: Rc<Cell<bool>>,
    busy: Busy,
) {
    let saved = match saved {
        Ok(saved) => save(&s, saved).await,
        Err(e) => Err(e),
    };
    // After an error nothing more touches the disk: what is acknowledged but not applied is dropped.
    if saved.is_ok() && s.failed.borrow().is_some() {
        busy.set(false);
        finish(
            &s,
            batch,
            &done,
            Err(Error::own(crate::disk::ErrorKind::Io, "the session has failed")),
        );
        return;
    }
    if let Err(e) = saved {
        s.fail(&e);
        busy.set(false);
        finish(&s, batch, &done, Err(e));
        return;
    }
    // The locks are queued here, in stream order, before the next batch can do so.
    let overwrites: Vec<_> = batch.iter().map(|b| overwrite(&s, &b.item)).collect();
    busy.set(false);
    let result: Result<()> = join_all(overwrites).await.into_iter().collect();
    finish(&s, batch, &done, result);
}

async fn save<H: Host>(s: &Secondary<H>, saved: Vec<Saved>) -> Result<()> {
    if saved.is_empty() {
        return Ok(());
    }
    // A broken log is read on and written no more; one made for a smaller limit has a successor.
    let fits = |log: &UndoLog<H::Disk>| {
        !log.is_broken() && (log.room_for(&saved) || log.capacity() >= s.logs.file_len())
    };
    let log = s.log.borrow().clone().filter(fits);
    let log = match log {
        Some(log) => log,
        None => record::open_log(s).await?,
    };
    log.append(saved).await
}

fn overwrite<H: Host>(
    s: &Secondary<H>,
    item: &Item,
) -> std::pin::Pin<Box<dyn Future<Output = Result<()>>>> {
    let work = item.place().and_then(|(v, range)| {
        let volume = s.volume(v).ok()?;
        let lock = volume.lock.lock(range.round_out(volume.disk.alignment()));
        let zero_or_data = match item {
            Item::Write(_, _, data) | Item::Resync(_, _, data) => Ok(data.clone()),
            Item::Zero { punch, .. } => Err(*punch),
            Item::Spared | Item::Flush | Item::BeginEpoch(..) | Item::Stop(_) => return None,
        };
        Some((volume.disk.clone(), lock, range, zero_or_data))
    });
    let Some((disk, lock, range, work)) = work else { return Box::pin(std::future::ready(Ok(()))) };
    Box::pin(async move {
        let _guard = lock.await;
        match work {
            Ok(data) => align::write(&disk, range.offset(), data).await,
            Err(punch) => align::zero(&disk, range, punch).await,
        }
    })
}

/// A batch is applied, or was given up.
fn finish<H: Host>(s: &Secondary<H>, batch: Vec<Staged>, done: &Cell<bool>, result: Result<()>) {
    if let Err(e) = &result {
        s.fail(e);
    } else {
        done.set(true);
        s.note_progress();
    }
    let bytes = bytes_of(&batch);
    let data: u64 = batch.iter().filter_map(|b| b.item.place()).map(|(_, r)| r.len()).sum();
    s.epoch_bytes.set(s.epoch_bytes.get() + data);
    for b in batch {
        if let Some(waiter) = b.done {
            let _ = waiter.send(result.clone());
        }
    }
    s.batches.set(s.batches.get() - 1);
    s.staging.release(bytes.into_iter());
    if s.staging.is_empty()
        && let Some(w) = &*s.session.borrow()
    {
        // Not urgent: "applied" is for who watches, the acknowledgement went out on receipt.
        w.push(s.acknowledgement(), false);
    }
    s.changed.notify();
}
