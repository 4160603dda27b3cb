//! What writes hold: every write has bytes of its own, so that a reader can tell whose they are.
//!
//! ```text
//!   pattern   one random table; write number s holds, at position p of its volume,
//!             table[(p + step * s) mod 256 Ki]: another write, or another place, is another byte
//! ```

use std::sync::OnceLock;

use understudy_core::units::{ByteRange, usize_of};

use crate::random::Random;

/// The pattern repeats after this many bytes: no volume of the model is longer.
const PERIOD: usize = 256 << 10;

/// Coprime to the period, and no multiple of a sector: neighbours in number differ at every place.
const STEP: usize = 40_503;

/// What a write holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fill {
    /// Bytes that only the write of this number has.
    Pattern(usize),
    /// Zeroes.
    Zero,
}

fn table() -> &'static [u8] {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut once = vec![0; PERIOD];
        Random::new(0x0074_6162_6c65).fill(&mut once);
        [once.clone(), once].concat()
    })
}

impl Fill {
    /// Its bytes at `range` of a volume.
    pub(super) fn bytes(self, range: ByteRange) -> &'static [u8] {
        static ZEROES: [u8; PERIOD] = [0; PERIOD];
        let len = usize_of(range.len());
        match self {
            Self::Zero => &ZEROES[..len],
            Self::Pattern(number) => {
                let from = (usize_of(range.start) + number * STEP) % PERIOD;
                &table()[from..from + len]
            }
        }
    }
}
