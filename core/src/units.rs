//! Numbers that mean something: offsets, lengths, epochs, identities.
//!
//! Every cast of the data plane stands in this file. Nothing here does I/O.
//!
//! ```text
//!   ByteOffset ──┐
//!                ├─ ByteRange ── clusters of 4 KiB ── ClusterIndex
//!   ByteLen   ───┘
//!   Epoch        the N-th span of writes of a group, numbered from 1
//!   Generation   who may write: a number that grows and a random id
//! ```

mod volume;

use std::fmt;
use std::str::FromStr;

pub use volume::{VolumeCount, VolumeIndex};

/// The unit of copy-before-write, of bitmaps and of the active disk, in bytes.
///
/// QEMU saves 64 KiB for a 4 KiB write; a guest's page and its file system's block are 4 KiB.
pub const CLUSTER: u64 = 4096;

/// The smallest unit a volume's length is a multiple of, in bytes.
pub const SECTOR: u64 = 512;

/// The largest volume, in bytes (64 TiB): bounds every map and bitmap.
pub const VOLUME_MAX: u64 = 64 << 40;

/// The most volumes one group may have: they share one `u64` of membership bits.
pub const GROUP_VOLUMES_MAX: usize = 64;

/// Requests of a volume are cut into pieces of this, in bytes: what one frame, lock and buffer hold.
pub const BUF_PIECE: u64 = 1 << 20;

/// Widens a length to the width offsets have. Lossless: `usize` is at most 64 bits wide.
#[allow(
    clippy::cast_possible_truncation,
    reason = "usize is never wider than u64 on a target we build for"
)]
pub const fn u64_of(n: usize) -> u64 {
    n as u64
}

/// Narrows a length that is known to describe memory, which is at most `usize::MAX` bytes long.
///
/// Saturates on a 32-bit target, where an allocation of that size fails anyway.
pub fn usize_of(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// Narrows to 32 bits; saturates. For counts and lengths that a limit already bounds.
pub fn u32_of(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// A position on a volume or in a file, in bytes from its start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteOffset(pub u64);

impl fmt::Debug for ByteOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

impl fmt::Display for ByteOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A length in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteLen(pub u64);

impl fmt::Debug for ByteLen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B", self.0)
    }
}

impl fmt::Display for ByteLen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A half-open range of bytes, `start..end`, with `start <= end`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
}

impl ByteRange {
    /// `len` bytes from `start`; `None` when the end does not fit into 64 bits.
    pub fn at(start: ByteOffset, len: u64) -> Option<Self> {
        Some(Self { start: start.0, end: start.0.checked_add(len)? })
    }

    /// `start..end`; an inverted pair is an empty range at `start`.
    pub fn new(start: u64, end: u64) -> Self {
        Self { start, end: end.max(start) }
    }

    /// Its start, as an offset.
    pub fn offset(self) -> ByteOffset {
        ByteOffset(self.start)
    }

    /// Its length in bytes.
    pub fn len(self) -> u64 {
        self.end - self.start
    }

    /// Whether it holds no byte.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Whether both hold a common byte.
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// The common bytes; empty when there are none.
    #[must_use]
    pub fn intersect(self, other: Self) -> Self {
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }

    /// The smallest range with both ends a multiple of `align` (a power of two) that covers this one.
    #[must_use]
    pub fn round_out(self, align: u64) -> Self {
        Self {
            start: self.start & !(align - 1),
            end: self.end.saturating_add(align - 1) & !(align - 1),
        }
    }

    /// The largest range with both ends a multiple of `align` (a power of two) inside this one;
    /// empty when there is none.
    #[must_use]
    pub fn round_in(self, align: u64) -> Self {
        let start = self.start.saturating_add(align - 1) & !(align - 1);
        Self::new(start, self.end & !(align - 1))
    }

    /// Whether both ends are multiples of `align`.
    pub fn is_aligned(self, align: u64) -> bool {
        (self.start | self.end) & (align - 1) == 0
    }

    /// The clusters it touches.
    pub fn clusters(self) -> impl Iterator<Item = ClusterIndex> + Clone {
        let end = if self.is_empty() { self.start / CLUSTER } else { self.end.div_ceil(CLUSTER) };
        (self.start / CLUSTER..end).map(ClusterIndex)
    }

    /// Cuts it into pieces that end at multiples of `piece` bytes (the first may be shorter).
    pub fn pieces(self, piece: u64) -> impl Iterator<Item = Self> {
        let mut at = self.start;
        std::iter::from_fn(move || {
            (at < self.end).then(|| {
                let end = ((at / piece + 1) * piece).min(self.end);
                let cut = Self { start: at, end };
                at = end;
                cut
            })
        })
    }
}

