//! What a soak has counted, and the line that says it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::fault::Kind;

/// The counts of all rounds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Tally {
    /// Rounds that were played to their end.
    pub(super) rounds: u32,
    /// Faults by kind.
    pub(super) faults: BTreeMap<Kind, u32>,
    /// Checkpoints that were seen to complete.
    pub(super) checkpoints: u64,
    /// Places of the ledger that were read and judged.
    pub(super) records: u64,
    /// Bytes that were compared between the two sides.
    pub(super) bytes: u64,
    /// Reads that fio compared with what it had written.
    pub(super) reads: u64,
    /// Bytes that were wrong.
    pub(super) wrong: u64,
    /// Checkpoints that were reported and not there.
    pub(super) lost: u64,
    /// The longest that a request took while the primary's engine was there.
    pub(super) longest: Duration,
    /// The longest that a group took to have a new checkpoint.
    pub(super) recovery: Duration,
}

impl Tally {
    /// A fault was made.
    pub(super) fn fault(&mut self, kind: Kind) {
        *self.faults.entry(kind).or_default() += 1;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> =
            self.faults.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        write!(
            f,
            "{} rounds; {}; {} checkpoints, {} records judged, {} MiB and {} reads of fio compared; \
             {} wrong bytes, {} checkpoints lost; longest stall {:.2?} (primary there), longest \
             recovery {:.1?}",
            self.rounds,
            faults.join(", "),
            self.checkpoints,
            self.records,
            self.bytes >> 20,
            self.reads,
            self.wrong,
            self.lost,
            self.longest,
            self.recovery
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_names_faults_and_losses() {
        let mut tally = Tally { rounds: 3, wrong: 7, lost: 1, ..Tally::default() };
        tally.fault(Kind::Stopped);
        tally.fault(Kind::Stopped);
        let line = tally.to_string();
        for part in ["3 rounds", "2 secondary stopped", "7 wrong bytes", "1 checkpoints lost"] {
            assert!(line.contains(part), "{line}");
        }
    }
}
