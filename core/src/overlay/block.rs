//! The sealed header that every block of metadata starts with, and the reading of fields.
//!
//! ```text
//!   0   8  magic, says what it is
//!   8   2  version of the layout
//!  10   2  for the layout's own use
//!  12   4  CRC-32C of all bytes of the block but these four
//!  16      the layout's own fields
//! ```
//!
//! Place and meaning of these 16 bytes are the same in every version to come, so that an older
//! program can tell "newer than me" from "damaged". Reading is total: any bytes give a value or a
//! [`Flaw`], never a panic.

use crate::disk::{Error, ErrorKind};

/// Bytes of the sealed header.
pub(super) const SEAL: usize = 16;

/// The unit in which metadata is written: what `O_DIRECT` may ask for.
pub(super) const BLOCK: u64 = 4096;

/// Why a block is not what was looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flaw {
    /// All zeroes: never written.
    Blank,
    /// Another magic: something else, or a damaged first sector.
    Foreign,
    /// The checksum does not match.
    Checksum,
    /// Whole, but of this newer version.
    TooNew(u16),
}

impl Flaw {
    /// As the error of `what` it was found in.
    pub(super) fn error(self, what: &str) -> Error {
        let (kind, why) = match self {
            Self::Blank => (
                ErrorKind::Corrupt,
                "holds only zeroes: it was never written, or was erased".to_owned(),
            ),
            Self::Foreign => (
                ErrorKind::Corrupt,
                "does not begin as one: it is something else, or damaged".to_owned(),
            ),
            Self::Checksum => {
                (ErrorKind::Corrupt, "is damaged: its checksum does not match".to_owned())
            }
            Self::TooNew(v) => (
                ErrorKind::TooNew,
                format!(
                    "is of version {v}, newer than this program: start the newer version again"
                ),
            ),
        };
        Error::own(kind, format!("{what} {why}"))
    }
}

fn checksum(block: &[u8]) -> u32 {
    let head = block.get(..12).unwrap_or_default();
    let rest = block.get(SEAL..).unwrap_or_default();
    crc32c::crc32c_append(crc32c::crc32c(head), rest)
}

/// Writes the header, its checksum last, so call it when all else stands in the block.
pub(super) fn seal(block: &mut [u8], magic: [u8; 8], version: u16) {
    put(block, 0, &magic);
    put(block, 8, &version.to_le_bytes());
    let sum = checksum(block);
    put(block, 12, &sum.to_le_bytes());
}

/// Whether `block` is a whole one of this magic and at most this version.
pub(super) fn verify(block: &[u8], magic: [u8; 8], version: u16) -> Result<(), Flaw> {
    if block.get(..8) != Some(magic.as_slice()) {
        return Err(if block.iter().all(|b| *b == 0) { Flaw::Blank } else { Flaw::Foreign });
    }
    if u32_at(block, 12) != checksum(block) {
        return Err(Flaw::Checksum);
    }
    match u16_at(block, 8) {
        0 => Err(Flaw::Checksum),
        v if v > version => Err(Flaw::TooNew(v)),
        _ => Ok(()),
    }
}

/// Copies `bytes` to `at`; what would not fit is a bug of a fixed layout and is left out.
pub(super) fn put(block: &mut [u8], at: usize, bytes: &[u8]) {
    let place = block.get_mut(at..at + bytes.len());
    debug_assert!(place.is_some(), "{} bytes at {at} do not fit", bytes.len());
    if let Some(place) = place {
        place.copy_from_slice(bytes);
    }
}

fn array_at<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    block.get(at..).and_then(|b| b.first_chunk()).copied().unwrap_or([0; N])
}

/// The field at `at`; zero beyond the end.
pub(super) fn u16_at(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(block, at))
}

/// The field at `at`; zero beyond the end.
pub(super) fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(block, at))
}

/// The field at `at`; zero beyond the end.
pub(super) fn u64_at(block: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(block, at))
}

/// The field at `at`; zero beyond the end.
pub(super) fn u128_at(block: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(array_at(block, at))
}

/// Takes fields one behind the other; `None` once the bytes are used up.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    /// The next `len` bytes.
    pub(super) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    /// The next byte.
    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    /// The next two bytes.
    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next four bytes.
    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next eight bytes.
    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next sixteen bytes.
    pub(super) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_block_shows_any_flipped_bit() {
        let mut block = vec![7; 64];
        seal(&mut block, *b"TESTTEST", 1);
        assert_eq!(verify(&block, *b"TESTTEST", 1), Ok(()));
        for at in 0..64 {
            let mut bad = block.clone();
            bad[at] ^= 0x10;
            assert!(verify(&bad, *b"TESTTEST", 1).is_err(), "byte {at}");
        }
        assert_eq!(verify(&[0; 64], *b"TESTTEST", 1), Err(Flaw::Blank));
    }

    #[test]
    fn a_newer_version_is_told_apart_from_damage() {
        let mut block = vec![7; 64];
        seal(&mut block, *b"TESTTEST", 2);
        assert_eq!(verify(&block, *b"TESTTEST", 1), Err(Flaw::TooNew(2)));
        assert_eq!(Flaw::TooNew(2).error("label").kind(), ErrorKind::TooNew);
    }

    #[test]
    fn no_length_of_bytes_makes_the_reading_panic() {
        for len in 0..40 {
            assert!(verify(&vec![1; len], *b"TESTTEST", 1).is_err());
        }
        assert_eq!(u64_at(&[1, 2], 1), 0);
        let mut f = Fields(&[1, 2, 3]);
        assert_eq!((f.u16(), f.u16(), f.u8(), f.u8()), (Some(0x201), None, Some(3), None));
    }
}
