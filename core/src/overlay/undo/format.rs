//! The bytes of an undo log: batches, one behind the other, each a multiple of 4096 bytes.
//!
//! ```text
//!   file:   [header 1][data 1 ....][header 2][data 2 ..][header 3 (idle)] garbage of older logs
//!
//!   header, a multiple of 4096 bytes:
//!      0  16  sealed header, magic "USTDUNDO"; the checksum covers all of the header's blocks
//!     16  16  uuid of the log
//!     32   8  epoch
//!     40   8  sequence: 1 for the first batch of a log, then one more each
//!     48   8  the last sequence known to be durable when this was written
//!     56   8  where this header stands in the file
//!     64   4  length of the header in bytes
//!     68   4  number of entries
//!     72   8  length of the data in bytes
//!     80  24  entry, for each range saved:
//!               0  8  first byte on the volume, a multiple of 4096
//!               8  8  length in bytes, a multiple of 4096
//!              16  2  volume
//!              18  2  kind: 0 data, 1 zeroes (nothing in the data)
//!              20  4  CRC-32C of its data; 0 for zeroes
//!     ..      zeroes
//!   data: that of the entries in their order
//! ```
//!
//! The checksum covers uuid, sequence and place together with the checksums of the data: so what an
//! older log left in recycled space is never taken for a batch of this one.

use super::{Content, Saved};
use crate::disk::{Error, ErrorKind, Result};
use crate::overlay::block::{self, BLOCK, Flaw, put, seal, u16_at, u32_at, u64_at, u128_at};
use crate::runtime::{BUF_MAX, Buf, Data};
use crate::units::{
    ByteRange, CLUSTER, Epoch, GROUP_VOLUMES_MAX, Uuid, VOLUME_MAX, VolumeIndex, u32_of, u64_of,
    usize_of,
};

pub(super) const MAGIC: [u8; 8] = *b"USTDUNDO";
const VERSION: u16 = 1;
const ENTRIES_AT: usize = 80;
const ENTRY_LEN: usize = 24;

/// The most entries of a batch: its header still fits one buffer.
pub(super) const ENTRIES_MAX: usize = 65_536;

/// What a batch header says, apart from its entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) uuid: Uuid,
    pub(super) epoch: Epoch,
    pub(super) sequence: u64,
    pub(super) known: u64,
    pub(super) at: u64,
    pub(super) header_len: u64,
    pub(super) data_len: u64,
}

/// One range of a batch, as stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) volume: VolumeIndex,
    pub(super) range: ByteRange,
    /// The checksum of its data; `None` for zeroes.
    pub(super) checksum: Option<u32>,
}

/// Bytes of the header of a batch with so many entries.
pub(super) fn header_len(entries: usize) -> u64 {
    u64_of(ENTRIES_AT + entries * ENTRY_LEN).div_ceil(BLOCK) * BLOCK
}

/// Bytes of data that a batch of these holds.
pub(super) fn data_len(batch: &[Saved]) -> u64 {
    batch
        .iter()
        .map(|s| if matches!(s.content, Content::Data(_)) { s.range.len() } else { 0 })
        .sum()
}

/// Refuses what no log can hold. That is a bug of the caller and never input.
pub(super) fn check(batch: &[Saved]) -> Result<()> {
    let refuse = |why: String| Err(Error::own(ErrorKind::Invalid, format!("undo log: {why}")));
    if batch.len() > ENTRIES_MAX {
        return refuse(format!("{} ranges in one batch, the limit is {ENTRIES_MAX}", batch.len()));
    }
    for saved in batch {
        let range = saved.range;
        if saved.volume.get() >= GROUP_VOLUMES_MAX || !is_valid(range) {
            return refuse(format!("{range} of volume {} is no range of clusters", saved.volume.0));
        }
        if let Content::Data(data) = &saved.content
            && u64_of(data.len()) != range.len()
        {
            return refuse(format!("{} bytes of data for {range}", data.len()));
        }
    }
    Ok(())
}

fn is_valid(range: ByteRange) -> bool {
    // The last cluster of a volume is stored whole, though the volume may end within it.
    !range.is_empty() && range.is_aligned(CLUSTER) && range.end <= VOLUME_MAX
}

