//! The filter against a plain model: random histories, calm and with faults.
//!
//! `UNDERSTUDY_SEED=n` plays one history, `UNDERSTUDY_CASES=n` so many.

use understudy_tests::model::{Case, Mix, judge};

/// Histories that once found a defect of the filter.
const FOUND: [(Mix, u64); 10] = [
    // A window that waited to be empty waited for heartbeats too.
    (Mix::Calm, 1),
    // A consumer's zeroes outlived the checkpoint they lay over.
    (Mix::Calm, 9),
    // A write that waited for undo room went round for ever.
    (Mix::Calm, 37),
    // A consumer's write ended while a record kept its active disk.
    (Mix::Calm, 332),
    // A restart before the first hello reported another pair's checkpoint,
    (Mix::Faults, 39),
    // and so did one after it.
    (Mix::Faults, 300),
    // An engine killed during the commit lost what the VM had been told was done.
    (Mix::Faults, 916),
    // A link that fell silent within a frame was never found to be.
    (Mix::Faults, 7238),
    // A stale primary that was stopped goes on after the failover.
    (Mix::Faults, 134),
    // A read of the view that was under way when the checkpoint was given up.
    (Mix::Tight, 30653),
];

fn run(mix: Mix, count: u64) {
    match judge(&Case::new(mix, 1), count) {
        Ok(total) => println!("{total}"),
        Err(text) => panic!("{text}"),
    }
}

#[test]
fn the_filter_agrees_with_a_plain_model() {
    run(Mix::Calm, 2000);
}

#[test]
fn histories_with_faults_lose_no_checkpoint() {
    run(Mix::Faults, 300);
}

#[test]
fn storms_lose_no_checkpoint() {
    run(Mix::Storm, 300);
}

#[test]
fn the_primarys_power_may_fail_about_any_checkpoint() {
    run(Mix::Sweep, 100);
}

#[test]
fn volumes_may_grow_under_load_and_be_cut_off_anywhere_in_it() {
    run(Mix::Growth, 60);
}

#[test]
fn volumes_may_join_under_load_and_be_cut_off_anywhere_in_it() {
    run(Mix::Join, 100);
}

#[test]
fn limits_may_be_met_policies_change_and_pools_run_full() {
    run(Mix::Tight, 150);
}

#[test]
fn histories_that_once_found_a_defect_find_none() {
    for (mix, seed) in FOUND {
        let result = Case::new(mix, seed).play();
        assert!(result.is_ok(), "{mix:?} seed {seed}: {result:?}");
    }
}
