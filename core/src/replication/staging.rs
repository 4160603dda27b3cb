//! What a secondary has taken and not applied yet: a bounded queue between its session, or an
//! inbound writer, and the apply task.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use crate::disk::Result;
use crate::runtime::{Data, Signal, Wall};
use crate::units::{ByteRange, Epoch, VolumeCount, VolumeIndex, u64_of};

/// The most bytes of frames that wait to be applied.
const STAGING_MAX: u64 = 8 << 20;

/// A frame that waits to be applied.
pub(crate) struct Staged {
    pub(crate) sequence: u64,
    pub(crate) item: Item,
    /// Who waits until it is applied (inbound writes): told how it went.
    pub(crate) done: Option<Waiter>,
    /// What it takes of the staging, in bytes; set when it is queued.
    bytes: u64,
}

impl Staged {
    pub(crate) fn new(sequence: u64, item: Item, done: Option<Waiter>) -> Self {
        let bytes = item.bytes();
        Self { sequence, item, done, bytes }
    }
}

/// Tells an inbound writer how its write went.
pub(crate) type Waiter = futures::channel::oneshot::Sender<Result<()>>;

/// What is to be applied.
pub(crate) enum Item {
    Write(VolumeIndex, ByteRange, Data),
    /// A write of what may be there already.
    Resync(VolumeIndex, ByteRange, Data),
    Zero {
        volume: VolumeIndex,
        range: ByteRange,
        punch: bool,
    },
    /// A resync write of what was there already.
    Spared,
    Flush,
    BeginEpoch(Epoch, Wall, VolumeCount),
    Stop(Epoch),
}

impl Item {
    pub(crate) fn place(&self) -> Option<(VolumeIndex, ByteRange)> {
        match self {
            Self::Write(v, r, _) | Self::Resync(v, r, _) => Some((*v, *r)),
            Self::Zero { volume, range, .. } => Some((*volume, *range)),
            Self::Spared | Self::Flush | Self::BeginEpoch(..) | Self::Stop(_) => None,
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Write(_, _, d) | Self::Resync(_, _, d) => u64_of(d.len()),
            Self::Zero { .. }
            | Self::Spared
            | Self::Flush
            | Self::BeginEpoch(..)
            | Self::Stop(_) => 64,
        }
    }
}

/// A batch that was taken from the staging: what acknowledgements say of it.
pub(crate) struct Taken {
    /// Its last sequence.
    pub(crate) last: u64,
    pub(crate) is_applied: Cell<bool>,
    /// What its old content takes in the undo log, in bytes. Until it is applied, the primary counts
    /// that by the frames.
    pub(crate) saved: Cell<u64>,
}

impl Taken {
    pub(crate) fn new(batch: &[Staged]) -> Self {
        let last = batch.last().map_or(0, |s| s.sequence);
        Self { last, is_applied: Cell::new(false), saved: Cell::new(0) }
    }
}

/// The bounded queue between a session and the apply task.
pub(crate) struct Staging {
    /// The most bytes.
    limit: u64,
    queue: RefCell<VecDeque<Staged>>,
    /// Bytes staged and not applied yet.
    bytes: Cell<u64>,
    pub(crate) signal: Signal,
}

impl Staging {
    /// An empty one, of no more bytes than the primary may have under way, and [`STAGING_MAX`].
    pub(crate) fn new(window: u64) -> Self {
        Self {
            limit: window.min(STAGING_MAX),
            queue: RefCell::default(),
            bytes: Cell::new(0),
            signal: Signal::new(),
        }
    }

    /// Waits for room, then queues; `false`, and nothing is queued, once `is_over` says so.
    pub(crate) async fn push(&self, staged: Staged, is_over: impl Fn() -> bool) -> bool {
        let bytes = staged.bytes;
        let has_room = || self.bytes.get() == 0 || self.bytes.get() + bytes <= self.limit;
        self.signal.wait_until(|| is_over() || has_room()).await;
        if is_over() {
            return false;
        }
        self.bytes.set(self.bytes.get() + bytes);
        self.queue.borrow_mut().push_back(staged);
        self.signal.notify();
        true
    }

    /// The next frames that can be applied together: data only, or a single other one.
    pub(crate) fn take_batch(&self, frames_max: usize, bytes_max: u64) -> Vec<Staged> {
        let mut queue = self.queue.borrow_mut();
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(next) = queue.front() {
            let place = next.item.place();
            let len = place.map_or(0, |(_, r)| r.len());
            if !batch.is_empty()
                && (place.is_none() || batch.len() >= frames_max || bytes + len > bytes_max)
            {
                break;
            }
            bytes += len;
            batch.extend(queue.pop_front());
            if place.is_none() {
                break;
            }
        }
        batch
    }

    /// Frames with `bytes` of data were applied or dropped.
    pub(crate) fn release(&self, items: impl Iterator<Item = u64>) {
        self.bytes.set(self.bytes.get().saturating_sub(items.sum()));
        self.signal.notify();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.borrow().is_empty()
    }

    pub(crate) fn drop_all(&self) -> Vec<Staged> {
        let all: Vec<_> = self.queue.borrow_mut().drain(..).collect();
        self.release(all.iter().map(|s| s.bytes));
        all
    }
}

pub(crate) fn bytes_of(batch: &[Staged]) -> Vec<u64> {
    batch.iter().map(|s| s.bytes).collect()
}
