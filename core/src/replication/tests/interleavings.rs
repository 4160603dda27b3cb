//! What must be visible when the primary (P) and a consumer of the view (S) write, in each order:
//! the table of the seed's behaviour, with the unit of copying at 4 KiB instead of 64.
//!
//! ```text
//!   order of writes ─► the view │ the secondary disk │ the disk after failover: during the commit,
//!                                                      after it, and in the file
//! ```

use std::time::Duration;

use super::pair::{G2, Pair, at, fill, policy, read, run};
use crate::overlay::Stage;
use crate::replication::ExportKind::{Primary, Secondary, View};
use crate::sim::{Held, Sim};
use crate::units::{ByteRange, VolumeIndex, usize_of};

const SIZE: u64 = 1 << 20;
const ALL: ByteRange = ByteRange { start: 0, end: SIZE };
/// A cluster of the seed's.
const SEED_CLUSTER: u64 = 64 << 10;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The primary writes.
    P(ByteRange, u8),
    /// A consumer of the view writes.
    S(ByteRange, u8),
}
use Step::{P, S};

/// 0x11 with these ranges laid over, in order.
fn content(over: &[(ByteRange, u8)]) -> Vec<u8> {
    let mut bytes = vec![0x11; usize_of(SIZE)];
    for (range, byte) in over {
        bytes[usize_of(range.start)..usize_of(range.end)].fill(*byte);
    }
    bytes
}

fn same(what: &str, got: &[u8], want: &[u8]) {
    let first = got.iter().zip(want).position(|(a, b)| a != b);
    let show = first.map(|i| format!("byte {i} is {:#x}, not {:#x}", got[i], want[i]));
    assert_eq!((show, got.len()), (None, want.len()), "{what}");
}

/// Takes the steps; checks the view, the secondary disk and the failed-over disk. `drained`: each of
/// the primary's writes is applied before the next step.
async fn check(
    sim: &Sim,
    steps: &[Step],
    drained: bool,
    view_over: &[(ByteRange, u8)],
    disk_over: &[(ByteRange, u8)],
) {
    let pair = Pair::new(sim, &[SIZE], Some(0x11)).await;
    pair.start(policy()).await;
    let (p, view, disk) = (pair.volume(Primary), pair.volume(View), pair.volume(Secondary));
    for step in steps {
        match *step {
            P(range, byte) => fill(&p, range, byte).await.unwrap(),
            S(range, byte) => fill(&view, range, byte).await.unwrap(),
        }
        if drained {
            pair.drain().await;
        }
    }
    let (want, want_disk) = (content(view_over), content(disk_over));
    same("view before it is drained", &read(&view, ALL).await.unwrap(), &want);
    pair.drain().await;
    same("view", &read(&view, ALL).await.unwrap(), &want);
    same("secondary disk", &read(&disk, ALL).await.unwrap(), &want_disk);
    same("primary", &read(&p, ALL).await.unwrap(), &want_disk);
    pair.failover(true).await.unwrap();
    let now = pair.secondary.volume(VolumeIndex(0), Primary).unwrap();
    let mut during = 0;
    while pair.secondary.status().role.unwrap().1 != Stage::Done {
        same("during the commit", &read(&now, ALL).await.unwrap(), &want);
        during += 1;
        sim.pause(Duration::from_micros(100)).await;
    }
    assert!(
        during > 0 || view_over.is_empty() && disk_over.is_empty(),
        "the commit was never seen"
    );
    assert_eq!(pair.secondary.get_error(G2).unwrap(), None);
    same("after the commit", &read(&now, ALL).await.unwrap(), &want);
    let file = sim.node("b").snapshot_content("volumes/v0/disk", Held::Durable).unwrap();
    same("in the file", &file, &want);
}

/// One row of the table: the same with each write drained, and with all of them in flight.
fn row(steps: &[Step], view_over: &[(ByteRange, u8)], disk_over: &[(ByteRange, u8)]) {
    for drained in [true, false] {
        run(|sim| async move { check(&sim, steps, drained, view_over, disk_over).await });
    }
}

/// A place in the middle of a cluster of the seed's.
const PLACE: ByteRange = ByteRange { start: 3 * SEED_CLUSTER, end: 4 * SEED_CLUSTER };
const FIRST: ByteRange =
    ByteRange { start: 3 * SEED_CLUSTER, end: 3 * SEED_CLUSTER + SEED_CLUSTER / 2 };

#[test]
fn what_the_primary_writes_is_hidden_and_undone() {
    row(&[P(PLACE, 0x22)], &[], &[(PLACE, 0x22)]);
}

#[test]
fn what_the_consumer_writes_is_its_own_and_kept_at_a_failover() {
    row(&[S(PLACE, 0x44)], &[(PLACE, 0x44)], &[]);
}

