//! Sweeps: the primary's power fails about a checkpoint, when the marks of its intent log are swept.
//!
//! ```text
//!   write v ─► checkpoint ─► (recorded; our flush is slow) ─► write another: its mark's commit takes
//!                                                             the swept ones off the disk ─► power fails
//! ```
//! The replicas of the primary are slower than the small files beside them, as with much to flush.

use std::time::Duration;

use understudy_core::overlay::Mode;
use understudy_core::units::{ByteRange, SECTOR};

use super::{Death, Kind, Mix, Op, Plan, Random, Setting, pick};

/// The case.
pub(super) fn draw(r: &mut Random) -> Plan {
    let mut setting = Setting::draw(r, Mix::Sweep);
    while setting.sizes.len() < 3 {
        setting.sizes.push((r.below(60) + 8) * SECTOR);
    }
    setting.room.clone_from(&setting.sizes);
    setting.first = setting.sizes.len();
    setting.intent_hot = 0;
    setting.slowness = [pick(r, &[400, 2000]), pick(r, &[60, 1000])];
    setting.disk_slowness = [(1, pick(r, &[8, 30])), (1, 1)];
    setting.policy.mode = Mode::Checkpointed;
    setting.policy.undo_limit = 4 << 20;
    setting.policy.checkpoint_interval = Duration::from_millis(pick(r, &[0, 50]));
    let mut ops = Vec::new();
    if r.chance(50) {
        // What was written while solo, and the first record.
        ops.push(soon(r));
        fail(r, &mut ops);
    }
    for round in 0..r.below(6) + 3 {
        let volumes = setting.sizes.len();
        let v = usize::try_from(round).unwrap_or(0) % volumes;
        let other = (v + 1) % volumes;
        let first = |v: usize| ByteRange::new(0, setting.sizes[v].min(8192));
        ops.extend([Op::Write(v, first(v), Kind::Data), Op::Checkpoint, soon(r)]);
        if r.chance(30) {
            ops.extend([Op::Write(v, first(v), Kind::Data), soon(r)]);
        }
        ops.extend([Op::Write(other, first(other), Kind::Data), soon(r)]);
        if r.chance(50) {
            fail(r, &mut ops);
        } else {
            ops.push(Op::Pause(300_000));
        }
    }
    Plan { setting, ops }
}

fn soon(r: &mut Random) -> Op {
    Op::Pause(pick(r, &[300, 2000, 6000, 15_000, 40_000, 100_000]))
}

/// The primary's power fails; it comes back, and the view is looked at over the next checkpoint.
fn fail(r: &mut Random, ops: &mut Vec<Op>) {
    ops.push(Op::Die(0, pick(r, &[Death::Crash, Death::PowerCut])));
    ops.extend([Op::Pause(100), Op::Restart(0), Op::Pause(1_000_000), Op::Checkpoint]);
    ops.extend([Op::Pause(1_000_000), Op::VerifyView]);
}
