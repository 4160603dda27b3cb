//! The bytes of the intent log.
//!
//! ```text
//!   file:  sectors of 512 bytes, first all of volume 0, then volume 1, ...; zeroes up to 4096
//!
//!   sector:
//!      0  16  sealed header, magic "USTDINTN"; its own field: the volume
//!     16   8  number of the sector in the file
//!     24 488  one bit a region of 1 MiB: 3904 regions, 3.8 GiB of the volume
//! ```
//!
//! Written in blocks of 8 sectors. Each sector stands for itself, so a block torn by a power cut
//! is no damage: its sectors are old or new, and every mark that was promised is in both.

use std::collections::BTreeSet;
use std::ops::Range;

use super::super::block::{BLOCK, Flaw, put, seal, u16_at, u64_at, verify};
use super::INTENT_REGION;
use crate::disk::{Disk, Error, ErrorKind, Result};
use crate::runtime::{Buf, Data};
use crate::units::{ByteOffset, ByteRange, VolumeIndex, u64_of, usize_of};

const MAGIC: [u8; 8] = *b"USTDINTN";
const VERSION: u16 = 1;
const SECTOR: usize = 512;
const BITS_AT: usize = 24;
/// Words of one sector.
const WORDS: u64 = 61;
/// Regions of one sector.
const REGIONS: u64 = WORDS * 64;
/// Sectors of one block.
const SECTORS: u64 = 8;

/// Where the regions of each volume are. Regions are numbered through the whole file: those of a
/// volume begin at a sector of their own.
pub(super) struct Layout {
    /// First sector, and length in bytes.
    volumes: Vec<(u64, u64)>,
    sectors: u64,
}

impl Layout {
    pub(super) fn new(lens: &[u64]) -> Self {
        let mut sectors = 0;
        let mut volumes = Vec::new();
        for len in lens {
            volumes.push((sectors, *len));
            sectors += len.div_ceil(INTENT_REGION).div_ceil(REGIONS);
        }
        Self { volumes, sectors }
    }

    pub(super) fn blocks(&self) -> u64 {
        self.sectors.div_ceil(SECTORS)
    }

    pub(super) fn file_len(&self) -> u64 {
        self.blocks().max(1) * BLOCK
    }

    pub(super) fn check(&self, disk_len: u64) -> Result<()> {
        if disk_len >= self.file_len() {
            return Ok(());
        }
        let why = format!(
            "intent log: the file has {disk_len} bytes and needs {}: it was cut off",
            self.file_len()
        );
        Err(Error::own(ErrorKind::Corrupt, why))
    }

    /// The regions that `range` touches; `None` if it is not within the volume.
    pub(super) fn regions(&self, volume: VolumeIndex, range: ByteRange) -> Option<Range<u64>> {
        let (sector, len) = *self.volumes.get(volume.get())?;
        let first = sector * REGIONS;
        if range.end > len {
            return None;
        }
        if range.is_empty() {
            return Some(first..first);
        }
        Some(first + range.start / INTENT_REGION..first + range.end.div_ceil(INTENT_REGION))
    }

    /// All of a volume; empty if there is no such volume.
    pub(super) fn whole(&self, volume: VolumeIndex) -> ByteRange {
        ByteRange::new(0, self.volumes.get(volume.get()).map_or(0, |(_, len)| *len))
    }

    /// Each volume with all its regions.
    pub(super) fn volumes(&self) -> Vec<(VolumeIndex, Range<u64>)> {
        // There are at most 64.
        let numbers = (0u16..).map(VolumeIndex).take(self.volumes.len());
        numbers.filter_map(|v| Some((v, self.regions(v, self.whole(v))?))).collect()
    }

    pub(super) fn block_of(region: u64) -> u64 {
        region / REGIONS / SECTORS
    }

    /// The words that stand in a block.
    pub(super) fn words_of(&self, block: u64) -> Range<usize> {
        let end = ((block + 1) * SECTORS).min(self.sectors);
        usize_of(block * SECTORS * WORDS)..usize_of(end * WORDS)
    }

    pub(super) fn no_bits(&self) -> Bits {
        Bits(vec![0; usize_of(self.sectors * WORDS)])
    }

    fn volume_of(&self, sector: u64) -> u16 {
        let after = self.volumes.partition_point(|(first, _)| *first <= sector);
        // Volumes without a region share their first sector with the next one; the last counts.
        u16::try_from(after.saturating_sub(1)).unwrap_or(u16::MAX)
    }

