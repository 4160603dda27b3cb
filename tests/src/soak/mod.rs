//! The soak: two real engines and two volumes under load, while everything goes wrong that may.
//!
//! ```text
//!        fio --verify, a ledger, probes
//!            │ /dev/loopN, /dev/loopM
//!     a: understudyd ──► proxy ──────────────► b: understudyd ── view: judged in every round
//!        SIGKILL          cut, silent one way,    SIGKILL, SIGSTOP,
//!        lost for good    200 ms of delay         its pool full
//! ```
//!
//! `room` is where it is played, `stage` what stands there (`pool`: file systems that can be full), `load`
//! and `probe` the VM, `plan` and `fault` what goes wrong and when, `watch` looks at the group, `round` plays
//! one, `judge` says what must hold, `tally` counts.
//!
//! The plan is the seed's; the machine's timing is its own. A round can be played by itself.

mod fault;
mod judge;
mod load;
mod plan;
mod pool;
mod probe;
mod room;
mod round;
mod stage;
mod tally;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

pub use plan::ROUNDS_OF_ALL;
pub use room::{clear_orphans, possible};

use crate::random::Random;

/// How long it takes if nobody says how much of it there shall be.
const MINUTES: f64 = 10.0;

/// How a soak is run.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// It ends after so many minutes, with the round that is being played. Without `--rounds`: 10.
    #[arg(long)]
    pub minutes: Option<f64>,
    /// It ends after so many rounds. Five have every kind of fault.
    #[arg(long)]
    pub rounds: Option<u32>,
    /// What the faults are drawn from; without it `UNDERSTUDY_SEED`, or one of the moment.
    #[arg(long)]
    pub seed: Option<u64>,
    /// The number of the first round.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub from: u32,
    /// Do this harm, which it must then find.
    #[arg(long)]
    pub harm: Option<Harm>,
    /// The directory in which it is played; the soak itself gives it.
    #[arg(long, hide = true, requires = "owner")]
    pub inside: Option<PathBuf>,
    /// Whose soak it is.
    #[arg(long, hide = true)]
    pub owner: Option<u32>,
}

/// What can be done to show that a soak can fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Harm {
    /// One byte of the secondary's disk changes.
    Byte,
    /// The primary's engine stands still for a while.
    Stall,
}

/// Plays it; success only if everything held in every round.
pub fn run(options: &Options) -> Result<ExitCode> {
    let seed = options.seed.unwrap_or_else(|| Random::from_environment().1);
    match (&options.inside, options.owner) {
        (Some(directory), Some(owner)) => play(options, seed, directory, owner),
        _ => room::enclose(options, seed),
    }
}

fn play(options: &Options, seed: u64, directory: &Path, owner: u32) -> Result<ExitCode> {
    println!(
        "SEED={seed}: two volumes of {} MiB, maxDelay {:?}",
        stage::VOLUME >> 20,
        stage::MAX_DELAY
    );
    let minutes = options.minutes.or(options.rounds.is_none().then_some(MINUTES));
    let limit = minutes.map(|m| Duration::try_from_secs_f64(m * 60.0)).transpose()?;
    let end = limit.map(|limit| Instant::now() + limit);
    let ledger = load::ledger_plan(owner)?;
    let mut stage = stage::Stage::start(directory, owner, options.harm)?;
    let (mut watch, mut tally) = (watch::Watch::default(), tally::Tally::default());
    let mut exit = ExitCode::SUCCESS;
    for number in options.from.. {
        let is_late = end.is_some_and(|end| Instant::now() >= end);
        if is_late || options.rounds.is_some_and(|rounds| tally.rounds >= rounds) {
            break;
        }
        let round = plan::Round::new(seed, number);
        let [first, second] = round.faults;
        let began = Instant::now();
        match round::play(&mut stage, &ledger, &round, &mut watch, &mut tally) {
            Ok(played) => {
                tally.rounds += 1;
                println!(
                    "{number:4}  {:5.1} s  {first}; {second} | recovered in {:.1?}, longest stall \
                     {:.0?}, {} checkpoints",
                    began.elapsed().as_secs_f64(),
                    played.recovery,
                    played.longest,
                    played.checkpoints
                );
            }
            Err(error) => {
                println!("{number:4}  {first}; {second} | FAILED: {error:#}");
                println!("Again: make soak SEED={seed} FROM={number} ROUNDS=1");
                exit = ExitCode::FAILURE;
                break;
            }
        }
    }
    drop(stage);
    println!("{tally}");
    Ok(exit)
}
