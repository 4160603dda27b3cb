//! Our two engines against a real QEMU pair: writes of a VM while it is replicated.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use understudy_core::engine::api::{ByteLen, Policy};

use super::case::Case;
use super::ours::Ours;
use super::table::{Round, Row};
use crate::harness::engines::Carrier;
use crate::qemu::{Pair, PairOptions};
use crate::random::Random;

/// The volume.
const SIZE: u64 = 512 << 20;

/// Room for an epoch of 128 MiB without an early end: a quarter is left of it.
const UNDO_LIMIT: u64 = 640 << 20;

const K: u64 = 1 << 10;

/// QEMU saves 64 KiB for each 4 KiB: neighbouring writes lie that far apart, or most would be
/// rewrites for it and none for us.
const CASES: [Case; 3] = [
    Case {
        name: "4k random write QD1",
        write: true,
        len: 4096,
        depth: 1,
        step: 64 * K,
        shuffled: true,
        count: 3000,
        limit: None,
    },
    Case {
        name: "4k random write QD16",
        write: true,
        len: 4096,
        depth: 16,
        step: 64 * K,
        shuffled: true,
        count: 8000,
        limit: None,
    },
    Case {
        name: "1 MiB sequential write QD4",
        write: true,
        len: 1 << 20,
        depth: 4,
        step: 1024 * K,
        shuffled: false,
        count: 128,
        limit: None,
    },
];

/// Both pairs, with whatever must live as long as they do.
struct Both {
    ours: Ours,
    qemu: Pair,
}

impl Both {
    fn checkpoint(&mut self) -> Result<()> {
        self.ours.pair.checkpoint()?;
        self.qemu.checkpoint()
    }
}

/// Runs all cases; `direct`: past the page cache, QEMU's buffers in memory as its users are advised.
pub(crate) fn run(
    directory: &Path,
    memory: &Path,
    direct: bool,
    rounds: usize,
) -> Result<Vec<Row>> {
    let buffers = tempfile::Builder::new().prefix("understudy-bench-").tempdir_in(memory)?;
    let mut both = start(directory, buffers.path(), direct)?;
    let mut random = Random::new(1);
    let mut rows: Vec<Row> = Vec::new();
    for case in CASES {
        let mut first = Row { name: format!("{}, first touch", case.name), rounds: Vec::new() };
        let mut again = Row { name: format!("{}, rewrite", case.name), rounds: Vec::new() };
        for round in 0..=rounds {
            let offsets = case.offsets(SIZE, &mut random);
            let (f, r) = one_round(&mut both, &case, &offsets, round % 2 == 1)?;
            // The first round warms up: files get their blocks, pools their buffers.
            if round > 0 {
                first.rounds.push(f);
                again.rounds.push(r);
            }
        }
        rows.extend([first, again]);
    }
    Ok(rows)
}

fn start(directory: &Path, buffers: &Path, direct: bool) -> Result<Both> {
    let policy = Policy {
        checkpoint_interval: None,
        undo_limit: Some(ByteLen(UNDO_LIMIT)),
        ..Policy::default()
    };
    let qemu_directory = directory.join("qemu");
    fs::create_dir_all(&qemu_directory)?;
    let ours = Ours::start(&directory.join("ours"), SIZE, policy, Carrier::Tcp, &[])?;
    let qemu = Pair::start(
        &qemu_directory,
        PairOptions {
            buffers: buffers.to_owned(),
            direct,
            ..PairOptions::within(&qemu_directory, SIZE)
        },
    )?;
    // The undo logs are filled with zeroes in the background once; not part of what is measured.
    std::thread::sleep(Duration::from_secs(if direct { 8 } else { 1 }));
    Ok(Both { ours, qemu })
}

/// First touch and rewrite of both, and ours once more at each.
fn one_round(
    both: &mut Both,
    case: &Case,
    offsets: &[u64],
    peer_first: bool,
) -> Result<(Round, Round)> {
    let mut first = Round { ours: 0.0, peer: 0.0, again: 0.0 };
    let mut rewrite = first;
    let turns: [usize; 3] = if peer_first { [1, 0, 2] } else { [0, 1, 2] };
    for turn in turns {
        both.checkpoint()?;
        let peer = both.qemu.primary_export();
        let export = if turn == 1 { &peer } else { &both.ours.export };
        let f = case.measure(export, offsets.to_vec())?;
        let r = case.measure(export, offsets.to_vec())?;
        match turn {
            0 => (first.ours, rewrite.ours) = (f, r),
            1 => (first.peer, rewrite.peer) = (f, r),
            _ => (first.again, rewrite.again) = (f, r),
        }
    }
    Ok((first, rewrite))
}
