//! Writing a ledger, and reading back what is left of it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use understudy_core::units::{u64_of, usize_of};

use super::check::Found;
use super::journal::Writer;
use super::keep::KeepOptions;
use super::plan::{Place, Plan};
use super::record::{Hash, Reading, Record, hash};
use super::target::Target;

/// How a run is made.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Where the records go.
    pub plan: Plan,
    /// The volumes, each a URI or a path.
    pub targets: Vec<String>,
    /// Where completions are noted.
    pub journal: PathBuf,
    /// The run ends after this time.
    pub duration: Duration,
    /// Or after this many records; 0 for no such end.
    pub records: u64,
    /// Every n-th write is durable (FUA); 0 for none.
    pub durable_every: u64,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// How many records completed.
    pub completed: u64,
    /// The error that ended it, if one did.
    pub error: Option<anyhow::Error>,
}

/// Writes the records after `completed` until a write fails, and returns why; or until it is told to
/// stop.
pub(super) fn write_from(
    options: &KeepOptions,
    mut completed: u64,
    mut previous: Hash,
    journal: &mut Writer,
    life: u64,
    stop: &AtomicBool,
) -> Result<Option<anyhow::Error>> {
    let plan = &options.plan;
    let mut targets = open(&options.targets, plan, true)?;
    while !stop.load(Ordering::Relaxed) {
        let (place, block) = next(plan, completed, previous, life);
        if let Err(error) = targets[place.volume].write(place.offset, &block, true) {
            return Ok(Some(error));
        }
        previous = hash(&block);
        completed += 1;
        journal.completed(completed)?;
        std::thread::sleep(options.pause);
    }
    Ok(None)
}

/// Where the record after `completed` goes, and its block.
fn next(plan: &Plan, completed: u64, previous: Hash, life: u64) -> (Place, Vec<u8>) {
    let number = completed + 1;
    let volume = plan.volume_name(number);
    let record = Record { run: plan.run, number, volume, previous };
    (plan.place_of(number), record.encode_in_life(usize_of(plan.block), life))
}

/// Writes records until the time is up or a write fails. A failing write is how most runs end: the
/// primary was killed. What completed until then is in the journal.
pub fn run(options: &RunOptions) -> Result<Ended> {
    let plan = &options.plan;
    let mut targets = open(&options.targets, plan, true)?;
    let mut journal = Writer::create(&options.journal, plan)?;
    let end = Instant::now() + options.duration;
    let (mut completed, mut previous) = (0, [0; 16]);
    while Instant::now() < end && (options.records == 0 || completed < options.records) {
        let durably = (completed + 1).checked_rem(options.durable_every) == Some(0);
        let (place, block) = next(plan, completed, previous, 0);
        if let Err(error) = targets[place.volume].write(place.offset, &block, durably) {
            return Ok(Ended { completed, error: Some(error) });
        }
        previous = hash(&block);
        completed += 1;
        journal.completed(completed)?;
    }
    Ok(Ended { completed, error: None })
}

/// Reads every place of the plan.
pub fn read_back(plan: &Plan, targets: &[String]) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for (volume, target) in open(targets, plan, false)?.iter_mut().enumerate() {
        let bytes = target.read(plan.start, plan.span())?;
        for (slot, block) in bytes.chunks_exact(usize_of(plan.block)).enumerate() {
            let offset = plan.start + u64_of(slot) * plan.block;
            found.push(Found { place: Place { volume, offset }, reading: Reading::of(block) });
        }
    }
    Ok(found)
}

fn open(names: &[String], plan: &Plan, writable: bool) -> Result<Vec<Target>> {
    anyhow::ensure!(
        names.len() == plan.volumes,
        "{} volumes given, but the ledger is over {}",
        names.len(),
        plan.volumes
    );
    names
        .iter()
        .map(|name| {
            let target = Target::open(name, writable)?;
            target.must_hold(name, plan.start + plan.span())?;
            Ok(target)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Bounds, Journal, Verdict, check};
    use std::path::Path;

    use super::*;
    use crate::trace::fill_file;

    #[test]
    fn a_run_on_files_is_found_again_whole() {
        let directory = tempfile::tempdir().unwrap();
        let names: Vec<String> = ["a", "b", "c"]
            .iter()
            .map(|name| directory.path().join(name).to_string_lossy().into_owned())
            .collect();
        for name in &names {
            fill_file(Path::new(name), 1 << 20, 0x11).unwrap();
        }
        let plan = Plan::new(3, 3, 4096, 20, 8192).unwrap();
        let options = RunOptions {
            plan: plan.clone(),
            targets: names.clone(),
            journal: directory.path().join("journal"),
            duration: Duration::from_mins(1),
            records: 100,
            durable_every: 0,
        };
        let ended = run(&options).unwrap();
        assert!(ended.error.is_none() && ended.completed == 100);
        let journal = Journal::read(&options.journal).unwrap();
        assert_eq!(journal.last(), 100);
        let found = read_back(&plan, &names).unwrap();
        assert_eq!(check(&plan, &found, journal.bounds(Some(u64::MAX))), Verdict::Prefix(100));
        let strict = Bounds { at_least: 101, at_most: 101 };
        assert!(!check(&plan, &found, strict).is_legal());
    }

    #[test]
    fn a_volume_that_is_too_short_is_refused_before_the_first_write() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("short");
        fill_file(&path, 4096, 0).unwrap();
        let plan = Plan::new(3, 1, 4096, 20, 0).unwrap();
        let error = read_back(&plan, &[path.to_string_lossy().into_owned()]).unwrap_err();
        assert!(error.to_string().contains("needs 81920"), "{error}");
    }
}
