//! T2: the soak, shortly: five rounds, which have every kind of fault once. `make soak` plays more.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Stdio};

use understudy_tests::harness::tools;
use understudy_tests::random::Random;
use understudy_tests::soak::{ROUNDS_OF_ALL, possible};

#[test]
fn two_volumes_under_load_survive_every_kind_of_fault_without_a_wrong_byte_or_a_lost_checkpoint() {
    if let Err(error) = possible() {
        tools::skip("t2_soak", &format!("{error:#}"));
        return;
    }
    let (_, seed) = Random::from_environment();
    let output = Command::new(tools::own("understudy-tests").unwrap())
        .args(["soak", "--minutes", "10", "--seed", &seed.to_string()])
        .args(["--rounds", &ROUNDS_OF_ALL.to_string()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
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
