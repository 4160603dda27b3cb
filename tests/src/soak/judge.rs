//! Was anything lost, is any byte wrong, did the VM wait too long?
//!
//! ```text
//!   under load       cut the link, so that the view stands still: a legal prefix, with all that had
//!                    completed before the cut of the newest checkpoint that was reported
//!   after a failover the same of the promoted volumes, while the roll-back is merged and after it
//!   at rest          one more checkpoint: device and view hold exactly all records, and are the same
//!                    in every byte
//!   all the time     no request waited longer than the policy allows, unless its engine was away
//! ```

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use understudy_core::engine::api::LinkState;
use understudy_core::units::u64_of;

use super::probe::{Slow, differing};
use super::stage::{MAX_DELAY, Stage, VOLUME};
use super::tally::Tally;
use super::watch::{Reported, Watch};
use crate::ledger::{Bounds, Journal, Plan, Target, Verdict, check, read_back};

/// How much longer than `maxDelay` a request may take here. It also waits for its turns on a machine whose
/// two processors are shared by two engines, two holders, fio, a ledger and this program, and perhaps by
/// others; for a resync that is reading its very range; and a flush for the disk.
pub(super) const MARGIN: Duration = Duration::from_millis(500);

/// How long after its engine has answered again a device may take to find it.
const BACK: Duration = Duration::from_millis(700);

/// How long the secondary may take to notice a cut link.
const NOTICE: Duration = Duration::from_secs(8);

