//! Links that are lost, hang or are too slow: the VM goes on, both sides know, everything is sent.

use std::time::Duration;

use super::pair::{G1, Pair, at, fill, pattern, policy, read, run, spec};
use crate::disk::Disk;
use crate::overlay::{Mode, Policy, Role};
use crate::replication::ExportKind::{Primary, Secondary, View};
use crate::replication::LinkState;
use crate::replication::session::SILENCE_MAX;
use crate::runtime::Env;
use crate::sim::{Direction, Held, Sim};
use crate::units::{ByteRange, CLUSTER, Epoch};

const SIZE: u64 = 2 << 20;
const ALL: ByteRange = ByteRange { start: 0, end: SIZE };
const LEN: usize = 2 << 20;
const MAX_DELAY: Duration = Duration::from_millis(300);
/// What a write may take besides waiting for the link.
const SOON: Duration = Duration::from_millis(100);

async fn started(sim: &Sim, policy: Policy) -> Pair {
    let pair = Pair::new(sim, &[SIZE], Some(0x11)).await;
    pair.start(policy).await;
    pair
}

fn small_window() -> Policy {
    Policy { window: 64 << 10, max_delay: MAX_DELAY, ..policy() }
}

/// Writes `byte` in pieces of 16 KiB; says how long the slowest took.
async fn timed_fill(sim: &Sim, disk: &impl Disk, range: ByteRange, byte: u8) -> Duration {
    let mut slowest = Duration::ZERO;
    for part in range.pieces(16 << 10) {
        let began = sim.elapsed();
        fill(disk, part, byte).await.unwrap();
        slowest = slowest.max(sim.elapsed().saturating_sub(began));
    }
    slowest
}

/// After whatever happened: everything is sent again, and checkpoints complete.
async fn recovers(pair: &Pair, sim: &Sim) {
    pair.in_sync().await;
    let p = pair.volume(Primary);
    let local = read(&p, ALL).await.unwrap();
    assert!(read(&pair.volume(Secondary), ALL).await.unwrap() == local, "resync");
    pair.checkpoint().await;
    assert!(read(&pair.volume(View), ALL).await.unwrap() == local, "checkpoint");
    assert_eq!(pair.primary.get_error(G1).unwrap(), None);
    assert!(timed_fill(sim, &p, at(0, 32 << 10), 0x77).await < SOON, "and writes wait for nothing");
}

#[test]
fn a_cut_link_degrades_both_sides_at_once_and_is_made_good() {
    run(|sim| async move {
        let pair = started(&sim, policy()).await;
        let p = pair.volume(Primary);
        fill(&p, at(0, SIZE / 2), 0x22).await.unwrap();
        pair.drain().await;
        sim.cut("a", "b");
        sim.partition("a", "b", Direction::Both);
        let (a, b) = (pair.primary.clone(), pair.secondary.clone());
        let degraded = [a, b].map(|g| async move {
            while g.status().link != LinkState::Degraded {
                g.changed().wait().await;
            }
        });
        let limit =
            crate::runtime::timeout(&sim.node("a"), SOON, futures::future::join_all(degraded))
                .await;
        assert!(
            limit.is_some(),
            "{:?} {:?}",
            pair.primary.status().link,
            pair.secondary.status().link
        );
        assert!(pair.primary.get_error(G1).unwrap().is_some());
        assert!(timed_fill(&sim, &p, at(SIZE / 4, SIZE / 2), 0x33).await < SOON);
        assert!(pair.primary.status().missing > 0);
        assert_eq!(pattern(&pair.volume(View), ALL).await, [(0x11, LEN)]);
        assert_eq!(pair.primary.status().checkpoint.epoch, Epoch(1));
        sim.heal("a", "b");
        recovers(&pair, &sim).await;
    });
}

#[test]
fn a_hung_secondary_holds_the_vm_no_longer_than_the_limit() {
    run(|sim| async move {
        let pair = started(&sim, small_window()).await;
        let p = pair.volume(Primary);
        sim.partition("a", "b", Direction::Both);
        let slowest = timed_fill(&sim, &p, at(0, SIZE / 2), 0x22).await;
        assert!(slowest >= MAX_DELAY && slowest < MAX_DELAY + SOON, "{slowest:?}");
        assert_eq!(pair.primary.status().link, LinkState::Degraded);
        let slowest = timed_fill(&sim, &p, at(SIZE / 2, SIZE / 4), 0x33).await;
        assert!(slowest < SOON, "degraded, so nothing waits: {slowest:?}");
        sim.heal("a", "b");
        recovers(&pair, &sim).await;
    });
}

