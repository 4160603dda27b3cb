use super::*;
use std::collections::BTreeSet;

use super::sweep::FREE_TIME;
use crate::disk::{Fault, Memory};
use crate::overlay::tests::{Gated, Random};
use crate::units::usize_of;
use futures::executor::block_on;

const MIB: u64 = 1 << 20;
const LENS: [u64; 3] = [5 << 40, 512, 40 << 30];
const A: VolumeIndex = VolumeIndex(0);
const C: VolumeIndex = VolumeIndex(2);

fn mib(first: u64, end: u64) -> ByteRange {
    ByteRange::new(first * MIB, end * MIB)
}

fn memory() -> Memory {
    Memory::new(IntentLog::<Memory>::file_len(&LENS), 0)
}

fn reopened(disk: &Memory) -> IntentLog<Memory> {
    block_on(IntentLog::open(disk.clone(), &LENS)).unwrap()
}

#[test]
fn marks_are_rounded_out_and_found_again() {
    let disk = memory();
    let log = block_on(IntentLog::create(disk.clone(), &LENS)).unwrap();
    assert!(!log.is_marked(A, ByteRange::new(0, 1)));
    block_on(log.mark(A, ByteRange::new(MIB - 1, MIB + 1))).unwrap();
    block_on(log.mark(VolumeIndex(1), ByteRange::new(0, 512))).unwrap();
    block_on(log.mark_many(C, [mib(5, 7), mib(7, 8), mib((40 << 10) - 1, 40 << 10)])).unwrap();
    for log in [log, reopened(&disk)] {
        assert_eq!(log.marked(A), [mib(0, 2)]);
        assert_eq!(log.marked(VolumeIndex(1)), [ByteRange::new(0, 512)]);
        assert_eq!(log.marked(C), [mib(5, 8), mib((40 << 10) - 1, 40 << 10)]);
        assert!(log.is_marked(C, mib(6, 8)));
        assert!(!log.is_marked(C, mib(6, 9)));
    }
}

