//! A storm: histories that are denser in faults, and in what a fault must meet to show.
//!
//! ```text
//!   volley   a few steps that belong together: two epochs over one place, an answer that is lost, ...
//!   setting  as with faults, and an intent log whose marks are swept soon
//!   steps    many checkpoints, short pauses, flushes of consumers; what is down soon comes up again,
//!            or nothing would happen to the rest
//! ```

use std::collections::VecDeque;

use understudy_core::sim::{Direction, When};
use understudy_core::units::{ByteRange, SECTOR};

use super::{Death, Kind, Mix, Op, Random, Setting, calm, kind, pick};

/// What is harder about the world.
pub(super) fn harden(s: &mut Setting, r: &mut Random) {
    s.intent_hot = pick(r, &[0, 0, 0, 1, usize::MAX]);
    s.slowness[0] = pick(r, &[50, 400, 2000, 10_000]);
    let one = (1, 1);
    let slow = [[one, one], [one, (10, 1)], [one, (50, 1)], [(30, 1), one]];
    let replicas = [[(1, 8), one], [(1, 30), one], [one, (1, 30)], [(1, 5), (1, 5)]];
    s.disk_slowness = if r.chance(50) { pick(r, &slow) } else { pick(r, &replicas) };
    if s.disk_slowness.iter().any(|(all, replicas)| all * replicas > 10) {
        s.slowness[0] = s.slowness[0].min(2000);
    }
    // Marks of one region are cleared with the commit of another's.
    while s.sizes.len() < 3 && r.chance(50) {
        s.sizes.push((r.below(60) + 8) * SECTOR);
    }
}

/// What is known of the weather while a plan is drawn: only what was asked for, not what came of it.
pub(super) struct Weather {
    /// One step in a hundred so many is a fault.
    rate: u64,
    down: [bool; 2],
    blocked: bool,
    frozen: Option<usize>,
    alone: bool,
    /// What comes next, whatever the chance.
    volley: VecDeque<Op>,
}

impl Weather {
    pub(super) fn new(rate: u64) -> Self {
        Self {
            rate,
            down: [false; 2],
            blocked: false,
            frozen: None,
            alone: false,
            volley: VecDeque::new(),
        }
    }

    /// The next step.
    pub(super) fn draw(&mut self, r: &mut Random, s: &Setting) -> Op {
        if let Some(op) = self.volley.pop_front() {
            return op;
        }
        if let Some(op) = self.clear_up(r) {
            return op;
        }
        if r.chance(self.rate / 2) {
            self.volley.extend(volley(r, s));
        }
        let op = if r.chance(self.rate) { harm(r, s) } else { step(r, s) };
        match op {
            Op::Die(side, _) | Op::DieAtSync(side, ..) => self.down[side] = true,
            Op::FlushError(..) | Op::Rot(_) => self.down = [true; 2],
            Op::Partition(..) => self.blocked = true,
            Op::Freeze(side) => self.frozen = Some(side),
            Op::Failover(_) => self.alone = true,
            _ => {}
        }
        op
    }

    /// Now and then what is wrong is mended.
    fn clear_up(&mut self, r: &mut Random) -> Option<Op> {
        for side in [0, 1] {
            if self.down[side] && r.chance(25) {
                self.down[side] = false;
                return Some(Op::Restart(side));
            }
        }
        if self.blocked && r.chance(15) {
            self.blocked = false;
            return Some(Op::Heal);
        }
        if let Some(side) = self.frozen
            && r.chance(30)
        {
            self.frozen = None;
            return Some(Op::Thaw(side));
        }
        if self.alone && r.chance(15) {
            self.alone = false;
            return Some(Op::Rejoin);
        }
        None
    }
}

/// A step of the usual kind.
fn step(r: &mut Random, s: &Setting) -> Op {
    if r.chance(65) {
        return calm(r, s, Mix::Storm, &mut false);
    }
    let hot = r.below(3) * 9973 + r.below(5000);
    let (volume, range) = s.range(r, hot);
    match r.below(100) {
        0..25 => Op::Checkpoint,
        25..45 => Op::Pause(pick(r, &[10, 100, 300, 1000, 5000])),
        45..52 => Op::ViewFlush(volume),
        52..62 => Op::ViewWrite(volume, range, kind(r)),
        62..72 => Op::ViewRead(volume, range),
        72..78 => Op::Flush(volume),
        78..82 => Op::VerifyView,
        82..90 => Op::Write(volume, range, Kind::Discard),
        _ => Op::Write(volume, range, kind(r)),
    }
}

