//! T2: a trace on two real engines against the same trace on a real QEMU pair: the same three digests
//! at each step. And the table of interleavings that must be visible, by itself.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use understudy_tests::harness::tools;
use understudy_tests::random::Random;
use understudy_tests::trace::{GenerateOptions, generate, parse};
use understudy_tests::{qemu, replay};

const TOOLS: [&str; 2] = ["qemu-system-x86_64", "qemu-img"];

/// How many random traces a run compares.
const TRACES: u64 = 4;

fn ours(trace: &str, size: u64) -> String {
    let directory = tempfile::tempdir().unwrap();
    let mut out = Vec::new();
    replay::replay(&parse(trace).unwrap(), size, directory.path(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn theirs(trace: &str, size: u64) -> String {
    let directory = tempfile::tempdir().unwrap();
    let mut out = Vec::new();
    qemu::replay(&parse(trace).unwrap(), size, directory.path(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Compares line by line, so that a failure shows the first step that differs.
fn must_agree(trace: &str, size: u64) {
    let (ours, theirs) = (ours(trace, size), theirs(trace, size));
    for (index, (mine, other)) in ours.lines().zip(theirs.lines()).enumerate() {
        assert_eq!(mine, other, "step {} of\n{trace}", index + 1);
    }
    assert_eq!(ours.lines().count(), theirs.lines().count());
}

#[test]
fn the_basic_trace_is_the_same_on_a_qemu_pair() {
    if tools::require("replay of the basic trace", TOOLS).is_none() {
        return;
    }
    let trace = tools::workspace().join("tests/traces/basic.trace");
    must_agree(&std::fs::read_to_string(trace).unwrap(), 4 << 20);
}

#[test]
fn random_traces_are_the_same_on_a_qemu_pair() {
    if tools::require("replay of random traces", TOOLS).is_none() {
        return;
    }
    let (mut random, seed) = Random::from_environment();
    println!("UNDERSTUDY_SEED={seed}");
    for _ in 0..TRACES {
        let seed = random.next_u64();
        let size = 2 << 20;
        must_agree(
            &generate(&GenerateOptions { seed, operations: 60, size, failover: true }),
            size,
        );
    }
}

#[test]
fn every_interleaving_of_both_sides_shows_what_it_must() {
    // P writes on the primary, S on the secondary's side; a disk of 64 KiB, 0x11 at first. Behind each:
    // what the view holds at the end, and the secondary disk, as runs of bytes.
    let (p, p2, s) = ("W 0 4096 0x22", "W 0 4096 0x33", "SW 0 4096 0x44");
    let (s_next, p_all, p_all2, s_half) =
        ("SW 4096 4096 0x44", "W 0 65536 0x22", "W 0 65536 0x33", "SW 0 32768 0x44");
    let all = 65536;
    for (steps, view, disk) in [
        (vec![p], vec![(all, 0x11)], vec![(4096, 0x22), (all - 4096, 0x11)]),
        (vec![s], vec![(4096, 0x44), (all - 4096, 0x11)], vec![(all, 0x11)]),
        (
            vec![p, s],
            vec![(4096, 0x44), (all - 4096, 0x11)],
            vec![(4096, 0x22), (all - 4096, 0x11)],
        ),
        (
            vec![s, p],
            vec![(4096, 0x44), (all - 4096, 0x11)],
            vec![(4096, 0x22), (all - 4096, 0x11)],
        ),
        (
            vec![p, s_next],
            vec![(4096, 0x11), (4096, 0x44), (all - 8192, 0x11)],
            vec![(4096, 0x22), (all - 4096, 0x11)],
        ),
        (
            vec![s_next, p],
            vec![(4096, 0x11), (4096, 0x44), (all - 8192, 0x11)],
            vec![(4096, 0x22), (all - 4096, 0x11)],
        ),
        (vec![p, p2], vec![(all, 0x11)], vec![(4096, 0x33), (all - 4096, 0x11)]),
        (vec![p_all, s_half, p_all2], vec![(32768, 0x44), (32768, 0x11)], vec![(all, 0x33)]),
    ] {
        let trace = format!("{}\nX\n", steps.join("\n"));
        let lines = ours(&trace, 65536);
        let lines: Vec<&str> = lines.lines().collect();
        let (last, promoted) = (lines[lines.len() - 2], lines[lines.len() - 1]);
        let (view, disk) = (digest_of(&view), digest_of(&disk));
        assert!(last.ends_with(&format!("| S {view} | D {disk}")), "{steps:?}: {last}");
        assert!(promoted.ends_with(&format!("| ok | P - | S {view} | D {view}")), "{promoted}");
    }
}

fn digest_of(runs: &[(usize, u8)]) -> String {
    use md5::Digest as _;
    let bytes: Vec<u8> = runs.iter().flat_map(|(len, byte)| vec![*byte; *len]).collect();
    understudy_tests::trace::hex(&md5::Md5::digest(bytes))
}