impl fmt::Debug for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.start, self.len())
    }
}

/// The number of a 4 KiB cluster of a volume.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ClusterIndex(pub u64);

impl ClusterIndex {
    /// The bytes it covers.
    pub fn range(self) -> ByteRange {
        ByteRange { start: self.0 * CLUSTER, end: (self.0 + 1) * CLUSTER }
    }
}

/// The N-th span of writes of a group, numbered from 1 and never reused; also the checkpoint
/// that closes it. 0 stands for "none yet".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Epoch(pub u64);

impl Epoch {
    /// No epoch: nothing was recorded yet.
    pub const NONE: Self = Self(0);

    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The one before it; none stays none.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The fencing identity of a group, new at every change of primary and never reused.
///
/// Written `NUMBER-ID`, the id in 16 hexadecimal digits: `3-00c0ffee00c0ffee`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Generation {
    /// Grows with each change; 0 is "no generation yet".
    pub number: u64,
    /// Random: tells apart two that were given the same number by mistake.
    pub id: u64,
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.number, self.id)
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Generation {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        let bad = || {
            ParseError(format!("'{s}' is no generation: write NUMBER-ID, as in 3-00c0ffee00c0ffee"))
        };
        let (number, id) = s.split_once('-').ok_or_else(bad)?;
        if id.len() != 16 {
            return Err(bad());
        }
        Ok(Self {
            number: number.parse().map_err(|_| bad())?,
            id: u64::from_str_radix(id, 16).map_err(|_| bad())?,
        })
    }
}

/// A text that is not what it should be; says what would be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub String);

/// The most characters of a [`Name`]: with a prefix it still fits a file name.
pub const NAME_MAX: usize = 128;

/// The name of a volume or group: also a folder's name, so it can't climb out of the pool.
///
/// 1 to 128 of `a-z A-Z 0-9 . _ -`, starting with a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Name(String);

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Name {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if s.is_empty()
            || s.len() > NAME_MAX
            || !s.chars().all(good)
            || !s.starts_with(|c: char| c.is_ascii_alphanumeric())
        {
            return Err(ParseError(format!(
                "'{}' is no name for a volume or group: use 1 to {NAME_MAX} of a-z A-Z 0-9 . _ - and start with a letter or digit",
                s.escape_debug().take(160).collect::<String>()
            )));
        }
        Ok(Self(s.to_owned()))
    }
}

/// The name of a volume, unique in its group. The CSI volume handle.
pub type VolumeId = Name;

/// The name of a group, unique in a pool.
pub type GroupId = Name;

/// A random identity of 128 bits: of a replica, a pool or a log. Written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid(pub u128);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Uuid {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        if s.len() != 32 {
            return Err(ParseError(format!("'{s}' is no uuid: write 32 hexadecimal digits")));
        }
        u128::from_str_radix(s, 16)
            .map(Self)
            .map_err(|_| ParseError(format!("'{s}' is no uuid: write 32 hexadecimal digits")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_climb_out_of_the_pool_are_refused() {
        for bad in ["", ".", "..", "../x", "a/b", "-a", "a b", "ä", &"x".repeat(129)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
        for good in ["a", "pvc-0f", "A.b_c-9", &"x".repeat(128)] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn a_generation_reads_back_as_it_was_written() {
        let g = Generation { number: 3, id: 0x00c0_ffee };
        assert_eq!(g.to_string(), "3-0000000000c0ffee");
        assert_eq!(g.to_string().parse::<Generation>().unwrap(), g);
        assert!("3".parse::<Generation>().is_err());
        assert!("3-xyz".parse::<Generation>().is_err());
    }

    #[test]
    fn pieces_cover_a_range_exactly_and_end_at_multiples() {
        let r = ByteRange::new(3, 21);
        let cut: Vec<_> = r.pieces(8).collect();
        assert_eq!(cut, [ByteRange::new(3, 8), ByteRange::new(8, 16), ByteRange::new(16, 21)]);
    }

    #[test]
    fn rounding_in_and_out() {
        let r = ByteRange::new(100, 9000);
        assert_eq!(r.round_out(CLUSTER), ByteRange::new(0, 12288));
        assert_eq!(r.round_in(CLUSTER), ByteRange::new(4096, 8192));
        assert!(ByteRange::new(1, 100).round_in(CLUSTER).is_empty());
        assert_eq!(r.clusters().count(), 3);
        assert_eq!(ByteRange::new(4096, 4096).clusters().count(), 0);
    }
}
