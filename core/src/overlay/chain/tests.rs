use super::*;
use std::future::Future;
use std::pin::Pin;

use crate::disk::Result;
use crate::overlay::tests::{Gated, Random};
use crate::overlay::{Content, Saved};
use crate::runtime::{Buf, Data};
use crate::units::{ByteOffset, ByteRange, CLUSTER, Uuid, u64_of, usize_of};
use futures::FutureExt;
use futures::executor::block_on;

const CLUSTERS: u64 = 600;
/// The volume ends within a cluster.
const LEN: u64 = CLUSTERS * CLUSTER - 1024;
const VOLUME: VolumeIndex = VolumeIndex(0);

type Reading = Pin<Box<dyn Future<Output = (Buf, Result<()>)>>>;

fn log(epoch: u64) -> UndoLog<Gated> {
    block_on(UndoLog::create(Gated::new(32 << 20, 4096), Uuid(u128::from(epoch)), Epoch(epoch)))
        .unwrap()
}

fn active() -> Active<Gated> {
    let map = Gated::new(Active::<Gated>::map_len(LEN), 4096);
    Active::blank(Gated::new(LEN, 512), map, Uuid(1), LEN)
}

/// A secondary disk under a chain, as the secondary filter treats it.
struct Secondary {
    disk: Gated,
    chain: Chain<Gated>,
    /// The open epoch.
    epoch: u64,
}

impl Secondary {
    fn new(alignment: u64) -> Self {
        let chain = Chain::new(Epoch(0), vec![active()]);
        chain.push(log(1));
        Self { disk: Gated::new(LEN, alignment), chain, epoch: 1 }
    }

    fn begin(&mut self) {
        self.epoch += 1;
        self.chain.push(log(self.epoch));
    }

    /// Saves what the open log does not hold yet, then overwrites.
    fn write(&self, range: ByteRange, fill: u8) {
        let open = self.chain.newest().unwrap();
        let content = self.disk.inner.content();
        let mut batch = Vec::new();
        for (piece, place) in open.pieces(VOLUME, range.round_out(CLUSTER)) {
            if place.is_none() {
                let mut old = content[usize_of(piece.start)..usize_of(piece.end.min(LEN))].to_vec();
                old.resize(usize_of(piece.len()), 0);
                let content = if old.iter().all(|b| *b == 0) {
                    Content::Zero
                } else {
                    Content::Data(Data::copy_of(&old))
                };
                batch.push(Saved { volume: VOLUME, range: piece, content });
            }
        }
        block_on(open.append(batch)).unwrap();
        let data = Data::copy_of(&vec![fill; usize_of(range.len())]);
        block_on(Disk::write(&self.disk.inner, range.offset(), data)).unwrap();
    }

    fn reading(&self, point: &Point<Gated>, range: ByteRange) -> Reading {
        let buf = Buf::copy_of(&vec![0xcc; usize_of(range.len())]);
        Box::pin(point.read(VOLUME, &self.disk, LEN, range.offset(), buf))
    }

    fn read(&self, point: &Point<Gated>, range: ByteRange) -> Vec<u8> {
        let (buf, result) = block_on(self.reading(point, range));
        result.unwrap();
        buf.to_vec()
    }
}

fn counting(chain: &Chain<Gated>) -> Rc<RefCell<Vec<u64>>> {
    let freed = Rc::new(RefCell::new(Vec::new()));
    let seen = freed.clone();
    chain.on_free(Rc::new(move |log: UndoLog<Gated>| seen.borrow_mut().push(log.epoch().0)));
    freed
}

#[test]
fn the_view_stays_at_the_checkpoint_while_the_disk_is_overwritten() {
    let mut s = Secondary::new(1);
    s.write(ByteRange::new(0, 10_000), 1);
    assert_eq!(s.read(&s.chain.point(), ByteRange::new(0, 20_000)), vec![0; 20_000]);
    s.begin();
    s.chain.complete(Epoch(1), vec![active()]);
    s.write(ByteRange::new(5000, 6000), 2);
    s.begin();
    s.write(ByteRange::new(5000, 9000), 3);
    let mut expected = vec![1; 10_000];
    expected.resize(20_000, 0);
    assert_eq!(s.read(&s.chain.point(), ByteRange::new(0, 20_000)), expected);
    s.chain.complete(Epoch(2), vec![active()]);
    expected[5000..6000].fill(2);
    assert_eq!(s.read(&s.chain.point(), ByteRange::new(0, 20_000)), expected);
}

