//! How long a copy takes to be whole again: our resync against QEMU's full mirror.
//!
//! ```text
//!   link lost:       secondary down ─► 1 % of a 2 GiB volume written ─► secondary up ─► session ─┐
//!   primary crashed: written all over ─► SIGKILL of the primary ─► up ─► session ────────────────┤
//!                                                      from here: nothing missing, a checkpoint  ▼
//! ```
//! What passes before there is a session, a pause of at most two seconds between tries, is not in it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use understudy_core::engine::api::{GroupStatus, LinkState};
use understudy_core::overlay::INTENT_REGION;

use super::case::Case;
use super::ours::Ours;
use super::table::{Round, Row};
use crate::qemu::Mirror;
use crate::random::Random;

/// The volume.
const SIZE: u64 = 2 << 30;

/// The most regions that stay marked only for speed: half of it.
const MARKED: u64 = 1024;

/// 1 % of it, in pieces of 4 KiB.
const WRITES: u64 = SIZE / 100 / 4096;

const SCATTERED: Case = Case {
    name: "",
    write: true,
    len: 4096,
    depth: 16,
    step: 4096,
    shuffled: true,
    count: WRITES,
    limit: None,
};

/// A resync.
struct Resync {
    took: Duration,
    /// What was missing when the session began, and what was sent.
    missing: u64,
    sent: u64,
}

/// Prints what was sent, and returns the rows of times: resyncs a second against mirrors a second.
pub(crate) fn run(directory: &Path, direct: bool, rounds: usize) -> Result<Vec<Row>> {
    let mut ours = Ours::marking(&directory.join("ours"), SIZE, MARKED)?;
    std::fs::create_dir_all(directory.join("qemu"))?;
    let mut qemu = Mirror::start(&directory.join("qemu"), SIZE, direct)?;
    let mut random = Random::new(1);
    let mut row =
        Row { name: "1 % of 2 GiB differs after a lost link".to_owned(), rounds: Vec::new() };
    let mut payload: f64 = 0.0;
    for round in 0..=rounds {
        let one = ours.link_lost(&mut random)?;
        let mirror = qemu.run()?;
        let two = ours.link_lost(&mut random)?;
        if round > 0 {
            let rate = |d: Duration| 1.0 / d.as_secs_f64();
            row.rounds.push(Round {
                ours: rate(one.took),
                peer: rate(mirror),
                again: rate(two.took),
            });
            payload =
                payload.max(ratio(one.sent, WRITES * 4096)).max(ratio(two.sent, WRITES * 4096));
            println!(
                "round {round}: {:.2} s, {:.2} s against {:.2} s of a full mirror",
                one.took.as_secs_f64(),
                two.took.as_secs_f64(),
                mirror.as_secs_f64()
            );
        }
    }
    println!("payload after a lost link: at most {payload:.3} times the bytes that differ");
    if !direct {
        // To find the holes of a large file takes a file system in memory longest of all.
        return Ok(vec![row]);
    }
    let crash = ours.primary_crashed(&mut random)?;
    println!(
        "after a crash of the primary that had written all over the volume: {} MiB missing, {} MiB sent in \
         {:.1} s; the bound is the {} regions marked last, {} MiB, and what no record covered",
        crash.missing >> 20,
        crash.sent >> 20,
        crash.took.as_secs_f64(),
        MARKED,
        (MARKED * INTENT_REGION) >> 20,
    );
    Ok(vec![row])
}

#[allow(clippy::cast_precision_loss, reason = "a ratio for people")]
fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b as f64
}

impl Ours {
    fn count(&self, name: &str) -> Result<u64> {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let count = self.figure(name)? as u64;
        Ok(count)
    }

    /// Scattered writes while the secondary is away.
    fn link_lost(&mut self, random: &mut Random) -> Result<Resync> {
        self.pair.checkpoint()?;
        self.pair.secondary.kill();
        let group = self.pair.group.clone();
        let lost = |s: &GroupStatus| s.link == LinkState::Degraded;
        self.pair.primary.wait_for(&group, "a lost link", lost)?;
        let mut offsets = SCATTERED.offsets(SIZE, random);
        offsets.truncate(usize::try_from(WRITES)?);
        SCATTERED.measure(&self.export, offsets)?;
        let (sessions, sent) =
            (self.count("group_sessions_total")?, self.count("group_resynced_bytes_total")?);
        self.pair.secondary.restart()?;
        self.until_whole(sessions, sent)
    }

    /// The primary dies after it has written in every region; its disks are whole.
    fn primary_crashed(&mut self, random: &mut Random) -> Result<Resync> {
        self.pair.checkpoint()?;
        let case = Case { step: INTENT_REGION, count: SIZE / INTENT_REGION, ..SCATTERED };
        case.measure(&self.export, case.offsets(SIZE, random))?;
        self.pair.checkpoint()?;
        std::thread::sleep(Duration::from_millis(500));
        self.pair.primary.restart()?;
        self.until_whole(0, 0)
    }

    fn until_whole(&self, sessions: u64, sent: u64) -> Result<Resync> {
        while self.count("group_sessions_total")? <= sessions {
            std::thread::sleep(Duration::from_millis(1));
        }
        let began = Instant::now();
        let missing = self.count("group_missing_bytes")?;
        self.pair.checkpoint()?;
        let took = began.elapsed();
        Ok(Resync { took, missing, sent: self.count("group_resynced_bytes_total")? - sent })
    }
}
