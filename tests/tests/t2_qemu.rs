//! T2: the driver of a real QEMU pair, and what QEMU's replication does. If this changes, what ours
//! is compared with has changed.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use understudy_tests::harness::tools;
use understudy_tests::qemu;
use understudy_tests::random::Random;
use understudy_tests::trace::{GenerateOptions, generate, parse, read};

const TOOLS: [&str; 2] = ["qemu-system-x86_64", "qemu-img"];

/// The three digests of each line: primary, view, secondary disk.
fn replayed(trace: &str, mib: u64) -> Vec<[String; 3]> {
    let directory = tempfile::tempdir().unwrap();
    let mut out = Vec::new();
    qemu::replay(&parse(trace).unwrap(), mib << 20, directory.path(), &mut out).unwrap();
    let lines = String::from_utf8(out).unwrap();
    lines
        .lines()
        .map(|line| {
            let fields: Vec<&str> = line.split(" | ").collect();
            assert_eq!(fields[1], "ok", "{line}");
            [(2, "P "), (3, "S "), (4, "D ")]
                .map(|(at, mark)| fields[at].strip_prefix(mark).unwrap().to_owned())
        })
        .collect()
}

#[test]
fn qemu_keeps_the_view_between_checkpoints_and_over_a_failover() {
    if tools::require("qemu pair", TOOLS).is_none() {
        return;
    }
    let trace = tools::workspace().join("tests/traces/basic.trace");
    let steps = read(&trace).unwrap();
    let digests = replayed(&std::fs::read_to_string(&trace).unwrap(), 4);
    assert_eq!(digests.len(), steps.len());
    for (index, (step, [primary, view, disk])) in steps.iter().zip(&digests).enumerate() {
        match step.words.split(' ').next().unwrap() {
            "W" | "Z" | "F" => {
                assert_eq!(primary, disk, "{}", step.words);
                if index > 0 {
                    assert_eq!(view, &digests[index - 1][1], "{}", step.words);
                }
            }
            "C" => assert_eq!((primary, primary), (view, disk), "{}", step.words),
            "X" => {
                let before = &digests[index - 1][1];
                assert_eq!((primary.as_str(), view, disk), ("-", before, before));
            }
            _ => {}
        }
    }
}

#[test]
fn a_random_trace_runs_without_an_error_on_qemu() {
    if tools::require("qemu random trace", TOOLS).is_none() {
        return;
    }
    let (mut random, seed) = Random::from_environment();
    println!("UNDERSTUDY_SEED={seed}");
    let seed = random.next_u64();
    let size = 2 << 20;
    let trace = generate(&GenerateOptions { seed, operations: 40, size, failover: true });
    assert_eq!(replayed(&trace, 2).len(), 40, "{trace}");
}
