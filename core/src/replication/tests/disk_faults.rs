//! Disks that fail, on either side: never silent (invariant 6), and the view stays what it was.

use std::time::Duration;

use super::pair::{G1, G2, Pair, at, fill, pattern, policy, read, run};
use crate::disk::{Disk, ErrorKind};
use crate::overlay::{Role, Stage};
use crate::replication::ExportKind::{Primary, Secondary, View};
use crate::replication::FailoverSpec;
use crate::sim::{Failure, Operation, Sim};
use crate::units::{ByteRange, Epoch, VolumeIndex};

const SIZE: u64 = 1 << 20;
const ALL: ByteRange = ByteRange { start: 0, end: SIZE };
const HALF: ByteRange = ByteRange { start: 0, end: SIZE / 2 };
const LEN: usize = 1 << 20;
const DISK: &str = "volumes/v0/disk";

async fn started(sim: &Sim) -> Pair {
    let pair = Pair::new(sim, &[SIZE], Some(0x11)).await;
    pair.start(policy()).await;
    pair
}

#[test]
fn a_local_write_error_goes_to_the_vm_and_its_range_is_sent_again() {
    run(|sim| async move {
        let pair = started(&sim).await;
        let p = pair.volume(Primary);
        sim.node("a").inject(DISK, Operation::Write, Failure::Nth(0));
        let error = fill(&p, at(8192, 8192), 0x22).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(pair.primary.get_error(G1).unwrap().unwrap().contains("local write"));
        pair.in_sync().await;
        // What the failed write left behind is what the peer has now.
        let local = read(&p, ALL).await.unwrap();
        assert!(read(&pair.volume(Secondary), ALL).await.unwrap() == local);
        assert!(pair.primary.get_error(G1).unwrap().is_some(), "only a checkpoint clears it");
        pair.checkpoint().await;
        assert_eq!(pair.primary.get_error(G1).unwrap(), None);
        assert!(read(&pair.volume(View), ALL).await.unwrap() == local);
    });
}

/// The secondary can't save or apply once: an error on both sides, no record, the view as it was,
/// also when the next session has sent everything again; only a later record clears the error.
async fn secondary_fails_once(sim: &Sim, paths: &[&str], operation: Operation) {
    // What a log held before its sync failed can't be read until the log is opened anew or freed.
    let is_readable = operation != Operation::Flush;
    let pair = started(sim).await;
    let (p, view, b) = (pair.volume(Primary), pair.volume(View), sim.node("b"));
    fill(&p, at(SIZE - 8192, 4096), 0x21).await.unwrap();
    pair.drain().await;
    for path in paths {
        b.inject(path, operation, Failure::Nth(0));
    }
    fill(&p, HALF, 0x22).await.unwrap();
    pair.wait_for(|p| p.secondary.get_error(G1).unwrap().is_some()).await;
    for path in paths {
        b.inject(path, operation, Failure::Never);
    }
    if is_readable {
        assert_eq!(pattern(&view, ALL).await, [(0x11, LEN)]);
    }
    pair.wait_for(|p| p.primary.get_error(G1).unwrap().is_some()).await;
    assert_eq!(pair.secondary.status().checkpoint.epoch, Epoch(1));
    pair.in_sync().await;
    if is_readable {
        assert_eq!(pattern(&view, ALL).await, [(0x11, LEN)], "after the resync");
    } else {
        assert_eq!(pattern(&view, HALF).await, [(0x11, LEN / 2)], "what the new log holds");
        assert_eq!(read(&view, ALL).await.unwrap_err().kind(), ErrorKind::Poisoned);
    }
    assert_eq!(pattern(&pair.volume(Secondary), HALF).await, [(0x22, LEN / 2)]);
    assert!(
        pair.secondary.get_error(G1).unwrap().is_some()
            && pair.primary.get_error(G1).unwrap().is_some()
    );
    pair.checkpoint().await;
    assert_eq!(
        (pair.secondary.get_error(G1).unwrap(), pair.primary.get_error(G1).unwrap()),
        (None, None)
    );
    let want = [(0x22, LEN / 2), (0x11, LEN / 2 - 8192), (0x21, 4096), (0x11, 4096)];
    assert_eq!(pattern(&view, ALL).await, want);
    fill(&p, ALL, 0x33).await.unwrap();
    pair.drain().await;
    pair.failover(false).await.unwrap();
    assert_eq!(pattern(&pair.promoted(), ALL).await, want);
    pair.merged().await;
    assert_eq!(pattern(&pair.promoted(), ALL).await, want);
}

