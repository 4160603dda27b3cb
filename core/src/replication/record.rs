//! The secondary's side of a checkpoint: begin-epoch N+1 closes epoch N.
//!
//! ```text
//!   everything before it is applied ─► log N+1 is opened, frames of N+1 go on at once
//!           └─► flush the disks ─► record N: one write of the group superblock ─► logs <= N are free
//! ```

use std::rc::Rc;

use futures::future::join_all;

use super::secondary::Secondary;
use crate::bug::{Bug, bug};
use crate::disk::{Disk, Error, ErrorKind, Host, Result};
use crate::link::frame::Body;
use crate::overlay::{ActiveId, Bitmap, Role, Stage, UndoLog};
use crate::runtime::Wall;
use crate::units::{Epoch, Uuid, VolumeCount};

/// More open logs than this, and the frames of the next epoch wait for the record.
const LOGS_OVERLAPPED: usize = 8;

/// A begin-epoch or hello further ahead than this is no honest peer's: a checkpoint each
/// millisecond takes 49 days to come this far.
pub(crate) const EPOCHS_AHEAD_MAX: u64 = 1 << 32;

/// Makes every volume's disk durable.
pub(crate) async fn flush_disks<H: Host>(s: &Secondary<H>) -> Result<()> {
    let all: Vec<_> = s.volumes.iter().map(|v| v.disk.flush()).collect();
    join_all(all).await.into_iter().collect()
}

/// Opens a log for the open epoch; it becomes the newest.
pub(crate) async fn open_log<H: Host>(s: &Secondary<H>) -> Result<UndoLog<H::Disk>> {
    let log = s.logs.open_log(s.open_epoch.get()).await?;
    s.chain.push(log.clone());
    *s.log.borrow_mut() = Some(log.clone());
    Ok(log)
}

/// All frames of epochs before `next` are applied: they are checkpoint `next - 1`.
pub(crate) async fn begin_epoch<H: Host>(
    s: &Rc<Secondary<H>>,
    next: Epoch,
    cut: Wall,
    covers: VolumeCount,
) -> Result<()> {
    if next.0 > s.open_epoch.get().0.saturating_add(EPOCHS_AHEAD_MAX) {
        return Err(Error::own(
            ErrorKind::Invalid,
            format!("begin-epoch {next} is absurdly far ahead"),
        ));
    }
    if next <= s.open_epoch.get() {
        return Err(Error::own(
            ErrorKind::Invalid,
            format!("begin-epoch {next}, but epoch {} is open already", s.open_epoch.get()),
        ));
    }
    check_covers(s, covers)?;
    // The primary begins an epoch only after the record of the last one: there is nothing to wait
    // for, unless a session was lost in between.
    s.changed.wait_until(|| !s.recording.get()).await;
    let closed = next.previous();
    let bytes = s.epoch_bytes.replace(0);
    s.open_epoch.set(next);
    // Behind this frame everything is saved of the volumes that it names, though the record that
    // covers them is not written yet: a failover may land on it from the moment that it is.
    let is_first = s.saving.get() == VolumeCount::default();
    if !bug(if is_first { Bug::FreshSavesNothing } else { Bug::JoiningSavesNothing }) {
        s.saving.set(s.saving.get().max(covers));
    }
    if bug(Bug::JoinedBeforeRecord) {
        s.store.update(|g| g.joined = covers).await?;
    }
    if !bug(Bug::BatchOverTwoEpochs) {
        *s.claimed.borrow_mut() = vec![Bitmap::new(); s.volumes.len()];
        *s.log.borrow_mut() = None;
    }
    s.recording.set(true);
    let s2 = s.clone();
    let task = s.host.spawn("record", async move {
        let r = record(&s2, closed, covers, cut, bytes).await;
        s2.recording.set(false);
        match r {
            Ok(()) => {
                if let Some(w) = &*s2.session.borrow() {
                    w.push(Body::Record(closed), true);
                    w.push(s2.acknowledgement(), true);
                }
                s2.logs.trim().await;
            }
            Err(e) => s2.fail(&e),
        }
        s2.changed.notify();
    });
    if s.chain.logs().len() >= LOGS_OVERLAPPED {
        task.join().await;
    }
    Ok(())
}

