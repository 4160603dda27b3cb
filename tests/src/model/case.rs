//! One case: played, and when it fails, made as short as it gets.
//!
//! ```text
//!   fails at step k ─► prefix of k+1 steps ─► leave out halves, quarters, ... single steps
//! ```
//! The seed decides the world's scheduling too, so a shorter list is another history: what still
//! fails is kept, whatever it fails with.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use understudy_core::bug::{Bug, plant};
use understudy_core::sim::Sim;

use super::broken::Broken;
use super::plan::{Mix, Plan};
use super::player::Player;
use super::shared::Counts;

/// A history: what it is drawn from, and how it is played.
#[derive(Clone, Debug)]
pub struct Case {
    /// Decides the steps and the world.
    pub seed: u64,
    /// What kind of steps.
    pub mix: Mix,
    /// The deliberate bug that is planted meanwhile.
    pub bug: Option<Bug>,
    /// Only these of its steps.
    pub keep: Option<Vec<usize>>,
}

/// A case that failed.
#[derive(Clone, Debug)]
pub struct Failed {
    /// The step during which it showed.
    pub step: usize,
    /// What does not hold.
    pub broken: Broken,
    /// What was seen.
    pub what: String,
}

/// Steps and polls of one world; far more than any case needs.
pub(super) const STEPS_MAX: u64 = 6_000_000;

impl Case {
    /// The case of a seed, with nothing planted.
    pub fn new(mix: Mix, seed: u64) -> Self {
        Self { seed, mix, bug: None, keep: None }
    }

    /// The same with a bug.
    #[must_use]
    pub fn with(self, bug: Option<Bug>) -> Self {
        Self { bug, ..self }
    }

    /// All its steps.
    fn plan(&self) -> Plan {
        Plan::draw(self.seed, self.mix)
    }

    /// Plays it.
    pub fn play(&self) -> Result<Counts, Failed> {
        let all = self.plan();
        match &self.keep {
            None => self.play_plan(&all),
            Some(keep) => self.play_steps(&all, keep),
        }
    }

    fn play_steps(&self, all: &Plan, keep: &[usize]) -> Result<Counts, Failed> {
        let ops = keep.iter().filter_map(|i| all.ops.get(*i).copied()).collect();
        self.play_plan(&Plan { setting: all.setting.clone(), ops })
    }

    fn play_plan(&self, plan: &Plan) -> Result<Counts, Failed> {
        let at = Cell::new(0);
        let _planted = plant(self.bug);
        let result = catch_unwind(AssertUnwindSafe(|| {
            let sim = Sim::new(self.seed);
            sim.limit_steps(STEPS_MAX);
            let world = sim.clone();
            sim.block_on(async { run(&world, plan, self.mix, &at).await })
        }));
        match result {
            Ok(Ok(counts)) => Ok(counts),
            Ok(Err((broken, what))) => Err(Failed { step: at.get(), broken, what }),
            Err(panic) => {
                let (broken, what) = panicked(&*panic);
                Err(Failed { step: at.get(), broken, what })
            }
        }
    }

    /// A failing case made shorter, within a time; the places of its steps in the plan.
    fn shrink(&self, first: &Failed, time: Duration) -> (Vec<usize>, Failed) {
        let until = Instant::now() + time;
        let plan = self.plan();
        let mut keep: Vec<usize> =
            self.keep.clone().unwrap_or_else(|| (0..plan.ops.len()).collect());
        let attempt = |keep: &[usize]| self.play_steps(&plan, keep).err();
        let mut failed = first.clone();
        let prefix: Vec<usize> = keep.iter().copied().take(first.step + 1).collect();
        if let Some(f) = attempt(&prefix) {
            (keep, failed) = (prefix, f);
        }
        let mut chunk = keep.len().div_ceil(2).max(1);
        loop {
            let mut from = 0;
            let mut shorter = false;
            while from < keep.len() && Instant::now() < until {
                let to = (from + chunk).min(keep.len());
                let without: Vec<usize> = keep[..from].iter().chain(&keep[to..]).copied().collect();
                if let Some(f) = attempt(&without) {
                    (keep, failed, shorter) = (without, f, true);
                } else {
                    from = to;
                }
            }
            if Instant::now() >= until || (chunk == 1 && !shorter) {
                return (keep, failed);
            }
            chunk = chunk.div_ceil(2).max(1);
        }
    }

    /// The command that plays it again.
    pub fn command(&self) -> String {
        let mut text = format!(
            "cargo run --quiet --package understudy-tests -- simulate --mix {} --seed {} --histories 1",
            self.mix, self.seed
        );
        if let Some(bug) = self.bug {
            text += &format!(" --bug {}", bug.name());
        }
        if let Some(keep) = &self.keep {
            let list: Vec<_> = keep.iter().map(ToString::to_string).collect();
            text += &format!(" --keep {}", list.join(","));
        }
        text
    }

    /// The report of a failed case: the shortest history, and the command that plays it.
    pub fn report(&self, time: Duration) -> Option<String> {
        let first = self.play().err()?;
        let plan = self.plan();
        let (keep, last) = self.shrink(&first, time);
        let steps: Vec<String> = keep
            .iter()
            .filter_map(|i| plan.ops.get(*i).map(|op| format!("  {i:4} {op:?}")))
            .collect();
        let short = Self { keep: Some(keep), ..self.clone() };
        Some(format!(
            "seed {} fails at step {} of {}: {}: {}\nmade shorter, {} steps: {}: {}\n{:?}\n{}\n\
             again: {}\nthe short one: {}",
            self.seed,
            first.step,
            plan.ops.len(),
            first.broken,
            first.what,
            steps.len(),
            last.broken,
            last.what,
            plan.setting,
            steps.join("\n"),
            self.command(),
            short.command(),
        ))
    }
}

/// What a panic in a world says.
pub(super) fn panicked(panic: &(dyn std::any::Any + Send)) -> (Broken, String) {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
    (Broken::Panic, format!("panic: {}", text.unwrap_or_default()))
}

async fn run(
    sim: &Sim,
    plan: &Plan,
    mix: Mix,
    at: &Cell<usize>,
) -> Result<Counts, (Broken, String)> {
    let mut player = Player::new(sim, plan).await.map_err(|e| (Broken::Restart, e))?;
    let chance = sim.random(7);
    for (i, op) in plan.ops.iter().enumerate() {
        at.set(i);
        player.step(*op).await;
        if chance.one_in(3) {
            sim.pause(chance.between(&(Duration::ZERO..Duration::from_micros(400)))).await;
        }
        player.verdict()?;
    }
    at.set(plan.ops.len());
    player.finish(mix).await;
    player.verdict()
}