/// Cuts the link, and judges the view against what was reported before.
pub(super) fn view_under_load(
    stage: &Stage,
    plan: &Plan,
    journal: &Path,
    watch: &mut Watch,
    tally: &mut Tally,
) -> Result<()> {
    stage.link().cut(true);
    let end = Instant::now() + NOTICE;
    let engine = &stage.secondary().engine;
    while engine.group(&stage.group)?.link != LinkState::Degraded {
        ensure!(
            Instant::now() < end,
            "the secondary has not noticed in {NOTICE:?} that the link is cut"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    watch.look(stage);
    let bounds = bounds(journal, watch.reported)?;
    // What was staged when the link was lost is still applied, and may hold the end of an epoch, two at most.
    let mut tries = 0;
    let (record, verdict) = loop {
        let record = engine.group(&stage.group)?.record;
        let verdict = judge(plan, &stage.views()?, bounds, tally)?;
        let after = engine.group(&stage.group)?.record;
        if record == after {
            break (record, verdict);
        }
        tries += 1;
        ensure!(tries <= 2, "checkpoint {after} completed without a link");
    };
    if watch.reported.is_some_and(|reported| record < reported.epoch) {
        tally.lost += 1;
        bail!("{:?} was reported, but the secondary has {record} only", watch.reported);
    }
    stage.link().cut(false);
    must_be_legal(&verdict, bounds, "the view", tally)
}

/// Judges the promoted volumes; what they hold must be the same when the roll-back is merged.
pub(super) fn promoted(
    stage: &Stage,
    plan: &Plan,
    journal: &Path,
    watch: &Watch,
    tally: &mut Tally,
) -> Result<()> {
    let bounds = bounds(journal, watch.reported)?;
    let volumes = stage.volumes()?;
    let during = judge(plan, &volumes, bounds, tally)?;
    must_be_legal(&during, bounds, "the promoted volumes", tally)?;
    stage.wait_for_merge()?;
    let done = judge(plan, &volumes, bounds, tally)?;
    ensure!(during == done, "the merge changed what is read: {during} before, {done} after");
    Ok(())
}

/// Nobody writes any more: a last checkpoint, and both sides must hold the same, which is everything.
pub(super) fn at_rest(stage: &Stage, plan: &Plan, journal: &Path, tally: &mut Tally) -> Result<()> {
    stage.primary().engine.checkpoint(&stage.group, stage.generation)?;
    let completed = Journal::read(journal)?.last();
    let bounds = Bounds { at_least: completed, at_most: completed };
    for (what, names) in [("the devices", stage.device_names()), ("the view", stage.views()?)] {
        let verdict = judge(plan, &names, bounds, tally)?;
        must_be_legal(&verdict, bounds, what, tally)?;
    }
    for (device, view) in stage.device_names().iter().zip(stage.views()?) {
        let ours = Target::open(device, false)?.read(0, VOLUME)?;
        let theirs = Target::open(&view, false)?.read(0, VOLUME)?;
        let wrong = differing(&ours, &theirs);
        tally.bytes += u64_of(ours.len());
        tally.wrong += wrong;
        if wrong > 0 {
            let at = ours.iter().zip(&theirs).position(|(a, b)| a != b);
            bail!("{wrong} bytes differ between {device} and {view}, the first at {at:?}");
        }
    }
    Ok(())
}

/// What completed before the cut of this checkpoint must be there.
fn bounds(journal: &Path, reported: Option<Reported>) -> Result<Bounds> {
    Ok(Journal::read(journal)?.bounds(reported.map(|reported| reported.cut_us)))
}

fn judge(plan: &Plan, names: &[String], bounds: Bounds, tally: &mut Tally) -> Result<Verdict> {
    let found = read_back(plan, names)?;
    tally.records += u64_of(found.len());
    Ok(check(plan, &found, bounds))
}

fn must_be_legal(verdict: &Verdict, bounds: Bounds, what: &str, tally: &mut Tally) -> Result<()> {
    match verdict {
        Verdict::Prefix(_) => return Ok(()),
        Verdict::TooShort { .. } => tally.lost += 1,
        // A place that holds what it must not: all of a record at the most.
        _ => tally.wrong += 1,
    }
    bail!("{what}: {verdict} (allowed: {} to {})", bounds.at_least, bounds.at_most)
}

/// When the primary's engine was away.
#[derive(Clone, Debug, Default)]
pub(super) struct Away(Vec<(Instant, Option<Instant>)>);

impl Away {
    /// From now on it is.
    pub(super) fn begins(&mut self) {
        if self.0.last().is_none_or(|(_, end)| end.is_some()) {
            self.0.push((Instant::now(), None));
        }
    }

    /// It answers again.
    pub(super) fn ends(&mut self) {
        if let Some((_, end @ None)) = self.0.last_mut() {
            *end = Some(Instant::now() + BACK);
        }
    }

    fn covers(&self, slow: &Slow) -> bool {
        let until = slow.begin + slow.took;
        self.0.iter().any(|(from, to)| until >= *from && to.is_none_or(|to| slow.begin <= to))
    }

    /// The longest of the requests that had no such reason to wait.
    pub(super) fn longest_other(&self, slow: &[Slow]) -> Duration {
        let other = slow.iter().filter(|slow| !self.covers(slow)).map(|slow| slow.took);
        other.max().unwrap_or_default()
    }
}

/// No request waited longer than the policy allows.
pub(super) fn stall(longest: Duration) -> Result<()> {
    let most = MAX_DELAY + MARGIN;
    ensure!(
        longest <= most,
        "a request took {longest:.2?} while the primary's engine was there: maxDelay is {MAX_DELAY:?}, \
         and {MARGIN:?} are for the machine"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_request_counts_unless_the_engine_was_away_at_any_time_of_it() {
        let begin = Instant::now();
        let slow = |from: u64, took: u64| Slow {
            begin: begin + Duration::from_millis(from),
            took: Duration::from_millis(took),
        };
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let away = Away(vec![(at(1000), Some(at(2000))), (at(9000), None)]);
        for (request, counts) in [
            (slow(0, 900), true),
            (slow(0, 1100), false),
            (slow(1500, 100), false),
            (slow(1900, 5000), false),
            (slow(2100, 5000), true),
            (slow(9100, 1), false),
        ] {
            let longest = away.longest_other(&[request]);
            assert_eq!(longest == request.took, counts, "{request:?}");
        }
        assert!(stall(MAX_DELAY + MARGIN).is_ok());
        assert!(stall(MAX_DELAY + MARGIN + Duration::from_millis(1)).is_err());
    }
}