#[test]
fn a_read_that_missed_looks_again_after_reading_the_disk() {
    for (start, end) in [(0, 8192), (100, 5000), (0, 1 << 20)] {
        let s = Secondary::new(512);
        let point = s.chain.point();
        s.write(ByteRange::new(400_000, 420_000), 5);
        s.disk.shut(true);
        let mut reading = s.reading(&point, ByteRange::new(start, end));
        assert!(reading.as_mut().now_or_never().is_none());
        // Saved and overwritten while the read of the disk is under way.
        s.write(ByteRange::new(4096, 6000), 9);
        s.disk.shut(false);
        let (buf, result) = block_on(reading);
        result.unwrap();
        assert!(buf.iter().all(|b| *b == 0), "{start}..{end}");
    }
}

#[test]
fn a_reader_of_an_older_checkpoint_keeps_its_logs_and_sees_those_pushed_later() {
    let mut s = Secondary::new(1);
    let freed = counting(&s.chain);
    let old = s.chain.point();
    s.write(ByteRange::new(0, 4096), 1);
    s.begin();
    s.chain.complete(Epoch(1), vec![active()]);
    assert!(!old.is_current() && s.chain.point().is_current());
    let middle = s.chain.point();
    s.write(ByteRange::new(4096, 8192), 2);
    s.begin();
    s.chain.complete(Epoch(2), vec![active()]);
    s.write(ByteRange::new(8192, 12_288), 3);
    assert_eq!(s.read(&old, ByteRange::new(0, 16_384)), vec![0; 16_384]);
    assert_eq!(s.read(&middle, ByteRange::new(0, 8192)), [vec![1; 4096], vec![0; 4096]].concat());
    assert!(freed.borrow().is_empty());
    drop(middle);
    assert!(freed.borrow().is_empty());
    let held_by_a_read = s.reading(&old, ByteRange::new(0, 4096));
    drop(old);
    assert!(freed.borrow().is_empty());
    drop(held_by_a_read);
    assert_eq!(*freed.borrow(), [1, 2]);
    assert_eq!(s.chain.logs().len(), 1);
    // Log 3 is over the current checkpoint: needed after a restart.
    drop(s);
    assert_eq!(*freed.borrow(), [1, 2]);
}

#[test]
fn logs_are_freed_at_once_when_nobody_holds_an_older_point_and_the_callback_may_use_the_chain() {
    let mut s = Secondary::new(1);
    let freed = counting(&s.chain);
    s.begin();
    s.begin();
    let weak = Rc::downgrade(&s.chain.0);
    let inner = freed.clone();
    s.chain.on_free(Rc::new(move |log: UndoLog<Gated>| {
        let chain = Chain(weak.upgrade().unwrap());
        assert!(chain.logs().iter().all(|open| open.epoch() > log.epoch()));
        inner.borrow_mut().push(log.epoch().0);
    }));
    s.chain.complete(Epoch(2), vec![active()]);
    assert_eq!(*freed.borrow(), [1, 2]);
    assert_eq!(s.chain.newest().unwrap().epoch(), Epoch(3));
    s.chain.complete(Epoch(3), vec![active()]);
    assert_eq!(*freed.borrow(), [1, 2, 3]);
    assert!(s.chain.newest().is_none());
}

#[test]
fn all_open_logs_count_as_the_epoch_they_were_given() {
    let mut s = Secondary::new(1);
    let freed = counting(&s.chain);
    s.begin();
    s.chain.logs().iter().for_each(|log| log.set_epoch(Epoch(7)));
    s.chain.complete(Epoch(6), vec![active()]);
    assert_eq!(s.chain.logs().len(), 2);
    s.chain.complete(Epoch(7), vec![active()]);
    assert_eq!(*freed.borrow(), [7, 7]);
}

#[test]
fn a_long_chain_is_dropped_without_deep_recursion() {
    let chain = Chain::<crate::disk::Memory>::new(Epoch(0), vec![]);
    let disk = crate::disk::Memory::new(8192, 0);
    let count = Rc::new(Cell::new(0));
    let counter = count.clone();
    chain.on_free(Rc::new(move |_| counter.set(counter.get() + 1)));
    let point = chain.point();
    for epoch in 1..=200_000 {
        let log =
            block_on(UndoLog::create(disk.clone(), Uuid(u128::from(epoch)), Epoch(epoch))).unwrap();
        chain.push(log);
    }
    chain.complete(Epoch(150_000), vec![]);
    assert_eq!(count.get(), 0);
    drop(point);
    assert_eq!(count.get(), 150_000);
    drop(chain);
    assert_eq!(count.get(), 150_000);
}

