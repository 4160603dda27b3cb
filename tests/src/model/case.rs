//! One case: played, and when it fails, made as short as it gets.
//!
//! ```text
//!   fails at step k ─► prefix of k+1 steps ─► leave out halves, quarters, ... single steps
//! ```
//! The seed decides the world's scheduling too, so a shorter list is another history: what still
//! fails is kept, whatever it fails with.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use understudy_core::sim::Sim;

use super::plan::{Mix, Op, Plan};
use super::player::Player;
use super::shared::Counts;

/// A case that failed.
#[derive(Clone, Debug)]
pub struct Failed {
    /// The step during which it showed.
    pub step: usize,
    /// What must not be.
    pub what: String,
}

/// Steps and polls of one world; far more than any case needs.
const STEPS_MAX: u64 = 6_000_000;

/// Plays some steps of a plan.
pub fn play(seed: u64, plan: &Plan, mix: Mix) -> Result<Counts, Failed> {
    let at = std::cell::Cell::new(0);
    let result = catch_unwind(AssertUnwindSafe(|| {
        let sim = Sim::new(seed);
        sim.limit_steps(STEPS_MAX);
        let world = sim.clone();
        sim.block_on(async { run(&world, plan, mix, &at).await })
    }));
    match result {
        Ok(Ok(counts)) => Ok(counts),
        Ok(Err(what)) => Err(Failed { step: at.get(), what }),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Err(Failed { step: at.get(), what: format!("panic: {}", text.unwrap_or_default()) })
        }
    }
}

async fn run(
    sim: &Sim,
    plan: &Plan,
    mix: Mix,
    at: &std::cell::Cell<usize>,
) -> Result<Counts, String> {
    let mut player = Player::new(sim, plan).await?;
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

/// A failing case made shorter, within a time; the places of its steps in the plan.
pub fn shrink(
    seed: u64,
    plan: &Plan,
    mix: Mix,
    first: &Failed,
    time: Duration,
) -> (Vec<usize>, Failed) {
    let until = Instant::now() + time;
    let all: Vec<Op> = plan.ops.clone();
    let attempt = |keep: &[usize]| {
        let ops = keep.iter().filter_map(|i| all.get(*i).copied()).collect();
        play(seed, &Plan { setting: plan.setting.clone(), ops }, mix).err()
    };
    let mut keep: Vec<usize> = (0..all.len()).collect();
    let mut failed = first.clone();
    let prefix: Vec<usize> = (0..(first.step + 1).min(all.len())).collect();
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

/// The report of a failed case: the shortest history, and the command that plays it.
pub fn report(seed: u64, mix: Mix, time: Duration) -> Option<String> {
    let plan = kept(Plan::draw(seed, mix));
    let first = play(seed, &plan, mix).err()?;
    let (keep, last) = shrink(seed, &plan, mix, &first, time);
    let steps: Vec<String> =
        keep.iter().filter_map(|i| plan.ops.get(*i).map(|op| format!("  {i:4} {op:?}"))).collect();
    let list = keep.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let which = match mix {
        Mix::Calm => "the_filter_agrees_with_a_plain_model",
        Mix::Faults => "histories_with_faults_lose_no_checkpoint",
    };
    Some(format!(
        "seed {seed} fails at step {} of {}: {}\nmade shorter, {} steps: {}\n{:?}\n{}\n\
         again: UNDERSTUDY_SEED={seed} cargo test -p understudy-tests --test t1_model {which}\n\
         the short one: UNDERSTUDY_SEED={seed} UNDERSTUDY_KEEP={list} cargo test -p understudy-tests --test t1_model {which}",
        first.step,
        plan.ops.len(),
        first.what,
        keep.len(),
        last.what,
        plan.setting,
        steps.join("\n"),
    ))
}

/// The steps of `UNDERSTUDY_KEEP` only, if that is set.
fn kept(plan: Plan) -> Plan {
    let Ok(list) = std::env::var("UNDERSTUDY_KEEP") else { return plan };
    let keep: Vec<usize> = list.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    let ops = keep.iter().filter_map(|i| plan.ops.get(*i).copied()).collect();
    Plan { ops, ..plan }
}
