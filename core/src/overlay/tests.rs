//! What the tests of this layer share.

/// Random numbers whose seed is printed, and taken from `UNDERSTUDY_SEED` when that is set.
pub(super) struct Random(u64);

impl Random {
    /// A fresh seed, or the one that the environment names.
    pub(super) fn from_environment(test: &str) -> Self {
        use std::hash::{BuildHasher, RandomState};
        let seed = match std::env::var("UNDERSTUDY_SEED") {
            Ok(text) => text.parse().unwrap(),
            Err(_) => RandomState::new().hash_one(test),
        };
        println!("{test}: UNDERSTUDY_SEED={seed}");
        Self(seed)
    }

    /// The next 64 bits (splitmix64).
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`; 0 if that is 0.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}
