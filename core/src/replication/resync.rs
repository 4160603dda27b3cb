//! Sends what the peer lacks: nothing but writes of an epoch that can't close before they are sent.
//!
//! ```text
//!   missing ─► lock the range ─► read our disk ─► its frame enters the window ─► unlock
//! ```
//! The read and the place in the stream are under the range's lock, so no write of the VM can come
//! in between. The VM goes first: the resync uses at most half of the window.

use std::rc::Rc;

use super::peer::Peer;
use super::primary::Primary;
use crate::bug::{Bug, bug};
use crate::disk::{Disk, Host, Result};
use crate::link::frame::Body;
use crate::runtime::Buf;
use crate::units::{ByteRange, CLUSTER, VolumeIndex, usize_of};

/// The most bytes of one step.
const STEP: u64 = 256 << 10;

/// Runs until cancelled.
pub(crate) async fn run<H: Host>(p: Rc<Primary<H>>, peer: Rc<Peer<H>>) {
    loop {
        peer.leg.changed.wait_until(|| peer.leg.is_up() && peer.leg.missing_bytes() > 0).await;
        for i in 0..p.volumes.len() {
            let v = VolumeIndex(u16::try_from(i).unwrap_or(u16::MAX));
            let mut from = 0;
            while let Some(range) = peer
                .leg
                .next_missing(v, from, peer.leg.resync_step(STEP))
                .filter(|_| peer.leg.is_up())
            {
                match step(&p, &peer, v, range).await {
                    Ok(true) => from = range.end,
                    Ok(false) => wait_for_room(&peer).await,
                    Err(e) => {
                        peer.note(format!("resync can't read {range}: {e}"));
                        p.changed.notify();
                        p.host.sleep(std::time::Duration::from_secs(1)).await;
                    }
                }
            }
        }
    }
}

/// Ends when the window may have room again.
async fn wait_for_room<H: Host>(peer: &Peer<H>) {
    let changed = peer.leg.changed.wait();
    match peer.leg.window() {
        Some(w) => {
            let drained = w.drained().wait();
            let _ = futures::future::select(changed, drained).await;
        }
        None => changed.await,
    }
}

/// Sends one range; `false` if there was no room.
async fn step<H: Host>(
    p: &Rc<Primary<H>>,
    peer: &Rc<Peer<H>>,
    v: VolumeIndex,
    range: ByteRange,
) -> Result<bool> {
    let Some(volume) = p.volumes.get(v.get()) else { return Ok(true) };
    let range = range.intersect(ByteRange::new(0, volume.local.len()));
    if range.is_empty() {
        return Ok(true);
    }
    let locked = if bug(Bug::ResyncUnlocked) { ByteRange::default() } else { range };
    let _guard = volume.lock.lock(locked).await;
    for (part, allocated) in in_clusters(volume.local.allocation(range).await?) {
        if !allocated {
            if peer.leg.try_enter(v, part, || Body::Discard(v, part), 0).is_none() {
                return Ok(false);
            }
            continue;
        }
        let (buf, r) = volume.local.read(part.offset(), Buf::new(usize_of(part.len()))).await;
        r?;
        let data = buf.freeze();
        if peer.leg.try_enter(v, part, || Body::Resync(v, part, data), part.len()).is_none() {
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
    use super::in_clusters;
    use crate::units::ByteRange;

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
