//! Where in a log the saved clusters of each volume are.
//!
//! ```text
//!   per volume, by first byte:    0 ──► 8 KiB, at log offset 4096
//!                             16384 ──► 1 MiB, zeroes
//!                           1179648 ──► 4 KiB, at log offset 12288
//! ```
//!
//! Extents never overlap: the first save of a cluster stays. Neighbours that are neighbours in the
//! log too become one. Memory: about 40 bytes an extent, one cluster long in the worst case, so
//! at most 1 % of what the log holds, which its capacity bounds; zeroes take a 24-byte entry each.

use std::collections::BTreeMap;

use super::Place;
use crate::units::{ByteOffset, ByteRange, CLUSTER, VolumeIndex};

/// The map of one log.
#[derive(Default)]
pub(super) struct Map(BTreeMap<VolumeIndex, Extents>);

type Extents = BTreeMap<u64, Extent>;

#[derive(Clone, Copy)]
struct Extent {
    end: u64,
    place: Place,
}

impl Place {
    /// The place `by` bytes further on.
    fn after(self, by: u64) -> Self {
        match self {
            Self::At(at) => Self::At(ByteOffset(at.0 + by)),
            Self::Zero => Self::Zero,
        }
    }
}

impl Map {
    /// Adds a range. Of what is there already the old place stays, and its bytes are counted in
    /// the result.
    pub(super) fn insert(&mut self, volume: VolumeIndex, range: ByteRange, place: Place) -> u64 {
        let extents = self.0.entry(volume).or_default();
        let gaps: Vec<ByteRange> = walk(extents, range)
            .into_iter()
            .filter_map(|(part, there)| there.is_none().then_some(part))
            .collect();
        let added: u64 = gaps.iter().map(|gap| gap.len()).sum();
        for gap in gaps {
            add(extents, gap, place.after(gap.start - range.start));
        }
        range.len() - added
    }

    /// Whether the cluster that holds byte `at` was saved.
    pub(super) fn contains(&self, volume: VolumeIndex, at: u64) -> bool {
        self.intersects(volume, ByteRange::new(at, at + 1))
    }

    /// Whether a cluster that `range` touches was saved.
    pub(super) fn intersects(&self, volume: VolumeIndex, range: ByteRange) -> bool {
        let Some(extents) = self.0.get(&volume) else { return false };
        let range = range.round_out(CLUSTER);
        extents.range(..range.end).next_back().is_some_and(|(_, e)| e.end > range.start)
    }

    /// `range` cut where the answer changes, each part with its place.
    pub(super) fn pieces(
        &self,
        volume: VolumeIndex,
        range: ByteRange,
    ) -> Vec<(ByteRange, Option<Place>)> {
        match self.0.get(&volume) {
            Some(extents) => walk(extents, range),
            None if range.is_empty() => Vec::new(),
            None => vec![(range, None)],
        }
    }

    /// All that was saved of a volume, in order, neighbours merged.
    pub(super) fn ranges(&self, volume: VolumeIndex) -> Vec<ByteRange> {
        let mut merged: Vec<ByteRange> = Vec::new();
        for (start, extent) in self.0.get(&volume).into_iter().flatten() {
            match merged.last_mut() {
                Some(last) if last.end == *start => last.end = extent.end,
                _ => merged.push(ByteRange::new(*start, extent.end)),
            }
        }
        merged
    }

    /// How many extents it holds.
    pub(super) fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }
}

fn walk(extents: &Extents, range: ByteRange) -> Vec<(ByteRange, Option<Place>)> {
    let mut parts = Vec::new();
    let mut at = range.start;
    // The one that begins at or before the range may reach into it.
    let first = extents.range(..=at).next_back().map_or(at, |(start, _)| *start);
    for (start, extent) in extents.range(first..) {
        if *start >= range.end || at >= range.end {
            break;
        }
        let part = ByteRange::new(*start, extent.end).intersect(ByteRange::new(at, range.end));
        if part.is_empty() {
            continue;
        }
        if at < part.start {
            parts.push((ByteRange::new(at, part.start), None));
        }
        parts.push((part, Some(extent.place.after(part.start - start))));
        at = part.end;
    }
    if at < range.end {
        parts.push((ByteRange::new(at, range.end), None));
    }
    parts
}

/// Adds a range that overlaps nothing, merged with a neighbour that its place continues.
fn add(extents: &mut Extents, range: ByteRange, place: Place) {
    let mut start = range.start;
    let mut extent = Extent { end: range.end, place };
    if let Some((before, e)) = extents.range(..start).next_back()
        && e.end == start
        && e.place.after(start - before) == place
    {
        (start, extent.place) = (*before, e.place);
    }
    if let Some(after) = extents.get(&range.end)
        && place.after(range.len()) == after.place
    {
        extent.end = after.end;
        extents.remove(&range.end);
    }
    extents.insert(start, extent);
}