#[test]
fn an_undo_log_that_can_t_be_written_ends_the_session_and_keeps_the_view() {
    run(|sim| async move {
        secondary_fails_once(&sim, &["groups/g/undo-0", "groups/g/undo-1"], Operation::Write).await;
    });
}

#[test]
fn an_undo_log_that_can_t_be_synced_is_left_for_another() {
    run(|sim| async move {
        secondary_fails_once(&sim, &["groups/g/undo-0", "groups/g/undo-1"], Operation::Flush).await;
    });
}

#[test]
fn old_content_that_can_t_be_read_ends_the_session_and_keeps_the_view() {
    run(|sim| async move { secondary_fails_once(&sim, &[DISK], Operation::Read).await });
}

#[test]
fn a_secondary_disk_that_can_t_be_written_ends_the_session_and_keeps_the_view() {
    run(|sim| async move { secondary_fails_once(&sim, &[DISK], Operation::Write).await });
}

#[test]
fn a_secondary_disk_whose_flush_failed_records_nothing_until_it_is_opened_anew() {
    run(|sim| async move {
        let mut pair = started(&sim).await;
        let p = pair.volume(Primary);
        fill(&p, HALF, 0x22).await.unwrap();
        pair.drain().await;
        sim.node("b").inject(DISK, Operation::Flush, Failure::Nth(0));
        let error = pair.primary.checkpoint(G1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Disconnected, "{error}");
        assert!(
            pair.primary.get_error(G1).unwrap().is_some()
                && pair.secondary.get_error(G1).unwrap().is_some()
        );
        assert_eq!(pair.secondary.status().checkpoint.epoch, Epoch(1));
        fill(&p, HALF, 0x33).await.unwrap();
        sim.kill("b");
        pair.reopen_secondary().await;
        assert_eq!(pair.secondary.status().checkpoint.epoch, Epoch(1));
        assert_eq!(pattern(&pair.volume(View), ALL).await, [(0x11, LEN)]);
        pair.in_sync().await;
        pair.checkpoint().await;
        assert_eq!(pattern(&pair.volume(View), ALL).await, [(0x33, LEN / 2), (0x11, LEN / 2)]);
        assert_eq!(pair.secondary.get_error(G1).unwrap(), None);
    });
}

#[test]
fn a_local_flush_error_goes_to_the_vm_and_poisons_the_disk() {
    run(|sim| async move {
        let pair = started(&sim).await;
        let p = pair.volume(Primary);
        fill(&p, HALF, 0x22).await.unwrap();
        sim.node("a").inject(DISK, Operation::Flush, Failure::Nth(0));
        p.flush().await.unwrap_err();
        assert_eq!(fill(&p, HALF, 0x33).await.unwrap_err().kind(), ErrorKind::Poisoned);
        assert_eq!(p.flush().await.unwrap_err().kind(), ErrorKind::Poisoned);
        let before = pair.primary.status().checkpoint.epoch;
        pair.primary.checkpoint(G1).await.unwrap_err();
        assert_eq!(pair.primary.status().checkpoint.epoch, before);
        assert!(pair.primary.get_error(G1).unwrap().is_some());
        // The peer's last checkpoint is still there to go on from.
        pair.failover(false).await.unwrap();
        assert!(
            matches!(pattern(&pair.promoted(), HALF).await[..], [(0x11 | 0x22, n)] if n == LEN / 2)
        );
    });
}