#[test]
fn a_stopped_secondary_process_holds_the_vm_no_longer_than_the_limit() {
    run(|sim| async move {
        let pair = started(&sim, small_window()).await;
        let p = pair.volume(Primary);
        sim.pause_node("b");
        let slowest = timed_fill(&sim, &p, at(0, SIZE / 2), 0x22).await;
        assert!(slowest < MAX_DELAY + SOON, "{slowest:?}");
        assert_eq!(pair.primary.status().link, LinkState::Degraded);
        sim.pause(Duration::from_secs(20)).await;
        sim.resume_node("b");
        recovers(&pair, &sim).await;
    });
}

#[test]
fn a_link_that_falls_silent_is_given_up_and_made_anew() {
    run(|sim| async move {
        let pair = started(&sim, small_window()).await;
        let p = pair.volume(Primary);
        sim.stall("a", "b");
        fill(&p, at(0, 4096), 0x22).await.unwrap();
        sim.pause(Duration::from_secs(12)).await;
        recovers(&pair, &sim).await;
    });
}

#[test]
fn silence_counts_from_the_hello_however_slow_the_own_disk_is() {
    run(|sim| async move {
        let pair = Pair::new(&sim, &[SIZE], None).await;
        let fast = Duration::ZERO..SOON / 1000;
        sim.set_disk_delay(Duration::from_micros(500)..Duration::from_micros(501));
        pair.secondary.start(spec(Role::Secondary, policy())).await.unwrap();
        sim.node("a").set_disk_slowness(1000, 1);
        pair.primary.start(spec(Role::Primary, policy())).await.unwrap();
        let is_alone = |p: &Pair| p.secondary.status().link == LinkState::Degraded;
        pair.wait_for(|p| !is_alone(p)).await;
        // The hello went back. What the primary makes durable now takes seconds.
        sim.pause(SOON).await;
        let began = sim.elapsed();
        sim.partition("b", "a", Direction::OneWay);
        pair.wait_for(is_alone).await;
        let took = sim.elapsed().saturating_sub(began);
        assert!(took < SILENCE_MAX + SOON, "{took:?}");
        sim.node("a").set_disk_slowness(1, 1);
        sim.set_disk_delay(fast);
        sim.heal("a", "b");
        recovers(&pair, &sim).await;
    });
}

#[test]
fn a_full_window_throttles_the_vm_and_loses_nothing() {
    run(|sim| async move {
        let pair = started(&sim, small_window()).await;
        sim.set_network_capacity(8 << 10);
        sim.set_network_delay(Duration::from_millis(2)..Duration::from_millis(4));
        let p = pair.volume(Primary);
        let slowest = timed_fill(&sim, &p, ALL, 0x22).await;
        assert!(slowest < MAX_DELAY, "{slowest:?}");
        assert_eq!(pair.primary.status().link, LinkState::Running);
        assert!(pair.primary.status().window <= (64 << 10) + 4096);
        recovers(&pair, &sim).await;
    });
}

#[test]
fn an_epoch_is_closed_early_before_the_undo_space_runs_out() {
    run(|sim| async move {
        let pair = started(&sim, Policy { undo_limit: 512 << 10, ..policy() }).await;
        let p = pair.volume(Primary);
        assert!(timed_fill(&sim, &p, ALL, 0x22).await < Duration::from_secs(1));
        pair.drain().await;
        assert!(
            pair.primary.status().checkpoint.epoch >= Epoch(4),
            "{:?}",
            pair.primary.status().checkpoint
        );
        assert_eq!(pair.primary.status().missing, 0);
        recovers(&pair, &sim).await;
    });
}

#[test]
fn what_is_saved_and_not_applied_yet_counts_once() {
    run(|sim| async move {
        // Each write may be a batch of its own, with a header: a quarter of the limit holds all that.
        let piece = 16 << 10;
        let quarter = SIZE + SIZE / piece * CLUSTER;
        let pair = started(&sim, Policy { undo_limit: 4 * quarter, ..policy() }).await;
        let before = pair.primary.status().checkpoint.epoch;
        sim.set_disk_delay(Duration::from_millis(50)..Duration::from_millis(100));
        let p = pair.volume(Primary);
        // One after the other, so that there are acknowledgements while overwrites are in flight.
        let writes = ALL.pieces(piece).zip(0..).map(|(part, i)| {
            let (sim, p) = (sim.clone(), p.clone());
            async move {
                sim.pause(Duration::from_millis(2) * i).await;
                fill(&p, part, 0x22).await.unwrap();
            }
        });
        futures::future::join_all(writes).await;
        sim.pause(Duration::from_secs(5)).await;
        assert_eq!(pair.primary.status().checkpoint.epoch, before);
        sim.set_disk_delay(Duration::ZERO..SOON / 100);
        recovers(&pair, &sim).await;
    });
}

