//! The operations, each with what leads to it.
//!
//! ```text
//!   start       solo, filled, both sides, initial sync, first record
//!   checkpoint  records with writes in flight before, between and behind them
//!   failover    one superblock, and the merge beside writes; a consumer's writes are kept
//!   resync      what was written while the link was down
//!   return      the old primary starts, becomes the secondary, gets everything
//!   restart     both sides are opened after they were killed under load
//!   expand      of one volume of a running group: secondary first, then primary
//!   join        of a volume: secondary first, then primary, and the record that covers it
//! ```

use std::time::Duration;

use understudy_core::overlay::{Mode, Policy};
use understudy_core::sim::Direction;
use understudy_core::units::{ByteRange, SECTOR};

use super::super::plan::{Death, Kind, Op, Setting};

/// One operation.
#[derive(Clone, Debug)]
pub struct Scene {
    /// What it is called.
    pub name: &'static str,
    /// What leads to it, with a running pair; `None`: nothing was started.
    pub before: Option<Vec<Op>>,
    /// The operation itself.
    pub during: Vec<Op>,
    /// At least so many sync points does it have, on both sides together.
    pub least: u64,
}

const SIZES: [u64; 3] = [24 << 10, (36 << 10) + SECTOR, 10 << 10];

/// The volume that may join.
const JOINS: u64 = (28 << 10) + 3 * SECTOR;

/// Volume 1 ends within a cluster; what it grows by begins there.
const BY: u64 = 11 * SECTOR;

/// The world of all scenes.
pub(super) fn setting() -> Setting {
    let room = SIZES.map(|s| s + 2 * BY);
    Setting {
        sizes: [&SIZES[..], &[JOINS]].concat(),
        first: SIZES.len(),
        room: [&room[..], &[JOINS]].concat(),
        alignment: [512, 512],
        policy: Policy {
            mode: Mode::Checkpointed,
            // Only those that are asked for: a scene has the same points each time.
            checkpoint_interval: Duration::ZERO,
            undo_limit: 4 << 20,
            window: 64 << 10,
            max_delay: Duration::from_millis(20),
            ..Policy::default()
        },
        policies: Vec::new(),
        slowness: [400, 300],
        capacity: 128 << 10,
        filled: true,
        // Marks are swept at each checkpoint, so that writes mark anew.
        intent_hot: 0,
        // And a resync flushes both sides every so often.
        resync_settle: 16 << 10,
        disk_slowness: [(1, 1); 2],
    }
}

fn at(start: u64, len: u64) -> ByteRange {
    ByteRange::new(start, start + len)
}

fn data(v: usize, start: u64, len: u64) -> Op {
    Op::Write(v, at(start, len), Kind::Data)
}

/// Writes to all volumes, some of one place.
fn load(shift: u64) -> Vec<Op> {
    vec![
        data(0, shift, 5000),
        data(1, 2 * shift + 100, 9000),
        Op::Pause(200),
        data(0, 4096, 4096),
        Op::Write(2, at(0, 8192), Kind::Discard),
        data(2, 1024, 700),
    ]
}

fn checkpoint(pause: u64) -> [Op; 2] {
    [Op::Checkpoint, Op::Pause(pause)]
}

/// A pair in step, with a checkpoint that has writes of its own.
fn settled() -> Vec<Op> {
    [vec![Op::Pause(200_000)], load(0), checkpoint(100_000).to_vec()].concat()
}

/// All scenes.
pub fn scenes() -> Vec<Scene> {
    vec![
        start(),
        checkpoints(),
        failover(),
        resync(),
        comes_back(),
        restart(),
        expand(1),
        expand(0),
        join(1),
        join(0),
    ]
}

fn start() -> Scene {
    let mut during = vec![Op::Begin];
    during.extend(load(3000));
    during.push(Op::Pause(30_000));
    during.extend(checkpoint(100_000));
    Scene { name: "start", before: None, during, least: 30 }
}

fn checkpoints() -> Scene {
    let before = [settled(), load(500)].concat();
    let during = [
        load(1000),
        checkpoint(1200).to_vec(),
        load(2000),
        vec![Op::Flush(0), Op::ViewWrite(0, at(4096, 4096), Kind::Data), Op::Pause(2000)],
        checkpoint(8000).to_vec(),
        load(2500),
        vec![Op::Pause(20_000)],
        checkpoint(8000).to_vec(),
        load(3000),
        checkpoint(100_000).to_vec(),
    ];
    Scene { name: "checkpoint", before: Some(before), during: during.concat(), least: 30 }
}

