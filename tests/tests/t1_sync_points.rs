//! Every sync point of start, checkpoint, record, failover, commit, resync, return, restart,
//! expand and join: the power fails just before and just after it, of one side or of both, and all comes right.
//!
//! `UNDERSTUDY_SEED=n` takes another world, `UNDERSTUDY_CASES=n` so many; `make syncpoints`.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use understudy_core::bug::{Bug, IS_POSSIBLE};
use understudy_tests::model::{cut_all, seed_of};

/// Bugs that only a power cut at the right moment shows.
const BUGS: [Bug; 4] =
    [Bug::UndoSyncSkipped, Bug::RecordBeforeFlush, Bug::PositionBeforeFlush, Bug::SlotOverwritten];

#[test]
fn a_power_cut_just_before_or_after_any_sync_point_loses_nothing() {
    let worlds = std::env::var("UNDERSTUDY_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let first = seed_of(1);
    for seed in first..first + worlds {
        let tally = cut_all(seed, None);
        println!("{tally}");
        assert!(tally.failed.is_none(), "again: UNDERSTUDY_SEED={seed}\n{tally}");
        for row in &tally.rows {
            let [primary, secondary] = row.points;
            let (name, least) = (row.scene.name, row.scene.least);
            assert!(primary + secondary >= least, "{name} has fewer than {least} sync points");
            assert_eq!(row.cuts, 8 * (primary + secondary), "{name}: a point was left out");
        }
    }
}

#[test]
fn a_power_cut_at_some_sync_point_finds_what_is_not_durable_in_time() {
    let possible = std::hint::black_box(IS_POSSIBLE);
    assert!(possible, "this build can have no bug planted: take debug assertions and `sim`");
    for bug in BUGS {
        let found = (1..4).map(|seed| cut_all(seed, Some(bug))).find(|t| t.failed.is_some());
        let tally = found.unwrap_or_else(|| panic!("{} is found by no cut", bug.name()));
        let cut = tally.failed.as_ref().and_then(|(_, cut, _)| *cut);
        assert!(cut.is_some(), "{} shows without a power cut: {tally}", bug.name());
        println!("{}\n{tally}", bug.name());
    }
}
