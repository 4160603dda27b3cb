use super::*;
use std::collections::BTreeMap;

use crate::disk::{Fault, Memory};
use crate::overlay::tests::Random;
use crate::units::usize_of;
use futures::executor::block_on;

const LEN: u64 = 3 * PAGE_SPAN - 1536;

fn clusters(first: u64, end: u64) -> ByteRange {
    ByteRange::new(first * CLUSTER, end * CLUSTER)
}

fn data(range: ByteRange, fill: u8) -> Data {
    Data::copy_of(&vec![fill; usize_of(range.len())])
}

/// A small data disk, and a map full of what an earlier owner left.
fn disks() -> (Memory, Memory) {
    (Memory::new(1 << 20, 0), Memory::new(Active::<Memory>::map_len(LEN), 0x44))
}

fn small(id: u128) -> (Active<Memory>, Memory, Memory) {
    let (data, map) = disks();
    (Active::blank(data.clone(), map.clone(), Uuid(id), 1 << 20), data, map)
}

fn read<D: Disk>(active: &Active<D>, cluster: u64) -> u8 {
    let (buf, result) = block_on(active.read(ByteOffset(cluster * CLUSTER), Buf::new(4096)));
    result.unwrap();
    buf[0]
}

#[test]
fn what_was_flushed_is_there_again_and_what_was_not_is_absent() {
    let (active, d, m) = small(5);
    block_on(active.write(clusters(3, 5), data(clusters(3, 5), 7))).unwrap();
    block_on(active.zero(clusters(8, 10))).unwrap();
    block_on(active.flush()).unwrap();
    block_on(active.write(clusters(20, 21), data(clusters(20, 21), 9))).unwrap();
    assert_eq!(active.bytes(), 3 * CLUSTER);
    let again = block_on(Active::open(d, m, Uuid(5), 1 << 20)).unwrap();
    assert_eq!(again.state(ClusterIndex(4)), ActiveState::Data);
    assert_eq!(again.state(ClusterIndex(9)), ActiveState::Zero);
    assert_eq!(again.state(ClusterIndex(20)), ActiveState::Absent);
    assert_eq!(read(&again, 4), 7);
    assert_eq!(again.ranges(), [clusters(3, 5), clusters(8, 10)]);
    assert_eq!(
        again.pieces(ByteRange::new(5000, 50_000)),
        [
            (ByteRange::new(5000, 3 * CLUSTER), ActiveState::Absent),
            (clusters(3, 5), ActiveState::Data),
            (clusters(5, 8), ActiveState::Absent),
            (clusters(8, 10), ActiveState::Zero),
            (ByteRange::new(10 * CLUSTER, 50_000), ActiveState::Absent),
        ]
    );
}

#[test]
fn pages_of_another_id_are_garbage() {
    let (active, d, m) = small(5);
    block_on(active.write(clusters(3, 5), data(clusters(3, 5), 7))).unwrap();
    block_on(active.flush()).unwrap();
    let other = block_on(Active::open(d, m, Uuid(6), 1 << 20)).unwrap();
    assert!(other.ranges().is_empty());
    block_on(other.zero(clusters(0, 1))).unwrap();
    block_on(other.flush()).unwrap();
    let (d, m) = other.disks();
    let again = block_on(Active::open(d, m, Uuid(6), 1 << 20)).unwrap();
    assert_eq!(again.ranges(), [clusters(0, 1)]);
}

