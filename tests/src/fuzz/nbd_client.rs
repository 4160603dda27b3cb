//! An NBD client, fed by any server.
//!
//! ```text
//!   script:  mode(1)   bit 0 raw bytes from the server, bit 1 for the list of exports; else
//!            greeting(1) size(8) flags(2) blocks(1) operations(1)
//!            { operation(1) offset(4) length(4) }…   then the server's own script (nbd_peer.rs)
//! ```
//!
//! Holds: every operation ends; what was agreed upon makes sense; a read that ends well holds the
//! volume's bytes or zeroes, in their places, and nothing that was in memory before; what is said of
//! allocation covers what was asked for without a gap. An operation costs a bounded number of requests.

use futures::FutureExt;
use futures::future::{LocalBoxFuture, join_all};
use std::time::Duration;
use understudy_core::disk::{Disk, Result};
use understudy_core::nbd::client::Options;
use understudy_core::nbd::wire::handshake_flag;
use understudy_core::nbd::{BlockSizes, Client};
use understudy_core::runtime::{Buf, Data};
use understudy_core::units::{ByteRange, VOLUME_MAX, usize_of};

use super::input::{Input, Script};
use super::nbd_peer::{Peer, byte_at};
use super::world::{Far, Next, Wire, World};

const OPTIONS: Options =
    Options { handshake: Duration::from_secs(10), request: Some(Duration::from_secs(3)) };
/// The longest read or write here, in bytes.
const LENGTH_MAX: u32 = 256 << 10;
/// What a buffer held before: must never be seen in a read that ended well.
const BEFORE: u8 = 0xa5;
/// The least that a server may take at once; an operation is at most so many requests and two more.
const PIECE: u64 = 4096;

/// Says its bytes in pieces, whatever it hears.
struct Raw {
    pieces: std::vec::IntoIter<Vec<u8>>,
}

impl Far for Raw {
    fn next(&mut self) -> Next {
        self.pieces.next().map_or(Next::End, Next::Bytes)
    }

    fn sent(&mut self, _: &[u8]) {}
}

#[derive(Clone, Copy, Debug)]
struct Operation {
    kind: u8,
    range: ByteRange,
}

fn operations(input: &mut Input<'_>, size: u64) -> Vec<Operation> {
    let count = input.u8() % 10;
    let operation = |_| {
        let kind = input.u8();
        let (offset, length) = (u64::from(input.u32()), input.u32() % (LENGTH_MAX + 1));
        // Most are well within the volume and of whole sectors.
        let offset =
            if kind & 0x80 == 0 { (offset % size.clamp(1, 1 << 22)) & !511 } else { offset << 16 };
        let length = if kind & 0x40 == 0 { length & !511 } else { length };
        Operation { kind, range: ByteRange::new(offset, offset + u64::from(length)) }
    };
    (0..count).map(operation).collect()
}

/// What became of an operation.
enum Outcome {
    Read(Buf),
    Allocation(Vec<(ByteRange, bool)>),
    Plain,
}

/// Submits an operation.
fn begin<F: Far>(
    client: &Client<World<F>>,
    operation: Operation,
) -> LocalBoxFuture<'static, Result<Outcome>> {
    let range = operation.range;
    let (at, len) = (range.offset(), usize_of(range.len()));
    match operation.kind % 8 {
        0..3 => {
            let mut buf = Buf::new(len);
            buf.fill(BEFORE);
            client
                .read(at, buf)
                .map(|(buf, result)| result.map(|()| Outcome::Read(buf)))
                .boxed_local()
        }
        3 => client
            .write(at, Data::copy_of(&vec![7; len]))
            .map(|r| r.map(|()| Outcome::Plain))
            .boxed_local(),
        4 => client.write_zeroes(range, false).map(|r| r.map(|()| Outcome::Plain)).boxed_local(),
        5 => client.discard(range).map(|r| r.map(|()| Outcome::Plain)).boxed_local(),
        6 => client.flush().map(|r| r.map(|()| Outcome::Plain)).boxed_local(),
        _ => client.allocation(range).map(|r| r.map(Outcome::Allocation)).boxed_local(),
    }
}

/// Connects and does all operations, three at a time; how each ended, or `None` without a connection.
async fn play<F: Far>(
    env: World<F>,
    wire: Wire<F>,
    operations: Vec<Operation>,
) -> Option<Vec<(Operation, Result<Outcome>)>> {
    let client = Client::connect(&env, wire, "vol", &OPTIONS).await.ok()?;
    let agreed = client.negotiated();
    assert!(agreed.size <= VOLUME_MAX && agreed.blocks.is_valid(), "{agreed:?}");
    assert!(agreed.size.is_multiple_of(agreed.blocks.minimum.into()), "{agreed:?}");
    let mut ended = Vec::new();
    for some in operations.chunks(3) {
        let begun: Vec<_> = some.iter().map(|o| begin(&client, *o)).collect();
        ended.extend(some.iter().copied().zip(join_all(begun).await));
    }
    if operations.len().is_multiple_of(2) {
        client.close().await;
    }
    Some(ended)
}

fn judge(operation: Operation, outcome: Outcome, honest: bool) {
    let range = operation.range;
    match outcome {
        Outcome::Plain => {}
        Outcome::Read(buf) if honest => {
            for (offset, byte) in (range.start..).zip(buf.iter()) {
                assert!(*byte == 0 || *byte == byte_at(offset), "{byte:#x} at {offset} of {range}");
            }
        }
        Outcome::Read(buf) => assert_eq!(buf.len(), usize_of(range.len())),
        Outcome::Allocation(parts) => {
            let mut at = range.start;
            for (part, _) in &parts {
                assert!(
                    part.start == at && (!part.is_empty() || range.is_empty()),
                    "{parts:?} of {range}"
                );
                at = part.end;
            }
            assert_eq!(at, range.end, "{parts:?} of {range}");
        }
    }
}

