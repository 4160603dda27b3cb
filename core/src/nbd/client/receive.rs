//! The receiving half of a client: replies, judged and brought to who awaits them.

use super::table::Kind;
use super::{Shared, corrupt, lost};
use crate::disk::{Error, ErrorKind, Result};
use crate::nbd::errno;
use crate::nbd::wire::{
    CHUNK_LEN, Chunk, ErrorChunk, SIMPLE_LEN, SimpleReply, chunk, decode_extents, decode_hole,
};
use crate::runtime::{Env, Reader};
use crate::units::{ByteRange, usize_of};

/// The longest content of a chunk that is no data, in bytes.
const CONTENT_MAX: u32 = 1 << 20;

/// Receives until the connection ends; says why it did.
pub(super) async fn run<E: Env>(shared: &Shared<E>, reader: &mut Reader<E::Stream>) -> Error {
    loop {
        if let Err(error) = reply(shared, reader).await {
            return error;
        }
    }
}

async fn reply<E: Env>(shared: &Shared<E>, reader: &mut Reader<E::Stream>) -> Result<()> {
    // Both kinds of reply are told apart by their first bytes, and neither is shorter than this.
    let mut head = [0; SIMPLE_LEN];
    if !reader.exact_or_end(&mut head).await.map_err(lost)? {
        return Err(Error::own(ErrorKind::Disconnected, "the NBD server closed the connection"));
    }
    let magic = head.first_chunk().copied().unwrap_or_default();
    if SimpleReply::is_simple(magic) {
        return simple(shared, reader, SimpleReply::decode(&head).map_err(corrupt)?).await;
    }
    let mut header = [0; CHUNK_LEN];
    let (first, rest) = header.split_at_mut(SIMPLE_LEN);
    first.copy_from_slice(&head);
    reader.exact(rest).await.map_err(lost)?;
    let header = Chunk::decode(&header).map_err(corrupt)?;
    if !shared.server.structured {
        return Err(corrupt("a reply in chunks that were not negotiated"));
    }
    structured(shared, reader, header).await?;
    if header.is_done() && !shared.table.done(header.cookie) {
        return Err(corrupt("a reply that ends before it is complete"));
    }
    Ok(())
}

async fn simple<E: Env>(
    shared: &Shared<E>,
    reader: &mut Reader<E::Stream>,
    reply: SimpleReply,
) -> Result<()> {
    let cookie = reply.cookie;
    let (kind, range) = shared.table.awaited(cookie).ok_or_else(unknown)?;
    if reply.errno != 0 {
        shared.table.error(cookie, answered(reply.errno, ""));
    } else if kind == Kind::Read {
        data(shared, reader, cookie, range, range).await?;
    }
    if shared.table.done(cookie) { Ok(()) } else { Err(corrupt("a block status without extents")) }
}

async fn structured<E: Env>(
    shared: &Shared<E>,
    reader: &mut Reader<E::Stream>,
    header: Chunk,
) -> Result<()> {
    let Chunk { kind, cookie, length, .. } = header;
    let (awaited, range) = shared.table.awaited(cookie).ok_or_else(unknown)?;
    let fits = match kind {
        chunk::NONE => length == 0 && header.is_done(),
        chunk::OFFSET_DATA => length > 8 && u64::from(length) - 8 <= range.len(),
        chunk::OFFSET_HOLE => length == 12,
        _ => length <= CONTENT_MAX,
    };
    if !fits {
        return Err(corrupt(format!("a chunk of kind {kind:#x} with {length} bytes of content")));
    }
    match kind {
        chunk::NONE => Ok(()),
        chunk::OFFSET_DATA if awaited == Kind::Read => {
            let mut at = [0; 8];
            reader.exact(&mut at).await.map_err(lost)?;
            let part = part(range, u64::from_be_bytes(at), u64::from(length) - 8)?;
            data(shared, reader, cookie, range, part).await
        }
        chunk::OFFSET_HOLE if awaited == Kind::Read => {
            let content = reader.payload(12).await.map_err(lost)?;
            let (at, len) = decode_hole(&content).map_err(corrupt)?;
            let part = part(range, at, len.into())?;
            let mut buf = shared.table.take(cookie).ok_or_else(unknown)?;
            if let Some(hole) = buf.get_mut(within(range, part)) {
                hole.fill(0);
            }
            covered(shared.table.put(cookie, buf, part))
        }
        chunk::BLOCK_STATUS if awaited == Kind::Status => {
            let content = reader.payload(usize_of(length.into())).await.map_err(lost)?;
            let (context, extents) = decode_extents(&content).map_err(corrupt)?;
            if Some(context) != shared.server.context {
                return Err(corrupt(format!("extents of the context {context}, unknown here")));
            }
            covered(shared.table.extents(cookie, extents))
        }
        _ if kind & chunk::ERROR_BIT != 0 => {
            let content = reader.payload(usize_of(length.into())).await.map_err(lost)?;
            let error = ErrorChunk::decode(kind, &content).map_err(corrupt)?;
            shared.table.error(cookie, answered(error.errno, &error.text));
            Ok(())
        }
        _ => Err(corrupt(format!("a chunk of kind {kind:#x} in the reply to a {awaited:?}"))),
    }
}

/// Receives the bytes `part` of a read of `range`.
async fn data<E: Env>(
    shared: &Shared<E>,
    reader: &mut Reader<E::Stream>,
    cookie: u64,
    range: ByteRange,
    part: ByteRange,
) -> Result<()> {
    if part == range {
        // The whole: the received buffer takes the place of the one that waits, without a copy.
        let buf = reader.payload(usize_of(range.len())).await.map_err(lost)?;
        return covered(shared.table.put(cookie, buf, part));
    }
    let mut buf = shared.table.take(cookie).ok_or_else(unknown)?;
    let received = match buf.get_mut(within(range, part)) {
        Some(to) => reader.exact(to).await.map_err(lost),
        None => Err(corrupt("data outside of the request")),
    };
    let new = shared.table.put(cookie, buf, part);
    received.and_then(|()| covered(new))
}

/// `len` bytes at `at`, which must lie inside of the request.
fn part(range: ByteRange, at: u64, len: u64) -> Result<ByteRange> {
    let part = ByteRange::at(crate::units::ByteOffset(at), len);
    part.filter(|p| !p.is_empty() && p.intersect(range) == *p)
        .ok_or_else(|| corrupt(format!("{len} bytes at {at} in the reply to a read of {range}")))
}

/// Where in the buffer of a read of `range` the bytes `part` are.
fn within(range: ByteRange, part: ByteRange) -> std::ops::Range<usize> {
    usize_of(part.start - range.start)..usize_of(part.end - range.start)
}

fn covered(new: bool) -> Result<()> {
    if new { Ok(()) } else { Err(corrupt("a reply that brings the same bytes twice")) }
}

fn unknown() -> Error {
    corrupt("a reply to a request that was not made")
}

/// The server's error, in our words and its own.
fn answered(number: u32, text: &str) -> Error {
    let text: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
    let colon = if text.is_empty() { "" } else { ": " };
    let what = format!("the NBD server answers: {}{colon}{text}", errno::name(number));
    Error::own(errno::kind(number), what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_outside_of_the_request_is_refused() {
        let range = ByteRange::new(4096, 8192);
        assert!(part(range, 4096, 4096).is_ok());
        for (at, len) in [(0, 4097), (4095, 1), (8192, 1), (8191, 2), (u64::MAX, 2), (5000, 0)] {
            assert!(part(range, at, len).is_err(), "{at}+{len}");
        }
        assert_eq!(within(range, ByteRange::new(4100, 4101)), 4..5);
    }
}
