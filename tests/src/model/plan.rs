//! What one case does: drawn from its seed in advance, so that a shorter list is a case as well.
//!
//! The draw of a mix is never changed: a seed that once found a defect must go on to draw the same
//! history. New kinds of faults go into a new mix, as those of [`storm`], [`growth`], [`join`] and [`tight`] did.

mod growth;
mod join;
mod storm;
mod sweep;
mod tight;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use understudy_core::overlay::{Mode, Policy};
use understudy_core::sim::{Direction, When};
use understudy_core::units::{ByteRange, CLUSTER, SECTOR, usize_of};

use crate::random::Random;

/// What the world is like.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Bytes of each volume at first.
    pub sizes: Vec<u64>,
    /// How many of them are in the group at first; the others may join.
    pub first: usize,
    /// The most bytes that each may grow to.
    pub room: Vec<u64>,
    /// What the disks of each node want requests to be aligned to.
    pub alignment: [u64; 2],
    /// Interval, limits, mode.
    pub policy: Policy,
    /// What a step may change it to.
    pub policies: Vec<Policy>,
    /// The slowest request of a disk, and piece of a stream, in microseconds.
    pub slowness: [u64; 2],
    /// Bytes under way in a stream.
    pub capacity: usize,
    /// The volumes are written before the replication starts.
    pub filled: bool,
    /// The most regions of the intent log that stay marked only for speed.
    pub intent_hot: usize,
    /// How many bytes a resync sends before both sides flush.
    pub resync_settle: u64,
    /// How many times slower the disks of each node are, and its replicas than its other files.
    pub disk_slowness: [(u32, u32); 2],
}

/// What a write does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// New bytes.
    Data,
    /// Zeroes that stay allocated.
    Zero,
    /// Zeroes that need not.
    Discard,
}

/// What becomes of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// Its process is killed.
    Kill,
    /// Its machine crashes and answers at once.
    Crash,
    /// Its power fails, silently.
    PowerCut,
}

/// One step. Reads, writes and checkpoints are begun and go on beside the next steps.
#[derive(Clone, Copy, PartialEq, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Op {
    Write(usize, ByteRange, Kind),
    Flush(usize),
    Read(usize, ByteRange),
    ViewWrite(usize, ByteRange, Kind),
    ViewRead(usize, ByteRange),
    ViewFlush(usize),
    Checkpoint,
    /// Microseconds.
    Pause(u64),
    /// Until all requests of the primary have ended.
    Settle,
    /// Until the secondary has applied everything.
    Drain,
    /// The whole view, all volumes.
    VerifyView,
    /// Promote the secondary; keep what the consumer wrote?
    Failover(bool),
    /// Side (0: a), how.
    Die(usize, Death),
    /// Cut the power of a side at the n-th sync point from now.
    DieAtSync(usize, u64, When),
    Restart(usize),
    /// The old primary returns as the secondary.
    Rejoin,
    /// The running primary is started again with the same peer: nothing is known of it.
    StartAgain,
    CutLink,
    StallLink,
    /// From which side; both ways or one.
    Partition(usize, Direction),
    Heal,
    /// Disks take up to so many microseconds.
    Slow(u64),
    /// The next write of the primary's disk of this volume fails.
    LocalError(usize),
    /// Stop the tasks of a side, or let them go on.
    Freeze(usize),
    Thaw(usize),
    /// The next flush of a side's disk of this volume fails: it refuses until it is opened anew.
    FlushError(usize, usize),
    /// The secondary is killed, a batch of its undo logs rots, it is started again.
    Rot(u64),
    /// If the link is up, both sides name the same checkpoint soon.
    Agree,
    /// Start both sides; what an earlier start has done already stays.
    Begin,
    /// A volume gets so many bytes more: on the secondary first, then on the primary.
    Expand(usize, u64),
    /// Only on this side.
    ExpandSide(usize, usize, u64),
    /// The next volume joins on the secondary; on the primary too?
    Join(bool),
    /// A side is given this one of the setting's policies.
    Policy(usize, usize),
    /// One in so many requests of a side that may take space of its pool finds none.
    PoolFull(usize, u64),
    /// Its pool has room again.
    PoolHasRoom(usize),
}

