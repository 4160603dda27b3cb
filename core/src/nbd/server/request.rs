//! One request: judged before it touches anything, then done.

use futures::future::join_all;
use futures::stream::{FuturesOrdered, StreamExt};

use super::PIECE;
use super::connection::Connection;
use crate::disk::{Disk, Error, Result};
use crate::nbd::errno::{self, EINVAL, ENOSPC, EPERM};
use crate::nbd::handshake::Session;
use crate::nbd::wire::{Extent, REQUEST_MAX, Request, command, command_flag, extent};
use crate::runtime::{Data, Env};
use crate::units::{ByteOffset, ByteRange, u32_of, u64_of, usize_of};

/// The most extents in one reply; a client asks again for the rest.
const EXTENTS_MAX: usize = 16 << 10;

/// The most bytes whose allocation is looked up at once.
const STATUS_MAX: u64 = 1 << 30;

/// What a lookup of allocation counts for, in bytes of payload.
const STATUS_COST: u64 = 1 << 20;

/// A request that was found good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Job {
    Read { range: ByteRange, whole: bool },
    Write { range: ByteRange, durable: bool },
    Zeroes { range: ByteRange, punch: bool, durable: bool },
    Discard { range: ByteRange, durable: bool },
    Flush,
    Status { range: ByteRange, context: u32, one: bool },
}

/// A request that was not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refused {
    pub(super) errno: u32,
    pub(super) text: String,
}

impl Job {
    /// How many bytes it holds in memory.
    pub(super) fn cost(&self) -> u64 {
        match self {
            Self::Read { range, .. } | Self::Write { range, .. } => range.len(),
            Self::Status { .. } => STATUS_COST,
            Self::Zeroes { .. } | Self::Discard { .. } | Self::Flush => 0,
        }
    }
}

/// Judges a request by what was negotiated.
pub(super) fn check<D: Disk>(
    session: &Session<D>,
    request: &Request,
) -> std::result::Result<Job, Refused> {
    let refuse = |errno, text| Err(Refused { errno, text });
    let Request { flags, command, offset, length, .. } = *request;
    let allowed = match command {
        command::READ if session.structured => command_flag::FUA | command_flag::DONT_FRAGMENT,
        command::WRITE_ZEROES => command_flag::FUA | command_flag::NO_HOLE,
        command::BLOCK_STATUS => command_flag::FUA | command_flag::REQ_ONE,
        command::READ | command::WRITE | command::TRIM | command::FLUSH => command_flag::FUA,
        other => return refuse(EINVAL, format!("unknown command {other}")),
    };
    if flags & !allowed != 0 {
        return refuse(EINVAL, format!("flags {flags:#x} of command {command}, not {allowed:#x}"));
    }
    if command == command::FLUSH {
        return Ok(Job::Flush);
    }
    let export = &session.export;
    let changes = matches!(command, command::WRITE | command::WRITE_ZEROES | command::TRIM);
    if changes && export.read_only {
        return refuse(EPERM, format!("export '{}' is read-only", session.name));
    }
    let size = export.size();
    let range = ByteRange::at(ByteOffset(offset), length.into()).filter(|r| r.end <= size);
    let Some(range) = range else {
        let errno = if changes { ENOSPC } else { EINVAL };
        return refuse(errno, format!("{offset}+{length} reaches beyond the end at {size}"));
    };
    let block = export.blocks.minimum;
    if !range.is_aligned(block.into()) {
        return refuse(EINVAL, format!("{range} is no multiple of the block size {block}"));
    }
    let maximum = export.blocks.maximum.min(REQUEST_MAX);
    if matches!(command, command::READ | command::WRITE) && length > maximum {
        return refuse(EINVAL, format!("{length} bytes in one request, the limit is {maximum}"));
    }
    let durable = flags & command_flag::FUA != 0;
    Ok(match command {
        command::READ => Job::Read { range, whole: flags & command_flag::DONT_FRAGMENT != 0 },
        command::WRITE => Job::Write { range, durable },
        command::TRIM => Job::Discard { range, durable },
        command::WRITE_ZEROES => {
            Job::Zeroes { range, punch: flags & command_flag::NO_HOLE == 0, durable }
        }
        _ => {
            let one = flags & command_flag::REQ_ONE != 0;
            match session.context {
                Some(context) if !range.is_empty() => Job::Status { range, context, one },
                Some(_) => return refuse(EINVAL, "block status of no bytes".into()),
                None => return refuse(EINVAL, "no metadata context was negotiated".into()),
            }
        }
    })
}

