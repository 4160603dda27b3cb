//! T2: the loss of the primary under load. Two engines, two volumes, checkpoints each 100 ms, a ledger
//! and fio; SIGKILL at a random time; failover. The judge must find exactly one prefix on both volumes,
//! no shorter than what had completed before the cut of the checkpoint that was reported.
//!
//! `UNDERSTUDY_LEDGER_RUNS` and `UNDERSTUDY_LEDGER_SECONDS` make it longer.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::Duration;

use understudy_core::engine::api::{ExportKind, GroupStatus, Policy};
use understudy_tests::harness::engines::{Engines, EnginesOptions};
use understudy_tests::harness::process::Child;
use understudy_tests::harness::tools;
use understudy_tests::ledger::{Journal, Plan, RunOptions, check, read_back, run};
use understudy_tests::random::Random;

const MIB: u64 = 1 << 20;

/// The ledger has the first half of each volume, fio the second.
const VOLUME: u64 = 16 * MIB;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// When the cut of the last complete checkpoint was made, in microseconds since 1970.
fn cut_us(status: &GroupStatus) -> Option<u64> {
    let cut = status.checkpoint_cut?.0.as_millis();
    u64::try_from(cut).ok()?.checked_mul(1000)
}

fn fio(uri: &str, volume: usize, directory: &Path) -> Option<Child> {
    let [fio] = tools::require("fio beside the ledger", ["fio"])?;
    let half = VOLUME / 2;
    let arguments = [
        "--name=load".to_owned(),
        "--ioengine=nbd".to_owned(),
        format!("--uri={uri}"),
        "--rw=randwrite".to_owned(),
        "--bsrange=4k-64k".to_owned(),
        "--iodepth=8".to_owned(),
        format!("--offset={half}"),
        format!("--size={half}"),
        "--time_based".to_owned(),
        "--runtime=600".to_owned(),
    ];
    Some(Child::start(&format!("fio{volume}"), &fio, arguments, directory).unwrap())
}

fn one_run(random: &mut Random, seconds: u64) {
    let directory = tempfile::tempdir().unwrap();
    let interval = Some(Duration::from_millis(100));
    let policy = Policy { checkpoint_interval: interval, ..Policy::default() };
    let options = EnginesOptions::new(&[VOLUME, VOLUME], policy);
    let mut engines = Engines::start(directory.path(), &options).unwrap();
    let volumes: Vec<_> = engines.members.iter().map(|member| member.volume.clone()).collect();
    let group = engines.group.clone();
    let targets = |engines: &Engines, promoted: bool| -> Vec<String> {
        let side = if promoted { &engines.secondary } else { &engines.primary };
        let uri = |volume| side.export(&group, volume, ExportKind::Primary).unwrap().to_string();
        volumes.iter().map(uri).collect()
    };
    let before = targets(&engines, false);
    let load: Vec<_> =
        before.iter().enumerate().map(|(volume, uri)| fio(uri, volume, directory.path())).collect();
    let plan = Plan::new(random.next_u64(), 2, 4096, VOLUME / 2 / 4096, 0).unwrap();
    let options = RunOptions {
        plan: plan.clone(),
        targets: before,
        journal: directory.path().join("journal"),
        duration: Duration::from_mins(10),
        records: 0,
        durable_every: 64,
    };
    let ledger = {
        let options = options.clone();
        std::thread::spawn(move || run(&options).unwrap())
    };
    // What is reported as complete before the kill must survive it.
    let end = Duration::from_millis(seconds * 500 + random.below(seconds * 500));
    let began = std::time::Instant::now();
    let mut reported = engines.primary.group(&group).unwrap();
    while began.elapsed() < end {
        reported = engines.primary.group(&group).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    engines.primary.kill();
    let epoch = engines.failover(false).unwrap();
    let ended = ledger.join().unwrap();
    drop(load);
    assert!(ended.error.is_some(), "the ledger ended although its primary was killed");
    assert!(epoch >= reported.record, "failover to {epoch:?}, reported was {:?}", reported.record);
    let after = engines.secondary.group(&group).unwrap();
    let journal = Journal::read(&options.journal).unwrap();
    let cut = cut_us(&reported).max(cut_us(&after).filter(|_| after.record == epoch));
    assert!(reported.record.0 > 2, "too few checkpoints in {end:?}: {reported:?}");
    let bounds = journal.bounds(cut);
    assert!(bounds.at_least > 0, "no record before the cut: {} completed", ended.completed);
    let promoted = targets(&engines, true);
    let during = check(&plan, &read_back(&plan, &promoted).unwrap(), bounds);
    assert!(during.is_legal(), "during the commit: {during} (bounds {bounds:?})");
    engines.wait_for_commit().unwrap();
    let done = check(&plan, &read_back(&plan, &promoted).unwrap(), bounds);
    assert_eq!(during, done, "the commit changed what is read");
    println!(
        "{} completed, killed after {end:?} at checkpoint {}: {done}",
        ended.completed, epoch.0
    );
}

#[test]
fn a_killed_primary_leaves_exactly_one_prefix_on_all_volumes() {
    let (mut random, seed) = Random::from_environment();
    println!("UNDERSTUDY_SEED={seed}");
    let seconds = from_environment("UNDERSTUDY_LEDGER_SECONDS", 3);
    for _ in 0..from_environment("UNDERSTUDY_LEDGER_RUNS", 2) {
        one_run(&mut random, seconds);
    }
}