/// What kind of histories.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mix {
    /// No faults: the property test.
    Calm,
    /// Crashes, power cuts, a link that is cut, stalls or is blocked, errors of disks.
    Faults,
    /// The same more densely, and failed flushes, rot, and marks that are swept soon.
    Storm,
    /// The primary's power fails about a checkpoint, when intent marks are swept.
    Sweep,
    /// A storm in which volumes grow.
    Growth,
    /// A storm in which volumes join.
    Join,
    /// A storm in which limits are met, policies change and pools run full.
    Tight,
}

impl Mix {
    const ALL: [Self; 7] =
        [Self::Calm, Self::Faults, Self::Storm, Self::Sweep, Self::Growth, Self::Join, Self::Tight];
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Calm => "calm",
            Self::Faults => "faults",
            Self::Storm => "storm",
            Self::Sweep => "sweep",
            Self::Growth => "growth",
            Self::Join => "join",
            Self::Tight => "tight",
        })
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|m| m.to_string() == text).ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(ToString::to_string).collect();
            format!("there is no mix {text}; there are {}", all.join(", "))
        })
    }
}

/// A case.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The world.
    pub setting: Setting,
    /// The steps.
    pub ops: Vec<Op>,
}

fn pick<T: Copy>(random: &mut Random, of: &[T]) -> T {
    of[usize::try_from(random.below(u64::try_from(of.len()).unwrap_or(1))).unwrap_or(0)]
}

impl Setting {
    fn draw(r: &mut Random, mix: Mix) -> Self {
        let count = pick(r, &[1, 1, 2, 2, 3, 4]);
        let sizes: Vec<u64> = (0..count)
            .map(|_| {
                (r.below(120) + 8) * SECTOR * if r.chance(30) { 4 } else { 1 }
                    + pick(r, &[0, SECTOR, 3 * SECTOR])
            })
            .map(|s| s.min(256 << 10))
            .collect();
        let total: u64 = sizes.iter().map(|s| s.next_multiple_of(CLUSTER)).sum();
        let interval = pick(r, &[0, 0, 1, 3, 10, 50]);
        let small = mix == Mix::Calm || r.chance(30);
        let policy = Policy {
            mode: if r.chance(30) { Mode::Synchronous } else { Mode::Checkpointed },
            checkpoint_interval: Duration::from_millis(interval),
            undo_limit: if small { (total / pick(r, &[1, 2, 3])).max(16 << 10) } else { 4 << 20 },
            window: pick(r, &[4 << 10, 16 << 10, 64 << 10, 1 << 20]),
            max_delay: Duration::from_millis(pick(r, &[2, 20, 200, 2000])),
            ..Policy::default()
        };
        Self {
            room: sizes.clone(),
            first: sizes.len(),
            sizes,
            alignment: [pick(r, &[1, 512, 512, 4096]), pick(r, &[1, 512, 512, 4096])],
            policy,
            policies: Vec::new(),
            slowness: [pick(r, &[50, 400, 2000]), pick(r, &[60, 1000, 4000])],
            capacity: pick(r, &[4 << 10, 128 << 10]),
            filled: r.chance(60),
            intent_hot: usize::MAX,
            resync_settle: [4 << 10, 64 << 10, u64::MAX][usize_of(total / SECTOR % 3)],
            disk_slowness: [(1, 1); 2],
        }
    }

    fn range(&self, r: &mut Random, hot: u64) -> (usize, ByteRange) {
        let volume =
            usize::try_from(r.below(u64::try_from(self.sizes.len()).unwrap_or(1))).unwrap_or(0);
        let size = self.sizes[volume];
        let at = if r.chance(50) { hot % size } else { r.below(size) };
        let (unit, most) = pick(
            r,
            &[
                (1, 700),
                (1, 9000),
                (SECTOR, 8),
                (SECTOR, 40),
                (CLUSTER, 1),
                (CLUSTER, 4),
                (CLUSTER, 16),
            ],
        );
        let start = at / unit * unit;
        let len = (r.below(most) + 1) * unit;
        if r.chance(6) {
            // The end of the disk.
            return (volume, ByteRange::new(size.saturating_sub(len), size));
        }
        (volume, ByteRange::new(start, (start + len).min(size)))
    }
}