fn failover() -> Scene {
    let before = [
        settled(),
        vec![
            Op::ViewWrite(1, at(4096, 6000), Kind::Data),
            Op::ViewWrite(2, at(0, 4096), Kind::Zero),
            Op::Pause(2000),
            Op::ViewFlush(1),
            Op::ViewFlush(2),
        ],
        load(700),
        vec![Op::Pause(5000)],
    ];
    let during = vec![
        Op::Failover(true),
        data(0, 2000, 6000),
        Op::Pause(600),
        Op::Flush(0),
        data(1, 3000, 9000),
        Op::Pause(600),
        Op::Flush(1),
        Op::Pause(60_000),
    ];
    Scene { name: "failover, commit", before: Some(before.concat()), during, least: 10 }
}

fn resync() -> Scene {
    let before = [
        settled(),
        vec![Op::Partition(0, Direction::Both), Op::CutLink],
        load(600),
        vec![Op::Settle],
        load(8000),
        vec![Op::Settle, Op::Pause(500_000)],
    ];
    let during = [
        vec![Op::Heal, Op::Pause(1_500_000)],
        load(1200),
        vec![Op::Pause(1_500_000)],
        checkpoint(100_000).to_vec(),
    ];
    Scene { name: "resync", before: Some(before.concat()), during: during.concat(), least: 10 }
}

fn comes_back() -> Scene {
    let before = [
        settled(),
        load(900),
        vec![Op::Die(0, Death::PowerCut), Op::Failover(false), Op::Pause(60_000), data(0, 0, 6000)],
    ];
    let during = [
        vec![Op::Rejoin, Op::Pause(5000)],
        load(1700),
        vec![Op::Pause(1_000_000)],
        checkpoint(100_000).to_vec(),
    ];
    Scene { name: "return", before: Some(before.concat()), during: during.concat(), least: 20 }
}

fn restart() -> Scene {
    let before = [
        settled(),
        load(700),
        vec![Op::Checkpoint, Op::Pause(900)],
        load(1900),
        vec![Op::Die(1, Death::Kill), data(0, 0, 3000), Op::Pause(300), Op::Die(0, Death::Kill)],
    ];
    let during = [
        vec![Op::Restart(1), Op::Restart(0), Op::Pause(1_500_000)],
        load(1100),
        checkpoint(100_000).to_vec(),
    ];
    Scene { name: "restart", before: Some(before.concat()), during: during.concat(), least: 20 }
}

fn expand(side: usize) -> Scene {
    let mut before = [settled(), load(500)].concat();
    if side == 0 {
        before.extend([Op::ExpandSide(1, 1, BY), Op::Pause(500_000)]);
    }
    let by = if side == 0 { 0 } else { BY };
    let end = SIZES[1] - 2000;
    let during = [
        vec![Op::ExpandSide(side, 1, by), data(1, end, 9000), Op::Pause(500_000)],
        load(1300),
        vec![data(1, end + 1000, 4000)],
        checkpoint(100_000).to_vec(),
        vec![data(1, end, 2500), Op::Pause(5000)],
    ];
    let name = if side == 0 { "expand the primary" } else { "expand the secondary" };
    Scene { name, before: Some(before), during: during.concat(), least: 20 }
}

fn join(side: usize) -> Scene {
    let mut before = [settled(), load(500)].concat();
    if side == 0 {
        before.extend([Op::Join(false), Op::Pause(500_000)]);
    }
    let during = [
        vec![Op::Join(side == 0), data(3, 2000, 9000), Op::Pause(500_000)],
        load(1300),
        vec![data(3, 7000, 3000)],
        checkpoint(100_000).to_vec(),
        vec![data(3, 0, 6000), Op::Pause(3000)],
        load(1900),
        checkpoint(100_000).to_vec(),
        vec![data(3, 8000, 2500), Op::Pause(5000)],
    ];
    let name = if side == 0 { "join the primary" } else { "join the secondary" };
    Scene { name, before: Some(before), during: during.concat(), least: 20 }
}
