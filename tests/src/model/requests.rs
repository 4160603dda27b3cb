//! Requests of the VM and of the consumer: tasks that note when they began and ended.

use std::rc::Rc;

use understudy_core::disk::{Disk, Error, ErrorKind};
use understudy_core::replication::ExportKind;
use understudy_core::runtime::{Data, Env};
use understudy_core::units::{ByteRange, CLUSTER, usize_of};

use super::broken::Broken;
use super::content::Fill;
use super::plan::Kind;
use super::player::Player;
use super::shared::Shared;
use super::world::{read, read_all};
use super::writes::Write;

async fn write_to<D: Disk>(
    disk: &D,
    range: ByteRange,
    kind: Kind,
    fill: Fill,
) -> Result<(), Error> {
    match kind {
        Kind::Data => disk.write(range.offset(), Data::copy_of(fill.bytes(range))).await,
        Kind::Zero => disk.write_zeroes(range, false).await,
        Kind::Discard => disk.write_zeroes(range, true).await,
    }
}

/// The pieces that zeroes are done in: whole blocks, and the ends.
fn pieces(range: ByteRange, kind: Kind, block: u64) -> Vec<ByteRange> {
    let inner = range.round_in(block);
    if kind == Kind::Data || inner.is_empty() {
        return vec![range];
    }
    let ends = [ByteRange::new(range.start, inner.start), ByteRange::new(inner.end, range.end)];
    let mut all: Vec<_> = ends.into_iter().filter(|e| !e.is_empty()).collect();
    all.push(inner);
    all
}

/// The part of a range that a volume of `len` bytes has, if it has any.
fn clip(range: ByteRange, len: u64) -> Option<ByteRange> {
    Some(range.intersect(ByteRange::new(0, len))).filter(|r| !r.is_empty())
}

/// How a consumer's write is called.
const VIEW_WRITE: &str = "write to the view";

/// Errors that need no cause: the role has ended.
fn is_end(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::Stale | ErrorKind::NotPermitted)
}

impl Player {
    fn task(&self, side: usize, task: impl Future<Output = ()> + 'static) {
        self.sides[side].host.spawn("model request", task);
    }

    /// A task of the primary, counted while it is in flight.
    fn primary_task(&self, task: impl Future<Output = ()> + 'static) {
        let in_flight = self.in_flight.clone();
        let shared = self.shared.clone();
        let era = shared.oracle.borrow().era();
        in_flight.set(in_flight.get() + 1);
        self.task(self.primary, async move {
            // A frozen primary's may begin after it has been replaced.
            if shared.oracle.borrow().era() != era {
                return;
            }
            task.await;
            shared.count(|c| c.operations += 1);
            in_flight.set(in_flight.get() - 1);
        });
    }

    /// A task of the consumer, counted while it is in flight.
    fn consumer_task(&self, task: impl Future<Output = ()> + 'static) {
        let consuming = self.consuming.clone();
        consuming.set(consuming.get() + 1);
        self.task(self.secondary(), async move {
            task.await;
            consuming.set(consuming.get() - 1);
        });
    }

    pub(super) fn write(&self, v: usize, range: ByteRange, kind: Kind) {
        let Some(volume) = self.open(self.primary, v, ExportKind::Primary) else { return };
        let Some(range) = clip(range, volume.len()) else { return };
        let shared = self.shared.clone();
        let block = self.setting.alignment[self.primary];
        self.primary_task(async move {
            let (era, ids, fill) = {
                let mut o = shared.oracle.borrow_mut();
                let fill = if kind == Kind::Data { o.pattern() } else { Fill::Zero };
                let began = o.tick();
                let era = o.era();
                let add = |range| {
                    let write = Write {
                        volume: v,
                        range,
                        fill,
                        began,
                        ended: None,
                        torn: false,
                        durable: false,
                        over: (0, 0),
                        sure: None,
                    };
                    o.eras[era].writes.add(write)
                };
                (era, pieces(range, kind, block).into_iter().map(add).collect::<Vec<_>>(), fill)
            };
            let result = write_to(&volume, range, kind, fill).await;
            let mut o = shared.oracle.borrow_mut();
            let now = o.tick();
            for id in ids {
                let w = &mut o.eras[era].writes.all[id];
                match &result {
                    Ok(()) => w.ended = Some(now),
                    Err(_) => w.torn = true,
                }
            }
            drop(o);
            unexpected(&shared, "write", result.err());
        });
    }