#[test]
fn at_the_same_place_the_consumer_s_write_is_seen_in_either_order() {
    row(&[P(PLACE, 0x22), S(PLACE, 0x44)], &[(PLACE, 0x44)], &[(PLACE, 0x22)]);
    row(&[S(PLACE, 0x44), P(PLACE, 0x22)], &[(PLACE, 0x44)], &[(PLACE, 0x22)]);
}

#[test]
fn neighbours_within_one_cluster_do_not_touch_each_other() {
    let (one, next) = (at(PLACE.start, 4096), at(PLACE.start + 4096, 4096));
    row(&[P(one, 0x22), S(next, 0x44)], &[(next, 0x44)], &[(one, 0x22)]);
    row(&[S(next, 0x44), P(one, 0x22)], &[(next, 0x44)], &[(one, 0x22)]);
}

#[test]
fn neighbours_within_one_of_our_own_clusters_do_not_touch_each_other() {
    let (one, next) = (at(PLACE.start, 512), at(PLACE.start + 512, 1024));
    row(&[P(one, 0x22), S(next, 0x44)], &[(next, 0x44)], &[(one, 0x22)]);
    row(&[S(next, 0x44), P(one, 0x22)], &[(next, 0x44)], &[(one, 0x22)]);
    let (odd, even) = (at(PLACE.start + 1, 6000), at(PLACE.start + 6001, 100));
    row(&[P(odd, 0x22), S(even, 0x44), P(odd, 0x23)], &[(even, 0x44)], &[(odd, 0x23)]);
}

#[test]
fn a_second_write_of_the_primary_does_not_replace_what_was_saved() {
    row(&[P(PLACE, 0x22), P(PLACE, 0x33)], &[], &[(PLACE, 0x33)]);
}

#[test]
fn the_consumer_s_half_between_two_writes_of_the_primary_is_kept() {
    row(&[P(PLACE, 0x22), S(FIRST, 0x44), P(PLACE, 0x33)], &[(FIRST, 0x44)], &[(PLACE, 0x33)]);
}

#[test]
fn a_checkpoint_between_the_writes_drops_the_consumer_s_and_moves_the_view_on() {
    run(|sim| async move {
        let pair = Pair::new(&sim, &[SIZE], Some(0x11)).await;
        pair.start(policy()).await;
        let (p, view) = (pair.volume(Primary), pair.volume(View));
        fill(&p, PLACE, 0x22).await.unwrap();
        fill(&view, FIRST, 0x44).await.unwrap();
        pair.checkpoint().await;
        same("view", &read(&view, ALL).await.unwrap(), &content(&[(PLACE, 0x22)]));
        fill(&p, FIRST, 0x33).await.unwrap();
        fill(&view, at(0, 512), 0x55).await.unwrap();
        pair.drain().await;
        let want = content(&[(PLACE, 0x22), (at(0, 512), 0x55)]);
        same("view", &read(&view, ALL).await.unwrap(), &want);
        pair.failover(true).await.unwrap();
        let now = pair.secondary.volume(VolumeIndex(0), Primary).unwrap();
        same("failed over", &read(&now, ALL).await.unwrap(), &want);
    });
}

#[test]
fn a_checkpoint_drops_a_consumer_s_zeroes_too() {
    run(|sim| async move {
        use crate::disk::Disk as _;
        let pair = Pair::new(&sim, &[SIZE], Some(0x11)).await;
        pair.start(policy()).await;
        let view = pair.volume(View);
        view.write_zeroes(PLACE, true).await.unwrap();
        same("own zeroes", &read(&view, ALL).await.unwrap(), &content(&[(PLACE, 0)]));
        pair.checkpoint().await;
        same("after the checkpoint", &read(&view, ALL).await.unwrap(), &content(&[]));
    });
}

#[test]
fn an_automatic_failover_discards_what_a_consumer_left() {
    run(|sim| async move {
        let pair = Pair::new(&sim, &[SIZE], Some(0x11)).await;
        pair.start(policy()).await;
        let (p, view) = (pair.volume(Primary), pair.volume(View));
        fill(&view, PLACE, 0x44).await.unwrap();
        fill(&p, FIRST, 0x22).await.unwrap();
        pair.drain().await;
        pair.failover(false).await.unwrap();
        let now = pair.secondary.volume(VolumeIndex(0), Primary).unwrap();
        same("at once", &read(&now, ALL).await.unwrap(), &content(&[]));
        pair.wait_for(|p| p.secondary.status().role.unwrap().1 == Stage::Done).await;
        same("merged", &read(&now, ALL).await.unwrap(), &content(&[]));
    });
}
