//! The bytes of an active disk's map: which clusters its consumer wrote.
//!
//! ```text
//!   file:   [page 0 slot 0][page 0 slot 1][page 1 slot 0][page 1 slot 1] ...    sparse
//!
//!   slot, 4096 bytes:
//!      0  16  sealed header, magic "USTDACTV"
//!     16  16  id of the active disk; pages of any other id are garbage
//!     32   8  number of the page
//!     40   8  counter; it goes to slot counter % 2, the higher one counts
//!     48  16  zeroes
//!     64 2016  one bit a cluster: its content is in the data file
//!   2080 2016  one bit a cluster: it is zeroes
//! ```
//!
//! A page stands for 16128 clusters, 63 MiB of the volume. Changing the id makes the whole map
//! blank without a single write.

use super::bitmap::Bitmap;
use super::block::{BLOCK, put, seal, u64_at, u128_at, verify};
use crate::bug::{Bug, bug};
use crate::disk::{Disk, Error, ErrorKind, Result, settle};
use crate::runtime::{Buf, Data};
use crate::units::{ByteOffset, ByteRange, CLUSTER, Uuid, u64_of, usize_of};

const MAGIC: [u8; 8] = *b"USTDACTV";
const VERSION: u16 = 1;
const DATA_AT: usize = 64;
const ZERO_AT: usize = 2080;
const BITS_LEN: usize = 2016;
const BLOCK_LEN: usize = 4096;

/// The highest counter that is believed: no page is written so often, and the next one must fit too.
const COUNTER_MAX: u64 = 1 << 62;

/// Bytes of the volume that one page stands for.
pub(super) const PAGE_SPAN: u64 = u64_of(BITS_LEN) * 8 * CLUSTER;

/// Bytes of the map file of a volume.
pub(super) fn map_len(volume_len: u64) -> u64 {
    volume_len.div_ceil(PAGE_SPAN) * 2 * BLOCK
}

/// What a page says.
#[derive(Clone, Default)]
pub(super) struct Sets {
    pub(super) data: Bitmap,
    pub(super) zero: Bitmap,
}

fn span(page: u64) -> ByteRange {
    ByteRange::new(page * PAGE_SPAN, (page + 1) * PAGE_SPAN)
}

/// Where the slot of a page with this counter stands.
pub(super) fn slot_offset(page: u64, counter: u64) -> ByteOffset {
    ByteOffset((page * 2 + counter % 2) * BLOCK)
}

/// The slot for a page as `sets` has it now.
pub(super) fn encode(id: Uuid, page: u64, counter: u64, sets: &Sets) -> Data {
    let mut block = Buf::zeroed(BLOCK_LEN);
    put(&mut block, 16, &id.0.to_le_bytes());
    put(&mut block, 32, &page.to_le_bytes());
    put(&mut block, 40, &counter.to_le_bytes());
    for (at, set) in [(DATA_AT, &sets.data), (ZERO_AT, &sets.zero)] {
        let span = span(page);
        let mut from = span.start;
        while let Some(run) = set.next_range(from, span.end - from).filter(|r| r.start < span.end) {
            for cluster in run.intersect(span).clusters() {
                let bit = usize_of(cluster.0 - span.start / CLUSTER);
                block[at + bit / 8] |= 1 << (bit % 8);
            }
            from = run.end;
            if from >= span.end {
                break;
            }
        }
    }
    seal(&mut block, MAGIC, VERSION);
    block.freeze()
}

/// What a slot turned out to be.
enum Slot {
    Whole(u64),
    /// Blank, or of another active disk.
    Garbage,
    /// Of this active disk, but not whole.
    Bad,
}

