//! A ledger that is kept over many lives of its writer, as a database keeps its log.
//!
//! ```text
//!   start ─► read every place ─► a legal prefix 1…n? ─no─► say what is wrong, end
//!                                     │ yes
//!                                     ▼
//!            write n+1, n+2, … noting each completion ─► a write fails ─► aftermath: go on reading,
//!            in a journal of this life                                   note what is seen, for ever
//! ```
//!
//! The aftermath shows whether a device that has failed ever answers again, and with what.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::check::{Bounds, Found, Verdict, check};
use super::journal::{Writer, now_us};
use super::plan::Plan;
use super::record::{Hash, Reading};
use super::run::{read_back, write_from};
use super::target::Target;
use understudy_core::units::u64_of;

/// How often a failed device is read again.
const AGAIN: Duration = Duration::from_millis(200);

/// How a ledger is kept.
#[derive(Clone, Debug)]
pub struct KeepOptions {
    /// Where the records go; the run is the same in every life.
    pub plan: Plan,
    /// The volumes, each a URI or a path.
    pub targets: Vec<String>,
    /// The directory of journals and aftermaths, one of each a life.
    pub journals: PathBuf,
    /// Between two records.
    pub pause: Duration,
}

/// One life of the writer.
#[allow(missing_debug_implementations, reason = "an open file has nothing to show")]
pub struct Life {
    id: u64,
    prefix: u64,
    previous: Hash,
    path: PathBuf,
    journal: Writer,
}

impl Life {
    /// Looks at what there is, says it, and begins a journal. An error: it is not legal, or can't be read.
    pub fn begin(options: &KeepOptions, said: &mut dyn Write) -> Result<Self> {
        let plan = &options.plan;
        let found = read_back(plan, &options.targets)?;
        let verdict = check(plan, &found, Bounds { at_least: 0, at_most: u64::MAX });
        writeln!(said, "found: {verdict}")?;
        said.flush()?;
        let Verdict::Prefix(prefix) = verdict else { bail!("the volumes hold no legal prefix") };
        std::fs::create_dir_all(&options.journals)?;
        let id = now_us();
        let path = file(options, id, "journal");
        let journal = Writer::create_after(&path, plan, prefix)?;
        Ok(Self { id, prefix, previous: last_hash(&found, prefix)?, path, journal })
    }

    /// The last record that was found.
    pub fn prefix(&self) -> u64 {
        self.prefix
    }

    /// What completes in this life is noted here.
    pub fn journal(&self) -> &Path {
        &self.path
    }

    /// Writes until a write fails, and says why; or until it is told to stop.
    pub fn write(
        mut self,
        options: &KeepOptions,
        stop: &AtomicBool,
    ) -> Result<Option<anyhow::Error>> {
        write_from(options, self.prefix, self.previous, &mut self.journal, self.id, stop)
    }
}

/// Keeps it until the process is ended. An error: what was found is not legal, or nothing can be read.
pub fn keep(options: &KeepOptions, said: &mut dyn Write) -> Result<()> {
    let life = Life::begin(options, said)?;
    let id = life.id;
    let ended = life.write(options, &AtomicBool::new(false))?;
    let error = ended.context("the ledger ended, though nobody told it to")?;
    writeln!(said, "a write failed: {error:#}")?;
    said.flush()?;
    aftermath(options, &file(options, id, "aftermath"))
}

fn file(options: &KeepOptions, life: u64, kind: &str) -> PathBuf {
    options.journals.join(format!("{life}.{kind}"))
}

/// The hash that the next record must name.
fn last_hash(found: &[Found], prefix: u64) -> Result<Hash> {
    if prefix == 0 {
        return Ok([0; 16]);
    }
    let last = found.iter().find_map(|found| match &found.reading {
        Reading::Whole(record, hash) if record.number == prefix => Some(*hash),
        _ => None,
    });
    last.with_context(|| format!("record {prefix} was there and is gone"))
}

/// Notes what reads of the failed volumes give: `TIME VOLUME error TEXT` or `TIME VOLUME newest N`.
fn aftermath(options: &KeepOptions, path: &Path) -> Result<()> {
    let mut notes =
        File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    loop {
        for (volume, name) in options.targets.iter().enumerate() {
            let seen = match newest(&options.plan, volume, name) {
                Ok(newest) => format!("newest {newest}"),
                Err(error) => format!("error {error:#}"),
            };
            notes.write_all(format!("{} {volume} {seen}\n", now_us()).as_bytes())?;
        }
        std::thread::sleep(AGAIN);
    }
}

/// The newest record of one volume.
fn newest(plan: &Plan, volume: usize, name: &str) -> Result<u64> {
    let bytes = Target::open(name, false)?.read(plan.start, plan.span())?;
    let block = usize::try_from(plan.block)?;
    let number = |block: &[u8]| match Reading::of(block) {
        Reading::Whole(record, _) if plan.volume_of(record.number) == volume => record.number,
        _ => 0,
    };
    Ok(bytes.chunks_exact(block).map(number).max().unwrap_or(0))
}

/// What an aftermath must never show: a record older than what had completed on that volume.
pub fn went_back(aftermath: &str, plan: &Plan, completed: u64) -> Option<String> {
    let volumes = u64_of(plan.volumes);
    aftermath.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let volume: u64 = words.next()?.parse().ok()?;
        let newest: u64 = match (words.next()?, words.next()?) {
            ("newest", number) => number.parse().ok()?,
            _ => return None,
        };
        // The last completed record of that volume.
        let last = (completed.saturating_sub(volumes) + 1..=completed)
            .find(|number| *number > 0 && (*number - 1) % volumes == volume)?;
        (newest < last).then(|| format!("{line}, but record {last} had completed"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aftermath_with_older_records_is_told_from_one_without() {
        let plan = Plan::new(1, 2, 512, 8, 0).unwrap();
        let fine = "100 0 newest 9\n100 1 newest 10\n200 0 error Input/output error\n";
        assert_eq!(went_back(fine, &plan, 10), None);
        assert!(went_back("100 0 newest 7\n", &plan, 10).is_some());
        assert!(went_back("100 1 newest 8\n", &plan, 10).is_some());
        assert!(went_back("100 0 newest 0\n", &plan, 10).is_some());
    }
}
