//! What is unknown is never taken for good: superblocks whose write failed, logs that can't be read,
//! checkpoints that end while somebody relies on them.

use std::time::Duration;

use super::pair::{G1, Pair, address, at, fill, pattern, policy, read, reopen, run, spec};
use crate::disk::{Dir as _, Disk, ErrorKind};
use crate::overlay::{Policy, Role};
use crate::replication::ExportKind::{Primary, View};
use crate::replication::logs::LogFiles;
use crate::replication::{LinkState, StartSpec};
use crate::sim::{Failure, Operation, Sim};
use crate::units::{ByteRange, Epoch, usize_of};

const SIZE: u64 = 1 << 20;
const ALL: ByteRange = ByteRange { start: 0, end: SIZE };
const LEN: usize = 1 << 20;
const SUPERBLOCK: &str = "groups/g/superblock";

async fn started(sim: &Sim, policy: Policy) -> Pair {
    let pair = Pair::new(sim, &[SIZE], Some(0x11)).await;
    pair.start(policy).await;
    pair
}

#[test]
fn a_failover_beside_a_hello_that_drops_the_checkpoint_is_refused_or_has_all_volumes() {
    let mut refused = 0;
    for step in 0..60 {
        let sim = Sim::new(Sim::seed_or(5) + step);
        let s = sim.clone();
        refused += sim.block_on(async move {
            let pair = started(&s, policy()).await;
            // Nothing is known of the peer any more: its next hello makes it forget.
            let other = Policy { window: 1 << 20, ..policy() };
            let again = StartSpec { peer: None, ..spec(Role::Primary, other.clone()) };
            pair.primary.stop(G1, true).await.unwrap();
            pair.primary.start(StartSpec { peer: Some(address()), ..again }).await.unwrap();
            s.pause(Duration::from_micros(100 * step)).await;
            match pair.failover(false).await {
                Ok(epoch) => {
                    assert!(epoch >= Epoch(1), "{epoch}");
                    assert_eq!(pair.secondary.names().members.len(), 1);
                    assert_eq!(pattern(&pair.promoted(), ALL).await, [(0x11, LEN)]);
                    0
                }
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::NotPermitted, "{e}");
                    assert_eq!(pair.secondary.names().members.len(), 1);
                    1
                }
            }
        });
    }
    assert!((1..60).contains(&refused), "{refused} of 60 were refused: none met the hello");
}

#[test]
fn what_is_flushed_during_a_merge_outlives_a_superblock_that_can_t_be_written() {
    let mut failed = 0;
    for step in 0..40 {
        let sim = Sim::new(Sim::seed_or(7) + step);
        let s = sim.clone();
        failed += sim.block_on(async move {
            let mut pair = started(&s, policy()).await;
            fill(&pair.volume(Primary), ALL, 0x22).await.unwrap();
            pair.drain().await;
            s.crash("a");
            pair.failover(false).await.unwrap();
            let b = s.node("b");
            b.inject(SUPERBLOCK, Operation::Flush, Failure::Nth(step % 2));
            let (p, mut good) = (pair.promoted(), vec![0x11; LEN]);
            for part in ALL.pieces(64 << 10) {
                if fill(&p, part, 0x33).await.is_ok() && p.flush().await.is_ok() {
                    let (start, end) = (usize_of(part.start), usize_of(part.end));
                    good[start..end].fill(0x33);
                }
                s.pause(Duration::from_millis(1)).await;
            }
            s.pause(Duration::from_secs(1)).await;
            let has_failed = pair.secondary.status().error.is_some();
            s.kill("b");
            b.inject(SUPERBLOCK, Operation::Flush, Failure::Never);
            s.pause(Duration::from_secs(1)).await;
            pair.secondary = reopen(&s.node("b"), 1).await.unwrap();
            let now = read(&pair.promoted(), ALL).await.unwrap();
            let lost = good.iter().zip(&now).position(|(want, got)| *want == 0x33 && got != want);
            assert_eq!(lost, None, "what was flushed at byte {lost:?} is gone");
            u32::from(has_failed)
        });
    }
    assert!(failed > 0, "no merge failed");
}

