//! A sparse set of the 4 KiB clusters of one volume.
//!
//! ```text
//!   chunks: BTreeMap   0 ──► Full                       4096 clusters = 16 MiB of the volume
//!                      1 ──► Some 4096 bits, counted    512 bytes
//!                      2     (none: not in the map)
//!                      3 ──► Some ...
//! ```
//!
//! Memory: about 50 bytes for a chunk that is full, 600 for one that is not. So 1 TiB costs at most
//! 40 MiB, when every 16 MiB of it hold some but not all clusters, and 3 MiB when all are set.
//! The form is canonical (never an empty or an uncompressed full chunk), so equality is of sets.

use std::collections::BTreeMap;
use std::fmt;

use crate::units::{ByteRange, CLUSTER, ClusterIndex, u64_of, usize_of};

/// Clusters of one chunk.
const CHUNK: u64 = 4096;
/// Words of one chunk.
const WORDS: usize = 64;

/// A set of clusters. All positions are in bytes; what is not aligned is rounded out.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Bitmap {
    chunks: BTreeMap<u64, Chunk>,
    count: u64,
}

#[derive(Clone, PartialEq, Eq)]
enum Chunk {
    Full,
    Some(Box<Bits>),
}

#[derive(Clone, PartialEq, Eq)]
struct Bits {
    words: [u64; WORDS],
    count: u64,
}

impl fmt::Debug for Bitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ranges().take(32)).finish()?;
        write!(f, " ({} clusters)", self.count)
    }
}

/// The bits `from..to` (at most 64) of a word.
fn mask(from: u64, to: u64) -> u64 {
    let ones = to - from;
    if ones == 0 { 0 } else { (u64::MAX >> (64 - ones)) << from }
}

impl Bits {
    const EMPTY: Self = Self { words: [0; WORDS], count: 0 };
    const FULL: Self = Self { words: [u64::MAX; WORDS], count: CHUNK };

    /// Sets or clears the bits `from..to`; returns how many changed.
    fn change(&mut self, from: u64, to: u64, on: bool) -> u64 {
        let mut changed = 0;
        for word in from / 64..to.div_ceil(64) {
            let first = word * 64;
            let bits = mask(from.max(first) - first, to.min(first + 64) - first);
            let w = &mut self.words[usize_of(word)];
            let old = *w;
            *w = if on { old | bits } else { old & !bits };
            changed += u64::from((old ^ *w).count_ones());
        }
        self.count = if on { self.count + changed } else { self.count - changed };
        changed
    }

    fn has(&self, bit: u64) -> bool {
        self.words[usize_of(bit / 64)] >> (bit % 64) & 1 == 1
    }

    /// The first bit at or after `from` that is `on`; `CHUNK` if there is none.
    fn find(&self, from: u64, on: bool) -> u64 {
        let mut at = from;
        while at < CHUNK {
            let word = self.words[usize_of(at / 64)];
            let rest = (if on { word } else { !word }) >> (at % 64);
            if rest != 0 {
                return at + u64::from(rest.trailing_zeros());
            }
            at = (at / 64 + 1) * 64;
        }
        CHUNK
    }
}

impl Chunk {
    fn find(&self, from: u64, on: bool) -> u64 {
        match self {
            Self::Full if on => from,
            Self::Full => CHUNK,
            Self::Some(bits) => bits.find(from, on),
        }
    }
}

/// The clusters that `range` touches, as `first..end`.
fn clusters_of(range: ByteRange) -> (u64, u64) {
    if range.is_empty() { (0, 0) } else { (range.start / CLUSTER, range.end.div_ceil(CLUSTER)) }
}

/// Cuts clusters `first..end` at the borders of chunks: chunk, and bits `from..to` in it.
fn by_chunk(first: u64, end: u64) -> impl Iterator<Item = (u64, u64, u64)> {
    let chunks = if first < end { first / CHUNK..end.div_ceil(CHUNK) } else { 0..0 };
    chunks.map(move |c| (c, first.max(c * CHUNK) - c * CHUNK, end.min((c + 1) * CHUNK) - c * CHUNK))
}

impl Bitmap {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds every cluster that `range` touches; returns how many are new.
    pub fn set(&mut self, range: ByteRange) -> u64 {
        let (first, end) = clusters_of(range);
        let mut added = 0;
        for (number, from, to) in by_chunk(first, end) {
            match self.chunks.get_mut(&number) {
                Some(Chunk::Full) => {}
                Some(chunk @ Chunk::Some(_)) => {
                    if let Chunk::Some(bits) = chunk {
                        added += bits.change(from, to, true);
                        if bits.count == CHUNK {
                            *chunk = Chunk::Full;
                        }
                    }
                }
                None if to - from == CHUNK => {
                    self.chunks.insert(number, Chunk::Full);
                    added += CHUNK;
                }
                None => {
                    let mut bits = Box::new(Bits::EMPTY);
                    added += bits.change(from, to, true);
                    self.chunks.insert(number, Chunk::Some(bits));
                }
            }
        }
        self.count += added;
        added
    }