fn harm(r: &mut Random, s: &Setting) -> Op {
    let side = usize::from(r.chance(50));
    let volume = usize::try_from(r.below(u64::try_from(s.sizes.len()).unwrap_or(1))).unwrap_or(0);
    match r.below(100) {
        0..25 => Op::CutLink,
        25..40 => {
            Op::Die(side, pick(r, &[Death::Kill, Death::Kill, Death::Crash, Death::PowerCut]))
        }
        40..58 => Op::DieAtSync(side, r.below(12), pick(r, &[When::Before, When::After])),
        58..63 => Op::LocalError(volume),
        63..66 => Op::FlushError(side, volume),
        66..71 => Op::Rot(r.next_u64()),
        71..78 => Op::Agree,
        78..82 => Op::Partition(side, pick(r, &[Direction::Both, Direction::OneWay])),
        82..85 => Op::StallLink,
        85..88 => Op::Freeze(side),
        88..90 => Op::StartAgain,
        90..93 => Op::Pause(pick(r, &[1_000_000, 7_000_000])),
        93..96 => Op::Drain,
        _ => Op::Slow(pick(r, &[50, 400, 5000])),
    }
}

/// Steps that belong together: what chance alone would seldom put side by side.
fn volley(r: &mut Random, s: &Setting) -> Vec<Op> {
    let hot = r.below(5000);
    let (v, range) = s.range(r, hot);
    let side = usize::from(r.chance(70));
    let soon = |r: &mut Random| Op::Pause(pick(r, &[10, 300, 1000, 3000, 10_000, 40_000]));
    let death = pick(r, &[Death::Kill, Death::Crash, Death::PowerCut]);
    match r.below(6) {
        // One place in two epochs, and the record between them does not come to its end.
        0 | 1 => {
            let harm = match r.below(4) {
                0 => Op::Die(side, death),
                1 | 2 => Op::DieAtSync(side, r.below(6), pick(r, &[When::Before, When::After])),
                _ => Op::CutLink,
            };
            let again = Op::Write(v, range, Kind::Data);
            let mut ops = vec![Op::Write(v, range, Kind::Data), Op::Settle, Op::Checkpoint];
            ops.extend([soon(r), again, soon(r), Op::ViewRead(v, range), harm, soon(r)]);
            ops.extend([Op::Restart(side), Op::VerifyView]);
            ops
        }
        // The answer of a record is lost.
        2 => {
            vec![Op::Checkpoint, soon(r), Op::CutLink, Op::Pause(1_000_000), Op::Agree]
        }
        // The primary's power fails about the end of a checkpoint, when marks are swept.
        3 | 4 => {
            let other = (v + 1) % s.sizes.len();
            let elsewhere = ByteRange::new(0, s.sizes[other].min(4096));
            let mut ops = vec![Op::Write(v, range, Kind::Data), Op::Checkpoint, soon(r)];
            if r.chance(50) {
                ops.extend([Op::Write(v, range, Kind::Data), soon(r)]);
            }
            ops.extend([Op::Write(other, elsewhere, Kind::Data), soon(r)]);
            ops.push(Op::Die(1 - side, pick(r, &[Death::Crash, Death::PowerCut])));
            ops.extend([Op::Pause(100), Op::Restart(1 - side), Op::Pause(1_000_000), Op::Agree]);
            ops
        }
        // More than the window holds, with a begin-epoch in it; and readers meanwhile.
        _ => {
            let mut ops = Vec::new();
            for _ in 0..r.below(8) + 2 {
                let (v, range) = s.range(r, hot);
                ops.extend([Op::Write(v, range, Kind::Data), Op::ViewRead(v, range)]);
                if r.chance(25) {
                    ops.extend([Op::Checkpoint, Op::ViewWrite(v, range, Kind::Data)]);
                }
            }
            ops
        }
    }
}