    pub(super) fn flush(&self, v: usize) {
        let Some(volume) = self.open(self.primary, v, ExportKind::Primary) else { return };
        let shared = self.shared.clone();
        self.primary_task(async move {
            let (era, began) = {
                let mut o = shared.oracle.borrow_mut();
                (o.era(), o.tick())
            };
            let result = volume.flush().await;
            if result.is_ok() {
                let mut o = shared.oracle.borrow_mut();
                let all = o.eras[era].writes.all.iter_mut();
                all.filter(|w| w.volume == v && w.is_done_before(began))
                    .for_each(|w| w.durable = true);
            }
            unexpected(&shared, "flush", result.err());
        });
    }

    pub(super) fn read(&self, v: usize, range: ByteRange) {
        let Some(volume) = self.open(self.primary, v, ExportKind::Primary) else { return };
        let Some(range) = clip(range, volume.len()) else { return };
        let (shared, room) = (self.shared.clone(), self.setting.room[v]);
        self.primary_task(async move {
            let (era, began) = {
                let mut o = shared.oracle.borrow_mut();
                (o.era(), o.tick())
            };
            match read(&volume, range).await {
                Ok(mut bytes) => {
                    let mut range = range;
                    if range.end == volume.len() {
                        // What it has not grown to reads as zeroes, or a later growth would not.
                        range.end = room;
                        bytes.resize(usize_of(range.len()), 0);
                    }
                    let mut o = shared.oracle.borrow_mut();
                    let now = o.tick();
                    if o.era() == era {
                        let broken = if o.is_promoted() { Broken::Failover } else { Broken::Disk };
                        shared.check(broken, o.check_primary(v, range, &bytes, (began, now)));
                    }
                }
                Err(e) => unexpected(&shared, "read", Some(e)),
            }
        });
    }

    pub(super) fn checkpoint(&self) {
        let Some(group) = self.group(self.primary).filter(|_| self.paired) else { return };
        let (shared, generation) = (self.shared.clone(), self.generation);
        self.task(self.primary, async move {
            let began = shared.oracle.borrow_mut().tick();
            // An error says that it takes too long; the next one may do better.
            if let Ok(n) = group.checkpoint(generation).await {
                let mut o = shared.oracle.borrow_mut();
                let now = o.tick();
                shared.check(Broken::Epoch, o.completed(n.0, began, now));
                drop(o);
                let last = shared.answered.get();
                shared.answered.set(last.max((generation.number, n.0)));
                shared.count(|c| c.operations += 1);
            }
        });
    }

    pub(super) fn view_write(&self, v: usize, range: ByteRange, kind: Kind) {
        let side = self.secondary();
        let Some(volume) = self.open(side, v, ExportKind::View) else { return };
        let Some(range) = clip(range, volume.len()) else { return };
        let Some(group) = self.group(side) else { return };
        let shared = self.shared.clone();
        let life = shared.consumer_life.get();
        self.consumer_task(async move {
            if shared.consumer_life.get() != life {
                return;
            }
            let from = group.status().checkpoint.epoch.0;
            let (ids, fill) = {
                let mut o = shared.oracle.borrow_mut();
                let fill = if kind == Kind::Data { o.pattern() } else { Fill::Zero };
                let began = o.tick();
                let over = (from, u64::MAX);
                let add = |range| {
                    let write = Write {
                        volume: v,
                        range,
                        fill,
                        began,
                        ended: None,
                        torn: false,
                        durable: false,
                        over,
                        sure: None,
                    };
                    o.consumer.add(write)
                };
                (pieces(range, kind, CLUSTER).into_iter().map(add).collect::<Vec<_>>(), fill)
            };
            let result = write_to(&volume, range, kind, fill).await;
            let to = group.status().checkpoint.epoch.0;
            if shared.consumer_life.get() != life {
                return;
            }
            let mut o = shared.oracle.borrow_mut();
            let now = o.tick();
            let last = ids.last().copied();
            for id in ids {
                let w = &mut o.consumer.all[id];
                match &result {
                    Ok(()) => w.ended = Some(now),
                    Err(_) => w.torn = true,
                }
                // The last piece is done over what is the checkpoint now.
                w.over = (from, to);
                w.sure = (Some(id) == last || from == to).then_some(to);
            }
            drop(o);
            shared.count(|c| c.operations += 1);
            unexpected(&shared, VIEW_WRITE, result.err());
        });
    }

