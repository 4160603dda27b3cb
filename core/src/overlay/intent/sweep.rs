//! Which marks stay although nothing needs them, and which go.
//!
//! ```text
//!   sweep(keep):  marks that nothing needs are dropped in memory; the disk follows with the next
//!                 commit. Of the regions marked last some stay, so that steady writing pays no sync:
//!
//!   0 ─────────────────── a quarter ──────────────────────────── most ───────────►
//!      stay                           go one by one, slowly             go at once
//! ```
//! A write in a region that was dropped pays a sync. Between a quarter and `most` they are dropped so slowly
//! (all of it in `FREE_TIME`) that these syncs stay few however widely is written; beyond `most` it is
//! the other way about: a crash makes good no more than that.

use std::ops::Range;
use std::time::Duration;

use super::format::Layout;
use super::{INTENT_REGION, Inner, IntentLog};
use crate::disk::Disk;
use crate::runtime::Mono;
use crate::units::{ByteRange, VolumeIndex, u64_of};

/// In so much time as many marks are dropped as may stay at most.
pub(super) const FREE_TIME: Duration = Duration::from_secs(128);

impl<D: Disk> IntentLog<D> {
    /// Whether the disk has so many marks more than are wanted that a commit is due although nobody waits
    /// for one: a 32nd of those that may stay. So a crash makes good little more than those.
    pub fn is_due(&self) -> bool {
        let inner = self.0.borrow();
        inner.commit.is_none() && inner.dropped > inner.most / 32
    }

    /// Lets a sweep leave alone at most so many regions; without this [`INTENT_HOT`].
    pub fn limit_hot(&self, most: usize) {
        self.0.borrow_mut().most = most;
    }

    /// Drops the marks of regions that nothing relies on, save the hot ones, marked last, and those of
    /// marks that have not returned yet. In memory; the disk follows with the next commit.
    /// `relied_on` says up to which byte all is relied on from the given range on, if that is at all: a
    /// first copy of a large volume is passed in a few steps. It must not call this log.
    pub fn sweep(&self, now: Mono, relied_on: impl Fn(VolumeIndex, ByteRange) -> Option<u64>) {
        let inner = &mut *self.0.borrow_mut();
        let stay = inner.how_many_stay(now);
        let hot_since = {
            let mut times: Vec<u64> = inner.recent.values().copied().collect();
            match times.len().saturating_sub(stay) {
                0 => 0,
                cold if cold == times.len() => u64::MAX,
                cold => *times.select_nth_unstable(cold).1,
            }
        };
        let pending: Vec<Range<u64>> = inner.pending.values().flatten().cloned().collect();
        for (volume, regions) in inner.layout.volumes() {
            for mut run in inner.wanted.runs(regions.clone()) {
                while let Some(region) = run.next() {
                    let hot = inner.recent.get(&region).is_some_and(|time| *time >= hot_since);
                    if hot || pending.iter().any(|p| p.contains(&region)) {
                        continue;
                    }
                    let start = (region - regions.start) * INTENT_REGION;
                    let range = ByteRange::new(start, start + INTENT_REGION);
                    if let Some(end) =
                        relied_on(volume, range.intersect(inner.layout.whole(volume)))
                    {
                        run.start = run.start.max(regions.start + end / INTENT_REGION).min(run.end);
                        continue;
                    }
                    inner.wanted.clear(region);
                    inner.dropped += 1;
                    inner.recent.remove(&region);
                    inner.dirty.insert(Layout::block_of(region));
                }
            }
        }
    }
}

impl<D: Disk> Inner<D> {
    /// How many of the regions marked last a sweep leaves alone now.
    fn how_many_stay(&mut self, now: Mono) -> usize {
        let passed = now.since(self.freed).min(FREE_TIME).as_micros();
        let go = u128::from(u64_of(self.most)) * passed / FREE_TIME.as_micros();
        if go > 0 {
            self.freed = now;
        }
        let go = usize::try_from(go).unwrap_or(usize::MAX);
        self.recent.len().saturating_sub(go).clamp(self.most / 4, self.most)
    }
}
