use super::*;
use std::collections::BTreeMap;

use crate::disk::{Fault, Memory};
use crate::overlay::tests::Random;
use crate::units::{CLUSTER, usize_of};
use futures::executor::block_on;

const LOG: u64 = 256 << 10;

fn clusters(first: u64, end: u64) -> ByteRange {
    ByteRange::new(first * CLUSTER, end * CLUSTER)
}

fn saved(volume: u16, first: u64, count: u64, fill: u8) -> Saved {
    let range = clusters(first, first + count);
    let data = Data::copy_of(&vec![fill; usize_of(range.len())]);
    Saved { volume: VolumeIndex(volume), range, content: Content::Data(data) }
}

fn zero(volume: u16, first: u64, count: u64) -> Saved {
    Saved {
        volume: VolumeIndex(volume),
        range: clusters(first, first + count),
        content: Content::Zero,
    }
}

fn fresh<D: Disk>(disk: D, uuid: u128, epoch: u64) -> UndoLog<D> {
    block_on(UndoLog::create(disk, Uuid(uuid), Epoch(epoch))).unwrap()
}

fn found(disk: &Memory) -> Option<UndoLog<Memory>> {
    block_on(UndoLog::recover(disk.clone(), Epoch(0))).unwrap()
}

fn poke(disk: &Memory, at: u64, bytes: &[u8]) {
    block_on(disk.write(ByteOffset(at), Data::copy_of(bytes))).unwrap();
}

fn read_cluster<D: Disk>(log: &UndoLog<D>, volume: u16, cluster: u64) -> u8 {
    let range = ClusterIndex(cluster).range();
    let (buf, result) = block_on(log.read(VolumeIndex(volume), range, Buf::new(4096)));
    result.unwrap();
    assert!(buf.iter().all(|b| *b == buf[0]));
    buf[0]
}

#[test]
fn what_was_saved_is_there_again_after_a_restart() {
    let disk = Memory::new(LOG, 0);
    let log = fresh(disk.clone(), 7, 3);
    block_on(log.append(vec![
        saved(0, 4, 2, 0xa1),
        zero(1, 0, 1 << 30),
        saved(1, 1 << 31, 1, 0xb2),
    ]))
    .unwrap();
    block_on(log.append(vec![saved(0, 6, 1, 0xc3)])).unwrap();
    let again = found(&disk).unwrap();
    for log in [&log, &again] {
        assert_eq!((log.uuid(), log.epoch(), log.used()), (Uuid(7), Epoch(3), 6 * 4096));
        assert!(log.contains(VolumeIndex(0), ClusterIndex(6)));
        assert!(!log.contains(VolumeIndex(0), ClusterIndex(7)));
        assert!(!log.contains(VolumeIndex(2), ClusterIndex(6)));
        assert_eq!(log.ranges(VolumeIndex(0)), [clusters(4, 7)]);
        assert_eq!(read_cluster(log, 0, 5), 0xa1);
        assert_eq!(read_cluster(log, 0, 6), 0xc3);
        assert_eq!(read_cluster(log, 1, 77), 0);
        assert_eq!(read_cluster(log, 1, 1 << 31), 0xb2);
    }
    block_on(again.append(vec![saved(0, 9, 1, 0xd4)])).unwrap();
    assert_eq!(read_cluster(&found(&disk).unwrap(), 0, 9), 0xd4);
}

#[test]
fn a_log_without_a_batch_is_none() {
    let disk = Memory::new(LOG, 0);
    let log = fresh(disk.clone(), 7, 3);
    assert!(found(&disk).is_none());
    block_on(log.append(vec![])).unwrap();
    block_on(log.idle_sync()).unwrap();
    assert!(found(&disk).is_none());
    assert!(found(&Memory::new(LOG, 0x5a)).is_none());
}

/// Three batches, and the content of the disk before and after each.
fn three() -> (Memory, Vec<Vec<u8>>, Vec<u64>) {
    let disk = Memory::new(LOG, 0x33);
    let log = fresh(disk.clone(), 7, 3);
    let (mut contents, mut ends) = (vec![disk.content()], vec![0]);
    for n in 0..3 {
        block_on(log.append(vec![
            saved(0, n * 8, 2, 0xa0),
            zero(1, n, 1),
            saved(1, 50 + 4 * n, 3, 0xb0),
        ]))
        .unwrap();
        contents.push(disk.content());
        ends.push(log.used());
    }
    (disk, contents, ends)
}

