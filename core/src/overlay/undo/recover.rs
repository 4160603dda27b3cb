//! Finding the batches of a log again.
//!
//! ```text
//!   [1 ok][2 ok][3 bad] ......... [5, knows that 4 is durable] ...     damage: 3 had been durable
//!   [1 ok][2 ok][3 bad] ......... nothing of this log                  torn tail: 3 is dropped
//!   [1 ok][2 ok][3 bad] ......... and epoch <= freed                   recycled: nobody's
//!   [bad] ....................... [2 of a log of epoch > freed]        damage: that log is in use
//!   [bad] ....................... nothing, or logs of epochs <= freed  no log
//!   damage of any kind in a log of an epoch <= freed                   no log: it is nobody's
//! ```
//!
//! A bad header does not say how long its batch is, so the rest of the file is searched in steps of
//! 4 KiB for headers. What looks like one must match its checksum, its place and the uuid. The
//! search is paid once at each opening: every log ends in something that is no batch.

use super::format::{self, Entry, Head};
use super::map::Map;
use super::{Place, UndoLog};
use crate::bug::{Bug, bug};
use crate::disk::{Disk, Error, ErrorKind, Result, settle};
use crate::overlay::block::BLOCK;
use crate::runtime::Buf;
use crate::units::{ByteOffset, Epoch, Uuid, u64_of, usize_of};

/// How much is read at once.
const STEP: u64 = 1 << 20;

pub(super) async fn recover<D: Disk>(disk: D, freed: Epoch) -> Result<Option<UndoLog<D>>> {
    settle(&disk).await.map_err(|e| e.context("undo log"))?;
    let mut map = Map::default();
    let mut last: Option<Head> = None;
    let mut idle = false;
    let mut at = 0;
    while let Some((head, entries)) = header(&disk, at).await? {
        let follows = match last {
            None => head.sequence == 1,
            Some(before) => {
                let same = head.uuid == before.uuid || bug(Bug::RecycledReplayed);
                same && head.sequence == before.sequence + 1
            }
        };
        if !follows || !data_is_whole(&disk, &head, &entries).await? {
            break;
        }
        let mut place = at + head.header_len;
        for entry in &entries {
            if entry.checksum.is_some() {
                map.insert(entry.volume, entry.range, Place::At(ByteOffset(place)));
                place += entry.range.len();
            } else {
                map.insert(entry.volume, entry.range, Place::Zero);
            }
        }
        at = place;
        idle = entries.is_empty();
        last = Some(head);
    }
    let Some(last) = last else {
        no_log_is_lost(&disk, freed).await?;
        return Ok(None);
    };
    if let Some(later) = later_batch(&disk, at, last.uuid).await?
        && later.known > last.sequence
        && !bug(Bug::RotTakenForTail)
    {
        // A freed log may be what a torn first batch of its successor has left.
        if last.epoch.max(later.epoch) <= freed {
            return Ok(None);
        }
        return Err(Error::own(
            ErrorKind::Corrupt,
            format!(
                "undo log {} of epoch {}: batch {} at byte {at} is damaged, though batch {} proves that it was durable: \
                 checkpoint {} can't be restored from this replica; copy it anew from the peer",
                last.uuid,
                last.epoch,
                last.sequence + 1,
                later.sequence,
                last.epoch.previous(),
            ),
        ));
    }
    Ok(Some(UndoLog::with(disk, last.uuid, last.epoch, at, last.sequence, idle, map)))
}

/// The first header is bad: that is damage if a log that can't have been freed lies behind it.
async fn no_log_is_lost<D: Disk>(disk: &D, freed: Epoch) -> Result<()> {
    let mut at = 0;
    let uuid = match header(disk, 0).await? {
        // A whole header whose data is torn: only more of the same log would prove damage. Unless
        // that log is freed: then the torn data is its successor's, whose header never arrived.
        Some((head, _)) if head.sequence == 1 && head.epoch > freed => Some(head.uuid),
        _ => None,
    };
    while let Some(head) = next_header(disk, at, uuid).await? {
        if head.epoch > freed && head.known > 0 && !bug(Bug::RotTakenForTail) {
            return Err(Error::own(
                ErrorKind::Corrupt,
                format!(
                    "undo log {} of epoch {}: its first batch is damaged, though batch {} proves that it was durable; \
                     copy this replica anew from the peer",
                    head.uuid, head.epoch, head.sequence
                ),
            ));
        }
        at = head.at + BLOCK;
    }
    Ok(())
}

/// The batch of this log behind `at` that knows most.
async fn later_batch<D: Disk>(disk: &D, at: u64, uuid: Uuid) -> Result<Option<Head>> {
    let mut best: Option<Head> = None;
    let mut from = at;
    while let Some(head) = next_header(disk, from, Some(uuid)).await? {
        if best.is_none_or(|b| head.known > b.known) {
            best = Some(head);
        }
        from = head.at + BLOCK;
    }
    Ok(best)
}

/// The first whole header at or behind `from`, of this log if one is named.
async fn next_header<D: Disk>(disk: &D, from: u64, uuid: Option<Uuid>) -> Result<Option<Head>> {
    let mut at = from;
    let end = disk.len() / BLOCK * BLOCK;
    while at < end {
        let len = STEP.min(end - at);
        let chunk = read(disk, at, len).await?;
        for (number, block) in (0..).zip(chunk.chunks_exact(usize_of(BLOCK))) {
            if format::claimed_len(block).is_none() {
                continue;
            }
            if let Some((head, _)) = header(disk, at + number * BLOCK).await?
                && uuid.is_none_or(|u| u == head.uuid)
            {
                return Ok(Some(head));
            }
        }
        at += len;
    }
    Ok(None)
}

/// The whole header at `at`.
async fn header<D: Disk>(disk: &D, at: u64) -> Result<Option<(Head, Vec<Entry>)>> {
    if at.saturating_add(BLOCK) > disk.len() {
        return Ok(None);
    }
    let block = read(disk, at, BLOCK).await?;
    let Some(len) = format::claimed_len(&block).filter(|len| at + len <= disk.len()) else {
        return Ok(None);
    };
    if len == BLOCK {
        return format::decode(&block, at);
    }
    format::decode(&read(disk, at, len).await?, at)
}

/// Whether the data of a batch is what its entries say.
async fn data_is_whole<D: Disk>(disk: &D, head: &Head, entries: &[Entry]) -> Result<bool> {
    let mut at = head.at + head.header_len;
    if at.checked_add(head.data_len).is_none_or(|end| end > disk.len()) {
        return Ok(false);
    }
    // Small entries are checked out of one larger read.
    let mut chunk = Buf::new(0);
    let mut chunk_at = at;
    let end = at + head.data_len;
    for entry in entries {
        let Some(checksum) = entry.checksum else { continue };
        let len = entry.range.len();
        if at + len > chunk_at + u64_of(chunk.len()) {
            chunk = read(disk, at, len.max(STEP.min(end - at))).await?;
            chunk_at = at;
        }
        let from = usize_of(at - chunk_at);
        if chunk.get(from..from + usize_of(len)).map(crc32c::crc32c) != Some(checksum) {
            return Ok(false);
        }
        at += len;
    }
    Ok(true)
}

async fn read<D: Disk>(disk: &D, at: u64, len: u64) -> Result<Buf> {
    let (buf, result) = disk.read(ByteOffset(at), Buf::new(usize_of(len))).await;
    result.map_err(|e| e.context("undo log"))?;
    Ok(buf)
}