#[test]
fn a_torn_page_falls_back_to_the_flush_before() {
    let (active, d, m) = small(5);
    for n in 0..3 {
        block_on(active.zero(clusters(n * 10, n * 10 + 1))).unwrap();
        block_on(active.flush()).unwrap();
    }
    // Counter 3 stands in slot 1, counter 2 in slot 0.
    for at in (4096..8192).step_by(511) {
        let good = m.content();
        block_on(m.write(ByteOffset(at), Data::copy_of(&[good[usize_of(at)] ^ 4]))).unwrap();
        let again = block_on(Active::open(d.clone(), m.clone(), Uuid(5), 1 << 20)).unwrap();
        assert_eq!(again.ranges(), [clusters(0, 1), clusters(10, 11)], "byte {at}");
        block_on(m.write(ByteOffset(at), Data::copy_of(&good[usize_of(at)..=usize_of(at)])))
            .unwrap();
    }
    for at in [100, 4200] {
        block_on(m.write(ByteOffset(at), Data::copy_of(&[0x99]))).unwrap();
    }
    let error = block_on(Active::open(d, m, Uuid(5), 1 << 20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn a_failed_flush_of_the_map_leaves_what_was_flushed_before_and_can_be_retried_if_only_a_write_failed()
 {
    let (d, memory) = disks();
    let (m, faults) = Fault::new(memory.clone());
    let (d, _) = Fault::new(d);
    let active = Active::blank(d.clone(), m, Uuid(5), 1 << 20);
    block_on(active.zero(clusters(1, 2))).unwrap();
    block_on(active.flush()).unwrap();
    block_on(active.zero(clusters(3, 4))).unwrap();
    faults.fail_writes(true);
    assert_eq!(block_on(active.flush()).unwrap_err().kind(), ErrorKind::Io);
    faults.fail_writes(false);
    let (fine, _) = Fault::new(memory);
    let now = block_on(Active::open(d.clone(), fine.clone(), Uuid(5), 1 << 20)).unwrap();
    assert_eq!(now.ranges(), [clusters(1, 2)]);
    block_on(active.flush()).unwrap();
    let now = block_on(Active::open(d, fine, Uuid(5), 1 << 20)).unwrap();
    assert_eq!(now.ranges(), [clusters(1, 2), clusters(3, 4)]);
}

#[test]
fn the_last_cluster_of_a_volume_may_be_a_part_of_one() {
    let (_, map) = disks();
    let len = 10 * CLUSTER + 512;
    let active = Active::blank(Memory::new(len, 0), map, Uuid(5), len);
    let last = ByteRange::new(10 * CLUSTER, len);
    block_on(active.write(last, data(last, 3))).unwrap();
    assert_eq!(active.ranges(), [last]);
    block_on(active.zero(last)).unwrap();
    assert_eq!(active.state(ClusterIndex(10)), ActiveState::Zero);
    for bad in [ByteRange::new(0, 512), ByteRange::new(512, 4096), clusters(11, 12)] {
        assert_eq!(block_on(active.zero(bad)).unwrap_err().kind(), ErrorKind::Invalid, "{bad:?}");
    }
}

#[test]
fn random_writes_over_page_borders_are_found_again_as_a_model_has_them() {
    let mut random = Random::from_environment("active");
    for _ in 0..8 {
        let map = Memory::new(Active::<Memory>::map_len(LEN), 0x44);
        let active = Active::blank(Memory::new(LEN, 0), map.clone(), Uuid(5), LEN);
        let border = PAGE_SPAN / CLUSTER;
        let mut model: BTreeMap<u64, ActiveState> = BTreeMap::new();
        for _ in 0..60 {
            let first = border * random.below(2) + border - 40 + random.below(60);
            let range = clusters(first, first + 1 + random.below(12));
            if random.below(2) == 0 {
                block_on(active.zero(range)).unwrap();
                model.extend(range.clusters().map(|c| (c.0, ActiveState::Zero)));
            } else {
                block_on(active.write(range, data(range, 1))).unwrap();
                model.extend(range.clusters().map(|c| (c.0, ActiveState::Data)));
            }
            if random.below(4) == 0 {
                block_on(active.flush()).unwrap();
            }
        }
        block_on(active.flush()).unwrap();
        let again = block_on(Active::open(active.disks().0, map, Uuid(5), LEN)).unwrap();
        for active in [&active, &again] {
            for cluster in border - 50..3 * border - 1 {
                let expected = model.get(&cluster).copied().unwrap_or(ActiveState::Absent);
                assert_eq!(active.state(ClusterIndex(cluster)), expected, "cluster {cluster}");
            }
            let whole: Vec<_> = active.pieces(ByteRange::new(0, LEN));
            assert!(whole.windows(2).all(|w| w[0].0.end == w[1].0.start));
            for (piece, state) in whole {
                for cluster in piece.clusters() {
                    assert_eq!(
                        model.get(&cluster.0).copied().unwrap_or(ActiveState::Absent),
                        state
                    );
                }
            }
        }
    }
}

#[test]
fn a_sealed_page_of_what_cannot_be_is_damage() {
    let len = 10 * CLUSTER;
    let sets = |data: ByteRange, zero: ByteRange| {
        let mut sets = Sets::default();
        sets.data.set(data);
        sets.zero.set(zero);
        sets
    };
    let good = sets(clusters(0, 5), clusters(5, 10));
    for (counter, sets, why) in [
        (1, good.clone(), ""),
        (1, sets(clusters(9, 11), clusters(0, 1)), "beyond the end"),
        (1, sets(clusters(0, 5), clusters(4, 6)), "both as written"),
        // In slot 0: one in slot 1 could be the torn first write.
        (u64::MAX - 1, good, "both slots"),
    ] {
        let map = Memory::new(Active::<Memory>::map_len(len), 0);
        let page = active_map::encode(Uuid(5), 0, counter, &sets);
        block_on(map.write(active_map::slot_offset(0, counter), page)).unwrap();
        let opened = block_on(Active::open(Memory::new(len, 0), map, Uuid(5), len));
        match opened {
            Ok(active) => {
                assert_eq!(why, "");
                assert_eq!(active.ranges(), [clusters(0, 10)]);
            }
            Err(e) => assert!(!why.is_empty() && e.to_string().contains(why), "{e}"),
        }
    }
}
