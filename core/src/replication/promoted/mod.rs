//! A promoted replica: serves the view at once, and merges it into the disk in the background.
//!
//! ```text
//!   held: clusters that a log or the active disk holds and the commit has not passed
//!
//!   read    held? ─► the view                     else ─► the disk
//!   write   held? ─► the active disk              else ─► the disk
//!   commit  per step, under its range's lock:  view ─► disk ─► flush ─► position ─► no longer held
//! ```
//! At the active disk's limit a write waits until the commit has passed its place.
//! What the disk reads is the view at any moment (invariant 2); after a crash the commit goes on
//! from the position. When merging fails, the same rules hold on (the seed's FailoverFailed), and
//! unlike there it can be tried again.

mod commit;
mod serve;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::counters::Counters;
use super::store::Store;
use crate::disk::Host;
use crate::overlay::{Bitmap, Chain, CommitPosition, Point, RangeLock};
use crate::runtime::Signal;
use crate::units::{ByteRange, VolumeIndex};

/// The volumes of a promoted group.
pub(crate) struct Promoted<H: Host> {
    host: H,
    store: Rc<Store<H>>,
    volumes: Vec<PromotedVolume<H>>,
    chain: Chain<H::Disk>,
    /// The view at the moment of failover; `None` once all is merged.
    point: RefCell<Option<Point<H::Disk>>>,
    total: u64,
    /// Bytes that requests since the failover added to the active disk.
    added: Cell<u64>,
    counters: Rc<Counters>,
    /// Requests of the VM in flight.
    busy: Cell<usize>,
    pub(crate) failure: RefCell<Option<String>>,
    /// A step of the commit whose position may be stored or not.
    unsure: Cell<Option<(VolumeIndex, ByteRange)>>,
    /// A commit is under way.
    committing: Cell<bool>,
    changed: Signal,
}

struct PromotedVolume<H: Host> {
    disk: H::Disk,
    lock: RangeLock,
    held: RefCell<Bitmap>,
}

/// Counts a request of the VM.
struct Busy<H: Host>(Rc<Promoted<H>>);

impl<H: Host> Busy<H> {
    fn new(p: &Rc<Promoted<H>>) -> Self {
        p.busy.set(p.busy.get() + 1);
        Self(p.clone())
    }
}

impl<H: Host> Drop for Busy<H> {
    fn drop(&mut self) {
        self.0.busy.set(self.0.busy.get() - 1);
    }
}

impl<H: Host> Promoted<H> {
    /// `chain` holds the logs to be undone and the active disks that count; what lies before
    /// `position` is merged.
    pub(crate) fn new(
        host: &H,
        store: Rc<Store<H>>,
        disks: Vec<H::Disk>,
        chain: Chain<H::Disk>,
        position: CommitPosition,
        counters: Rc<Counters>,
        changed: Signal,
    ) -> Rc<Self> {
        let point = chain.point();
        let volumes: Vec<_> = disks
            .into_iter()
            .enumerate()
            .map(|(i, disk)| {
                let v = VolumeIndex::of(i);
                let mut held = Bitmap::new();
                let ranges = chain
                    .logs()
                    .into_iter()
                    .flat_map(|l| l.ranges(v))
                    .chain(point.active(v).ranges());
                for r in ranges {
                    let from = match v.cmp(&position.volume) {
                        std::cmp::Ordering::Less => u64::MAX,
                        std::cmp::Ordering::Equal => position.offset.0,
                        std::cmp::Ordering::Greater => 0,
                    };
                    held.set(r.intersect(ByteRange::new(from, u64::MAX)));
                }
                PromotedVolume { disk, lock: RangeLock::default(), held: RefCell::new(held) }
            })
            .collect();
        let total = volumes.iter().map(|v| v.held.borrow().bytes()).sum();
        Rc::new(Self {
            host: host.clone(),
            store,
            volumes,
            chain,
            point: RefCell::new(Some(point)),
            total,
            added: Cell::default(),
            counters,
            busy: Cell::new(0),
            failure: RefCell::default(),
            unsure: Cell::default(),
            committing: Cell::default(),
            changed,
        })
    }

    pub(crate) fn disk(&self, v: VolumeIndex) -> &H::Disk {
        &self.part(v).disk
    }

    fn part(&self, v: VolumeIndex) -> &PromotedVolume<H> {
        // The primary checks the index before it comes here.
        &self.volumes[v.get()]
    }

    /// Merged so far, and in total, in bytes.
    pub(crate) fn progress(&self) -> (u64, u64) {
        let left: u64 = self.volumes.iter().map(|v| v.held.borrow().bytes()).sum();
        (self.total.saturating_sub(left), self.total)
    }
}

/// `range` cut where "held" changes.
fn runs(held: &Bitmap, range: ByteRange) -> Vec<(ByteRange, bool)> {
    let mut out = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let (is_set, run) = held.run(ByteRange::new(at, range.end));
        let end = run.end.clamp(at + 1, range.end);
        out.push((ByteRange::new(at, end), is_set));
        at = end;
    }
    out
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::CLUSTER;

    #[test]
    fn runs_cover_a_range_at_any_alignment() {
        let mut held = Bitmap::new();
        held.set(ByteRange::new(CLUSTER, 2 * CLUSTER));
        let got = runs(&held, ByteRange::new(100, 2 * CLUSTER + 7));
        assert_eq!(
            got,
            [
                (ByteRange::new(100, CLUSTER), false),
                (ByteRange::new(CLUSTER, 2 * CLUSTER), true),
                (ByteRange::new(2 * CLUSTER, 2 * CLUSTER + 7), false)
            ]
        );
    }
}
