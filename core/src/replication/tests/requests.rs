//! Requests of every shape: any alignment, at the end, overlapping, zeroes and discards.

use futures::future::join_all;

use super::pair::{Pair, at, fill, pattern, policy, read, run};
use crate::disk::{Disk, ErrorKind};
use crate::overlay::Policy;
use crate::replication::ExportKind::{Primary, Secondary, View};
use crate::runtime::Data;
use crate::sim::{Random, Sim};
use crate::units::{ByteOffset, ByteRange, usize_of};

/// A multiple of 512 and not of 4096.
const SIZE: u64 = (512 << 10) - 1536;
const ALL: ByteRange = ByteRange { start: 0, end: SIZE };

async fn started(sim: &Sim, alignment: u64) -> Pair {
    sim.node("a").set_alignment(alignment);
    sim.node("b").set_alignment(alignment);
    let pair = Pair::new(sim, &[SIZE], Some(0x11)).await;
    pair.start(Policy { undo_limit: 64 << 20, ..policy() }).await;
    pair
}

/// A range of any alignment, often at an edge.
fn any_range(random: &Random) -> ByteRange {
    let longest = [1, 17, 512, 5000, 40_000][usize_of(random.below(5))];
    let len = 1 + random.below(longest);
    let start = match random.below(4) {
        0 => SIZE - len,
        1 => random.below((SIZE - len) / 512) * 512,
        _ => random.below(SIZE - len),
    };
    at(start, len)
}

/// One request on the disk, and on the model if it is given.
async fn one(disk: &impl Disk, model: Option<&mut Vec<u8>>, range: ByteRange, byte: u8, kind: u64) {
    match kind {
        0 => disk.write_zeroes(range, false).await.unwrap(),
        1 => disk.write_zeroes(range, true).await.unwrap(),
        _ => fill(disk, range, byte).await.unwrap(),
    }
    if let Some(model) = model {
        model[usize_of(range.start)..usize_of(range.end)].fill(if kind < 2 { 0 } else { byte });
    }
}

#[test]
fn requests_of_any_alignment_are_right_on_both_sides() {
    for alignment in [1, 512, 4096] {
        run(|sim| async move {
            let pair = started(&sim, alignment).await;
            let (p, view) = (pair.volume(Primary), pair.volume(View));
            let random = sim.random(7);
            let mut primary = vec![0x11; usize_of(SIZE)];
            let mut own = primary.clone();
            for i in 0..120_u8 {
                one(&p, Some(&mut primary), any_range(&random), 0x20 + i, random.below(5)).await;
                one(&view, Some(&mut own), any_range(&random), 0xa0 ^ i, random.below(5)).await;
                let look = any_range(&random);
                let part = usize_of(look.start)..usize_of(look.end);
                assert!(read(&p, look).await.unwrap() == primary[part.clone()], "primary {look}");
                assert!(read(&view, look).await.unwrap() == own[part], "view {look}");
                if i % 40 == 39 {
                    pair.checkpoint().await;
                    own.clone_from(&primary);
                    assert!(read(&view, ALL).await.unwrap() == own, "checkpoint");
                }
            }
            for i in 0..40_u8 {
                one(&p, Some(&mut primary), any_range(&random), 0x30 + i, random.below(5)).await;
                one(&view, Some(&mut own), any_range(&random), 0xb0 ^ i, random.below(5)).await;
            }
            pair.drain().await;
            assert!(read(&pair.volume(Secondary), ALL).await.unwrap() == primary, "secondary disk");
            assert!(read(&view, ALL).await.unwrap() == own, "view");
            pair.failover(true).await.unwrap();
            let now = pair.promoted();
            for i in 0..40_u8 {
                one(&now, Some(&mut own), any_range(&random), 0x50 + i, random.below(5)).await;
                let look = any_range(&random);
                assert!(
                    read(&now, look).await.unwrap()
                        == own[usize_of(look.start)..usize_of(look.end)]
                );
            }
            pair.merged().await;
            assert!(read(&now, ALL).await.unwrap() == own, "promoted");
        });
    }
}