    pub(super) fn view_flush(&self, v: usize) {
        let side = self.secondary();
        let Some(volume) = self.open(side, v, ExportKind::View) else { return };
        let shared = self.shared.clone();
        let life = shared.consumer_life.get();
        self.consumer_task(async move {
            let began = shared.oracle.borrow_mut().tick();
            let result = volume.flush().await;
            if shared.consumer_life.get() == life && result.is_ok() {
                let mut o = shared.oracle.borrow_mut();
                let all = o.consumer.all.iter_mut();
                all.filter(|w| w.volume == v && w.is_done_before(began))
                    .for_each(|w| w.durable = true);
            }
        });
    }

    pub(super) fn view_read(&self, v: usize, range: ByteRange) {
        let side = self.secondary();
        let Some(volume) = self.open(side, v, ExportKind::View) else { return };
        let Some(range) = clip(range, volume.len()) else { return };
        let Some(group) = self.group(side) else { return };
        let shared = self.shared.clone();
        let life = shared.consumer_life.get();
        self.consumer_task(async move {
            let over = group.status().checkpoint.epoch.0;
            let began = shared.oracle.borrow_mut().tick();
            match read(&volume, range).await {
                Ok(bytes) if shared.consumer_life.get() == life => {
                    let mut o = shared.oracle.borrow_mut();
                    let now = o.tick();
                    shared.check(Broken::View, o.check_view(over, v, range, &bytes, (began, now)));
                    drop(o);
                    shared.count(|c| c.operations += 1);
                }
                Ok(_) => {}
                Err(e) => unexpected(&shared, "read of the view", Some(e)),
            }
        });
    }

    /// Reads all of the view, volume after volume.
    pub(super) async fn verify_view(&self) {
        let side = self.secondary();
        for v in 0..self.setting.sizes.len() {
            let Some(volume) = self.open(side, v, ExportKind::View) else { return };
            let Some(group) = self.group(side) else { return };
            let shared: Rc<Shared> = self.shared.clone();
            let life = shared.consumer_life.get();
            self.call(side, async move {
                let over = group.status().checkpoint.epoch.0;
                let began = shared.oracle.borrow_mut().tick();
                let bytes = read_all(&volume).await;
                if let Ok(bytes) = bytes
                    && shared.consumer_life.get() == life
                {
                    let range = ByteRange::new(0, volume.len());
                    let mut o = shared.oracle.borrow_mut();
                    let now = o.tick();
                    shared.check(Broken::View, o.check_view(over, v, range, &bytes, (began, now)));
                }
            })
            .await;
        }
        self.shared.count(|c| c.operations += 1);
    }
}

/// An error that no step asked for.
fn unexpected(shared: &Shared, what: &str, error: Option<Error>) {
    let Some(e) = error.filter(|e| !is_end(e)) else { return };
    if e.kind() == ErrorKind::NoSpace {
        shared.count(|c| c.refused += 1);
    }
    let has_cause = match e.kind() {
        ErrorKind::Io | ErrorKind::Poisoned => shared.injected.get(),
        // Beyond the limit a consumer's writes are refused, the VM's wait.
        ErrorKind::NoSpace => {
            shared.ran_full.get() || what == VIEW_WRITE && e.to_string().contains("ActiveFull")
        }
        _ => false,
    };
    if !has_cause {
        shared.fail(Broken::Silent, format!("a {what} failed without a cause: {e:?}"));
    }
}