    /// Removes every cluster that `range` touches; returns how many were there.
    pub fn clear(&mut self, range: ByteRange) -> u64 {
        let (first, end) = clusters_of(range);
        // Only chunks that exist: clearing a whole large volume costs what is set in it.
        let chunks = first / CHUNK..end.div_ceil(CHUNK).max(first / CHUNK);
        let there: Vec<u64> = self.chunks.range(chunks).map(|(number, _)| *number).collect();
        let mut removed = 0;
        for number in there {
            let from = first.saturating_sub(number * CHUNK);
            let to = (end - number * CHUNK).min(CHUNK);
            let Some(chunk) = self.chunks.get_mut(&number) else { continue };
            if matches!(chunk, Chunk::Full) && to - from < CHUNK {
                *chunk = Chunk::Some(Box::new(Bits::FULL));
            }
            let empty = match chunk {
                Chunk::Full => {
                    removed += CHUNK;
                    true
                }
                Chunk::Some(bits) => {
                    removed += bits.change(from, to, false);
                    bits.count == 0
                }
            };
            if empty {
                self.chunks.remove(&number);
            }
        }
        self.count -= removed;
        removed
    }

    /// Whether the cluster is in the set.
    pub fn contains(&self, cluster: ClusterIndex) -> bool {
        match self.chunks.get(&(cluster.0 / CHUNK)) {
            None => false,
            Some(Chunk::Full) => true,
            Some(Chunk::Some(bits)) => bits.has(cluster.0 % CHUNK),
        }
    }

    /// Whether a cluster that `range` touches is in the set.
    pub fn intersects(&self, range: ByteRange) -> bool {
        let (first, end) = clusters_of(range);
        first < end && self.find_set(first).is_some_and(|found| found < end)
    }

    /// How many clusters it holds.
    pub fn clusters(&self) -> u64 {
        self.count
    }

    /// How many bytes its clusters cover.
    pub fn bytes(&self) -> u64 {
        self.count.saturating_mul(CLUSTER)
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds all clusters of `other`.
    pub fn union_with(&mut self, other: &Self) {
        for (number, theirs) in &other.chunks {
            let Some(ours) = self.chunks.get_mut(number) else {
                self.count += match theirs {
                    Chunk::Full => CHUNK,
                    Chunk::Some(bits) => bits.count,
                };
                self.chunks.insert(*number, theirs.clone());
                continue;
            };
            let Chunk::Some(bits) = ours else { continue };
            self.count -= bits.count;
            match theirs {
                Chunk::Full => bits.count = CHUNK,
                Chunk::Some(more) => {
                    for (word, add) in bits.words.iter_mut().zip(&more.words) {
                        *word |= add;
                    }
                    bits.count = u64_of(bits.words.iter().map(|w| w.count_ones() as usize).sum());
                }
            }
            self.count += bits.count;
            if bits.count == CHUNK {
                *ours = Chunk::Full;
            }
        }
    }

    /// The first run of clusters of the set at or after the one that holds byte `from`, at most
    /// `max_len` bytes long but at least one cluster.
    pub fn next_range(&self, from: u64, max_len: u64) -> Option<ByteRange> {
        let first = self.find_set(from / CLUSTER)?;
        let limit = first.saturating_add((max_len / CLUSTER).max(1));
        let end = self.find_clear(first, limit);
        Some(ByteRange::new(first * CLUSTER, end * CLUSTER))
    }

    /// Whether the cluster that holds the first byte of `range` is in the set, and the run of
    /// clusters of which the same is true: it starts there and ends with `range` at the latest.
    pub fn run(&self, range: ByteRange) -> (bool, ByteRange) {
        let first = range.start / CLUSTER;
        let limit = range.end.div_ceil(CLUSTER);
        let on = self.contains(ClusterIndex(first));
        let end = if on {
            self.find_clear(first, limit)
        } else {
            self.find_set(first).map_or(limit, |found| found.min(limit))
        };
        (on, ByteRange::new(range.start, (end * CLUSTER).min(range.end)))
    }

    /// All runs of clusters, in order.
    pub fn ranges(&self) -> impl Iterator<Item = ByteRange> + '_ {
        let mut from = 0;
        std::iter::from_fn(move || {
            let found = self.next_range(from, u64::MAX)?;
            from = found.end;
            Some(found)
        })
    }

    /// The first cluster of the set at or after `from`.
    fn find_set(&self, from: u64) -> Option<u64> {
        self.chunks.range(from / CHUNK..).find_map(|(number, chunk)| {
            let found = chunk.find(from.saturating_sub(number * CHUNK), true);
            (found < CHUNK).then_some(number * CHUNK + found)
        })
    }

    /// The first cluster at or after `from` that is not in the set, or `limit` if that is before it.
    fn find_clear(&self, from: u64, limit: u64) -> u64 {
        let mut at = from;
        for (number, chunk) in self.chunks.range(from / CHUNK..) {
            if at >= limit || at / CHUNK != *number {
                break;
            }
            let found = chunk.find(at % CHUNK, false);
            at = number * CHUNK + found;
            if found < CHUNK {
                break;
            }
        }
        at.min(limit)
    }
}

#[cfg(test)]
mod tests;
