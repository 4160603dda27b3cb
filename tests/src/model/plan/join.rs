//! Joining: storms in which volumes join, on both sides or one, with a failover before and after the
//! record that covers them.

use super::storm::{Weather, harden};
use super::{Death, Kind, Mix, Op, Plan, Random, Setting, pick};
use understudy_core::sim::When;
use understudy_core::units::{ByteRange, SECTOR};

/// The case.
pub(super) fn draw(r: &mut Random) -> Plan {
    let mut setting = Setting::draw(r, Mix::Join);
    harden(&mut setting, r);
    setting.sizes.truncate(2);
    setting.first = setting.sizes.len();
    // A slow world takes its time; what is joined here is closed and opened again and again.
    setting.slowness[0] = setting.slowness[0].min(2000);
    for _ in 0..pick(r, &[1, 1, 2]) {
        setting.sizes.push((r.below(200) + 16) * SECTOR);
    }
    setting.room.clone_from(&setting.sizes);
    // Often slower than the checkpoints are: several complete while a volume joins.
    setting.policy.resync_ceiling = pick(r, &[0, 0, 100 << 10, 1 << 20]);
    if setting.policy.resync_ceiling > 0 {
        setting.policy.resync_floor = setting.policy.resync_ceiling;
    }
    let mut weather = Weather::new(pick(r, &[4, 10, 20]));
    let mut ops = Vec::new();
    for _ in 0..20 + r.below(60) {
        if r.chance(12) {
            join(r, &setting, &mut ops);
        } else {
            ops.push(weather.draw(r, &setting));
        }
    }
    Plan { setting, ops }
}

/// A volume joins in the middle of things; what comes of it depends on when the next record is.
fn join(r: &mut Random, s: &Setting, ops: &mut Vec<Op>) {
    let side = usize::from(r.chance(60));
    let v = s.first + usize::try_from(r.below(2)).unwrap_or(0) % (s.sizes.len() - s.first);
    let place = |r: &mut Random| {
        let at = r.below(s.sizes[v]);
        ByteRange::new(at, (at + 1 + r.below(9000)).min(s.sizes[v]))
    };
    let soon = |r: &mut Random| Op::Pause(pick(r, &[10, 300, 3000, 40_000]));
    match r.below(10) {
        0..2 => ops.push(Op::DieAtSync(side, r.below(30), pick(r, &[When::Before, When::After]))),
        2 => ops.push(Op::CutLink),
        _ => {}
    }
    ops.push(Op::Join(r.chance(85)));
    if r.chance(60) {
        ops.extend([Op::Write(v, place(r), Kind::Data), soon(r)]);
    }
    match r.below(6) {
        // Before it has got everything.
        0 => ops.extend([Op::Checkpoint, soon(r), Op::Failover(r.chance(30))]),
        // About the record that covers it.
        1 | 2 => {
            let again = place(r);
            ops.extend([Op::Pause(pick(r, &[100_000, 1_500_000])), Op::Checkpoint]);
            ops.extend([Op::Pause(r.below(4000)), Op::Write(v, again, Kind::Data), soon(r)]);
            match r.below(3) {
                0 => ops.push(Op::DieAtSync(side, r.below(8), When::Before)),
                1 => ops.push(Op::CutLink),
                _ => ops.push(Op::Die(side, pick(r, &[Death::Kill, Death::Crash]))),
            }
            ops.extend([soon(r), Op::Restart(1), Op::Restart(0)]);
            ops.push(if r.chance(50) { Op::Failover(false) } else { Op::ViewRead(v, again) });
        }
        // Behind it.
        3 | 4 => {
            let again = place(r);
            ops.extend([Op::Pause(pick(r, &[100_000, 1_500_000])), Op::Checkpoint]);
            ops.extend([Op::Pause(100_000), Op::Write(v, again, Kind::Data), Op::Settle, soon(r)]);
            ops.extend([Op::ViewRead(v, again), Op::ViewWrite(v, place(r), Kind::Data)]);
            ops.push(if r.chance(50) { Op::Failover(r.chance(50)) } else { Op::VerifyView });
        }
        _ => ops.push(Op::Die(side, pick(r, &[Death::Kill, Death::Crash, Death::PowerCut]))),
    }
    if r.chance(60) {
        ops.extend([Op::Restart(0), Op::Restart(1)]);
    }
    if r.chance(50) {
        ops.extend([Op::Rejoin, Op::Pause(pick(r, &[1000, 200_000]))]);
    }
}
