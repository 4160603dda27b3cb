//! The journal: what completed, and when. A text file, one line as soon as a write has completed, so
//! that whoever is killed, what completed is known.
//!
//! ```text
//!   ledger run=0x1d volumes=2 block=4096 slots=512 start=0
//!   1 1764027601123456          number, microseconds since 1970
//!   2 1764027601123611
//! ```
//!
//! A ledger that goes on where an earlier life ended says after which record, ` after=N`, in its head.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use super::check::Bounds;
use super::plan::Plan;

/// One completed record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completed {
    /// Its number.
    pub number: u64,
    /// When its completion was seen: microseconds since 1970.
    pub at_us: u64,
}

/// A journal that has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// The layout of the run.
    pub plan: Plan,
    /// The last record of earlier lives; 0: this is the first.
    pub after: u64,
    /// What completed, in order.
    pub completed: Vec<Completed>,
}

/// A journal that is being written.
pub struct Writer(File);

impl Writer {
    /// Begins a journal.
    pub fn create(path: &Path, plan: &Plan) -> Result<Self> {
        Self::create_after(path, plan, 0)
    }

    /// Begins a journal of a life that goes on after this record.
    pub fn create_after(path: &Path, plan: &Plan, after: u64) -> Result<Self> {
        let file = File::create(path);
        let mut file = file.with_context(|| format!("cannot make {}", path.display()))?;
        let Plan { run, volumes, block, slots, start } = plan;
        let after = if after == 0 { String::new() } else { format!(" after={after}") };
        writeln!(
            file,
            "ledger run={run:#x} volumes={volumes} block={block} slots={slots} start={start}{after}"
        )?;
        Ok(Self(file))
    }

    /// Notes a completion; in the kernel's hands when it returns.
    pub fn completed(&mut self, number: u64) -> Result<()> {
        // One write per line: a line is there wholly or not at all.
        let line = format!("{number} {}\n", now_us());
        Ok(self.0.write_all(line.as_bytes())?)
    }
}

/// Microseconds since 1970.
pub fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

impl Journal {
    /// Reads one.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    /// Reads one from its text. A line without its end is still being written, so it is not there.
    pub fn parse(text: &str) -> Result<Self> {
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut lines = whole.lines();
        let head = lines.next().unwrap_or_default();
        let (plan, after) =
            parse_head(head).with_context(|| format!("not a ledger's head: {head:?}"))?;
        let mut completed: Vec<Completed> = Vec::new();
        for line in lines {
            let Some((number, at)) = line.split_once(' ') else {
                bail!("not a completion: {line:?}")
            };
            let next = Completed { number: number.parse()?, at_us: at.parse()? };
            let before = completed.last().map_or(after, |last| last.number);
            if next.number != before + 1 {
                bail!("record {} follows record {before}", next.number);
            }
            completed.push(next);
        }
        Ok(Self { plan, after, completed })
    }

    /// How many completed.
    pub fn last(&self) -> u64 {
        self.completed.last().map_or(self.after, |last| last.number)
    }

    /// The last record whose completion was seen before this moment, in microseconds since 1970.
    pub fn completed_before(&self, at_us: u64) -> u64 {
        let seen = self.completed.iter().take_while(|completed| completed.at_us < at_us);
        seen.last().map_or(self.after, |completed| completed.number)
    }

    /// The bounds of a prefix after a cut at this moment: nothing completed before may be missing,
    /// and beside what completed one more record can have been in flight.
    pub fn bounds(&self, cut_us: Option<u64>) -> Bounds {
        let at_least = cut_us.map_or(0, |cut| self.completed_before(cut));
        Bounds { at_least, at_most: self.last() + 1 }
    }
}

fn parse_head(head: &str) -> Result<(Plan, u64)> {
    let words = head.strip_prefix("ledger ").context("it does not begin with \"ledger \"")?;
    let mut values = [0_u64; 5];
    let find = |name| words.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    for (value, name) in values.iter_mut().zip(["run", "volumes", "block", "slots", "start"]) {
        let word = find(name).with_context(|| format!("{name} is missing"))?;
        *value = match word.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16)?,
            None => word.parse()?,
        };
    }
    let [run, volumes, block, slots, start] = values;
    let after = find("after").map_or(Ok(0), str::parse)?;
    Ok((Plan::new(run, usize::try_from(volumes)?, block, slots, start)?, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_reads_back_and_knows_what_completed_before_a_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let plan = Plan::new(0x1d, 2, 4096, 64, 512).unwrap();
        let mut writer = Writer::create(&path, &plan).unwrap();
        let before = now_us();
        for number in 1..=3 {
            writer.completed(number).unwrap();
        }
        let journal = Journal::read(&path).unwrap();
        assert_eq!(journal.plan, plan);
        assert_eq!(journal.last(), 3);
        assert_eq!(journal.completed_before(before), 0);
        assert_eq!(journal.completed_before(u64::MAX), 3);
        assert_eq!(journal.bounds(Some(u64::MAX)), Bounds { at_least: 3, at_most: 4 });
        assert_eq!(journal.bounds(None), Bounds { at_least: 0, at_most: 4 });
    }

    #[test]
    fn a_journal_of_a_later_life_goes_on_where_the_earlier_ended() {
        let head = "ledger run=0x1 volumes=1 block=512 slots=4 start=0 after=7\n";
        let journal = Journal::parse(&format!("{head}8 5\n9 6\n")).unwrap();
        assert_eq!((journal.after, journal.last()), (7, 9));
        assert_eq!(journal.completed_before(5), 7);
        assert_eq!(Journal::parse(head).unwrap().last(), 7);
        assert!(Journal::parse(&format!("{head}1 5\n")).is_err());
    }

    #[test]
    fn a_line_that_is_still_being_written_is_not_there() {
        let head = "ledger run=0x1 volumes=1 block=512 slots=4 start=0\n";
        let journal = Journal::parse(&format!("{head}1 5\n2 60")).unwrap();
        assert_eq!((journal.last(), journal.completed_before(u64::MAX)), (1, 1));
    }

    #[test]
    fn a_journal_with_a_gap_or_a_bad_head_is_refused() {
        let head = "ledger run=0x1 volumes=1 block=512 slots=4 start=0\n";
        assert!(Journal::parse(&format!("{head}1 5\n3 6\n")).is_err());
        assert!(Journal::parse(&format!("{head}1\n")).is_err());
        assert!(Journal::parse("1 5\n").is_err());
        assert!(Journal::parse(head.trim_end()).is_err());
        assert!(Journal::parse("ledger run=0x1 volumes=1 block=512 slots=4\n").is_err());
    }
}
