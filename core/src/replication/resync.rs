//! Sends what the peer lacks: nothing but writes of an epoch that can't close before they are sent.
//!
//! ```text
//!   missing ─┬► lock the range ─► read our disk ─► its frame enters the window ─► unlock ─► pace
//!            ├► ...   │                            at most 16 at once, 1 MiB of them
//!            │        └ in use by the VM: a smaller one, down to a cluster
//!            └► now and then, alone: both sides flush; sent for good
//! ```
//! The read and the place in the stream are under the range's lock, so no write of the VM can come
//! in between. The VM goes first: the resync uses at most half of the window, unless it falls behind
//! the policy's floor (pace.rs).

mod pace;

use std::rc::Rc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use self::pace::Pace;
use super::peer::Peer;
use super::primary::Primary;
use crate::bug::{Bug, bug};
use crate::disk::{Disk, Host, Result};
use crate::link::frame::Body;
use crate::overlay::RangeLock;
use crate::runtime::{Buf, timeout};
use crate::units::{ByteRange, CLUSTER, VolumeIndex, usize_of};

/// The most bytes of one step.
const STEP: u64 = 256 << 10;

/// Up to here a range is read without asking first where its holes are: the question costs more than the
/// answer, on some file systems by far.
const SMALL: u64 = 64 << 10;

/// How long the resync waits for room before it looks again whether it has fallen behind its floor.
const PATIENCE: Duration = Duration::from_millis(50);

/// The most steps under way at once: what lies scattered takes a disk as long for one piece as for many.
const STEPS_MAX: usize = 16;

/// The most bytes of the steps under way, read and not yet in the window.
const UNDER_WAY_MAX: u64 = 1 << 20;

/// Runs until cancelled.
pub(crate) async fn run<H: Host>(p: Rc<Primary<H>>, peer: Rc<Peer<H>>) {
    let mut pace = Pace::new(p.host.now());
    let mut unsettled = 0;
    loop {
        if !peer.leg.is_up() || peer.leg.missing_bytes() == 0 {
            peer.resync_rate.set(0);
            peer.leg.give_up_claim();
            peer.leg.changed.wait_until(|| peer.leg.is_up() && peer.leg.missing_bytes() > 0).await;
            pace = Pace::new(p.host.now());
        }
        for i in 0..p.volumes.len() {
            let v = VolumeIndex::of(i);
            pass(&p, &peer, v, &mut pace, &mut unsettled).await;
        }
    }
}

/// Why no step is started before all that are under way have ended.
enum Pause {
    /// One found no room in the window.
    Room,
    /// One could not read the disk.
    Error,
}

/// Sends what the peer lacks of one volume, once from its first byte to its last, several steps at once.
/// Nothing but steps is awaited while one is under way: they hold range locks.
async fn pass<H: Host>(
    p: &Rc<Primary<H>>,
    peer: &Rc<Peer<H>>,
    v: VolumeIndex,
    pace: &mut Pace,
    unsettled: &mut u64,
) {
    let mut steps = FuturesUnordered::new();
    let (mut from, mut under_way) = (0, 0);
    let mut pause = None;
    // After one that found no room, so that it is this one which gets the next.
    let mut alone = false;
    loop {
        if steps.is_empty() {
            match pause.take() {
                Some(Pause::Room) => wait_for_room(p, peer).await,
                Some(Pause::Error) => p.host.sleep(Duration::from_secs(1)).await,
                None if *unsettled >= p.host.resync_settle() => {
                    settle(p, peer).await;
                    *unsettled = 0;
                }
                None => {}
            }
        }
        let may_start = pause.is_none()
            && steps.len() < if alone { 1 } else { STEPS_MAX }
            && under_way < UNDER_WAY_MAX
            && *unsettled < p.host.resync_settle()
            && peer.leg.is_up()
            && peer.leg.is_its_turn(v);
        let next = may_start
            .then(|| peer.leg.next_missing(v, from, peer.leg.resync_step(v, STEP)))
            .flatten();
        let (floor, ceiling) = {
            let policy = p.policy.borrow();
            (policy.resync_floor, policy.resync_ceiling)
        };
        let wait = pace.wait(p.host.now(), ceiling, under_way);
        match (next, wait) {
            (Some(_), Some(wait)) if steps.is_empty() => {
                p.host.sleep(wait).await;
                continue;
            }
            (Some(range), None) => {
                let lock = p.volumes.get(v.get()).map(|volume| &volume.lock);
                let range = lock.map_or(range, |lock| not_in_use(lock, range));
                let is_behind = pace.is_behind(p.host.now(), floor);
                steps.push(async move { (range, step(p, peer, v, range, is_behind).await) });
                (from, under_way) = (range.end, under_way + range.len());
                continue;
            }
            (Some(_) | None, _) => {}
        }
        let Some((range, sent)) = steps.next().await else {
            // Nothing is under way and nothing may start; a flush that is due comes first.
            if *unsettled < p.host.resync_settle() {
                return;
            }
            continue;
        };
        under_way -= range.len();
        match sent {
            Ok(true) => {
                alone = false;
                pace.sent(p.host.now(), range.len());
                peer.resync_rate.set(pace.rate());
                *unsettled += range.len();
            }
            Ok(false) => {
                alone = true;
                pause = Some(Pause::Room);
                from = from.min(range.start);
            }
            Err(e) => {
                peer.note(format!("resync can't read {range}: {e}"));
                p.changed.notify();
                pause = Some(Pause::Error);
            }
        }
    }
}

