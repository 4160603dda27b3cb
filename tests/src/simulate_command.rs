//! `understudy-tests simulate`: random histories, with or without a deliberate bug in the product.

use std::process::ExitCode;

use anyhow::{Result, bail};
use understudy_core::bug::{Bug, IS_POSSIBLE};
use understudy_tests::model::{Case, Mix, hunt_all, judge, line};

/// Which histories.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The seed of the first history; the others follow.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many histories; with `--bugs`: for each bug, at most.
    #[arg(long, default_value_t = 1000)]
    histories: u64,
    /// What kind: calm (no faults), faults, storm, sweep, growth, join, tight
    #[arg(long, default_value_t = Mix::Storm)]
    mix: Mix,
    /// Without faults: the property test.
    #[arg(long, conflicts_with = "mix")]
    calm: bool,
    /// Plant this deliberate bug, and show how a history finds it.
    #[arg(long)]
    bug: Option<Bug>,
    /// Plant each deliberate bug in turn, and say how many histories find it.
    #[arg(long, conflicts_with_all = ["bug", "keep", "mix", "calm"])]
    bugs: bool,
    /// Only these steps of the history, as a report names them.
    #[arg(long, value_delimiter = ',')]
    keep: Option<Vec<usize>>,
}

/// Plays them.
pub(crate) fn execute(options: &Options) -> Result<ExitCode> {
    let mix = if options.calm { Mix::Calm } else { options.mix };
    if (options.bugs || options.bug.is_some()) && !IS_POSSIBLE {
        bail!("no bug can be planted in a release build: take a debug build");
    }
    if options.bugs {
        return Ok(hunt(options.seed, options.histories));
    }
    let case = Case { seed: options.seed, mix, bug: options.bug, keep: options.keep.clone() };
    match judge(&case, options.histories) {
        Ok(total) => {
            println!("{total}");
            Ok(ExitCode::SUCCESS)
        }
        Err(text) => {
            eprintln!("{text}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The table of all bugs; a failure if one is not found, or a history fails without it.
fn hunt(seed: u64, most: u64) -> ExitCode {
    println!("| bug | found | histories | what finds it |\n|---|---|---|---|");
    let bugs: Vec<_> = Bug::ALL.iter().map(|bug| (*bug, seed)).collect();
    let hunts = hunt_all(&bugs, most, |h| println!("{}", line(h)));
    let missed = hunts.iter().filter(|h| h.found.is_none()).count();
    let real =
        hunts.iter().filter(|h| h.found.as_ref().is_some_and(|f| f.without.is_some())).count();
    println!("{} bugs, {missed} not found, {real} histories that fail without a bug", hunts.len());
    if missed + real == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
