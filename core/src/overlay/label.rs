//! The label of a replica: whose disk this directory holds. Never changes, except by expand.
//!
//! ```text
//!    0  16  sealed header, magic "USTDLABL"
//!   16  16  uuid of the replica
//!   32   8  size of the volume, bytes
//!   40   1  length of its name
//!   41   n  its name
//!  176   8  the size it was grown from, 0 if it never was (version 1: always)
//!    ..4096 zeroes
//! ```
//!
//! One block and one slot: it is written before the replica is named anywhere, and an expand
//! writes a new file and renames it. That rename is the expand: a disk that still has the length
//! of the size before is grown when the replica is opened.

use super::block::{BLOCK, Flaw, put, seal, u64_at, u128_at, verify};
use crate::disk::{Disk, Error, ErrorKind, Result};
use crate::runtime::{Buf, Data};
use crate::units::{ByteOffset, Uuid, VOLUME_MAX, VolumeId, usize_of};

/// Bytes of a label, and of the file it needs.
pub const LABEL_LEN: u64 = BLOCK;

const MAGIC: [u8; 8] = *b"USTDLABL";
const VERSION: u16 = 2;
const NAME_AT: usize = 41;
const GROWN_FROM_AT: usize = 176;

/// Whose disk it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Label {
    /// Which replica: two copies of one volume differ in this.
    pub uuid: Uuid,
    /// The volume it is a replica of.
    pub volume: VolumeId,
    /// The size of the volume in bytes.
    pub size: u64,
    /// The size it had before its last expand; 0: it never had one.
    pub grown_from: u64,
}

impl Label {
    /// Its block.
    pub fn encode(&self) -> Data {
        let mut block = Buf::zeroed(usize_of(LABEL_LEN));
        let name = self.volume.as_str().as_bytes();
        put(&mut block, 16, &self.uuid.0.to_le_bytes());
        put(&mut block, 32, &self.size.to_le_bytes());
        // A name is at most 128 characters of ASCII.
        put(&mut block, 40, &[u8::try_from(name.len()).unwrap_or(u8::MAX)]);
        put(&mut block, NAME_AT, name);
        put(&mut block, GROWN_FROM_AT, &self.grown_from.to_le_bytes());
        seal(&mut block, MAGIC, VERSION);
        block.freeze()
    }

    /// The label in `block`.
    pub fn decode(block: &[u8]) -> Result<Self> {
        let block = block.get(..usize_of(LABEL_LEN)).ok_or_else(|| damaged("is too short"))?;
        verify(block, MAGIC, VERSION).map_err(|flaw: Flaw| flaw.error("the replica's label"))?;
        let len = usize::from(block[40]);
        let name = std::str::from_utf8(&block[NAME_AT..NAME_AT + len]).unwrap_or_default();
        let volume = name.parse().map_err(|e| damaged(&format!("names no volume: {e}")))?;
        let size = u64_at(block, 32);
        if size == 0 || size > VOLUME_MAX {
            return Err(damaged(&format!(
                "says that {volume} has {size} bytes, the limit is {VOLUME_MAX}"
            )));
        }
        let grown_from = u64_at(block, GROWN_FROM_AT);
        if grown_from > size {
            return Err(damaged(&format!(
                "says that {volume} grew from {grown_from} to {size} bytes"
            )));
        }
        Ok(Self { uuid: Uuid(u128_at(block, 16)), volume, size, grown_from })
    }

    /// Writes it, durably.
    pub async fn write<D: Disk>(&self, disk: &D) -> Result<()> {
        disk.write(ByteOffset(0), self.encode()).await?;
        disk.flush().await
    }

    /// Reads it, after a flush: what a killed process left in flight does not count.
    pub async fn read<D: Disk>(disk: &D) -> Result<Self> {
        disk.flush().await?;
        if disk.len() < LABEL_LEN {
            return Err(damaged(&format!("has {} bytes, not {LABEL_LEN}", disk.len())));
        }
        let (block, result) = disk.read(ByteOffset(0), Buf::new(usize_of(LABEL_LEN))).await;
        result.map_err(|e| e.context("the replica's label"))?;
        Self::decode(&block)
    }
}

fn damaged(why: &str) -> Error {
    Error::own(ErrorKind::Corrupt, format!("the replica's label {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Memory;
    use futures::executor::block_on;

    fn label() -> Label {
        Label {
            uuid: Uuid(7 << 80),
            volume: "pvc-1".parse().unwrap(),
            size: 1 << 30,
            grown_from: 1 << 29,
        }
    }

    #[test]
    fn a_label_reads_back_as_it_was_written() {
        let disk = Memory::new(LABEL_LEN, 0);
        block_on(label().write(&disk)).unwrap();
        assert_eq!(block_on(Label::read(&disk)).unwrap(), label());
    }

    #[test]
    fn any_flipped_bit_of_a_label_is_found() {
        let good = label().encode();
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 1 << (at % 8);
            assert!(Label::decode(&bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_volume_that_grew_smaller_is_refused() {
        let label = Label { grown_from: (1 << 30) + 1, ..label() };
        let error = Label::decode(&label.encode()).unwrap_err();
        assert!(error.to_string().contains("grew from"), "{error}");
    }

    #[test]
    fn a_label_that_is_short_blank_or_newer_is_refused_with_its_reason() {
        assert_eq!(Label::decode(&[1, 2]).unwrap_err().kind(), ErrorKind::Corrupt);
        let blank = Label::decode(&[0; 4096]).unwrap_err();
        assert!(blank.to_string().contains("never written"), "{blank}");
        let mut newer = label().encode().to_vec();
        seal(&mut newer, MAGIC, VERSION + 1);
        assert_eq!(Label::decode(&newer).unwrap_err().kind(), ErrorKind::TooNew);
    }
}
