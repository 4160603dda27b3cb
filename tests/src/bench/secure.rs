//! What TLS costs a link: our pair over TLS against our pair over plain TCP.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use understudy_core::engine::api::{ByteLen, Policy};

use super::case::Case;
use super::ours::Ours;
use super::table::{Round, Row};
use crate::harness::engines::Carrier;
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

fn start(directory: &Path, carrier: Carrier) -> Result<Ours> {
    let policy = Policy {
        checkpoint_interval: None,
        undo_limit: Some(ByteLen(UNDO_LIMIT)),
        // Nothing may be left out: who is slow waits.
        max_delay: Some(Duration::from_mins(1)),
        ..Policy::default()
    };
    Ours::start(directory, SIZE, policy, carrier, &[])
}

/// Requests a second, until the other side has applied them all.
fn measure(ours: &Ours, case: &Case, offsets: &[u64]) -> Result<f64> {
    ours.pair.checkpoint()?;
    // Once so that nothing is saved any more, then what counts.
    case.measure(&ours.export, offsets.to_vec())?;
    ours.pair.quiesce()?;
    let rate = case.measure(&ours.export, offsets.to_vec())?;
    ours.pair.quiesce()?;
    Ok(rate)
}

/// Runs all cases.
pub(crate) fn run(directory: &Path, rounds: usize) -> Result<Vec<Row>> {
    let tls = start(&directory.join("tls"), Carrier::Tls)?;
    let tcp = start(&directory.join("tcp"), Carrier::Tcp)?;
    let mut random = Random::new(1);
    let mut rows = Vec::new();
    for case in CASES {
        let mut row = Row { name: case.name.to_owned(), rounds: Vec::new() };
        for round in 0..=rounds {
            let offsets = case.offsets(SIZE, &mut random);
            let measure = |ours: &Ours| measure(ours, &case, &offsets);
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
