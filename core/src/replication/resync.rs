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
use crate::disk::{Disk, Host, Result};
use crate::link::frame::Body;
use crate::runtime::Buf;
use crate::units::{ByteRange, VolumeIndex, usize_of};

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
    let _guard = volume.lock.lock(range).await;
    for (part, allocated) in volume.local.allocation(range).await? {
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