fn peer(input: &mut Input<'_>) -> (Peer, Vec<Operation>) {
    let both = handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES;
    let greeting = both ^ u16::from(input.u8());
    let (size, flags) = (input.u64(), input.u16());
    let blocks = match input.u8() {
        0 => BlockSizes::of(1),
        1 => BlockSizes::of(512),
        2 => BlockSizes { maximum: 64 << 10, ..BlockSizes::of(4096) },
        _ => BlockSizes { minimum: input.u32(), preferred: input.u32(), maximum: input.u32() },
    };
    let operations = operations(input, size);
    (Peer::new(greeting, size, flags, blocks, input.rest()), operations)
}

/// The target.
pub fn nbd_client(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mode = input.u8();
    if mode & 1 == 1 {
        return raw(mode, input);
    }
    let (peer, operations) = peer(&mut input);
    let (world, wire) = (World::new(), Wire::new(peer));
    if mode & 2 == 2 {
        let env = world.clone();
        return drop(world.run(async move { Client::list(&env, wire, &OPTIONS).await }));
    }
    let ended = world.run(play(world.clone(), wire.clone(), operations));
    let (honest, requests) = wire.far(|peer| (peer.honest, peer.requests));
    let pieces = |o: &Operation| usize_of(o.range.len().div_ceil(PIECE)) + 2;
    let Some(ended) = ended else { return };
    // Allocation may be asked for again and again, as long as the script answers.
    let most: usize = ended.iter().map(|(o, _)| pieces(o)).sum::<usize>() + bytes.len();
    assert!(requests <= most, "{requests} requests for {} operations", ended.len());
    for (operation, outcome) in ended {
        if let Ok(outcome) = outcome {
            judge(operation, outcome, honest);
        }
    }
}

fn raw(mode: u8, mut input: Input<'_>) {
    let operations = operations(&mut input, 1 << 20);
    let piece = [1 << 20, 1, 20, 100][usize::from(mode >> 4 & 3)];
    let pieces: Vec<Vec<u8>> = input.rest().chunks(piece).map(<[u8]>::to_vec).collect();
    let (world, wire) = (World::new(), Wire::new(Raw { pieces: pieces.into_iter() }));
    let env = world.clone();
    if mode & 2 == 2 {
        return drop(world.run(async move { Client::list(&env, wire, &OPTIONS).await }));
    }
    for (operation, outcome) in world.run(play(env, wire, operations)).into_iter().flatten() {
        if let Ok(outcome) = outcome {
            judge(operation, outcome, false);
        }
    }
}

/// Whether a connection came about, and the first operation ended well.
pub(super) fn reaches(bytes: &[u8]) -> bool {
    let mut input = Input(bytes);
    if input.u8() != 0 {
        return true;
    }
    let (peer, operations) = peer(&mut input);
    let (world, wire) = (World::new(), Wire::new(peer));
    let ended = world.run(play(world.clone(), wire, operations));
    ended.is_some_and(|ended| ended.first().is_some_and(|(_, outcome)| outcome.is_ok()))
}

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    use understudy_core::nbd::wire::{Greeting, InfoReply, OptionReply, flag, option, reply};
    let flags = flag::HAS_FLAGS | flag::SEND_FLUSH | flag::SEND_WRITE_ZEROES;
    let begin =
        |blocks, count| Script::default().u8(0).u8(0).u64(1 << 20).u16(flags).u8(blocks).u8(count);
    let ask = |s: Script, kind: u8, at: u32, len: u32| s.u8(kind).u32(at).u32(len);
    let three = |blocks| {
        let s = ask(begin(blocks, 6), 0, 4096, 8192);
        let s = ask(ask(s, 3, 0, 4096), 7, 0, 65536);
        ask(ask(ask(s, 4, 0, 4096), 6, 0, 0), 0, 0, 512)
    };
    let facts = [
        Greeting { flags: 3 }.encode(),
        OptionReply::encode(option::STRUCTURED_REPLY, reply::ERR_UNSUP, b"no"),
        OptionReply::encode(option::GO, reply::INFO, &InfoReply::Export(1 << 20, flags).encode()),
        OptionReply::encode(option::GO, reply::ACK, &[]),
    ];
    let list = [
        Greeting { flags: 3 }.encode(),
        OptionReply::encode(option::LIST, reply::SERVER, b"\0\0\0\x03vol"),
        OptionReply::encode(option::LIST, reply::ACK, &[]),
    ];
    vec![
        // Structured, context, go; then whole data, done, status, done, done, whole data.
        ("structured", three(1).raw(&[0, 0, 0, 8, 2, 10, 2, 2, 8]).0),
        ("simple", three(0).raw(&[1, 0, 0, 0, 0, 0, 0, 0]).0),
        ("export-name", three(2).raw(&[1, 1, 0, 0, 0, 0, 0, 0]).0),
        // A read in three parts: data, a hole, data.
        (
            "parts",
            ask(begin(1, 1), 0, 0, 8192)
                .raw(&[0, 0, 0])
                .raw(&[3, 0, 0, 0, 16, 0])
                .raw(&[4, 0, 16, 0, 8, 0])
                .raw(&[3, 0, 24, 0, 8, 1])
                .0,
        ),
        ("error", ask(begin(1, 1), 3, 0, 512).raw(&[0, 0, 0, 2]).0),
        ("raw", ask(Script::default().u8(1).u8(1), 0, 0, 512).raw(&facts.concat()).0),
        ("raw-list", Script::default().u8(3).u8(0).raw(&list.concat()).0),
        ("list", Script::default().u8(2).u8(0).0),
    ]
}
