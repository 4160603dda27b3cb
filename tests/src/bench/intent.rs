//! What the intent log costs when more is written all over than it keeps marked.
//!
//! ```text
//!   volume of 2048 regions, 4k random writes, a checkpoint each 100 ms
//!     ours   1024 regions stay marked at rest, at most 4096: those beyond the 1024 are cleared slowly
//!            a write where none is marked marks its region first, durably
//!     peer   all stay marked: once warm no write marks anything, as if there were no intent log
//!   and beyond the bound: the same, but at most 1024 stay marked
//! ```

use std::path::Path;

use anyhow::Result;

use super::case::Case;
use super::ours::Ours;
use super::table::{Round, Row};
use crate::random::Random;

/// Twice what stays marked at rest.
const SIZE: u64 = 2 << 30;

const DEPTHS: [Case; 2] = [
    Case {
        name: "4k random write QD1",
        write: true,
        len: 4096,
        depth: 1,
        step: 4096,
        shuffled: true,
        count: 4000,
        limit: None,
    },
    Case {
        name: "4k random write QD16",
        write: true,
        len: 4096,
        depth: 16,
        step: 4096,
        shuffled: true,
        count: 20_000,
        limit: None,
    },
];

/// Writes a second, and syncs of the intent log for each thousand of them.
fn measure(ours: &Ours, case: &Case, offsets: &[u64]) -> Result<(f64, f64)> {
    let before = ours.figure("group_intent_syncs_total")?;
    let rate = case.measure(&ours.export, offsets.to_vec())?;
    let syncs = ours.figure("group_intent_syncs_total")? - before;
    ours.pair.quiesce()?;
    #[allow(clippy::cast_precision_loss, reason = "a count of one short run")]
    let writes = offsets.len() as f64;
    Ok((rate, syncs * 1000.0 / writes))
}

/// Runs all cases; prints how many syncs there were.
pub(crate) fn run(directory: &Path, rounds: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (what, most) in [("", 4096), (", beyond the bound", 1024)] {
        let directory = directory.join(most.to_string());
        rows.extend(against_all_marked(&directory, rounds, what, most)?);
        std::fs::remove_dir_all(directory)?;
    }
    Ok(rows)
}

fn against_all_marked(directory: &Path, rounds: usize, what: &str, most: u64) -> Result<Vec<Row>> {
    let bounded = Ours::marking(&directory.join("bounded"), SIZE, most)?;
    let unbounded = Ours::marking(&directory.join("unbounded"), SIZE, 1 << 20)?;
    let mut random = Random::new(1);
    let mut rows = Vec::new();
    for case in DEPTHS {
        let mut row = Row { name: format!("{}{what}", case.name), rounds: Vec::new() };
        for round in 0..=rounds {
            let offsets = case.offsets(SIZE, &mut random);
            let (first, peer) = if round % 2 == 0 {
                let first = measure(&bounded, &case, &offsets)?;
                (first, measure(&unbounded, &case, &offsets)?)
            } else {
                let peer = measure(&unbounded, &case, &offsets)?;
                (measure(&bounded, &case, &offsets)?, peer)
            };
            let again = measure(&bounded, &case, &offsets)?;
            if round > 0 {
                row.rounds.push(Round { ours: first.0, peer: peer.0, again: again.0 });
                println!(
                    "{}: {:.1} syncs of the intent log for each 1000 writes, {:.1} when all stays marked",
                    row.name, first.1, peer.1
                );
            }
        }
        rows.push(row);
    }
    Ok(rows)
}
