//! `understudy-tests ledger run | check`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Subcommand;
use understudy_core::units::u64_of;
use understudy_tests::ledger::{
    Journal, KeepOptions, Plan, RunOptions, check, keep, read_back, run,
};
use understudy_tests::random::Random;

/// What to do with a ledger.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write numbered, dependent records, alternating over the volumes, until the time is up or a
    /// write fails. Exit 0 either way: the journal holds what completed.
    Run {
        /// The volumes in their order: nbd+unix:///NAME?socket=PATH, nbd://HOST:PORT/NAME, or a path.
        #[arg(required = true)]
        volumes: Vec<String>,
        /// Where completions are noted as they come.
        #[arg(long)]
        journal: PathBuf,
        /// How long, in seconds.
        #[arg(long, default_value_t = 20.0)]
        seconds: f64,
        /// How many records; 0: as many as the time allows.
        #[arg(long, default_value_t = 0)]
        records: u64,
        /// The length of a record in bytes.
        #[arg(long, default_value_t = 4096)]
        block: u64,
        /// How many places each volume has; they are written again and again.
        #[arg(long, default_value_t = 512)]
        slots: u64,
        /// Where the places begin on each volume, in bytes.
        #[arg(long, default_value_t = 0)]
        start: u64,
        /// Every n-th write is durable (FUA); 0: none.
        #[arg(long, default_value_t = 0)]
        durable_every: u64,
    },
    /// Say which prefix is found, go on after it, and when a write fails go on reading; for ever.
    Keep {
        /// The volumes in their order.
        #[arg(required = true)]
        volumes: Vec<String>,
        /// Where journals and aftermaths go.
        #[arg(long)]
        journals: PathBuf,
        /// The identity of the ledger, the same in every life.
        #[arg(long)]
        run: u64,
        /// Milliseconds between two records.
        #[arg(long, default_value_t = 5)]
        pause: u64,
        /// How many places each volume has.
        #[arg(long, default_value_t = 512)]
        slots: u64,
    },
    /// Say which prefix the volumes hold, and whether that is allowed: exit 0 only then.
    Check {
        /// The volumes in the order of the run.
        #[arg(required = true)]
        volumes: Vec<String>,
        /// The journal of the run.
        #[arg(long)]
        journal: PathBuf,
        /// The number up to which all must be there.
        #[arg(long)]
        at_least: Option<u64>,
        /// When the cut was made, in milliseconds since 1970: what had completed before must be there.
        #[arg(long)]
        cut_unix_ms: Option<u64>,
    },
}

pub(crate) fn execute(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Run { volumes, journal, seconds, records, block, slots, start, durable_every } => {
            let (mut random, _seed) = Random::from_environment();
            let options = RunOptions {
                plan: Plan::new(random.next_u64(), volumes.len(), *block, *slots, *start)?,
                targets: volumes.clone(),
                journal: journal.clone(),
                duration: Duration::try_from_secs_f64(*seconds)?,
                records: *records,
                durable_every: *durable_every,
            };
            let ended = run(&options)?;
            match ended.error {
                Some(error) => println!("{} records completed; then: {error:#}", ended.completed),
                None => println!("{} records completed", ended.completed),
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Keep { volumes, journals, run, pause, slots } => {
            let options = KeepOptions {
                plan: Plan::new(*run, volumes.len(), 4096, *slots, 0)?,
                targets: volumes.clone(),
                journals: journals.clone(),
                pause: Duration::from_millis(*pause),
            };
            keep(&options, &mut std::io::stdout())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { volumes, journal, at_least, cut_unix_ms } => {
            let journal = Journal::read(journal)?;
            let mut bounds = journal.bounds(cut_unix_ms.map(|ms| ms.saturating_mul(1000)));
            bounds.at_least = bounds.at_least.max(at_least.unwrap_or(0));
            let found = read_back(&journal.plan, volumes)?;
            let verdict = check(&journal.plan, &found, bounds);
            let places = u64_of(found.len());
            println!(
                "{} ({places} places; allowed: {} to {})",
                verdict, bounds.at_least, bounds.at_most
            );
            Ok(if verdict.is_legal() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}