fn decode(block: &[u8], id: Uuid, page: u64, slot: u64) -> Result<Slot> {
    let ours = u128_at(block, 16) == id.0 || bug(Bug::StaleActiveValid);
    match verify(block, MAGIC, VERSION) {
        Ok(()) if !ours => Ok(Slot::Garbage),
        Ok(()) => {
            let counter = u64_at(block, 40);
            let in_place = u64_at(block, 32) == page
                && counter % 2 == slot
                && (1..=COUNTER_MAX).contains(&counter);
            Ok(if in_place { Slot::Whole(counter) } else { Slot::Bad })
        }
        Err(flaw @ super::block::Flaw::TooNew(_)) if ours => {
            Err(flaw.error("map of the active disk"))
        }
        Err(_) if ours => Ok(Slot::Bad),
        Err(_) => Ok(Slot::Garbage),
    }
}

/// Adds what a page says of the volume's clusters. One beyond its end, or in both states, was never
/// written so: the page is damaged although its checksum is right.
fn add(block: &[u8], page: u64, volume_len: u64, sets: &mut Sets) -> Result<()> {
    let first = span(page).start;
    for (at, set) in [(DATA_AT, &mut sets.data), (ZERO_AT, &mut sets.zero)] {
        for (byte, bits) in (0u64..).zip(&block[at..at + BITS_LEN]) {
            for bit in (0..8).filter(|bit| bits >> bit & 1 == 1) {
                let start = first + (byte * 8 + bit) * CLUSTER;
                if start >= volume_len {
                    return Err(damaged(page, "names clusters beyond the end of the volume"));
                }
                set.set(ByteRange::new(start, start + CLUSTER));
            }
        }
    }
    let both = block[DATA_AT..DATA_AT + BITS_LEN].iter().zip(&block[ZERO_AT..]);
    if both.into_iter().any(|(data, zero)| data & zero != 0) {
        return Err(damaged(page, "names clusters both as written and as zeroes"));
    }
    Ok(())
}

fn damaged(page: u64, why: &str) -> Error {
    let text = format!(
        "map of the active disk: page {page} (volume bytes {}) {why}: \
         what a consumer wrote there is lost; discard the active disk",
        span(page)
    );
    Error::own(ErrorKind::Corrupt, text)
}

/// Reads all pages that carry `id`: the sets, and the counter of each page found.
///
/// A page torn by a crash has its other slot; one of which neither slot is whole is damage.
pub(super) async fn load<D: Disk>(
    map: &D,
    id: Uuid,
    volume_len: u64,
) -> Result<(Sets, Vec<(u64, u64)>)> {
    const PAIRS: u64 = 128;
    let mut sets = Sets::default();
    let mut counters = Vec::new();
    let end = map_len(volume_len);
    if map.len() < end {
        let why =
            format!("map of the active disk: the file has {} bytes and needs {end}", map.len());
        return Err(Error::own(ErrorKind::Corrupt, why));
    }
    settle(map).await?;
    for (part, allocated) in map.allocation(ByteRange::new(0, end)).await? {
        if !allocated {
            continue;
        }
        for piece in part.round_out(2 * BLOCK).pieces(PAIRS * 2 * BLOCK) {
            let (buf, result) = map.read(piece.offset(), Buf::new(usize_of(piece.len()))).await;
            result.map_err(|e| e.context("map of the active disk"))?;
            for (number, pair) in (0u64..).zip(buf.chunks_exact(2 * BLOCK_LEN)) {
                let page = piece.start / (2 * BLOCK) + number;
                let (zeroth, first) = pair.split_at(BLOCK_LEN);
                let slots = (decode(zeroth, id, page, 0)?, decode(first, id, page, 1)?);
                let (counter, block) = match slots {
                    (Slot::Whole(a), Slot::Whole(b)) if a > b => (a, zeroth),
                    (_, Slot::Whole(b)) => (b, first),
                    (Slot::Whole(a), _) => (a, zeroth),
                    // The first write of a page goes to slot 1: torn, nothing of it was promised.
                    (Slot::Garbage, _) => continue,
                    (Slot::Bad, _) => {
                        return Err(damaged(page, "is damaged in both slots"));
                    }
                };
                // One page may be found twice where parts were rounded out to pairs.
                if counters.last().is_none_or(|(last, _)| *last < page) {
                    counters.push((page, counter));
                    add(block, page, volume_len, &mut sets)?;
                }
            }
        }
    }
    Ok((sets, counters))
}
