//! Replicas that grow under a running group, and what a crash leaves of it.

use super::pair::{self, G1, G2, at, fill, pattern, policy};
use super::two::Two;
use crate::disk::{Disk, Result};
use crate::replication::ExportKind::{Primary, Secondary, View};
use crate::replication::{FailoverSpec, Replica};
use crate::sim::{Keep, Sim, SimHost, When};
use crate::units::Epoch;

const SIZE: u64 = 1 << 20;
const LEN: usize = 1 << 20;

/// Two groups of volumes of these sizes, filled with these bytes.
async fn two(sim: &Sim, primary: &[u64], secondary: &[u64], fills: [Option<u8>; 2]) -> Two {
    let a = pair::group(&sim.node("a"), primary, fills[0]).await;
    let b = pair::group(&sim.node("b"), secondary, fills[1]).await;
    let two = Two::apart(sim, [a, b], policy()).await;
    two.listen();
    two
}

/// One volume of 11, its first quarter 22; all of it is checkpoint 2.
async fn started(sim: &Sim) -> Two {
    let two = two(sim, &[SIZE], &[SIZE], [Some(0x11), None]).await;
    two.in_sync().await;
    fill(&two.volume("a", 0, Primary), at(0, SIZE / 4), 0x22).await.unwrap();
    two.group("a").checkpoint(G1).await.unwrap();
    two
}

fn size(two: &Two, node: &str) -> u64 {
    two.group(node).names().members[0].1
}

/// Expands the first volume of a node; `None` if the node dies meanwhile.
async fn expand(two: &Two, node: &str, size: u64) -> Option<Result<()>> {
    let grow = move |host: SimHost| async move {
        Replica::<SimHost>::expand(&host.dir("volumes/v0"), size).await
    };
    two.reshape(node, grow).await
}

const GROWN: [(u8, usize); 3] = [(0x22, LEN / 4), (0x11, 3 * LEN / 4), (0, LEN)];

/// Both sides have 2 SIZE and work.
async fn check_grown(two: &Two) {
    two.in_sync().await;
    assert_eq!((size(two, "a"), size(two, "b")), (2 * SIZE, 2 * SIZE));
    let all = at(0, 2 * SIZE);
    for (node, kind) in [("a", Primary), ("b", Secondary), ("b", View)] {
        assert_eq!(pattern(&two.volume(node, 0, kind), all).await, GROWN, "{kind:?}");
    }
    fill(&two.volume("a", 0, Primary), at(SIZE, SIZE / 2), 0x33).await.unwrap();
    let epoch = two.group("a").checkpoint(G1).await.unwrap();
    assert!(epoch > Epoch(2));
    let now = [(0x22, LEN / 4), (0x11, 3 * LEN / 4), (0x33, LEN / 2), (0, LEN / 2)];
    fill(&two.volume("a", 0, Primary), all, 0x44).await.unwrap();
    two.in_sync().await;
    assert_eq!(pattern(&two.volume("b", 0, View), all).await, now);
    let failover = FailoverSpec { replace: G1, new: G2, keep_active: false };
    two.group("b").failover(failover).await.unwrap();
    assert_eq!(pattern(&two.volume("b", 0, Primary), all).await, now);
}

#[test]
fn a_group_grows_secondary_first_and_its_checkpoint_stays() {
    pair::run(|sim| async move {
        let two = started(&sim).await;
        fill(&two.volume("b", 0, View), at(0, 4096), 0x99).await.unwrap();
        two.volume("b", 0, View).flush().await.unwrap();
        expand(&two, "b", 2 * SIZE).await.unwrap().unwrap();
        assert_eq!(size(&two, "b"), 2 * SIZE);
        // The consumer's own writes stay, and what is beyond the primary's end is zeroes.
        two.in_sync().await;
        let view = [(0x99, 4096), (0x22, LEN / 4 - 4096), (0x11, 3 * LEN / 4), (0, LEN)];
        assert_eq!(pattern(&two.volume("b", 0, View), at(0, 2 * SIZE)).await, view);
        fill(&two.volume("a", 0, Primary), at(SIZE / 2, 4096), 0x11).await.unwrap();
        two.group("a").checkpoint(G1).await.unwrap();
        expand(&two, "a", 2 * SIZE).await.unwrap().unwrap();
        expand(&two, "a", 2 * SIZE).await.unwrap().unwrap();
        assert!(expand(&two, "a", SIZE).await.unwrap().is_err(), "it never shrinks");
        two.reopen("a").await;
        check_grown(&two).await;
    });
}

#[test]
fn what_a_consumer_wrote_and_did_not_flush_outlives_the_growth_of_its_volume() {
    pair::run(|sim| async move {
        let two = started(&sim).await;
        fill(&two.volume("b", 0, View), at(0, 4096), 0x99).await.unwrap();
        expand(&two, "b", 2 * SIZE).await.unwrap().unwrap();
        let view = [(0x99, 4096), (0x22, LEN / 4 - 4096), (0x11, 3 * LEN / 4), (0, LEN)];
        assert_eq!(pattern(&two.volume("b", 0, View), at(0, 2 * SIZE)).await, view);
    });
}

