//! One record, as it lies on a volume.
//!
//! ```text
//!    0        8         16        24       28       32          48           …  end-4   end
//!   ┌────────┬─────────┬─────────┬────────┬────────┬───────────┬─────────────┬────────┐
//!   │"LEDGER1"│ run u64 │ number  │ volume │ length │ md5 of the│ random bytes│ crc32c │
//!   │   + 0  │         │  u64    │  u32   │  u32   │ one before│             │ of all │
//!   └────────┴─────────┴─────────┴────────┴────────┴───────────┴─────────────┴────────┘
//!                                                              numbers little-endian
//! ```

use md5::{Digest, Md5};
use understudy_core::units::{u32_of, u64_of};

use crate::random::Random;

const MAGIC: [u8; 8] = *b"LEDGER1\0";
const HEADER: usize = 48;
const CHECKSUM: usize = 4;

/// The smallest block a record fits in.
pub(super) const BLOCK_MIN: u64 = 512;

/// The identity of a record's bytes.
pub type Hash = [u8; 16];

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which run wrote it.
    pub run: u64,
    /// Its number, from 1.
    pub number: u64,
    /// The volume it was written to.
    pub volume: u32,
    /// The hash of the record before it; zeroes in the first.
    pub previous: Hash,
}

/// What a block turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// No record was ever here.
    Blank,
    /// A whole record, and the hash of its bytes.
    Whole(Record, Hash),
    /// It begins as a record does, but is not whole. The number it claims is not to be believed.
    Torn {
        /// The number in its header.
        claims: u64,
    },
}

/// The hash of a record's bytes.
pub fn hash(block: &[u8]) -> Hash {
    Md5::digest(block).into()
}

impl Record {
    /// Its block. `block` is at least [`BLOCK_MIN`] bytes.
    pub fn encode(&self, block: usize) -> Vec<u8> {
        self.encode_in_life(block, 0)
    }

    /// Its block as this life of the writer fills it. The same record of two lives has two hashes, so
    /// that one of a life that should have ended breaks the chain of the other.
    pub fn encode_in_life(&self, block: usize, life: u64) -> Vec<u8> {
        let mut bytes = vec![0; block];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.run.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.volume.to_le_bytes());
        bytes[28..32].copy_from_slice(&u32_of(u64_of(block)).to_le_bytes());
        bytes[32..HEADER].copy_from_slice(&self.previous);
        let end = block - CHECKSUM;
        let seed = self.run ^ self.number.rotate_left(32) ^ u64::from(self.volume) ^ life;
        Random::new(seed).fill(&mut bytes[HEADER..end]);
        let sum = crc32c::crc32c(&bytes[..end]);
        bytes[end..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }
}

impl Reading {
    /// What a block is.
    pub fn of(block: &[u8]) -> Self {
        let end = block.len() - CHECKSUM;
        let word = |at: usize| -> u64 {
            block.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u64::from_le_bytes(*b))
        };
        let half = |at: usize| -> u32 {
            block.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u32::from_le_bytes(*b))
        };
        if crc32c::crc32c(&block[..end]) == half(end) && block[..8] == MAGIC {
            let previous = block[32..].first_chunk::<16>().copied().unwrap_or_default();
            let record = Record { run: word(8), number: word(16), volume: half(24), previous };
            return Self::Whole(record, hash(block));
        }
        // A fill is one byte over and over; whatever else is here came from a record.
        let is_fill = block.iter().all(|byte| *byte == block[0]);
        if is_fill { Self::Blank } else { Self::Torn { claims: word(16) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record { run: 9, number: 5, volume: 1, previous: [7; 16] }
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        for block in [512, 4096, 65536] {
            let bytes = record().encode(block);
            assert_eq!(Reading::of(&bytes), Reading::Whole(record(), hash(&bytes)));
        }
    }

    #[test]
    fn any_altered_byte_makes_it_torn() {
        let whole = record().encode(512);
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            assert!(matches!(Reading::of(&bytes), Reading::Torn { .. }), "byte {at}");
        }
    }

    #[test]
    fn a_fill_is_no_record() {
        assert_eq!(Reading::of(&[0x11; 4096]), Reading::Blank);
        assert_eq!(Reading::of(&[0; 4096]), Reading::Blank);
    }
}
