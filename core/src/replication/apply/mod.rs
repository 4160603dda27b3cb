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

mod old;

use std::cell::Cell;
use std::rc::Rc;

use futures::future::join_all;

use self::old::{read_old, spare_equal};
use super::align;
use super::record;
use super::secondary::Secondary;
use super::staging::{Item, Staged, Taken, bytes_of};
use crate::bug::{Bug, bug};
use crate::disk::{Disk, Error, Host, Result};
use crate::link::frame::Body;
use crate::overlay::{Saved, UndoLog};
use crate::runtime::Signal;

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
        if s.is_over() {
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
        let taken = Rc::new(Taken::new(&batch));
        s.progress.borrow_mut().push_back(taken.clone());
        if batch.iter().any(|b| b.item.place().is_none()) {
            let too_early = bug(Bug::RecordBeforeApplied);
            s.changed.wait_until(|| too_early || s.batches.get() == 1).await;
            if s.is_over() {
                finish(
                    &s,
                    batch,
                    &taken,
                    &Err(Error::own(crate::disk::ErrorKind::Io, "the session has failed")),
                );
                continue;
            }
            let result = barrier(&s, &batch).await;
            finish(&s, batch, &taken, &result);
        } else {
            let mut batch = batch;
            let saved = read_old(&s, &batch).await.map(|saved| spare_equal(&s, &mut batch, saved));
            busy.wait_idle().await;
            busy.set(true);
            let (s2, busy2) = (s.clone(), busy.clone());
            s.host.spawn("apply", async move {
                save_and_overwrite(s2, batch, saved, taken, busy2).await;
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
            Item::BeginEpoch(e, cut, covers) => {
                record::begin_epoch(s, *e, *cut, *covers).await?;
            }
            Item::Stop(e) => record::stop(s, *e).await?,
            Item::Spared | Item::Write(..) | Item::Resync(..) | Item::Zero { .. } => {}
        }
    }
    Ok(())
}

/// The second and third stage of one batch.
async fn save_and_overwrite<H: Host>(
    s: Rc<Secondary<H>>,
    batch: Vec<Staged>,
    saved: Result<Vec<Saved>>,
    taken: Rc<Taken>,
    busy: Busy,
) {
    if bug(Bug::OverwriteBeforeUndo) {
        join_all(batch.iter().map(|b| overwrite(&s, &b.item))).await;
    }
    let saved = match saved {
        Ok(saved) => save(&s, &taken, saved).await,
        Err(e) => Err(e),
    };
    // After an error nothing more touches the disk: what is acknowledged but not applied is dropped.
    if saved.is_ok() && s.is_over() {
        busy.set(false);
        finish(
            &s,
            batch,
            &taken,
            &Err(Error::own(crate::disk::ErrorKind::Io, "the session has failed")),
        );
        return;
    }
    if let Err(e) = saved {
        s.fail(&e);
        busy.set(false);
        finish(&s, batch, &taken, &Err(e));
        return;
    }
    // The locks are queued here, in stream order, before the next batch can do so.
    let overwrites: Vec<_> = batch.iter().map(|b| overwrite(&s, &b.item)).collect();
    busy.set(false);
    let result: Result<()> = join_all(overwrites).await.into_iter().collect();
    finish(&s, batch, &taken, &result);
}

async fn save<H: Host>(s: &Secondary<H>, taken: &Taken, saved: Vec<Saved>) -> Result<()> {
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
    let before = log.used();
    log.append(saved).await?;
    let bytes = log.used() - before;
    taken.saved.set(bytes);
    s.counters.saved_bytes.add(bytes);
    s.counters.undo_syncs.one();
    Ok(())
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
fn finish<H: Host>(s: &Secondary<H>, batch: Vec<Staged>, taken: &Taken, result: &Result<()>) {
    if let Err(e) = result {
        s.fail(e);
    } else {
        taken.is_applied.set(true);
        s.note_progress();
    }
    let bytes = bytes_of(&batch);
    let data: u64 = batch.iter().filter_map(|b| b.item.place()).map(|(_, r)| r.len()).sum();
    s.epoch_bytes.set(s.epoch_bytes.get() + data);
    if result.is_ok() {
        s.counters.applied_bytes.add(data);
    }
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
