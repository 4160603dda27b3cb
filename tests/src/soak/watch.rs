//! What the primary says of its group, looked at all the time: whoever waits, waits here.
//!
//! ```text
//!   status ─► a checkpoint newer than any before ─► reported: it must never be lost from now on
//! ```

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use understudy_core::engine::api::{GroupStatus, LinkState};
use understudy_core::units::Epoch;

use super::load::Load;
use super::stage::Stage;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// How long a group may take to have a new checkpoint once every fault is mended: 5 s until a silent peer
/// is given up, 5 s for a hello that it still owes, 2 s until the next attempt, a copy of everything that
/// it lacks; on a busy machine.
pub(super) const RECOVERY: Duration = Duration::from_secs(20);

/// A checkpoint that was reported as complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reported {
    pub(super) epoch: Epoch,
    /// When its cut was made, in microseconds since 1970.
    pub(super) cut_us: u64,
}

/// What was seen so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    /// The newest checkpoint that was reported.
    pub(super) reported: Option<Reported>,
    /// How many there were.
    pub(super) checkpoints: u64,
    /// The last error that the group had.
    pub(super) error: Option<String>,
}

impl Watch {
    /// Asks the primary's engine, which may be down.
    pub(super) fn look(&mut self, stage: &Stage) -> Option<GroupStatus> {
        let engine = &stage.primary().engine;
        engine.pid()?;
        let status = engine.group(&stage.group).ok()?;
        if let Some(error) = &status.error {
            self.error = Some(error.clone());
        }
        let cut = status.checkpoint_cut.and_then(|cut| u64::try_from(cut.0.as_micros()).ok());
        let newer = self.reported.is_none_or(|before| status.record > before.epoch);
        if let Some(cut_us) = cut
            && newer
            && status.record != Epoch::NONE
        {
            self.reported = Some(Reported { epoch: status.record, cut_us });
            self.checkpoints += 1;
        }
        Some(status)
    }

    /// Looks until this moment; the load must run all the while.
    pub(super) fn until(&mut self, stage: &Stage, load: &mut Load, end: Instant) -> Result<()> {
        while Instant::now() < end {
            self.look(stage);
            load.must_run()?;
            std::thread::sleep(LOOK.min(end.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    /// Waits until the group runs and has two checkpoints more: the cut of the second was made after
    /// this call. Says how long it took.
    pub(super) fn recovers(&mut self, stage: &Stage, load: &mut Load) -> Result<Duration> {
        let begin = Instant::now();
        let (before, mut last) = (self.checkpoints, None);
        loop {
            if let Some(status) = self.look(stage) {
                if status.link == LinkState::Running && self.checkpoints >= before + 2 {
                    return Ok(begin.elapsed());
                }
                last = Some(status);
            }
            load.must_run()?;
            if begin.elapsed() > RECOVERY {
                let other = stage.secondary().engine.group(&stage.group);
                bail!(
                    "no new checkpoint in {RECOVERY:?} after every fault was mended\nprimary: \
                     {last:#?}\nsecondary: {other:#?}"
                );
            }
            std::thread::sleep(LOOK);
        }
    }
}
