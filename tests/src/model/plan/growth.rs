//! Growth: storms in which volumes grow, on both sides or one, cut off at any sync and asked for again.

use understudy_core::sim::When;
use understudy_core::units::{ByteRange, SECTOR};

use super::storm::{Weather, harden};
use super::{Death, Kind, Mix, Op, Plan, Random, Setting, pick};

/// No volume of the model is longer.
const LONGEST: u64 = 256 << 10;

/// The case.
pub(super) fn draw(r: &mut Random) -> Plan {
    let mut setting = Setting::draw(r, Mix::Growth);
    harden(&mut setting, r);
    setting.sizes.truncate(3);
    setting.first = setting.sizes.len();
    // A slow world takes its time; what grows here is closed and opened again and again.
    setting.slowness[0] = setting.slowness[0].min(2000);
    let grown = |size: &u64| (size + pick(r, &[0, 1, 8, 40, 100]) * SECTOR).min(LONGEST);
    setting.room = setting.sizes.iter().map(grown).collect();
    if setting.room == setting.sizes {
        setting.room[0] += 8 * SECTOR;
    }
    // Requests are drawn over all that there may be.
    let wide = Setting { sizes: setting.room.clone(), ..setting.clone() };
    let rate = pick(r, &[4, 10, 20]);
    let mut weather = Weather::new(rate);
    let mut ops = Vec::new();
    for _ in 0..30 + r.below(80) {
        if r.chance(8) {
            grow(r, &setting, &mut ops);
        } else {
            ops.push(weather.draw(r, &wide));
        }
    }
    Plan { setting, ops }
}

/// A volume grows, in the middle of things; then what is new is written, and seen.
fn grow(r: &mut Random, s: &Setting, ops: &mut Vec<Op>) {
    let v = usize::try_from(r.below(64)).unwrap_or(0) % s.sizes.len();
    let by = pick(r, &[1, 1, 3, 8, 32]) * SECTOR;
    let side = usize::from(r.chance(50));
    let near = ByteRange::new(s.sizes[v].saturating_sub(SECTOR), s.room[v].min(s.sizes[v] + 9000));
    if r.chance(50) {
        ops.push(Op::Write(v, near, Kind::Data));
    }
    match r.below(10) {
        0..4 => {
            let when = pick(r, &[When::Before, When::After]);
            ops.push(Op::DieAtSync(side, r.below(30), when));
        }
        4 => ops.push(Op::CutLink),
        _ => {}
    }
    ops.push(if r.chance(75) { Op::Expand(v, by) } else { Op::ExpandSide(side, v, by) });
    if r.chance(60) {
        ops.extend([Op::Write(v, near, Kind::Data), Op::ViewRead(v, near)]);
    }
    if r.chance(40) {
        ops.push(Op::ViewWrite(v, near, Kind::Data));
    }
    if r.chance(20) {
        ops.push(Op::Die(side, pick(r, &[Death::Kill, Death::Crash, Death::PowerCut])));
    }
    if r.chance(70) {
        ops.extend([Op::Restart(0), Op::Restart(1)]);
        // Asked again: nothing more to do, or what was cut off.
        ops.push(Op::Expand(v, 0));
    }
    if r.chance(50) {
        ops.extend([Op::Checkpoint, Op::Pause(pick(r, &[1000, 100_000])), Op::VerifyView]);
    }
}