#[test]
fn a_read_beyond_the_end_is_refused_and_gives_its_buffer_back() {
    let s = Secondary::new(512);
    for at in [LEN - 511, LEN, u64::MAX] {
        let (buf, result) =
            block_on(s.chain.point().read(VOLUME, &s.disk, LEN, ByteOffset(at), Buf::new(512)));
        assert_eq!(buf.len(), 512);
        assert_eq!(result.unwrap_err().kind(), crate::disk::ErrorKind::Invalid);
    }
    assert_eq!(s.read(&s.chain.point(), ByteRange::new(LEN - 100, LEN)), vec![0; 100]);
    assert_eq!(s.read(&s.chain.point(), ByteRange::new(7, 7)), Vec::<u8>::new());
}

/// A point with what it must read as: the checkpoint and the consumer's writes.
struct Expected {
    point: Point<Gated>,
    content: Vec<u8>,
}

#[test]
fn random_reads_of_any_checkpoint_at_any_interleaving_see_its_view() {
    let mut random = Random::from_environment("chain");
    for round in 0..30 {
        let mut s = Secondary::new([1, 512, 512][round % 3]);
        let freed = counting(&s.chain);
        // The content at each cut that is not complete yet: (epoch, content).
        let mut cuts: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut points = vec![Expected { point: s.chain.point(), content: s.disk.inner.content() }];
        for _ in 0..120 {
            match random.below(8) {
                0 => {
                    cuts.push((s.epoch, s.disk.inner.content()));
                    s.begin();
                }
                1 if !cuts.is_empty() => {
                    let (epoch, content) = cuts.remove(0);
                    s.chain.complete(Epoch(epoch), vec![active()]);
                    points.push(Expected { point: s.chain.point(), content });
                }
                2 if points.len() > 1 => {
                    points.remove(0);
                }
                3 => {
                    // A consumer's write or discard, over any point that is still held.
                    let at = usize_of(random.below(u64_of(points.len())));
                    let expected = &mut points[at];
                    let range = some_clusters(&mut random, 20);
                    let fill = if random.below(3) == 0 {
                        0
                    } else {
                        0x80 | random.next().to_le_bytes()[0]
                    };
                    let active = expected.point.active(VOLUME);
                    if fill == 0 {
                        block_on(active.zero(range)).unwrap();
                    } else {
                        let data = Data::copy_of(&vec![fill; usize_of(range.len())]);
                        block_on(active.write(range, data)).unwrap();
                    }
                    expected.content[usize_of(range.start)..usize_of(range.end)].fill(fill);
                }
                4 | 5 => {
                    s.write(
                        some_bytes(&mut random, 100_000),
                        random.next().to_le_bytes()[0] & 0x7f,
                    );
                }
                _ => {
                    let at = usize_of(random.below(u64_of(points.len())));
                    let limit = if random.below(4) == 0 { 2 << 20 } else { 60_000 };
                    let mut range = some_bytes(&mut random, limit);
                    if random.below(2) == 0 {
                        range = ByteRange::new(
                            range.start & !511,
                            (range.end & !511).max((range.start & !511) + 512),
                        );
                    }
                    let point = points[at].point.clone();
                    s.disk.shut(true);
                    let mut reading = s.reading(&point, range);
                    let early = reading.as_mut().now_or_never();
                    // All of this while the disk is being read.
                    for _ in 0..random.below(3) {
                        s.write(
                            some_bytes(&mut random, 50_000),
                            random.next().to_le_bytes()[0] & 0x7f,
                        );
                    }
                    if random.below(4) == 0 {
                        cuts.push((s.epoch, s.disk.inner.content()));
                        s.begin();
                        s.write(range, 0x55);
                    }
                    s.disk.shut(false);
                    let (buf, result) = early.unwrap_or_else(|| block_on(reading));
                    result.unwrap();
                    let expected = &points[at].content[usize_of(range.start)..usize_of(range.end)];
                    assert!(*buf == *expected, "{range:?} of {point:?}");
                }
            }
        }
        let completed = s.chain.point().checkpoint().0;
        points.clear();
        assert_eq!(*freed.borrow(), (1..=completed).collect::<Vec<_>>());
    }
}

fn some_bytes(random: &mut Random, limit: u64) -> ByteRange {
    let start = random.below(LEN - 512);
    ByteRange::new(start, (start + 1 + random.below(limit)).min(LEN))
}

fn some_clusters(random: &mut Random, limit: u64) -> ByteRange {
    let first = random.below(CLUSTERS - 1);
    ByteRange::new(first * CLUSTER, ((first + 1 + random.below(limit)) * CLUSTER).min(LEN))
}
