//! Writes with the moments of their beginning and end, found by place.
//!
//! ```text
//!   A ├──────┤                 A ended before B began: B lies over A, and whoever holds B holds A
//!   B            ├─────┤
//!   C        ├───────┤         C overlaps both in time: it may lie on either side
//! ```
//! A volume is cut into segments at the ends of all writes, so each lies wholly in a write or out of it.

use std::collections::BTreeMap;

use understudy_core::units::ByteRange;

use super::content::Fill;

/// A moment: how many beginnings and ends there were before. Never the same twice.
pub(super) type Moment = u64;

/// One write that is done in one piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct Write {
    /// Of which volume.
    pub(super) volume: usize,
    /// Where.
    pub(super) range: ByteRange,
    /// What it holds.
    pub(super) fill: Fill,
    /// When it began.
    pub(super) began: Moment,
    /// When it was told to be done; `None`: in flight, or never heard of again.
    pub(super) ended: Option<Moment>,
    /// It failed or was cut off by a crash: any sector of it may be there or not.
    pub(super) torn: bool,
    /// A flush that succeeded covers it.
    pub(super) durable: bool,
    /// A consumer's: the first and last checkpoint that it may lie over.
    pub(super) over: (u64, u64),
    /// A consumer's: the checkpoint that it surely lies over. Where a checkpoint came in between it
    /// was begun again, and readers of the older one may see it too.
    pub(super) sure: Option<u64>,
}

impl Write {
    /// Whether it surely was done before `other` began.
    pub(super) fn precedes(&self, other: &Self) -> bool {
        self.is_done_before(other.began)
    }

    /// Whether it surely was done by then.
    pub(super) fn is_done_before(&self, moment: Moment) -> bool {
        !self.torn && self.ended.is_some_and(|e| e < moment)
    }

    /// Whether `bytes` at `part` are its.
    pub(super) fn matches(&self, part: ByteRange, bytes: &[u8]) -> bool {
        self.fill.bytes(part) == bytes
    }
}

/// The writes of one era, or of a consumer.
#[derive(Default, Debug)]
pub(super) struct Writes {
    /// All of them, in the order in which they began.
    pub(super) all: Vec<Write>,
    /// Per volume: the start of each segment, its end, and who wrote there.
    segments: Vec<BTreeMap<u64, (u64, Vec<usize>)>>,
}

impl Writes {
    /// None yet, of volumes of these sizes.
    pub(super) fn new(sizes: &[u64]) -> Self {
        let segments = sizes.iter().map(|s| BTreeMap::from([(0, (*s, Vec::new()))])).collect();
        Self { all: Vec::new(), segments }
    }

    /// Adds one; says its number.
    pub(super) fn add(&mut self, write: Write) -> usize {
        let id = self.all.len();
        if let Some(map) = self.segments.get_mut(write.volume) {
            split(map, write.range.start);
            split(map, write.range.end);
            for (_, (_, ids)) in map.range_mut(write.range.start..write.range.end) {
                ids.push(id);
            }
        }
        self.all.push(write);
        id
    }

    /// The segments of `range`, each no longer than a multiple-of-`unit` block, with their writers.
    pub(super) fn over(
        &self,
        volume: usize,
        range: ByteRange,
        unit: u64,
    ) -> Vec<(ByteRange, Vec<usize>)> {
        let Some(map) = self.segments.get(volume) else { return Vec::new() };
        let first = map.range(..=range.start).next_back().map_or(0, |(s, _)| *s);
        let mut out = Vec::new();
        for (start, (end, ids)) in map.range(first..range.end) {
            let part = ByteRange::new(*start, *end).intersect(range);
            out.extend(part.pieces(unit).map(|p| (p, ids.clone())));
        }
        out
    }
}

fn split(map: &mut BTreeMap<u64, (u64, Vec<usize>)>, at: u64) {
    let Some((_, segment)) = map.range_mut(..at).next_back() else { return };
    if segment.0 > at {
        let tail = (segment.0, segment.1.clone());
        segment.0 = at;
        map.insert(at, tail);
    }
}
