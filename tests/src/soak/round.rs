//! One round.
//!
//! ```text
//!   VM starts ─► faults begin and end ─► all is mended ─► recovers ─► the view is judged ─► recovers
//!                     │                                      ▲               ─► VM ends ─► all is judged
//!                     └─ the node is lost ─► failover, judged ─► the lost one returns, a new VM ─┘
//! ```

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Harm;
use super::fault::Kind;
use super::judge::{self, Away};
use super::load::Load;
use super::plan::Round;
use super::probe::SlowOnes;
use super::stage::Stage;
use super::tally::Tally;
use super::watch::Watch;
use crate::ledger::Plan;

/// How long a full pool may take to be felt: its user writes to it all the time.
const FELT: Duration = Duration::from_secs(8);

/// How long a primary stands still, if that was asked for.
const HARM: Duration = Duration::from_secs(3);

/// Which byte changes, if that was asked for: one that nobody writes.
const HARMED: u64 = 3 << 20;

/// What a round's line says beside its faults.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Played {
    /// From the mending of the last fault to a new checkpoint.
    pub(super) recovery: Duration,
    /// The longest that a request took while the primary's engine was there.
    pub(super) longest: Duration,
    /// How many checkpoints were seen to complete.
    pub(super) checkpoints: u64,
}

/// Plays it; an error is what must not be.
pub(super) fn play(
    stage: &mut Stage,
    ledger: &Plan,
    round: &Round,
    watch: &mut Watch,
    tally: &mut Tally,
) -> Result<Played> {
    let before = watch.checkpoints;
    let mut away = Away::default();
    let slow = SlowOnes::default();
    let mut load = Load::start(stage, ledger, u64::from(round.number), &slow)?;
    let begin = Instant::now();
    for moment in round.moments() {
        watch.until(stage, &mut load, begin + moment.at)?;
        match (moment.kind, moment.begins) {
            (Kind::NodeLoss, true) => {
                tally.fault(moment.kind);
                load = lose(stage, ledger, load, watch, tally, &mut away, &slow)?;
            }
            (Kind::NodeLoss, false) => {}
            (kind, true) => {
                tally.fault(kind);
                if kind.takes_primary() {
                    away.begins();
                }
                watch.error = None;
                kind.begin(stage).with_context(|| format!("cannot make: {kind}"))?;
            }
            (kind, false) => {
                if kind == Kind::PoolFull && is_alone(round) {
                    wait_until_felt(stage, &mut load, watch)?;
                }
                kind.end(stage).with_context(|| format!("cannot mend: {kind}"))?;
                if kind.takes_primary() {
                    away.ends();
                }
            }
        }
    }
    let recovery = watch.recovers(stage, &mut load)?;
    load.works()?;
    if stage.harm == Some(Harm::Stall) {
        stop_primary(stage)?;
    }
    judge::view_under_load(stage, ledger, &load.journal, watch, tally)?;
    watch.recovers(stage, &mut load)?;
    let journal = load.journal.clone();
    let ran = load.stop()?;
    if stage.harm == Some(Harm::Byte) {
        flip_byte(stage)?;
    }
    judge::at_rest(stage, ledger, &journal, tally)?;
    tally.reads += ran.fio.reads;
    tally.wrong += ran.wrong;
    ensure!(ran.wrong == 0, "a probe read {} bytes that it had not written", ran.wrong);
    let longest = away.longest_other(&slow.lock().unwrap_or_else(PoisonError::into_inner));
    tally.longest = tally.longest.max(longest);
    judge::stall(longest)?;
    let checkpoints = watch.checkpoints - before;
    tally.checkpoints += checkpoints;
    tally.recovery = tally.recovery.max(recovery);
    Ok(Played { recovery, longest, checkpoints })
}

/// As asked: the primary's engine stands still, and nobody says that it is away.
fn stop_primary(stage: &mut Stage) -> Result<()> {
    let process = stage.primary_mut().engine.process()?;
    process.signal("STOP")?;
    std::thread::sleep(HARM);
    process.signal("CONT")
}

/// As asked: one byte of the secondary's disk changes, under its engine.
fn flip_byte(stage: &Stage) -> Result<()> {
    let volume = &stage.members[0].volume;
    let path = stage.secondary().engine.disk_path(volume);
    let disk = File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    disk.read_exact_at(&mut byte, HARMED)?;
    disk.write_all_at(&[!byte[0]], HARMED)?;
    Ok(disk.sync_all()?)
}

/// Whether no other fault keeps the secondary from writing while its pool is full.
fn is_alone(round: &Round) -> bool {
    let [first, second] = round.faults;
    first.end < second.begin || second.end < first.begin
}

/// A full pool that nobody feels would show nothing.
fn wait_until_felt(stage: &Stage, load: &mut Load, watch: &mut Watch) -> Result<()> {
    let end = Instant::now() + FELT;
    while !watch.error.as_ref().is_some_and(|error| error.contains("No space left")) {
        if Instant::now() >= end {
            bail!(
                "nothing was free in the pool for {FELT:?}, and all that was said is {:?}",
                watch.error
            );
        }
        watch.until(stage, load, Instant::now() + Duration::from_millis(50))?;
    }
    Ok(())
}

/// The primary's node is lost. A new VM runs on the other one when this returns.
fn lose(
    stage: &mut Stage,
    ledger: &Plan,
    load: Load,
    watch: &mut Watch,
    tally: &mut Tally,
    away: &mut Away,
    slow: &SlowOnes,
) -> Result<Load> {
    watch.look(stage);
    away.begins();
    Kind::NodeLoss.begin(stage)?;
    let old = stage.generation;
    let epoch = stage.fail_over()?;
    if watch.reported.is_some_and(|reported| epoch < reported.epoch) {
        tally.lost += 1;
        bail!("{:?} was reported, but the failover landed on {epoch}", watch.reported);
    }
    let journal = load.journal.clone();
    judge::promoted(stage, ledger, &journal, watch, tally)?;
    stage.fail_devices(old)?;
    load.die()?;
    stage.detach()?;
    stage.take_back()?;
    stage.attach()?;
    away.ends();
    Load::start(stage, ledger, epoch.0, slow)
}