#[test]
fn a_tail_torn_at_any_block_is_dropped_and_the_log_goes_on() {
    let (disk, contents, ends) = three();
    for batch in 1..=3 {
        let (before, after) = (&contents[batch - 1], &contents[batch]);
        let (from, to) = (usize_of(ends[batch - 1]), usize_of(ends[batch]));
        let blocks: Vec<usize> = (from..to).step_by(4096).collect();
        // Any subset of the blocks may have reached the disk; all of them in order is the whole.
        for mask in 0..(1u32 << blocks.len()) - 1 {
            poke(&disk, 0, before);
            for (_, at) in blocks.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1) {
                poke(&disk, u64_of(*at), &after[*at..*at + 4096]);
            }
            let log = found(&disk);
            assert_eq!(
                log.as_ref().map_or(0, UndoLog::used),
                ends[batch - 1],
                "batch {batch}, blocks {mask:b}"
            );
            if let Some(log) = log {
                block_on(log.append(vec![saved(3, 0, 1, 1)])).unwrap();
                assert_eq!(read_cluster(&found(&disk).unwrap(), 3, 0), 1);
            }
        }
    }
}

#[test]
fn a_flipped_bit_before_the_last_batch_known_durable_is_damage() {
    let (disk, contents, ends) = three();
    let good = &contents[3];
    for at in (0..usize_of(ends[2])).step_by(61) {
        // Zeroes behind the last entry of a header are covered as well.
        poke(&disk, u64_of(at), &[good[at] ^ (1 << (at % 8))]);
        let error = block_on(UndoLog::recover(disk.clone(), Epoch(0))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}");
        assert!(error.to_string().contains("proves that it was durable"), "{error}");
        poke(&disk, u64_of(at), &good[at..=at]);
    }
    assert!(found(&disk).is_some());
}

#[test]
fn an_idle_batch_makes_damage_to_the_last_one_visible() {
    let (disk, contents, ends) = three();
    let last = usize_of(ends[2]) + 8192;
    poke(&disk, u64_of(last), &[contents[3][last] ^ 1]);
    assert_eq!(found(&disk).unwrap().used(), ends[2]);
    poke(&disk, u64_of(last), &contents[3][last..=last]);
    let log = found(&disk).unwrap();
    block_on(log.idle_sync()).unwrap();
    assert_eq!(log.used(), ends[3] + 4096);
    block_on(log.idle_sync()).unwrap();
    assert_eq!(log.used(), ends[3] + 4096);
    let again = found(&disk).unwrap();
    block_on(again.idle_sync()).unwrap();
    assert_eq!(again.used(), ends[3] + 4096);
    poke(&disk, u64_of(last), &[contents[3][last] ^ 1]);
    assert!(block_on(UndoLog::recover(disk.clone(), Epoch(0))).is_err());
}

#[test]
fn recycled_space_is_never_replayed() {
    // Every batch of the old log is where a batch of the new one would follow.
    let (disk, _, ends) = three();
    let log = fresh(disk.clone(), 8, 4);
    let old = block_on(UndoLog::recover(disk.clone(), Epoch(3))).unwrap().unwrap();
    assert_eq!(old.uuid(), Uuid(7));
    block_on(log.append(vec![saved(0, 100, 2, 0xe0), zero(1, 100, 1), saved(1, 150, 3, 0xe1)]))
        .unwrap();
    assert_eq!(log.used(), ends[1]);
    let again = block_on(UndoLog::recover(disk.clone(), Epoch(3))).unwrap().unwrap();
    assert_eq!((again.uuid(), again.used()), (Uuid(8), ends[1]));
    assert_eq!(again.ranges(VolumeIndex(0)), [clusters(100, 102)]);
}

