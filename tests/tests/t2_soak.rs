//! T2: the soak, shortly: five rounds, which have every kind of fault once. `make soak` plays more.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use understudy_tests::harness::tools;
use understudy_tests::random::Random;
use understudy_tests::soak::{ROUNDS_OF_ALL, clear_orphans, possible};

fn command(seed: u64, rounds: u32) -> Command {
    let mut command = Command::new(tools::own("understudy-tests").unwrap());
    command.args(["soak", "--minutes", "10", "--seed", &seed.to_string()]);
    command.args(["--rounds", &rounds.to_string()]).stdin(Stdio::null());
    command
}

fn soak(seed: u64, rounds: u32, more: &[&str]) -> Output {
    command(seed, rounds).args(more).output().unwrap()
}

fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is() {
        assert!(Instant::now() < end, "{what}: not in 30 s");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The entries of a directory of the kernel whose file of this name contains `word`.
fn naming(directory: &str, file: &str, word: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().flatten().map(|entry| entry.path());
    let names = |path: &PathBuf| {
        let text = std::fs::read(path.join(file)).unwrap_or_default();
        String::from_utf8_lossy(&text).contains(word)
    };
    entries.filter(names).collect()
}

#[test]
fn two_volumes_under_load_survive_every_kind_of_fault_without_a_wrong_byte_or_a_lost_checkpoint() {
    if let Err(error) = possible() {
        tools::skip("t2_soak", &format!("{error:#}"));
        return;
    }
    let (_, seed) = Random::from_environment();
    let output = soak(seed, ROUNDS_OF_ALL, &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "UNDERSTUDY_SEED={seed}\n{text}\n{errors}");
    let counts = text.lines().last().unwrap();
    println!("{counts}");
    for part in [
        "5 rounds;",
        "1 primary killed, 1 secondary killed, 1 both killed, 1 link cut, 1 nothing to the secondary, \
         1 nothing from the secondary, 1 200 ms of delay, 1 secondary stopped, 1 pool full, 1 node lost;",
        " 0 wrong bytes, 0 checkpoints lost;",
    ] {
        assert!(counts.contains(part), "{part:?} is not in: {counts}");
    }
}

#[test]
fn a_soak_in_which_a_byte_changes_or_the_primary_stands_still_fails_and_says_how_to_play_it_again()
{
    if let Err(error) = possible() {
        tools::skip("t2_soak that fails", &format!("{error:#}"));
        return;
    }
    for (harm, said) in [("byte", "bytes differ between"), ("stall", "maxDelay is 500ms")] {
        let output = soak(5, 1, &["--harm", harm]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{harm}: {text}");
        let kept = text.lines().find_map(|line| line.split_once("journals are in ")).unwrap().1;
        assert!(Path::new(kept).join("a.log").exists(), "{text}");
        std::fs::remove_dir_all(kept).unwrap();
        assert!(text.contains(said), "{harm}: {text}");
        assert!(text.contains("Again: make soak SEED=5 FROM=1 ROUNDS=1"), "{harm}: {text}");
    }
}

#[test]
fn a_soak_that_is_killed_leaves_no_process_and_the_next_one_takes_its_devices_apart() {
    if let Err(error) = possible() {
        tools::skip("t2_soak that is killed", &format!("{error:#}"));
        return;
    }
    let mut soak = command(5, 1).stdout(Stdio::null()).spawn().unwrap();
    let word = format!("understudy-soak-{}", soak.id());
    let directory = std::env::temp_dir().join(&word);
    let device = format!("{word}-");
    wait_until("its load runs", || directory.join("fio.log").exists());
    assert_eq!(naming("/sys/block", "loop/backing_file", &device).len(), 2);
    assert!(!naming("/proc", "cmdline", &word).is_empty());
    soak.kill().unwrap();
    soak.wait().unwrap();
    wait_until("its processes are gone", || naming("/proc", "cmdline", &word).is_empty());
    clear_orphans().unwrap();
    assert_eq!(naming("/sys/block", "loop/backing_file", &device), Vec::<PathBuf>::new());
    std::fs::remove_dir_all(directory).unwrap();
}