#[test]
fn a_failover_that_can_t_be_merged_serves_the_view_and_can_be_tried_again() {
    run(|sim| async move {
        let pair = started(&sim).await;
        let p = pair.volume(Primary);
        fill(&p, HALF, 0x22).await.unwrap();
        pair.drain().await;
        sim.node("b").inject(DISK, Operation::Write, Failure::Always);
        let landed = pair.failover(false).await.unwrap();
        pair.wait_for(|p| {
            p.secondary.status().role == Some((Role::Primary, Stage::FailoverFailed))
        })
        .await;
        assert!(pair.secondary.get_error(G2).unwrap().unwrap().contains("merging the roll-back"));
        let now = pair.promoted();
        assert_eq!(pattern(&now, ALL).await, [(0x11, LEN)]);
        // What is to be undone is written to the active disk, the rest to the disk itself.
        fill(&now, at(4096, 6000), 0x44).await.unwrap();
        assert_eq!(
            fill(&now, at(SIZE - 4096, 4096), 0x55).await.unwrap_err().kind(),
            ErrorKind::Io
        );
        sim.node("b").inject(DISK, Operation::Write, Failure::Never);
        fill(&now, at(SIZE - 8192, 4096), 0x55).await.unwrap();
        // One that spans both kinds.
        fill(&now, at(SIZE / 2 - 1000, 2000), 0x66).await.unwrap();
        now.flush().await.unwrap();
        let want = read(&now, at(0, SIZE - 4096)).await.unwrap();
        assert_eq!(
            pair.secondary.checkpoint(G2).await.unwrap_err().kind(),
            ErrorKind::NotPermitted
        );
        let again = FailoverSpec { replace: G1, new: G2, keep_active: false };
        assert_eq!(pair.secondary.failover(again).await.unwrap(), landed);
        pair.merged().await;
        assert!(read(&now, at(0, SIZE - 4096)).await.unwrap() == want);
        let runs = pattern(&now, at(0, SIZE - 4096)).await;
        let half = LEN / 2;
        let middle = [(0x11, 4096), (0x44, 6000), (0x11, half - 11096), (0x66, 2000)];
        assert_eq!(runs[..4], middle);
        assert_eq!(runs[4..], [(0x11, half - 1000 - 8192), (0x55, 4096)]);
        assert_eq!(pair.secondary.get_error(G2).unwrap(), None);
    });
}

#[test]
fn a_consumer_s_write_error_is_the_consumer_s() {
    run(|sim| async move {
        let pair = started(&sim).await;
        let view = pair.volume(View);
        let b = sim.node("b");
        for file in ["volumes/v0/active-0", "volumes/v0/active-1"] {
            b.inject(file, Operation::Write, Failure::Always);
        }
        fill(&view, HALF, 0x44).await.unwrap_err();
        assert_eq!(pair.secondary.get_error(G1).unwrap(), None);
        fill(&pair.volume(Primary), HALF, 0x22).await.unwrap();
        pair.checkpoint().await;
        assert_eq!(pattern(&view, HALF).await, [(0x22, LEN / 2)]);
    });
}

#[test]
fn a_superblock_that_can_t_be_written_makes_no_record() {
    run(|sim| async move {
        let pair = started(&sim).await;
        fill(&pair.volume(Primary), HALF, 0x22).await.unwrap();
        pair.drain().await;
        sim.node("b").inject("groups/g/superblock", Operation::Write, Failure::Nth(0));
        let group = pair.primary.clone();
        let asked = sim.node("a").call("checkpoint", async move { group.checkpoint(G1).await });
        pair.wait_for(|p| p.secondary.get_error(G1).unwrap().is_some()).await;
        assert_eq!(pair.secondary.status().checkpoint.epoch, Epoch(1));
        assert_eq!(pattern(&pair.volume(View), ALL).await, [(0x11, LEN)]);
        sim.pause(Duration::from_secs(1)).await;
        assert_eq!(pair.primary.status().checkpoint.epoch, Epoch(1));
        drop(asked);
        let _ = pair.secondary.volume(VolumeIndex(0), View).unwrap();
    });
}