#[test]
fn requests_beyond_the_end_are_refused_whole() {
    run(|sim| async move {
        let pair = started(&sim, 512).await;
        for kind in [Primary, View] {
            let disk = pair.volume(kind);
            assert_eq!(disk.len(), SIZE);
            for (start, len) in [(SIZE - 1, 2), (SIZE, 1), (SIZE + 4096, 512), (u64::MAX - 10, 5)] {
                let data = Data::copy_of(&vec![0x22; usize_of(len)]);
                let error = disk.write(ByteOffset(start), data).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Invalid);
                let (_, r) =
                    disk.read(ByteOffset(start), crate::runtime::Buf::new(usize_of(len))).await;
                assert_eq!(r.unwrap_err().kind(), ErrorKind::Invalid);
            }
            assert!(disk.write_zeroes(at(SIZE - 512, 1024), true).await.is_err());
        }
        assert_eq!(pattern(&pair.volume(Primary), ALL).await, [(0x11, usize_of(SIZE))]);
    });
}

#[test]
fn overlapping_writes_in_flight_end_the_same_on_both_sides() {
    for alignment in [1, 512, 4096] {
        run(|sim| async move {
            let pair = started(&sim, alignment).await;
            let (p, view) = (pair.volume(Primary), pair.volume(View));
            let random = sim.random(9);
            for round in 0..10_u64 {
                let base = random.below(SIZE - 70_000);
                let writes = (0..24_u8).map(|i| {
                    let range = at(base + random.below(9000), 1 + random.below(9000));
                    let (p, kind) = (p.clone(), random.below(6));
                    async move { one(&p, None, range, 0x20 + i, kind).await }
                });
                let own = at(base, 3000);
                let (_, written) = futures::join!(join_all(writes), fill(&view, own, 0xcc));
                written.unwrap();
                pair.drain().await;
                let local = read(&p, ALL).await.unwrap();
                assert!(
                    read(&pair.volume(Secondary), ALL).await.unwrap() == local,
                    "round {round}"
                );
                assert_eq!(pattern(&view, own).await, [(0xcc, 3000)]);
                if round % 3 == 2 {
                    pair.checkpoint().await;
                    assert!(read(&view, ALL).await.unwrap() == local);
                }
            }
        });
    }
}

/// Whether nearly all of it is deallocated: a punch that takes effect in two parts keeps a block.
async fn is_hole(disk: &impl Disk, range: ByteRange) -> bool {
    let parts = disk.allocation(range).await.unwrap();
    let kept: u64 = parts.iter().filter(|(_, allocated)| *allocated).map(|(r, _)| r.len()).sum();
    kept <= 4096
}

#[test]
fn discards_reach_the_peer_and_give_their_space_back_and_a_failover_brings_it_again() {
    run(|sim| async move {
        let pair = started(&sim, 512).await;
        let (p, disk, view) = (pair.volume(Primary), pair.volume(Secondary), pair.volume(View));
        let hole = at(64 << 10, 128 << 10);
        p.write_zeroes(hole, true).await.unwrap();
        pair.drain().await;
        assert!(is_hole(&p, hole).await && is_hole(&disk, hole).await);
        assert_eq!(pattern(&disk, hole).await, [(0, 128 << 10)]);
        assert_eq!(pattern(&view, hole).await, [(0x11, 128 << 10)], "the checkpoint has it still");
        pair.checkpoint().await;
        assert_eq!(pattern(&view, hole).await, [(0, 128 << 10)]);
        let zeroed = at(256 << 10, 64 << 10);
        p.write_zeroes(zeroed, false).await.unwrap();
        fill(&p, hole, 0x33).await.unwrap();
        pair.drain().await;
        assert_eq!(pattern(&disk, zeroed).await, [(0, 64 << 10)]);
        assert_eq!(pattern(&view, zeroed).await, [(0x11, 64 << 10)]);
        pair.failover(false).await.unwrap();
        pair.merged().await;
        let now = pair.promoted();
        assert_eq!(pattern(&now, zeroed).await, [(0x11, 64 << 10)]);
        assert_eq!(pattern(&now, hole).await, [(0, 128 << 10)]);
        assert!(is_hole(&now, hole).await, "a hole again");
    });
}