#[test]
fn a_marked_region_costs_no_io_and_one_outside_is_refused() {
    let disk = Gated::new(IntentLog::<Gated>::file_len(&LENS), 4096);
    let log = block_on(IntentLog::create(disk.clone(), &LENS)).unwrap();
    block_on(log.mark(A, mib(3, 4))).unwrap();
    let before = disk.flushes();
    block_on(log.mark(A, ByteRange::new(3 * MIB + 4096, 3 * MIB + 8192))).unwrap();
    assert_eq!(disk.flushes(), before);
    assert_eq!(
        block_on(log.mark(VolumeIndex(1), ByteRange::new(0, 513))).unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert_eq!(
        block_on(log.mark(VolumeIndex(3), ByteRange::new(0, 1))).unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

#[test]
fn callers_share_a_flush_and_those_that_come_while_it_is_under_way_wait_for_the_next() {
    let disk = Gated::new(IntentLog::<Gated>::file_len(&LENS), 4096);
    let log = block_on(IntentLog::create(disk.clone(), &LENS)).unwrap();
    let before = disk.flushes();
    disk.shut(true);
    let (mut first, mut second) =
        (Box::pin(log.mark(A, mib(0, 1))), Box::pin(log.mark(A, mib(0, 1))));
    assert!(first.as_mut().now_or_never().is_none());
    assert!(second.as_mut().now_or_never().is_none());
    let mut late: Vec<_> = (10..20).map(|n| Box::pin(log.mark(C, mib(n, n + 1)))).collect();
    for mark in &mut late {
        assert!(mark.as_mut().now_or_never().is_none());
    }
    assert!(!log.is_marked(C, mib(10, 11)));
    disk.shut(false);
    block_on(first).unwrap();
    block_on(second).unwrap();
    assert_eq!(disk.flushes(), before + 1);
    assert!(!log.is_marked(C, mib(10, 11)));
    for result in block_on(join_all(late)) {
        result.unwrap();
    }
    assert_eq!(disk.flushes(), before + 2);
    assert_eq!(reopened(&disk.inner).marked(C), [mib(10, 20)]);
}

#[test]
fn a_commit_whose_callers_were_dropped_is_carried_to_its_end_by_the_next() {
    let disk = Gated::new(IntentLog::<Gated>::file_len(&LENS), 4096);
    let log = block_on(IntentLog::create(disk.clone(), &LENS)).unwrap();
    disk.shut(true);
    let mut dropped = Box::pin(log.mark(A, mib(0, 1)));
    assert!(dropped.as_mut().now_or_never().is_none());
    drop(dropped);
    disk.shut(false);
    block_on(log.mark(A, mib(1, 2))).unwrap();
    assert_eq!(reopened(&disk.inner).marked(A), [mib(0, 2)]);
}

#[test]
fn a_sweep_leaves_what_is_kept_what_is_hot_and_what_is_being_marked() {
    let disk = Gated::new(IntentLog::<Gated>::file_len(&LENS), 4096);
    let log = block_on(IntentLog::create(disk.clone(), &LENS)).unwrap();
    block_on(log.mark_many(C, [mib(0, 4)])).unwrap();
    let hot = u64_of(INTENT_HOT);
    for n in 0..hot {
        block_on(log.mark(A, mib(n, n + 1))).unwrap();
    }
    disk.shut(true);
    let mut under_way = Box::pin(log.mark(C, mib(100, 101)));
    assert!(under_way.as_mut().now_or_never().is_none());
    log.sweep(Mono::default(), |volume, range| {
        (volume == C && range.start == 2 * MIB).then_some(range.end)
    });
    // The one under way is the newest, so one of the hot ones is not hot any more.
    assert_eq!(log.marked(C), [mib(2, 3), mib(100, 101)]);
    assert_eq!(log.marked(A), [mib(1, hot)]);
    disk.shut(false);
    block_on(under_way).unwrap();
    assert!(log.is_marked(C, mib(100, 101)));
    // The disk still has what was swept: to mark it again is free until a commit has cleared it.
    let before = disk.flushes();
    assert!(!log.is_marked(A, mib(0, 1)));
    block_on(log.commit()).unwrap();
    assert_eq!(disk.flushes(), before + 1);
    let again = reopened(&disk.inner);
    assert_eq!((again.marked(C), again.marked(A)), (log.marked(C), log.marked(A)));
}

#[test]
fn a_commit_is_due_when_the_disk_has_many_marks_that_nobody_wants() {
    for (marks, is_due) in [(64, false), (66, false), (67, true)] {
        let disk = Gated::new(IntentLog::<Gated>::file_len(&LENS), 4096);
        let log = block_on(IntentLog::create(disk.clone(), &LENS)).unwrap();
        log.limit_hot(64);
        block_on(log.mark_many(A, (0..marks).map(|n| mib(n, n + 1)))).unwrap();
        log.sweep(Mono::default(), |_, _| None);
        assert_eq!(log.is_due(), is_due, "{marks}");
        assert_eq!(reopened(&disk.inner).marked(A), [mib(0, marks)]);
        block_on(log.commit()).unwrap();
        assert!(!log.is_due());
        assert_eq!(reopened(&disk.inner).marked(A), [mib(marks - 64, marks)]);
    }
}

#[test]
fn what_may_stay_but_need_not_is_dropped_slowly_down_to_a_quarter() {
    let log = block_on(IntentLog::create(memory(), &LENS)).unwrap();
    log.limit_hot(64);
    for n in 0..80 {
        block_on(log.mark(A, mib(n, n + 1))).unwrap();
    }
    let at = |part: u32| Mono::default().after(FREE_TIME * part / 64);
    let stay_from = |part, first| {
        log.sweep(at(part), |_, _| None);
        assert_eq!(log.marked(A), [mib(first, 80)], "{part}");
    };
    // Beyond what may stay at most they go at once; then one in each 64th of the time.
    stay_from(0, 16);
    stay_from(0, 16);
    stay_from(1, 17);
    stay_from(1, 17);
    stay_from(4, 20);
    stay_from(40, 56);
    stay_from(60, 64);
    stay_from(600, 64);
}

#[test]
fn a_swept_region_is_marked_again_for_free_until_the_disk_was_told() {
    let disk = Gated::new(IntentLog::<Gated>::file_len(&LENS), 4096);
    let log = block_on(IntentLog::create(disk.clone(), &LENS)).unwrap();
    block_on(log.mark_all(C)).unwrap();
    log.sweep(Mono::default(), |_, _| None);
    assert!(log.marked(C).is_empty());
    let before = disk.flushes();
    block_on(log.mark(C, mib(0, 1))).unwrap();
    assert_eq!(disk.flushes(), before);
    block_on(log.commit()).unwrap();
    block_on(log.mark(C, mib(1, 2))).unwrap();
    assert_eq!(disk.flushes(), before + 2);
    assert_eq!(reopened(&disk.inner).marked(C), [mib(0, 2)]);
}

#[test]
fn a_bad_sector_reads_as_all_marked_and_is_healed() {
    let disk = memory();
    drop(block_on(IntentLog::create(disk.clone(), &LENS)).unwrap());
    for sector in [0, 1, 7, 8, 700, 1342] {
        let at = sector * 512 + 77;
        block_on(disk.write(ByteOffset(at), Data::copy_of(&[1]))).unwrap();
        let log = reopened(&disk);
        let region = sector * 3904;
        assert_eq!(log.marked(A), [mib(region, (region + 3904).min(5 << 20))], "sector {sector}");
        log.sweep(Mono::default(), |_, _| None);
        block_on(log.commit()).unwrap();
        assert!(reopened(&disk).marked(A).is_empty());
    }
}

#[test]
fn a_file_that_was_never_written_reads_as_all_marked_and_a_short_one_is_refused() {
    let log = reopened(&memory());
    for (volume, len) in (0..).map(VolumeIndex).zip(LENS) {
        assert_eq!(log.marked(volume), [ByteRange::new(0, len)]);
    }
    let short = Memory::new(4096, 0);
    assert_eq!(block_on(IntentLog::open(short, &LENS)).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_failed_commit_fails_its_marks_and_can_be_tried_again() {
    let memory = memory();
    drop(block_on(IntentLog::create(memory.clone(), &LENS)).unwrap());
    let (disk, faults) = Fault::new(memory.clone());
    let log = block_on(IntentLog::open(disk, &LENS)).unwrap();
    faults.fail_writes(true);
    assert_eq!(block_on(log.mark(A, mib(0, 1))).unwrap_err().kind(), ErrorKind::Io);
    assert!(!log.is_marked(A, mib(0, 1)));
    faults.fail_writes(false);
    block_on(log.mark(A, mib(0, 1))).unwrap();
    assert_eq!(reopened(&memory).marked(A), [mib(0, 1)]);
    faults.fail_flushes(true);
    assert!(block_on(log.mark(A, mib(4, 5))).is_err());
    faults.fail_flushes(false);
    assert_eq!(block_on(log.mark(A, mib(4, 5))).unwrap_err().kind(), ErrorKind::Poisoned);
}

#[test]
fn at_every_crash_the_disk_holds_every_mark_that_returned() {
    let mut random = Random::from_environment("intent");
    for _ in 0..20 {
        let disk = Gated::new(IntentLog::<Gated>::file_len(&LENS), 4096);
        let log = block_on(IntentLog::create(disk.clone(), &LENS)).unwrap();
        let mut needed: BTreeSet<u64> = BTreeSet::new();
        let mut under_way = Vec::new();
        for _ in 0..150 {
            let region = random.below(30) + 3890 * random.below(3);
            match random.below(6) {
                0 => disk.shut(true),
                1 => disk.shut(false),
                2 => {
                    needed.retain(|_| random.below(2) == 0);
                    log.sweep(Mono::default(), |_, range| {
                        needed.contains(&(range.start / MIB)).then_some(range.end)
                    });
                }
                3 if !under_way.is_empty() => {
                    drop(under_way.swap_remove(usize_of(random.below(u64_of(under_way.len())))));
                }
                _ => {
                    let log = log.clone();
                    under_way.push((
                        region,
                        Box::pin(async move { log.mark(A, mib(region, region + 1)).await }),
                    ));
                }
            }
            for (region, mut mark) in std::mem::take(&mut under_way) {
                match mark.as_mut().now_or_never() {
                    // From here on its caller relies on it.
                    Some(result) => {
                        result.unwrap();
                        needed.insert(region);
                    }
                    None => under_way.push((region, mark)),
                }
            }
            let copy = Memory::new(disk.len(), 0);
            block_on(copy.write(ByteOffset(0), Data::copy_of(&disk.inner.content()))).unwrap();
            let found = reopened(&copy);
            for region in &needed {
                assert!(found.is_marked(A, mib(*region, region + 1)), "region {region}");
                assert!(log.is_marked(A, mib(*region, region + 1)), "region {region}");
            }
        }
    }
}