/// Makes what was sent durable on both sides, so that it need not be sent again.
async fn settle<H: Host>(p: &Rc<Primary<H>>, peer: &Rc<Peer<H>>) {
    let Some(settling) = peer.leg.begin_settling() else { return };
    let there = bug(Bug::SettledThereEarly)
        || peer.leg.await_settling(&settling, || peer.flushed.get()).await;
    let here = there && (bug(Bug::SettledHereEarly) || p.flush_all().await.is_ok());
    peer.leg.end_settling(&settling, here);
    if here {
        peer.sweep_intent(&p.host);
        if let Err(e) = peer.intent.commit().await {
            peer.note(format!("the intent log can't be written: {e}"));
        }
    }
    p.changed.notify();
}

/// Ends when the window may have room again, or it is time to look.
async fn wait_for_room<H: Host>(p: &Primary<H>, peer: &Peer<H>) {
    let changed = peer.leg.changed.wait();
    let room = async {
        match peer.leg.window() {
            Some(w) => {
                let drained = w.drained().wait();
                let _ = futures::future::select(changed, drained).await;
            }
            None => changed.await,
        }
    };
    timeout(&p.host, PATIENCE, room).await;
}

/// The first part of a range that no request holds; at least a cluster.
///
/// A step that queues behind a write which waits for the window makes all that come behind the step
/// wait too. In one cluster that changes little: most of those would wait for that write anyway.
fn not_in_use(lock: &RangeLock, mut range: ByteRange) -> ByteRange {
    while range.len() > CLUSTER && !lock.is_free(range) {
        range.end = range.start + (range.len() / 2).next_multiple_of(CLUSTER);
    }
    range
}