    /// The regions of a sector that exist.
    fn regions_of_sector(&self, sector: u64) -> Range<u64> {
        let volume = VolumeIndex(self.volume_of(sector));
        let all = self.regions(volume, self.whole(volume)).unwrap_or(0..0);
        (sector * REGIONS).max(all.start)..((sector + 1) * REGIONS).min(all.end)
    }
}

/// One bit a region.
#[derive(Clone)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub(super) fn has(&self, region: u64) -> bool {
        self.0.get(usize_of(region / 64)).is_some_and(|word| word >> (region % 64) & 1 == 1)
    }

    pub(super) fn set(&mut self, region: u64) {
        if let Some(word) = self.0.get_mut(usize_of(region / 64)) {
            *word |= 1 << (region % 64);
        }
    }

    pub(super) fn clear(&mut self, region: u64) {
        if let Some(word) = self.0.get_mut(usize_of(region / 64)) {
            *word &= !(1 << (region % 64));
        }
    }

    pub(super) fn words(&self, range: Range<usize>) -> Vec<u64> {
        self.0.get(range).unwrap_or_default().to_vec()
    }

    pub(super) fn intersect(&mut self, range: Range<usize>, with: &[u64]) {
        self.0
            .get_mut(range)
            .into_iter()
            .flatten()
            .zip(with)
            .for_each(|(word, other)| *word &= other);
    }

    pub(super) fn unite(&mut self, range: Range<usize>, with: &[u64]) {
        self.0
            .get_mut(range)
            .into_iter()
            .flatten()
            .zip(with)
            .for_each(|(word, other)| *word |= other);
    }

    /// The runs of set bits within `range`.
    pub(super) fn runs(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        let mut at = range.start;
        while at < range.end {
            // Whole words of nothing are what most of it is.
            if at.is_multiple_of(64) && self.0.get(usize_of(at / 64)) == Some(&0) {
                at += 64;
                continue;
            }
            if self.has(at) {
                match runs.last_mut() {
                    Some(last) if last.end == at => last.end = at + 1,
                    _ => runs.push(at..at + 1),
                }
            }
            at += 1;
        }
        runs
    }
}

/// A block as `bits` has it, and where it goes.
pub(super) fn encode(layout: &Layout, block: u64, bits: &Bits) -> (ByteOffset, Data) {
    let mut buf = Buf::zeroed(usize_of(BLOCK));
    let first = block * SECTORS;
    for (sector, bytes) in (first..layout.sectors).zip(buf.chunks_exact_mut(SECTOR)) {
        put(bytes, 10, &layout.volume_of(sector).to_le_bytes());
        put(bytes, 16, &sector.to_le_bytes());
        let words = bits.0.iter().skip(usize_of(sector * WORDS)).take(usize_of(WORDS));
        for (place, word) in bytes[BITS_AT..].chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        seal(bytes, MAGIC, VERSION);
    }
    (ByteOffset(block * BLOCK), buf.freeze())
}

/// All bits, and the blocks that have to be written because a sector of them was bad: all of its
/// regions are marked then.
pub(super) async fn load<D: Disk>(disk: &D, layout: &Layout) -> Result<(Bits, BTreeSet<u64>)> {
    let mut bits = layout.no_bits();
    let mut bad = BTreeSet::new();
    for piece in ByteRange::new(0, layout.blocks() * BLOCK).pieces(1 << 20) {
        let (mut buf, result) = disk.read(piece.offset(), Buf::new(usize_of(piece.len()))).await;
        match result {
            Ok(()) => {}
            // Sectors that cannot be read: what they held counts as marked, and is written anew.
            Err(e) if e.kind() == ErrorKind::Io => buf.fill(0),
            Err(e) => return Err(super::named(e)),
        }
        let first = piece.start / u64_of(SECTOR);
        for (sector, bytes) in (first..layout.sectors).zip(buf.chunks_exact(SECTOR)) {
            match verify(bytes, MAGIC, VERSION) {
                Ok(())
                    if u64_at(bytes, 16) == sector
                        && u16_at(bytes, 10) == layout.volume_of(sector) =>
                {
                    let words = bits.0.iter_mut().skip(usize_of(sector * WORDS));
                    for (word, at) in words.zip((BITS_AT..SECTOR).step_by(8)) {
                        *word = u64_at(bytes, at);
                    }
                }
                Err(flaw @ Flaw::TooNew(_)) => return Err(flaw.error("intent log")),
                Ok(()) | Err(_) => {
                    layout.regions_of_sector(sector).for_each(|region| bits.set(region));
                    bad.insert(sector / SECTORS);
                }
            }
        }
    }
    Ok((bits, bad))
}
