//! What the intent log costs when more is written all over than it keeps marked.
//!
//! ```text
//!   volume of 2048 regions, 4k random writes, a checkpoint each 100 ms
//!     ours   1024 regions stay marked: a write elsewhere marks its region first, durably
//!     peer   all stay marked: once warm no write marks anything, as if there were no intent log
//! ```

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use understudy_core::engine::api::{ByteLen, ExportKind, Policy};

use super::case::Case;
use super::figures::figure;
use super::table::{Round, Row};
use crate::harness::engines::{Carrier, Engines, EnginesOptions};
use crate::harness::nbd_address::Export;
use crate::random::Random;

/// Twice what stays marked.
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

struct Ours(Engines, Export);

impl Ours {
    fn start(directory: &Path, marked: u64) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let file = directory.join("engine.yaml");
        std::fs::write(&file, format!("limits:\n  intentMib: {marked}\n"))?;
        let policy = Policy {
            checkpoint_interval: Some(Duration::from_millis(100)),
            undo_limit: Some(ByteLen(1 << 30)),
            ..Policy::default()
        };
        let mut options =
            EnginesOptions { carrier: Carrier::Tcp, ..EnginesOptions::new(&[SIZE], policy) };
        options.flags = vec!["--config".to_owned(), file.display().to_string()];
        let pair = Engines::start(directory, &options)?;
        let volume = pair.members[0].volume.clone();
        let export = pair.primary.export(&pair.group, &volume, ExportKind::Primary)?;
        Ok(Self(pair, export))
    }

    /// Writes a second, and syncs of the intent log for each thousand of them.
    fn measure(&self, case: &Case, offsets: &[u64]) -> Result<(f64, f64)> {
        let before = figure(&self.0, "group_intent_syncs_total")?;
        let rate = case.measure(&self.1, offsets.to_vec())?;
        let syncs = figure(&self.0, "group_intent_syncs_total")? - before;
        self.0.quiesce()?;
        #[allow(clippy::cast_precision_loss, reason = "a count of one short run")]
        let writes = offsets.len() as f64;
        Ok((rate, syncs * 1000.0 / writes))
    }
}

/// Runs all cases; prints how many syncs there were.
pub(crate) fn run(directory: &Path, rounds: usize) -> Result<Vec<Row>> {
    let bounded = Ours::start(&directory.join("bounded"), 1024)?;
    let unbounded = Ours::start(&directory.join("unbounded"), 1 << 20)?;
    let mut random = Random::new(1);
    let mut rows = Vec::new();
    for case in DEPTHS {
        let mut row = Row { name: case.name.to_owned(), rounds: Vec::new() };
        for round in 0..=rounds {
            let offsets = case.offsets(SIZE, &mut random);
            let (first, peer) = if round % 2 == 0 {
                let first = bounded.measure(&case, &offsets)?;
                (first, unbounded.measure(&case, &offsets)?)
            } else {
                let peer = unbounded.measure(&case, &offsets)?;
                (bounded.measure(&case, &offsets)?, peer)
            };
            let again = bounded.measure(&case, &offsets)?;
            if round > 0 {
                row.rounds.push(Round { ours: first.0, peer: peer.0, again: again.0 });
                println!(
                    "{}: {:.1} syncs of the intent log for each 1000 writes, {:.1} when all stays marked",
                    case.name, first.1, peer.1
                );
            }
        }
        rows.push(row);
    }
    Ok(rows)
}