/// Sends one range; `false` if there was no room.
async fn step<H: Host>(
    p: &Rc<Primary<H>>,
    peer: &Rc<Peer<H>>,
    v: VolumeIndex,
    range: ByteRange,
    is_behind: bool,
) -> Result<bool> {
    let Some(volume) = p.volumes.get(v.get()) else { return Ok(true) };
    let range = range.intersect(ByteRange::new(0, volume.local.len()));
    if range.is_empty() {
        return Ok(true);
    }
    let locked = if bug(Bug::ResyncUnlocked) { ByteRange::default() } else { range };
    let _guard = volume.lock.lock(locked).await;
    let parts = if range.len() <= SMALL {
        vec![(range, true)]
    } else {
        in_clusters(volume.local.allocation(range).await?)
    };
    for (part, allocated) in parts {
        let mut frame = Body::Discard(v, part);
        let mut len = 0;
        if allocated {
            let (buf, r) = volume.local.read(part.offset(), Buf::new(usize_of(part.len()))).await;
            r?;
            if range.len() > SMALL || buf.iter().any(|b| *b != 0) {
                (frame, len) = (Body::Resync(v, part, buf.freeze()), part.len());
            }
        }
        if peer.leg.try_enter(v, part, || frame, len, is_behind).is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The same parts with their borders at clusters, for that is what missing is counted in: a cluster
/// that is allocated in part counts as allocated.
fn in_clusters(parts: Vec<(ByteRange, bool)>) -> Vec<(ByteRange, bool)> {
    let mut out: Vec<(ByteRange, bool)> = Vec::with_capacity(parts.len());
    let whole = |border: u64, up: bool| {
        if up { border.next_multiple_of(CLUSTER) } else { border / CLUSTER * CLUSTER }
    };
    let (first, last) = (parts.first().map(|p| p.0.start), parts.last().map(|p| p.0.end));
    for (part, allocated) in parts {
        // What is allocated grows over its borders, what is not gives way.
        let start =
            if Some(part.start) == first { part.start } else { whole(part.start, !allocated) };
        let end = if Some(part.end) == last { part.end } else { whole(part.end, allocated) };
        let start = out.last().map_or(start, |(before, _)| start.max(before.end));
        if start >= end {
            continue;
        }
        let part = ByteRange::new(start, end);
        match out.last_mut() {
            Some((before, same)) if *same == allocated => before.end = part.end,
            _ => out.push((part, allocated)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::{in_clusters, not_in_use};
    use crate::overlay::RangeLock;
    use crate::units::ByteRange;

    #[test]
    fn a_step_takes_what_no_request_holds_and_waits_for_one_cluster_at_most() {
        let lock = RangeLock::default();
        let all = ByteRange::new(1 << 20, (1 << 20) + (256 << 10));
        let first = |len: u64| ByteRange::new(all.start, all.start + len);
        assert_eq!(not_in_use(&lock, all), all);
        for (held, taken) in [(200 << 10, 128 << 10), (20 << 10, 16 << 10), (4096, 4096), (0, 4096)]
        {
            let at = all.start + held;
            let _held = block_on(lock.lock(ByteRange::new(at, at + 512)));
            assert_eq!(not_in_use(&lock, all), first(taken), "{held}");
        }
        // A volume's end need not be a cluster's.
        let _held = block_on(lock.lock(first(512)));
        assert_eq!(not_in_use(&lock, first(4608)), first(4096));
        assert_eq!(not_in_use(&lock, first(512)), first(512));
    }

    #[test]
    fn a_cluster_that_is_allocated_in_part_counts_as_allocated() {
        let r = ByteRange::new;
        let parts = |list: &[(u64, u64, bool)]| {
            list.iter().map(|(s, e, a)| (r(*s, *e), *a)).collect::<Vec<_>>()
        };
        for (given, wanted) in [
            (parts(&[(0, 8192, true)]), parts(&[(0, 8192, true)])),
            (
                parts(&[(0, 4096, false), (4096, 8192, true)]),
                parts(&[(0, 4096, false), (4096, 8192, true)]),
            ),
            (
                parts(&[(0, 1024, true), (1024, 8192, false)]),
                parts(&[(0, 4096, true), (4096, 8192, false)]),
            ),
            (
                parts(&[(0, 5120, false), (5120, 12288, true)]),
                parts(&[(0, 4096, false), (4096, 12288, true)]),
            ),
            (
                parts(&[
                    (0, 1024, true),
                    (1024, 3072, false),
                    (3072, 4096, true),
                    (4096, 8192, false),
                ]),
                parts(&[(0, 4096, true), (4096, 8192, false)]),
            ),
            (
                parts(&[(0, 1024, false), (1024, 2048, true), (2048, 12288, false)]),
                parts(&[(0, 4096, true), (4096, 12288, false)]),
            ),
            // A volume's end need not be a cluster's.
            (parts(&[(4096, 4608, true)]), parts(&[(4096, 4608, true)])),
            (
                parts(&[(0, 6144, false), (6144, 6656, true)]),
                parts(&[(0, 4096, false), (4096, 6656, true)]),
            ),
        ] {
            assert_eq!(in_clusters(given.clone()), wanted, "{given:?}");
        }
    }
}
