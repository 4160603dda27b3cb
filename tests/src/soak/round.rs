//! One round.
//!
//! ```text
//!   VM starts ─► faults begin and end ─► all is mended ─► recovers ─► the view is judged ─► recovers
//!                     │                                      ▲               ─► VM ends ─► all is judged
//!                     └─ the node is lost ─► failover, judged ─► the lost one returns, a new VM ─┘
//! ```

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::fault::Kind;
use super::judge::{self, Away};
use super::load::{Load, Ran};
use super::plan::Round;
use super::stage::Stage;
use super::tally::Tally;
use super::watch::Watch;
use crate::ledger::Plan;

/// How long a full pool may take to be felt: its user writes to it all the time.
const FELT: Duration = Duration::from_secs(8);

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
    let mut load = Load::start(stage, ledger, u64::from(round.number))?;
    let begin = Instant::now();
    for moment in round.moments() {
        watch.until(stage, &mut load, begin + moment.at)?;
        match (moment.kind, moment.begins) {
            (Kind::NodeLoss, true) => {
                tally.fault(moment.kind);
                load = lose(stage, ledger, load, watch, tally, &mut away)?;
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
    judge::view_under_load(stage, ledger, &load.journal, watch, tally)?;
    watch.recovers(stage, &mut load)?;
    let journal = load.journal.clone();
    let ran = load.stop()?;
    judge::at_rest(stage, ledger, &journal, tally)?;
    let longest = settle(ran, &away, tally)?;
    judge::stall(longest)?;
    let checkpoints = watch.checkpoints - before;
    tally.checkpoints += checkpoints;
    tally.recovery = tally.recovery.max(recovery);
    Ok(Played { recovery, longest, checkpoints })
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
    Load::start(stage, ledger, epoch.0)
}

/// Adds what a VM saw to the counts; its longest stall.
fn settle(ran: Ran, away: &Away, tally: &mut Tally) -> Result<Duration> {
    let (mut wrong, mut slow) = (0, Vec::new());
    for probed in ran.probes {
        wrong += probed.wrong;
        slow.extend(probed.slow);
    }
    tally.reads += ran.fio.reads;
    tally.wrong += wrong;
    if wrong > 0 {
        bail!("a probe read {wrong} bytes that it had not written");
    }
    let longest = away.longest_other(&slow);
    tally.longest = tally.longest.max(longest);
    Ok(longest)
}