#[test]
fn a_primary_larger_than_its_secondary_is_refused_until_that_grows_too() {
    pair::run(|sim| async move {
        let two = started(&sim).await;
        expand(&two, "a", 2 * SIZE).await.unwrap().unwrap();
        let refused = |e: &String| e.contains("expand the secondary's replica");
        two.wait_for("a", |s| s.error.as_ref().is_some_and(refused)).await;
        assert_eq!(two.group("b").status().checkpoint.epoch, Epoch(2));
        expand(&two, "b", 2 * SIZE).await.unwrap().unwrap();
        check_grown(&two).await;
    });
}

#[test]
fn an_expand_cut_off_anywhere_has_happened_or_not_and_goes_on_when_asked_again() {
    for (node, other) in [("a", "b"), ("b", "a")] {
        for when in [When::Before, When::After] {
            let mut points = 0;
            for n in 0.. {
                let sim = Sim::new(Sim::seed_or(7) + n);
                let s = sim.clone();
                let died = sim.block_on(async move {
                    s.set_keep(Keep::BySeed);
                    let two = started(&s).await;
                    if node == "a" {
                        expand(&two, "b", 2 * SIZE).await.unwrap().unwrap();
                    }
                    two.in_sync().await;
                    s.crash_at_sync(node, s.sync_points(node) + n, when);
                    let died = expand(&two, node, 2 * SIZE).await.is_none();
                    if died {
                        two.reopen(node).await;
                        assert!(
                            [SIZE, 2 * SIZE].contains(&size(&two, node)),
                            "{}",
                            size(&two, node)
                        );
                        two.in_sync().await;
                        let now = pattern(&two.volume("b", 0, View), at(0, SIZE)).await;
                        assert_eq!(now, GROWN[..2], "point {n}");
                        expand(&two, node, 2 * SIZE).await.unwrap().unwrap();
                    }
                    if size(&two, other) == SIZE {
                        expand(&two, other, 2 * SIZE).await.unwrap().unwrap();
                    }
                    if died {
                        check_grown(&two).await;
                    }
                    died
                });
                if !died {
                    break;
                }
                points += 1;
            }
            assert!(points >= 6, "only {points} points on {node}");
        }
    }
}

#[test]
fn what_a_secondary_has_beyond_its_primary_is_cleared_before_the_first_checkpoint() {
    pair::run(|sim| async move {
        let two = two(&sim, &[SIZE], &[2 * SIZE], [Some(0x11), Some(0x77)]).await;
        two.in_sync().await;
        let all = at(0, 2 * SIZE);
        assert_eq!(pattern(&two.volume("b", 0, View), all).await, [(0x11, LEN), (0, LEN)]);
        expand(&two, "a", 2 * SIZE).await.unwrap().unwrap();
        two.in_sync().await;
        assert_eq!(pattern(&two.volume("b", 0, Secondary), all).await, [(0x11, LEN), (0, LEN)]);
    });
}

#[test]
fn what_the_peer_lacks_is_still_known_when_the_intent_log_grows() {
    // Large enough for another shape of the intent log: the second volume's marks move.
    const LARGE: u64 = 4 << 30;
    pair::run(|sim| async move {
        let two = two(&sim, &[LARGE, SIZE], &[LARGE, SIZE], [None, None]).await;
        two.in_sync().await;
        expand(&two, "b", 3 * LARGE).await.unwrap().unwrap();
        two.in_sync().await;
        sim.partition("a", "b", crate::sim::Direction::Both);
        fill(&two.volume("a", 1, Primary), at(4096, 8192), 0x55).await.unwrap();
        expand(&two, "a", 3 * LARGE).await.unwrap().unwrap();
        let missing = two.group("a").status().missing;
        assert!((8192..64 << 20).contains(&missing), "{missing} bytes are missing");
        sim.heal("a", "b");
        two.in_sync().await;
        let got = pattern(&two.volume("b", 1, Secondary), at(0, 16384)).await;
        assert_eq!(got, [(0, 4096), (0x55, 8192), (0, 4096)]);
    });
}

#[test]
fn a_primary_that_was_closed_in_good_order_sends_nothing_in_vain() {
    pair::run(|sim| async move {
        let two = started(&sim).await;
        fill(&two.volume("a", 0, Primary), at(0, 4096), 0x77).await.unwrap();
        two.group("a").checkpoint(G1).await.unwrap();
        two.reshape("a", |_| async { Ok(()) }).await.unwrap().unwrap();
        assert_eq!(two.group("a").status().missing, 0);
        two.in_sync().await;
        let got = pattern(&two.volume("b", 0, Secondary), at(0, 8192)).await;
        assert_eq!(got, [(0x77, 4096), (0x22, 4096)]);
    });
}
