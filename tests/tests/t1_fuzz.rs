//! Each fuzz target, shortly and on the stable toolchain: over its corpus, and over random mutations
//! of it. `UNDERSTUDY_SEED=n` makes the same mutations again, `UNDERSTUDY_SECONDS=n` more of them.
//! `make fuzz` is the long way, with libFuzzer.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use understudy_tests::fuzz::{TARGETS, corpus};
use understudy_tests::random::Random;

fn short(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let (_, seed) = Random::from_environment();
    println!("UNDERSTUDY_SEED={seed}");
    let seconds = std::env::var("UNDERSTUDY_SECONDS").ok().and_then(|text| text.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(2));
    let inputs = corpus::run_short(target, seed, time).unwrap();
    println!("{name}: {inputs} inputs");
    assert!(inputs > 20, "{name}: only {inputs} inputs in {time:?}");
}

macro_rules! short_runs {
    ($($test:ident => $target:literal),* $(,)?) => {
        $(#[test]
        fn $test() {
            short($target);
        })*

        #[test]
        fn every_target_has_its_short_run() {
            let here = [$($target),*];
            assert!(TARGETS.iter().map(|target| target.name).eq(here), "{here:?}");
        }
    };
}

short_runs! {
    any_bytes_of_a_superblock_are_a_state_or_an_error => "superblock",
    any_bytes_of_an_undo_log_are_a_log_or_an_error => "undo",
    any_bytes_of_an_intent_log_forget_no_mark => "intent",
    any_bytes_of_an_active_map_are_a_map_or_an_error => "active",
    any_bytes_of_a_label_are_a_label_or_an_error => "label",
    any_bytes_of_a_link_are_frames_or_its_end => "link",
    any_bytes_of_a_client_are_served_within_the_export => "nbd_server",
    any_bytes_of_a_server_end_every_request => "nbd_client",
    any_text_is_manifests_or_an_error => "manifest",
}

#[test]
fn seeds_go_deep() {
    for target in TARGETS {
        for (name, bytes) in corpus::seeds(target) {
            assert!((target.reaches)(&bytes), "{} {name}: it no longer decodes", target.name);
        }
    }
}

#[test]
fn the_committed_seeds_are_those_that_are_made_today() {
    for target in TARGETS {
        let folder = corpus::folder().join(target.name);
        let mut made = corpus::seeds(target);
        made.sort();
        let committed: Vec<_> = corpus::files(&folder)
            .unwrap()
            .into_iter()
            .filter(|(path, _)| corpus::is_seed(path))
            .map(|(path, bytes)| (path.file_name().unwrap().to_string_lossy().into_owned(), bytes))
            .collect();
        let remedy = "make them anew: target/debug/understudy-tests fuzz-seeds tests/fuzz/corpus";
        assert!(committed == made, "{}: {remedy}", folder.display());
    }
}

#[test]
fn every_target_can_be_run_by_cargo_fuzz() {
    let package = corpus::folder().parent().unwrap().to_owned();
    let manifest = std::fs::read_to_string(package.join("Cargo.toml")).unwrap();
    for target in TARGETS {
        let file = package.join("fuzz_targets").join(format!("{}.rs", target.name));
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(text.contains(&format!("fuzz::{}(", target.name)), "{}", file.display());
        assert!(manifest.contains(&format!("name = \"{}\"", target.name)), "{manifest}");
    }
}
