//! Our export of a solo primary against other NBD servers over a file of the same place.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use understudy_core::engine::api::{ByteLen, ExportKind, Generation, Member, Policy, Role, Start};

use super::case::Case;
use super::peers::{self, Peer};
use super::table::{Round, Row};
use crate::harness::engine::Engine;
use crate::harness::nbd::Client;
use crate::harness::nbd_address::Export;
use crate::random::Random;
use crate::trace::fill_file;

const SIZE: u64 = 512 << 20;

const TIME: Option<Duration> = Some(Duration::from_millis(500));

const fn small(name: &'static str, write: bool, depth: usize) -> Case {
    Case { name, write, len: 4096, depth, step: 4096, shuffled: true, count: 1 << 20, limit: TIME }
}

const fn large(name: &'static str, write: bool) -> Case {
    Case {
        name,
        write,
        len: 1 << 20,
        depth: 4,
        step: 1 << 20,
        shuffled: false,
        count: 1 << 16,
        limit: TIME,
    }
}

const CASES: [Case; 6] = [
    small("4k random read QD1", false, 1),
    small("4k random write QD1", true, 1),
    small("4k random read QD16", false, 16),
    small("4k random write QD16", true, 16),
    large("1 MiB sequential read QD4", false),
    large("1 MiB sequential write QD4", true),
];

/// One table per peer.
pub(crate) fn run(
    directory: &Path,
    direct: bool,
    rounds: usize,
) -> Result<Vec<(&'static str, Vec<Row>)>> {
    let (engine, ours) = solo(directory)?;
    let file = directory.join("peer.raw");
    fill_file(&file, SIZE, 0x11)?;
    let mut servers = vec![peers::qemu_nbd(directory, &file, direct)?];
    if !direct {
        servers.push(peers::nbdkit(directory, &file)?);
    }
    let mut tables = Vec::new();
    for peer in &servers {
        let rows =
            CASES.iter().map(|case| row(case, &ours, peer, rounds)).collect::<Result<_>>()?;
        tables.push((peer.name, rows));
    }
    drop(engine);
    Ok(tables)
}

fn row(case: &Case, ours: &Export, peer: &Peer, rounds: usize) -> Result<Row> {
    let mut random = Random::new(3);
    let mut row = Row { name: case.name.to_owned(), rounds: Vec::new() };
    for round in 0..=rounds {
        let offsets = case.offsets(SIZE, &mut random);
        let mut one = Round { ours: 0.0, peer: 0.0, again: 0.0 };
        let turns: [usize; 3] = if round % 2 == 1 { [1, 0, 2] } else { [0, 1, 2] };
        for turn in turns {
            let export = if turn == 1 { &peer.export } else { ours };
            let speed = case.measure(export, offsets.clone())?;
            match turn {
                0 => one.ours = speed,
                1 => one.peer = speed,
                _ => one.again = speed,
            }
        }
        if round > 0 {
            row.rounds.push(one);
        }
    }
    Ok(row)
}

/// An engine with one filled volume and no peer.
fn solo(directory: &Path) -> Result<(Engine, Export)> {
    let engine = Engine::start("solo", directory, &[])?;
    let member = Member { volume: "disk0".parse()?, size: ByteLen(SIZE) };
    engine.create_replica(&member)?;
    let start = Start {
        group: "vm".parse()?,
        generation: Generation { number: 2, id: 1 },
        role: Role::Primary,
        members: vec![member.clone()],
        peer: None,
        policy: Policy::default(),
        inbound: false,
        adopt: false,
    };
    engine.start_group(&start)?;
    let export = engine.export(&start.group, &member.volume, ExportKind::Primary)?;
    let mut client = Client::connect(&export)?;
    let piece = vec![0x11; 1 << 20];
    for at in (0..SIZE).step_by(1 << 20) {
        client.write(at, &piece)?;
    }
    client.flush()?;
    Ok((engine, export))
}