#[test]
fn a_log_that_nobody_needs_and_can_t_be_read_keeps_no_primary_down() {
    run(|sim| async move {
        let mut pair = started(&sim, policy()).await;
        fill(&pair.volume(Primary), ALL, 0x22).await.unwrap();
        pair.drain().await;
        pair.failover(false).await.unwrap();
        pair.merged().await;
        let b = sim.node("b");
        sim.kill("b");
        for file in 0..4 {
            b.inject(&format!("groups/g/undo-{file}"), Operation::Read, Failure::Always);
        }
        pair.secondary = reopen(&sim.node("b"), 1).await.unwrap();
        assert_eq!(pattern(&pair.promoted(), ALL).await, [(0x11, LEN)]);
    });
}

#[test]
fn a_log_that_could_not_be_read_is_not_taken_for_none_when_it_is_looked_for_again() {
    run(|sim| async move {
        let pair = started(&sim, policy()).await;
        fill(&pair.volume(Primary), at(0, SIZE / 2), 0x22).await.unwrap();
        pair.drain().await;
        sim.kill("b");
        let b = sim.node("b");
        let files = LogFiles::new(&b, b.dir("groups/g"), policy().undo_limit);
        for fails in [true, true, false] {
            let failure = if fails { Failure::Always } else { Failure::Never };
            for file in 0..4 {
                b.inject(&format!("groups/g/undo-{file}"), Operation::Read, failure);
            }
            let found = files.recover(Epoch(1), |log| log.epoch() > Epoch(1)).await;
            assert_eq!(found.map(|logs| logs.len()).ok(), (!fails).then_some(1));
        }
    });
}

#[test]
fn raising_the_undo_limit_again_and_again_leaves_no_files_behind() {
    run(|sim| async move {
        let pair = started(&sim, policy()).await;
        let files = || async {
            let names = sim.node("b").dir("groups/g").list().await.unwrap();
            names.into_iter().filter(|name| name.starts_with("undo-")).count()
        };
        for more in 1..80 {
            let policy = Policy { undo_limit: (16 + more) << 20, ..policy() };
            pair.secondary.set_policy(G1, policy.clone()).await.unwrap();
            pair.primary.set_policy(G1, policy).await.unwrap();
            fill(&pair.volume(Primary), at(0, 8192), 0x22).await.unwrap();
            pair.checkpoint().await;
        }
        assert!(files().await <= 6, "{} files", files().await);
    });
}

#[test]
fn a_checkpoint_that_was_asked_for_survives_a_lost_link() {
    for step in 0..40 {
        let sim = Sim::new(Sim::seed_or(9) + step);
        let s = sim.clone();
        sim.block_on(async move {
            let pair = started(&s, policy()).await;
            fill(&pair.volume(Primary), at(0, SIZE / 2), 0x22).await.unwrap();
            let cut = async {
                s.pause(Duration::from_micros(100 * step)).await;
                s.cut("a", "b");
            };
            let (asked, ()) = futures::join!(pair.primary.checkpoint(G1), cut);
            asked.unwrap_or_else(|e| panic!("cut after {step}00 us: {e}"));
            let now = [(0x22, LEN / 2), (0x11, LEN / 2)];
            assert_eq!(pattern(&pair.volume(View), ALL).await, now);
        });
    }
}

#[test]
fn a_stopped_copy_is_not_started_as_primary_over_its_checkpoint() {
    run(|sim| async move {
        let pair = started(&sim, policy()).await;
        pair.primary.stop(G1, false).await.unwrap();
        assert_eq!(pair.primary.status().link, LinkState::Solo);
        let solo = StartSpec { peer: None, ..spec(Role::Primary, policy()) };
        let refused = pair.secondary.start(solo).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotPermitted);
        assert!(refused.to_string().contains("failover"), "{refused}");
        pair.failover(false).await.unwrap();
        assert_eq!(pattern(&pair.promoted(), ALL).await, [(0x11, LEN)]);
    });
}