/// The header of a batch that [`check`] has passed, and what the data of each entry is.
pub(super) fn encode(head: &Head, batch: &[Saved]) -> Data {
    let mut header = Buf::zeroed(usize_of(head.header_len));
    put(&mut header, 16, &head.uuid.0.to_le_bytes());
    put(&mut header, 32, &head.epoch.0.to_le_bytes());
    put(&mut header, 40, &head.sequence.to_le_bytes());
    put(&mut header, 48, &head.known.to_le_bytes());
    put(&mut header, 56, &head.at.to_le_bytes());
    put(&mut header, 64, &u32_of(head.header_len).to_le_bytes());
    put(&mut header, 68, &u32_of(u64_of(batch.len())).to_le_bytes());
    put(&mut header, 72, &head.data_len.to_le_bytes());
    for (number, saved) in batch.iter().enumerate() {
        let at = ENTRIES_AT + number * ENTRY_LEN;
        put(&mut header, at, &saved.range.start.to_le_bytes());
        put(&mut header, at + 8, &saved.range.len().to_le_bytes());
        put(&mut header, at + 16, &saved.volume.0.to_le_bytes());
        if let Content::Data(data) = &saved.content {
            put(&mut header, at + 20, &crc32c::crc32c(data).to_le_bytes());
        } else {
            put(&mut header, at + 18, &1u16.to_le_bytes());
        }
    }
    seal(&mut header, MAGIC, VERSION);
    header.freeze()
}

/// How long the header that begins with `block` says it is; `None` if that can't be.
pub(super) fn claimed_len(block: &[u8]) -> Option<u64> {
    let len = u64::from(u32_at(block, 64));
    let possible = block.get(..8) == Some(MAGIC.as_slice())
        && len >= BLOCK
        && len.is_multiple_of(BLOCK)
        && usize_of(len) <= BUF_MAX;
    possible.then_some(len)
}

/// Reads the header that was found at `at`, all its blocks. `Ok(None)`: it is none, or not whole,
/// or stands in the wrong place.
pub(super) fn decode(header: &[u8], at: u64) -> Result<Option<(Head, Vec<Entry>)>> {
    match block::verify(header, MAGIC, VERSION) {
        Ok(()) => {}
        Err(flaw @ Flaw::TooNew(_)) => return Err(flaw.error("undo log")),
        Err(_) => return Ok(None),
    }
    let head = Head {
        uuid: Uuid(u128_at(header, 16)),
        epoch: Epoch(u64_at(header, 32)),
        sequence: u64_at(header, 40),
        known: u64_at(header, 48),
        at: u64_at(header, 56),
        header_len: u64::from(u32_at(header, 64)),
        data_len: u64_at(header, 72),
    };
    let count = usize_of(u64::from(u32_at(header, 68)));
    let sound = head.at == at
        && head.header_len == u64_of(header.len())
        && count <= ENTRIES_MAX
        && header_len(count) == head.header_len
        && head.sequence > 0
        && head.known < head.sequence;
    if !sound {
        return Ok(None);
    }
    let mut entries = Vec::with_capacity(count);
    let mut data = 0u64;
    for number in 0..count {
        let Some(entry) = entry(header, ENTRIES_AT + number * ENTRY_LEN) else { return Ok(None) };
        if entry.checksum.is_some() {
            data = data.saturating_add(entry.range.len());
        }
        entries.push(entry);
    }
    Ok((data == head.data_len).then_some((head, entries)))
}

fn entry(header: &[u8], at: usize) -> Option<Entry> {
    let start = u64_at(header, at);
    let range = ByteRange::new(start, start.checked_add(u64_at(header, at + 8))?);
    let volume = VolumeIndex(u16_at(header, at + 16));
    let checksum = match u16_at(header, at + 18) {
        0 => Some(u32_at(header, at + 20)),
        1 => None,
        _ => return None,
    };
    let sound = volume.get() < GROUP_VOLUMES_MAX
        && is_valid(range)
        && (checksum.is_none() || usize_of(range.len()) <= BUF_MAX);
    sound.then_some(Entry { volume, range, checksum })
}
