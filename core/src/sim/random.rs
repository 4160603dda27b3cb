//! The one source of chance: a small generator (splitmix64) that a seed decides.
//!
//! ```text
//!   seed ─► schedule      which ready task goes next
//!        ├► disks         delays, orders, what a crash keeps
//!        ├► network       delays, fragments, losses
//!        └► each node     what the code under test draws itself
//! ```
//!
//! Each use has its own sequence, so that one more draw here does not turn everything there.

use std::cell::Cell;
use std::ops::Range;
use std::time::Duration;

use crate::units::{u64_of, usize_of};

/// A seeded sequence of numbers. Not for secrets.
#[derive(Debug)]
pub struct Random(Cell<u64>);

impl Random {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    /// Another sequence, decided by this one.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::new(self.next())
    }

    /// The next 64 bits.
    pub fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 if `n` is 0.
    pub fn below(&self, n: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(n);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// An index into `n` things; 0 if there are none.
    pub fn index(&self, n: usize) -> usize {
        usize_of(self.below(u64_of(n)))
    }

    /// True once in `n` times on average; never if `n` is 0.
    pub fn one_in(&self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }

    /// A time in `range`; its start if it is empty.
    pub fn between(&self, range: &Range<Duration>) -> Duration {
        let span = range.end.saturating_sub(range.start).as_nanos();
        let nanos = self.below(u64::try_from(span).unwrap_or(u64::MAX));
        range.start.saturating_add(Duration::from_nanos(nanos))
    }

    /// Puts `items` into any order.
    pub fn shuffle<T>(&self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}
