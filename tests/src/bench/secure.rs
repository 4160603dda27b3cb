//! What TLS costs a link: our pair over TLS against our pair over plain TCP.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use understudy_core::engine::api::{ByteLen, ExportKind, Policy};

use super::case::Case;
use super::table::{Round, Row};
use crate::harness::engines::{Carrier, Engines, EnginesOptions};
use crate::harness::nbd_address::Export;
use crate::random::Random;

/// The volume.
const SIZE: u64 = 256 << 20;

/// Room for an epoch that holds all of it.
const UNDO_LIMIT: u64 = 1280 << 20;

/// As long as it takes for the window to be what bounds the writer: the link is what is measured.
const CASES: [Case; 3] = [
    Case {
        name: "4k random write QD1",
        write: true,
        len: 4096,
        depth: 1,
        step: 4 << 10,
        shuffled: true,
        count: 20_000,
        limit: None,
    },
    Case {
        name: "4k random write QD16",
        write: true,
        len: 4096,
        depth: 16,
        step: 4 << 10,
        shuffled: true,
        count: 50_000,
        limit: None,
    },
    Case {
        name: "1 MiB sequential write QD4",
        write: true,
        len: 1 << 20,
        depth: 4,
        step: 1 << 20,
        shuffled: false,
        count: 1024,
        limit: None,
    },
];

/// A pair and its primary's export.
struct Ours(Engines, Export);

impl Ours {
    fn start(directory: &Path, carrier: Carrier) -> Result<Self> {
        let policy = Policy {
            checkpoint_interval: None,
            undo_limit: Some(ByteLen(UNDO_LIMIT)),
            // Nothing may be left out: who is slow waits.
            max_delay: Some(Duration::from_mins(1)),
            ..Policy::default()
        };
        let options = EnginesOptions { carrier, ..EnginesOptions::new(&[SIZE], policy) };
        std::fs::create_dir_all(directory)?;
        let pair = Engines::start(directory, &options)?;
        let volume = pair.members[0].volume.clone();
        let export = pair.primary.export(&pair.group, &volume, ExportKind::Primary)?;
        Ok(Self(pair, export))
    }

    /// Requests a second, until the other side has applied them all.
    fn measure(&self, case: &Case, offsets: &[u64]) -> Result<f64> {
        self.0.checkpoint()?;
        // Once so that nothing is saved any more, then what counts.
        case.measure(&self.1, offsets.to_vec())?;
        self.0.quiesce()?;
        let rate = case.measure(&self.1, offsets.to_vec())?;
        self.0.quiesce()?;
        Ok(rate)
    }
}

/// Runs all cases.
pub(crate) fn run(directory: &Path, rounds: usize) -> Result<Vec<Row>> {
    let tls = Ours::start(&directory.join("tls"), Carrier::Tls)?;
    let tcp = Ours::start(&directory.join("tcp"), Carrier::Tcp)?;
    let mut random = Random::new(1);
    let mut rows = Vec::new();
    for case in CASES {
        let mut row = Row { name: case.name.to_owned(), rounds: Vec::new() };
        for round in 0..=rounds {
            let offsets = case.offsets(SIZE, &mut random);
            let measure = |pair: &Ours| pair.measure(&case, &offsets);
            let (ours, peer, again) = if round % 2 == 0 {
                (measure(&tls)?, measure(&tcp)?, measure(&tls)?)
            } else {
                let peer = measure(&tcp)?;
                (measure(&tls)?, peer, measure(&tls)?)
            };
            if round > 0 {
                row.rounds.push(Round { ours, peer, again });
            }
        }
        rows.push(row);
    }
    Ok(rows)
}