/// A checkpoint covers what the one before it covered, and maybe more of what has joined since.
fn check_covers<H: Host>(s: &Secondary<H>, covers: VolumeCount) -> Result<()> {
    let g = s.store.state();
    let least = if g.record == Epoch::NONE { VolumeCount(1) } else { g.joined };
    if covers < least || covers.get() > s.volumes.len() {
        return Err(Error::own(
            ErrorKind::Invalid,
            format!(
                "begin-epoch covers {} volumes, and {} to {} are expected",
                covers.0,
                least.0,
                s.volumes.len()
            ),
        ));
    }
    Ok(())
}

/// Writes record `closed`: from here on every failover lands on it or on a newer one.
async fn record<H: Host>(
    s: &Rc<Secondary<H>>,
    closed: Epoch,
    covers: VolumeCount,
    cut: Wall,
    bytes: u64,
) -> Result<()> {
    if !bug(Bug::RecordBeforeFlush) {
        flush_disks(s).await?;
    }
    if s.is_over() {
        return Err(Error::own(ErrorKind::Io, "the session or the role ended before its record"));
    }
    let is_used = s.is_view_written() || s.consumer_writes.get() > 0;
    let (id, actives) = if is_used {
        let id = next_active(s);
        // The files of the checkpoint before the last one: its readers are short, one disk request.
        let slot = super::slot_of(id);
        s.changed.wait_until(|| s.holders.get()[slot] == 0).await;
        (id, s.blank_actives(id))
    } else {
        let point = s.chain.point();
        let same = (0..s.volumes.len()).map(|i| point.active(crate::units::VolumeIndex::of(i)));
        (s.active_id(), same.collect())
    };
    let done = s.host.wall();
    // An active disk that goes on under the next checkpoint must stay blank until that is there.
    s.keeps_active.set(!is_used);
    let written = s
        .store
        .update(|g| {
            g.record = closed;
            g.joined = covers;
            g.epoch = g.epoch.max(closed.next());
            (g.record_cut, g.record_done, g.record_bytes) = (cut, done, bytes);
            g.active = Some(ActiveId { id, generation: g.generation, checkpoint: closed });
        })
        .await;
    s.keeps_active.set(false);
    written?;
    s.chain.complete(closed, actives);
    s.last.set(super::status::Checkpoint { epoch: closed, cut, done, bytes });
    s.counters.checkpoints.one();
    s.counters.checkpoint_micros.time(done.0.saturating_sub(cut.0));
    *s.error.borrow_mut() = None;
    Ok(())
}

/// An id for the next active disk: its lowest bit names the files, and is not the current one's.
fn next_active<H: Host>(s: &Secondary<H>) -> Uuid {
    let random = u128::from(s.host.random()) << 64 | u128::from(s.host.random());
    Uuid((random & !1) | (1 ^ (s.active_id().0 & 1)))
}

/// The replication ends here by the primary's word: both keep checkpoint `epoch`.
pub(crate) async fn stop<H: Host>(s: &Rc<Secondary<H>>, epoch: Epoch) -> Result<()> {
    s.changed.wait_until(|| !s.recording.get()).await;
    if s.store.state().record != epoch {
        return Err(Error::own(
            ErrorKind::Invalid,
            format!(
                "stop at checkpoint {epoch}, but the last one here is {}",
                s.store.state().record
            ),
        ));
    }
    let id = next_active(s);
    let slot = super::slot_of(id);
    s.changed.wait_until(|| s.holders.get()[slot] == 0).await;
    s.store
        .update(|g| {
            g.role = Role::Secondary;
            g.stage = Stage::None;
            g.active = Some(ActiveId { id, generation: g.generation, checkpoint: epoch });
        })
        .await?;
    // A consumer's own writes end with the replication, in memory as in the superblock.
    s.chain.complete(epoch, s.blank_actives(id));
    if let Some(w) = &*s.session.borrow() {
        w.push(Body::Stop(epoch), true);
    }
    s.ended.set(true);
    s.changed.notify();
    Ok(())
}

impl<H: Host> Secondary<H> {
    /// The id of the active disk that counts.
    pub(crate) fn active_id(&self) -> Uuid {
        self.store.state().active.map_or(Uuid::default(), |a| a.id)
    }
}