impl Plan {
    /// The case of a seed.
    pub fn draw(seed: u64, mix: Mix) -> Self {
        let mut r = Random::new(seed ^ 0x706c_616e);
        match mix {
            Mix::Sweep => return sweep::draw(&mut r),
            Mix::Growth => return growth::draw(&mut r),
            Mix::Join => return join::draw(&mut r),
            Mix::Tight => return tight::draw(&mut r),
            Mix::Calm | Mix::Faults | Mix::Storm => {}
        }
        let mut setting = Setting::draw(&mut r, mix);
        if mix == Mix::Storm {
            storm::harden(&mut setting, &mut r);
            setting.room.clone_from(&setting.sizes);
            setting.first = setting.sizes.len();
        }
        let count = match mix {
            Mix::Calm => 20 + r.below(120),
            _ => 40 + r.below(160),
        };
        let ledger = r.chance(25);
        let fault_rate = pick(&mut r, &[4, 10, 20]);
        let mut ops = Vec::new();
        let mut failed_over = false;
        let mut weather = storm::Weather::new(fault_rate);
        for _ in 0..count {
            let op = match mix {
                Mix::Faults if r.chance(fault_rate) => fault(&mut r, &setting),
                Mix::Storm => weather.draw(&mut r, &setting),
                _ => calm(&mut r, &setting, mix, &mut failed_over),
            };
            ops.push(op);
            if ledger && matches!(op, Op::Write(..)) {
                ops.push(Op::Settle);
            }
        }
        Self { setting, ops }
    }
}

fn kind(r: &mut Random) -> Kind {
    pick(r, &[Kind::Data, Kind::Data, Kind::Data, Kind::Data, Kind::Zero, Kind::Discard])
}

fn calm(r: &mut Random, s: &Setting, mix: Mix, failed_over: &mut bool) -> Op {
    let hot = r.below(3) * 9973 + r.below(5000);
    let (volume, range) = s.range(r, hot);
    match r.below(100) {
        0..45 => Op::Write(volume, range, kind(r)),
        45..48 => Op::Flush(volume),
        48..54 => Op::Read(volume, range),
        54..62 => Op::ViewWrite(volume, range, kind(r)),
        62..71 => Op::ViewRead(volume, range),
        71..72 => Op::ViewFlush(volume),
        72..80 => Op::Checkpoint,
        80..92 => Op::Pause(pick(r, &[10, 300, 2000, 20_000])),
        92..94 => Op::Settle,
        94..95 => Op::Drain,
        95..98 => Op::VerifyView,
        _ if mix != Mix::Calm || !*failed_over => {
            *failed_over = true;
            Op::Failover(r.chance(50))
        }
        _ => Op::Pause(1000),
    }
}

fn fault(r: &mut Random, s: &Setting) -> Op {
    let side = usize::from(r.chance(50));
    let volume = usize::try_from(r.below(u64::try_from(s.sizes.len()).unwrap_or(1))).unwrap_or(0);
    match r.below(100) {
        0..12 => Op::Die(side, pick(r, &[Death::Kill, Death::Kill, Death::Crash, Death::PowerCut])),
        12..24 => Op::DieAtSync(side, r.below(20), pick(r, &[When::Before, When::After])),
        24..44 => Op::Restart(side),
        44..52 => Op::Rejoin,
        52..54 => Op::StartAgain,
        54..62 => Op::CutLink,
        62..66 => Op::StallLink,
        66..71 => Op::Partition(side, pick(r, &[Direction::Both, Direction::OneWay])),
        71..79 => Op::Heal,
        79..83 => Op::Slow(pick(r, &[50, 400, 5000])),
        83..86 => Op::LocalError(volume),
        86..89 => Op::Freeze(side),
        89..93 => Op::Thaw(side),
        93..98 => Op::Pause(pick(r, &[1_000_000, 7_000_000])),
        _ => Op::Drain,
    }
}
