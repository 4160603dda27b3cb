//! Hunting deliberate bugs: how many histories it takes to find each, and what finds it.
//!
//! ```text
//!   for each bug, in the mix that finds it soonest:
//!                  seed, seed + 1, ... ─► the first that fails with the bug planted
//!                                          └─► the same without it: must pass
//! ```

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use understudy_core::bug::Bug;

use super::case::{Case, Failed};
use super::plan::Mix;

/// What the hunt for one bug came to.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// The bug.
    pub bug: Bug,
    /// How many histories were played.
    pub histories: u64,
    /// What found it.
    pub found: Option<Found>,
}

/// The history that found a bug.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its seed.
    pub seed: u64,
    /// How it failed.
    pub failed: Failed,
    /// How the same history fails with nothing planted, which it must not.
    pub without: Option<Failed>,
}

/// The kind of histories that finds a bug soonest.
pub fn mix_for(bug: Bug) -> Mix {
    match bug {
        Bug::IntentBeforeFlush
        | Bug::IntentUnderNewer
        | Bug::ReportedBeforeFlush
        | Bug::FlushWithoutWaiting
        | Bug::FirstRecordUnflushed => Mix::Sweep,
        Bug::JoinedBeforeRecord
        | Bug::JoinsLacking
        | Bug::JoiningSavesNothing
        | Bug::FailoverKeepsJoining
        | Bug::UsedJoinsAsBlank => Mix::Join,
        _ => Mix::Storm,
    }
}

/// Plays histories from `seed` on with a bug planted until one fails, at most `most`.
pub fn hunt(bug: Bug, mix: Mix, seed: u64, most: u64) -> Hunt {
    for n in 0..most {
        let case = Case::new(mix, seed.wrapping_add(n));
        if let Err(failed) = case.clone().with(Some(bug)).play() {
            let found = Found { seed: case.seed, failed, without: case.play().err() };
            return Hunt { bug, histories: n + 1, found: Some(found) };
        }
    }
    Hunt { bug, histories: most, found: None }
}

/// Hunts many bugs, each from a seed of its own, one on each processor at a time; in their order.
/// `tell` hears of each as it is done.
pub fn hunt_all(bugs: &[(Bug, u64)], most: u64, tell: impl Fn(&Hunt) + Sync) -> Vec<Hunt> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((bug, seed)) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let hunted = hunt(*bug, mix_for(*bug), *seed, most);
                    tell(&hunted);
                    let Ok(mut done) = done.lock() else { return };
                    done.push(hunted);
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|h| h.bug);
    done
}

/// One line of the table.
pub fn line(hunt: &Hunt) -> String {
    let name = hunt.bug.name();
    let Some(found) = &hunt.found else {
        return format!("| {name} | not found | {} | |", hunt.histories);
    };
    let mut line =
        format!("| {name} | seed {} | {} | {} |", found.seed, hunt.histories, found.failed.broken);
    if let Some(without) = &found.without {
        let _ = write!(line, " FAILS WITHOUT IT TOO: {}", without.what);
    }
    line
}
