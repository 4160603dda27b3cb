//! The simulator can fail: each deliberate bug of `core/src/bug.rs` is found, by a history that
//! passes without it.
//!
//! A change of the product turns the schedule of every history, so a bug may need another seed then:
//! `understudy-tests simulate --bugs` says which. `docs/simulator.md` has the table.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use understudy_core::bug::{Bug, IS_POSSIBLE};
use understudy_tests::model::{Case, Hunt, Mix, hunt_all, line};

/// Each bug, and a seed of the mix for it that is known to find it.
const FOUND_BY: &[(Bug, u64)] = &[
    (Bug::UndoSyncSkipped, 56),
    (Bug::OverwriteBeforeUndo, 22),
    (Bug::UndoNewestFirst, 130),
    (Bug::BatchOverTwoEpochs, 4),
    (Bug::DiscardNotSaved, 16),
    (Bug::FreshSavesNothing, 4),
    (Bug::RecordBeforeApplied, 12),
    (Bug::RecordBeforeFlush, 3),
    (Bug::ThirdLogLeft, 190),
    (Bug::RecycledReplayed, 4),
    (Bug::RotTakenForTail, 13),
    (Bug::SlotOverwritten, 67),
    (Bug::OpenedUnsynced, 7),
    (Bug::LostSessionCompletes, 13),
    (Bug::LostAnswerIsNever, 41),
    (Bug::OldFrameLate, 24),
    (Bug::HelloDuringRecord, 424),
    (Bug::UnrecordedNotResent, 10),
    (Bug::DroppedBeginKept, 317),
    (Bug::ResyncUnlocked, 185),
    (Bug::HolesLeft, 33),
    (Bug::SettledThereEarly, 59),
    (Bug::SettledHereEarly, 130),
    (Bug::IntentBeforeFlush, 11),
    (Bug::IntentUnderNewer, 1),
    (Bug::ReportedBeforeFlush, 1),
    (Bug::FlushWithoutWaiting, 4),
    (Bug::OneBitmap, 13),
    (Bug::EpochUsedTwice, 4),
    (Bug::FailedWriteNotMarked, 120),
    (Bug::LogFreedUnderRead, 2576),
    (Bug::ConsumerOnReplaced, 48),
    (Bug::StaleActiveValid, 180),
    (Bug::CommitUnlocked, 16),
    (Bug::PositionBeforeFlush, 185),
    (Bug::PoisonForgotten, 1309),
    (Bug::JoinedBeforeRecord, 215),
    (Bug::JoinsLacking, 19),
    (Bug::JoiningSavesNothing, 24),
    (Bug::FailoverKeepsJoining, 6),
    (Bug::UsedJoinsAsBlank, 53),
    (Bug::FirstRecordUnflushed, 1),
];

/// How many histories from the known seed on are played for one bug at most.
const HISTORIES_MAX: u64 = 40;

#[test]
fn every_deliberate_bug_is_found_and_its_history_passes_without_it() {
    let possible = std::hint::black_box(IS_POSSIBLE);
    assert!(possible, "this build can have no bug planted: take debug assertions and `sim`");
    let hunts = hunt_all(FOUND_BY, HISTORIES_MAX, |_| ());
    let bad = |h: &&Hunt| h.found.as_ref().is_none_or(|f| f.without.is_some());
    let bad: Vec<String> = hunts.iter().filter(bad).map(line).collect();
    assert!(bad.is_empty(), "\n{}", bad.join("\n"));
}

#[test]
fn every_deliberate_bug_is_hunted() {
    let hunted: Vec<Bug> = FOUND_BY.iter().map(|(bug, _)| *bug).collect();
    assert_eq!(hunted, Bug::ALL, "each once, in their order");
}

#[test]
fn a_history_plays_the_same_each_time() {
    for seed in 1..4 {
        let case = Case::new(Mix::Storm, seed);
        assert_eq!(format!("{:?}", case.play()), format!("{:?}", case.play()), "seed {seed}");
    }
}

#[test]
fn a_failed_history_is_made_shorter_and_says_how_to_play_it_again() {
    let (bug, seed) = FOUND_BY[0];
    let case = Case::new(Mix::Storm, seed).with(Some(bug));
    let text = case.report(std::time::Duration::from_secs(3)).unwrap();
    let command = text.lines().last().unwrap();
    let list = command.split("--keep ").nth(1).unwrap();
    let keep: Vec<usize> = list.split(',').map(|n| n.parse().unwrap()).collect();
    let short = Case { keep: Some(keep), ..case };
    assert!(short.play().is_err(), "{text}");
    assert_eq!(command, format!("the short one: {}", short.command()));
}
