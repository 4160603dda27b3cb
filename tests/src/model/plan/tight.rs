//! Tight: a storm in which whatever has a limit meets it, policies change under way, and pools run full.
//!
//! ```text
//!   policies  three of one group: small undo logs, a small active disk, a slow or hasty resync, a
//!             checkpoint that may be dropped; one or the other side gets another of them at any time
//!   pools     of a side that runs full each request that takes space fails, or one in a few does
//! ```

use understudy_core::overlay::{Policy, UndoFull};
use understudy_core::units::CLUSTER;

use super::storm::{Weather, harden};
use super::{Mix, Op, Plan, Random, Setting, pick};

/// The case.
pub(super) fn draw(r: &mut Random) -> Plan {
    let mut setting = Setting::draw(r, Mix::Tight);
    harden(&mut setting, r);
    setting.room.clone_from(&setting.sizes);
    setting.first = setting.sizes.len();
    let may_drop = r.chance(50);
    setting.policies = (0..3).map(|_| policy(r, &setting, may_drop)).collect();
    setting.policy = setting.policies[0].clone();
    let rate = pick(r, &[4, 10, 20]);
    let mut weather = Weather::new(rate);
    let mut full = [false; 2];
    let mut ops = Vec::new();
    for _ in 0..40 + r.below(160) {
        let side = usize::from(r.chance(50));
        if full[side] && r.chance(15) {
            full[side] = false;
            ops.push(Op::PoolHasRoom(side));
        } else if r.chance(3) {
            full[side] = true;
            ops.push(Op::PoolFull(side, pick(r, &[1, 2, 5])));
        } else if r.chance(5) {
            ops.push(Op::Policy(side, usize::from(r.chance(50)) + usize::from(r.chance(50))));
        } else {
            ops.push(weather.draw(r, &setting));
        }
    }
    Plan { setting, ops }
}

/// Another policy of the same mode.
fn policy(r: &mut Random, s: &Setting, may_drop: bool) -> Policy {
    let total: u64 = s.sizes.iter().map(|size| size.next_multiple_of(CLUSTER)).sum();
    let undo = pick(r, &[16 << 10, total / 4, total, 2 * total, 4 << 20]);
    let active = pick(r, &[CLUSTER, 4 * CLUSTER, total / 4, 1 << 30]);
    Policy {
        undo_limit: undo.max(16 << 10),
        active_limit: active,
        undo_full: if may_drop { UndoFull::DropCheckpoint } else { UndoFull::KeepCheckpoint },
        resync_floor: pick(r, &[0, 64 << 10, 4 << 20]),
        resync_ceiling: pick(r, &[0, 0, 64 << 10, 1 << 20]),
        window: pick(r, &[4 << 10, 16 << 10, 64 << 10, 1 << 20]),
        ..s.policy.clone()
    }
}