/// Does a request and queues its reply.
pub(super) async fn run<E: Env, D: Disk>(
    connection: &Connection<E, D>,
    cookie: u64,
    job: Job,
    data: Vec<Data>,
) {
    let disk = &connection.session.export.disk;
    let replies = &connection.replies;
    let done = match job {
        Job::Read { range, whole } => match read(connection, cookie, range, whole).await {
            Ok(()) => return,
            Err(e) => Err(e),
        },
        Job::Write { range, durable } => {
            let written = write(disk, range, data).await;
            and_flush(disk, written, durable).await
        }
        Job::Zeroes { range, punch, durable } => {
            let zeroed =
                if range.is_empty() { Ok(()) } else { disk.write_zeroes(range, punch).await };
            and_flush(disk, zeroed, durable).await
        }
        Job::Discard { range, durable } => {
            let gone = if range.is_empty() { Ok(()) } else { disk.discard(range).await };
            and_flush(disk, gone, durable).await
        }
        Job::Flush => disk.flush().await,
        Job::Status { range, context, one } => match status(disk, range, one).await {
            Ok(extents) => return replies.extents(cookie, context, &extents),
            Err(e) => Err(e),
        },
    };
    match done {
        Ok(()) => replies.done(cookie),
        Err(e) => replies.error(cookie, errno::of(e.kind()), &e.to_string()),
    }
}

async fn and_flush<D: Disk>(disk: &D, before: Result<()>, durable: bool) -> Result<()> {
    match before {
        Ok(()) if durable => disk.flush().await,
        other => other,
    }
}

/// Reads and queues the reply; after an error the caller queues the end of it.
async fn read<E: Env, D: Disk>(
    connection: &Connection<E, D>,
    cookie: u64,
    range: ByteRange,
    whole: bool,
) -> Result<()> {
    let Connection { env, session, replies, .. } = connection;
    let disk = &session.export.disk;
    if range.len() <= PIECE {
        let buf = env.alloc(usize_of(range.len()));
        let (buf, result) = disk.read(range.offset(), buf).await;
        result?;
        replies.data(cookie, range.start, vec![buf.freeze()], true);
        return Ok(());
    }
    let mut reads: FuturesOrdered<_> = cut(range)
        .map(|piece| disk.read(piece.offset(), env.alloc(usize_of(piece.len()))))
        .collect();
    let in_chunks = session.structured && !whole;
    let mut at = range.start;
    let mut parts = Vec::new();
    let mut all = Ok(());
    while let Some((buf, result)) = reads.next().await {
        let here = at;
        at += u64_of(buf.len());
        // All are awaited also after an error: the end of the reply says that none is in flight.
        all = all.and(result);
        match &all {
            Err(_) => {}
            Ok(()) if in_chunks => replies.data(cookie, here, vec![buf.freeze()], at == range.end),
            Ok(()) => parts.push(buf.freeze()),
        }
    }
    if all.is_ok() && !in_chunks {
        replies.data(cookie, range.start, parts, true);
    }
    all
}

async fn write<D: Disk>(disk: &D, range: ByteRange, data: Vec<Data>) -> Result<()> {
    if data.len() > 1 {
        let writes = cut(range).zip(data).map(|(piece, data)| disk.write(piece.offset(), data));
        // Awaited to the last also after an error: the reply says that nothing is in flight.
        let all: Vec<_> = join_all(writes).await;
        return all.into_iter().collect();
    }
    match data.into_iter().next() {
        Some(data) => disk.write(range.offset(), data).await,
        None => Ok(()),
    }
}

/// Pieces of [`PIECE`] bytes from the start on, so that they are aligned if the range is.
fn cut(range: ByteRange) -> impl Iterator<Item = ByteRange> {
    (0..range.len().div_ceil(PIECE)).map(move |n| {
        let start = range.start + n * PIECE;
        ByteRange::new(start, (start + PIECE).min(range.end))
    })
}

/// What is allocated, in the protocol's words; at least one extent, from the start of `range` on.
async fn status<D: Disk>(disk: &D, range: ByteRange, one: bool) -> Result<Vec<Extent>> {
    let range = ByteRange::new(range.start, range.end.min(range.start.saturating_add(STATUS_MAX)));
    let mut extents: Vec<Extent> = Vec::new();
    for (part, allocated) in disk.allocation(range).await? {
        let flags = if allocated { 0 } else { extent::HOLE | extent::ZERO };
        let length = u32_of(part.intersect(range).len());
        let full = extents.len() >= if one { 1 } else { EXTENTS_MAX };
        match extents.last_mut() {
            _ if length == 0 => {}
            Some(last) if last.flags == flags => last.length += length,
            _ if full => break,
            _ => extents.push(Extent { length, flags }),
        }
    }
    if extents.is_empty() {
        let text = format!("the disk says nothing about the allocation of {range}");
        return Err(Error::own(crate::disk::ErrorKind::Io, text));
    }
    Ok(extents)
}

#[cfg(test)]
mod tests;