#[test]
fn what_does_not_fit_into_the_undo_space_stays_missing_until_the_limit_is_raised() {
    run(|sim| async move {
        let small = Policy { undo_limit: 256 << 10, max_delay: MAX_DELAY, ..policy() };
        let pair = started(&sim, small.clone()).await;
        let p = pair.volume(Primary);
        sim.partition("a", "b", Direction::Both);
        sim.cut("a", "b");
        sim.pause(SOON).await;
        fill(&p, ALL, 0x22).await.unwrap();
        sim.heal("a", "b");
        let is_full = |p: &Pair| p.primary.status().error.is_some_and(|e| e.contains("UndoFull"));
        pair.wait_for(|p| {
            p.primary.status().link == LinkState::Degraded && p.primary.status().frames.2 > 0
        })
        .await;
        sim.pause(Duration::from_secs(5)).await;
        let said = pair.primary.status();
        assert!(said.missing > 0 && said.link == LinkState::Degraded, "{said:?}");
        assert!(is_full(&pair), "{said:?}");
        assert!(
            timed_fill(&sim, &p, at(0, SIZE / 4), 0x33).await < SOON,
            "the VM does not wait for a person"
        );
        assert_eq!(pattern(&pair.volume(View), ALL).await, [(0x11, LEN)]);
        let large = Policy { undo_limit: 8 << 20, ..small };
        pair.secondary.set_policy(G1, large.clone()).await.unwrap();
        pair.primary.set_policy(G1, large).await.unwrap();
        recovers(&pair, &sim).await;
    });
}

#[test]
fn a_synchronous_write_completes_when_the_peer_has_it() {
    run(|sim| async move {
        let slow = Duration::from_millis(20)..Duration::from_millis(21);
        for (mode, at_least) in [(Mode::Checkpointed, 0), (Mode::Synchronous, 40)] {
            let pair_sim = Sim::new(sim.seed());
            let s = pair_sim.clone();
            let slow = slow.clone();
            pair_sim.block_on(async move {
                let pair = started(&s, Policy { mode, max_delay: MAX_DELAY, ..policy() }).await;
                s.set_network_delay(slow);
                let p = pair.volume(Primary);
                let took = timed_fill(&s, &p, at(0, 4096), 0x22).await;
                assert!(took >= Duration::from_millis(at_least), "{mode:?} {took:?}");
                if mode == Mode::Checkpointed {
                    assert!(took < Duration::from_millis(20), "{took:?}");
                    return;
                }
                assert!(pair.secondary.status().frames.0 >= pair.primary.status().frames.1);
                p.flush().await.unwrap();
                let host = s.node("b");
                let durable = host.peek("volumes/v0/disk", at(0, 4096), Held::Durable).unwrap();
                assert!(durable.iter().all(|b| *b == 0x22), "a flush is durable on both sides");
                s.partition("a", "b", Direction::Both);
                let took = timed_fill(&s, &p, at(0, 4096), 0x33).await;
                assert!(took >= MAX_DELAY && took < MAX_DELAY + SOON, "{took:?}");
                assert!(timed_fill(&s, &p, at(8192, 4096), 0x33).await < SOON);
                assert_eq!(pair.primary.status().link, LinkState::Degraded);
                let began = s.node("a").now();
                p.flush().await.unwrap();
                assert!(s.node("a").now().since(began) < MAX_DELAY + SOON);
                s.heal("a", "b");
                pair.in_sync().await;
                pair.checkpoint().await;
            });
        }
    });
}

#[test]
fn a_volume_that_ends_within_a_cluster_is_made_good_to_its_last_byte() {
    run(|sim| async move {
        let size = SIZE + 512;
        let pair = Pair::new(&sim, &[size], Some(0x11)).await;
        pair.start(policy()).await;
        let (p, tail) = (pair.volume(Primary), at(SIZE, 512));
        sim.cut("a", "b");
        sim.partition("a", "b", Direction::Both);
        pair.wait_for(|pair| pair.primary.status().link == LinkState::Degraded).await;
        fill(&p, tail, 0x33).await.unwrap();
        assert_eq!(pair.primary.status().missing, CLUSTER);
        sim.heal("a", "b");
        pair.in_sync().await;
        pair.checkpoint().await;
        assert!(read(&pair.volume(View), tail).await.unwrap().iter().all(|b| *b == 0x33));
    });
}