#[test]
fn a_torn_first_batch_in_recycled_space_is_no_log_but_one_of_a_log_in_use_is_damage() {
    let (disk, contents, _) = three();
    let mut torn = contents[3][..4096].to_vec();
    torn[2048..].fill(0xee);
    poke(&disk, 0, &torn);
    // Epoch 3 was recorded: its log was free to be recycled.
    assert!(block_on(UndoLog::recover(disk.clone(), Epoch(3))).unwrap().is_none());
    // It was not: what lies behind the bad header is needed.
    let error = block_on(UndoLog::recover(disk, Epoch(2))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn damage_to_a_log_that_is_nobodys_is_no_error() {
    let (disk, contents, ends) = three();
    for at in [0, ends[0] + 4096, ends[1], ends[1] + 4096] {
        poke(&disk, at, &[!contents[3][usize_of(at)]]);
        assert!(block_on(UndoLog::recover(disk.clone(), Epoch(2))).is_err(), "byte {at}");
        assert!(block_on(UndoLog::recover(disk.clone(), Epoch(3))).unwrap().is_none());
        poke(&disk, at, &contents[3][usize_of(at)..=usize_of(at)]);
    }
}

#[test]
fn a_batch_of_a_newer_version_is_refused_as_such() {
    let (disk, contents, ends) = three();
    let at = usize_of(ends[1]);
    let mut header = contents[3][at..at + 4096].to_vec();
    crate::overlay::block::seal(&mut header, format::MAGIC, 2);
    poke(&disk, ends[1], &header);
    assert_eq!(block_on(UndoLog::recover(disk, Epoch(0))).unwrap_err().kind(), ErrorKind::TooNew);
}

#[test]
fn a_batch_that_does_not_fit_writes_nothing_and_room_for_an_idle_one_is_kept() {
    let disk = Memory::new(8 * 4096, 0);
    let log = fresh(disk.clone(), 7, 3);
    assert!(log.room_for(&[saved(0, 0, 6, 1)]));
    let before = disk.content();
    assert_eq!(
        block_on(log.append(vec![saved(0, 0, 7, 1)])).unwrap_err().kind(),
        ErrorKind::NoSpace
    );
    assert_eq!(disk.content(), before);
    block_on(log.append(vec![saved(0, 0, 6, 1)])).unwrap();
    block_on(log.idle_sync()).unwrap();
    assert_eq!(log.used(), log.capacity());
    assert_eq!(found(&disk).unwrap().used(), log.capacity());
    assert!(!log.room_for(&[zero(0, 9, 1)]));
}

#[test]
fn requests_that_no_log_can_hold_are_refused() {
    let log = fresh(Memory::new(LOG, 0), 7, 3);
    let mut short = saved(0, 0, 2, 1);
    short.range = clusters(0, 1);
    let mut crooked = zero(0, 0, 1);
    crooked.range.start = 512;
    for bad in [short, crooked, zero(0, 0, 0), zero(64, 0, 1), zero(0, 0, (64 << 40) / CLUSTER + 1)]
    {
        assert_eq!(block_on(log.append(vec![bad])).unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_eq!(log.used(), 0);
}

#[test]
fn after_a_failed_write_a_batch_can_be_tried_again_and_after_a_failed_flush_not() {
    let memory = Memory::new(LOG, 0);
    let (disk, faults) = Fault::new(memory.clone());
    let log = fresh(disk, 7, 3);
    faults.fail_writes(true);
    assert_eq!(block_on(log.append(vec![saved(0, 0, 1, 1)])).unwrap_err().kind(), ErrorKind::Io);
    assert!(!log.contains(VolumeIndex(0), ClusterIndex(0)));
    faults.fail_writes(false);
    block_on(log.append(vec![saved(0, 0, 1, 1)])).unwrap();
    faults.fail_flushes(true);
    assert!(block_on(log.append(vec![saved(0, 1, 1, 1)])).is_err());
    faults.fail_flushes(false);
    assert_eq!(
        block_on(log.append(vec![saved(0, 1, 1, 1)])).unwrap_err().kind(),
        ErrorKind::Poisoned
    );
    assert!(!log.contains(VolumeIndex(0), ClusterIndex(1)));
}

#[test]
fn a_batch_of_many_entries_has_a_header_of_many_blocks() {
    let disk = Memory::new(16 << 20, 0);
    let log = fresh(disk.clone(), 7, 3);
    let batch: Vec<_> =
        (0..1000u64).map(|n| saved(0, 2 * n, 1, u8::try_from(n % 251).unwrap())).collect();
    block_on(log.append(batch)).unwrap();
    let again = found(&disk).unwrap();
    assert_eq!(again.used(), 6 * 4096 + 1000 * 4096);
    for n in [0, 1, 500, 999] {
        assert_eq!(read_cluster(&again, 0, 2 * n), u8::try_from(n % 251).unwrap());
    }
}

#[test]
fn epochs_may_change_within_a_log() {
    let disk = Memory::new(LOG, 0);
    let log = fresh(disk.clone(), 7, 3);
    block_on(log.append(vec![saved(0, 0, 1, 1)])).unwrap();
    log.set_epoch(Epoch(5));
    block_on(log.append(vec![saved(0, 1, 1, 1)])).unwrap();
    let again = found(&disk).unwrap();
    assert_eq!((again.epoch(), again.ranges(VolumeIndex(0)).len()), (Epoch(5), 1));
}

#[test]
fn random_logs_hold_the_first_save_of_each_cluster_before_and_after_recovery() {
    let mut random = Random::from_environment("undo");
    for round in 0..40 {
        let disk = Memory::new(4 << 20, 0x77);
        let log = fresh(disk.clone(), 1000 + round, 3);
        let mut model: BTreeMap<(u16, u64), u8> = BTreeMap::new();
        for _ in 0..20 {
            let mut batch = Vec::new();
            for _ in 0..=random.below(6) {
                let volume = u16::try_from(random.below(2)).unwrap();
                let first = random.below(60);
                let fill = u8::try_from(random.below(255) + 1).unwrap();
                let zeroes = random.below(4) == 0;
                // As the caller does: only what no log has yet, in runs.
                let fresh: Vec<u64> = (first..first + 1 + random.below(8))
                    .filter(|c| !model.contains_key(&(volume, *c)))
                    .collect();
                for run in fresh.chunk_by(|a, b| a + 1 == *b) {
                    let count = u64_of(run.len());
                    batch.push(if zeroes {
                        zero(volume, run[0], count)
                    } else {
                        saved(volume, run[0], count, fill)
                    });
                    model.extend(run.iter().map(|c| ((volume, *c), if zeroes { 0 } else { fill })));
                }
            }
            block_on(log.append(batch)).unwrap();
            if random.below(5) == 0 {
                block_on(log.idle_sync()).unwrap();
            }
        }
        for log in [log, found(&disk).unwrap()] {
            for volume in 0..2 {
                let held: Vec<u64> = log
                    .ranges(VolumeIndex(volume))
                    .into_iter()
                    .flat_map(ByteRange::clusters)
                    .map(|c| c.0)
                    .collect();
                let expected: Vec<u64> =
                    model.keys().filter(|k| k.0 == volume).map(|k| k.1).collect();
                assert_eq!(held, expected);
                for cluster in 0..70 {
                    let expected = model.get(&(volume, cluster));
                    assert_eq!(
                        log.contains(VolumeIndex(volume), ClusterIndex(cluster)),
                        expected.is_some()
                    );
                    if let Some(fill) = expected {
                        assert_eq!(read_cluster(&log, volume, cluster), *fill);
                    }
                }
                let range = ByteRange::new(random.below(100_000), 100_000 + random.below(200_000));
                let mut at = range.start;
                for (piece, place) in log.pieces(VolumeIndex(volume), range) {
                    assert_eq!(piece.start, at);
                    at = piece.end;
                    for cluster in piece.clusters() {
                        assert_eq!(place.is_some(), model.contains_key(&(volume, cluster.0)));
                    }
                }
                assert_eq!(at, range.end);
            }
        }
    }
}

#[test]
fn random_bytes_over_a_log_never_make_recovery_panic_or_invent_anything() {
    let mut random = Random::from_environment("undo garbage");
    let (disk, contents, ends) = three();
    for _ in 0..300 {
        poke(&disk, 0, &contents[3]);
        for _ in 0..=random.below(3) {
            let at = random.below(ends[3] + 8192);
            let bytes: Vec<u8> =
                (0..=random.below(200)).map(|_| random.next().to_le_bytes()[0]).collect();
            poke(&disk, at, &bytes);
        }
        if let Ok(Some(log)) = block_on(UndoLog::recover(disk.clone(), Epoch(0))) {
            assert!(ends.contains(&log.used()));
            for range in log.ranges(VolumeIndex(0)) {
                assert!(range.clusters().all(|c| read_cluster(&log, 0, c.0) == 0xa0));
            }
        }
    }
}
